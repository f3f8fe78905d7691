"""Recordings in, scores and tables of scores and alarms out; ``fleet/`` does many at once."""

from anomaly_detector.scoring.stream import ScoredFrame, score_recording
from anomaly_detector.scoring.tables import EVENT_COLUMNS, SCORE_COLUMNS, write_scores

__all__ = ["EVENT_COLUMNS", "SCORE_COLUMNS", "ScoredFrame", "score_recording", "write_scores"]

"""When a score is an alarm: the threshold of single frames, and the alarm filter over time.

:mod:`anomaly_detector.alarms.calibration` computes thresholds from the scores of normal frames.
"""

from anomaly_detector.alarms.alarm_filter import AlarmEvent, AlarmFilter, AlarmSettings, AlarmState

__all__ = ["AlarmEvent", "AlarmFilter", "AlarmSettings", "AlarmState"]

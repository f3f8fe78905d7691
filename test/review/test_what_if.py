"""What another threshold would have made of stored scores, against the scoring itself."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import add_box, make_drive, write_bag
from model_files import write_grey_difference_model
from review_server import make_box

from anomaly_detector.alarms.alarm_filter import AlarmSettings
from anomaly_detector.black_box import Verdict, write_verdict
from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import open_source
from anomaly_detector.review.catalog import Catalog
from anomaly_detector.review.what_if import alarms, read_scores, scores_of, try_settings
from anomaly_detector.scoring.tables import write_scores


def test_a_drive_has_the_alarms_that_scoring_it_anew_would_give(tmp_path: Path) -> None:
    drive = make_drive(120)
    for start, length in ((20, 4), (50, 15), (90, 25)):
        drive[start : start + length] = [add_box(f) for f in drive[start : start + length]]
    bag = open_source(write_bag(tmp_path / "bag", drive))
    path = write_grey_difference_model(tmp_path / "m.onnx", threshold=3500)
    write_scores(Detector(path), bag, tmp_path / "scores.csv", progress=False)
    scores = read_scores(tmp_path / "scores.csv")
    assert len(scores.scores) == 120
    counts = set()
    for threshold in (2600.0, 3500.0, 4400.0):
        for settings in (
            AlarmSettings(),
            AlarmSettings(raise_frames=2, raise_window_frames=3, immediate_level=1.0),
            AlarmSettings(mode="seconds", raise_seconds=0.3),
        ):
            detector = Detector(path, threshold=threshold)
            anew = write_scores(
                detector, bag, tmp_path / "anew.csv", decision=settings, progress=False
            )
            tried = alarms(scores, threshold, settings, detector.metadata)
            assert tried == anew.alarms, (threshold, settings)
            counts.add(tried)
    assert len(counts) > 2  # else the comparison says little


def test_the_scale_is_learned_from_the_stored_scores(tmp_path: Path) -> None:
    bag = open_source(write_bag(tmp_path / "bag", make_drive(60)))
    path = write_grey_difference_model(tmp_path / "m.onnx", threshold=3500)
    write_scores(Detector(path), bag, tmp_path / "scores.csv", progress=False)
    scores = read_scores(tmp_path / "scores.csv")
    threshold, scale = scores.scale()
    assert threshold == pytest.approx(3500, rel=1e-3)
    assert scale == pytest.approx(3500, rel=1e-3)  # without quantiles it is the threshold's size
    flat = replace(scores, normalized=np.full_like(scores.normalized, 0.3))
    with pytest.raises(AnomalyDetectorError, match="too few scores differ"):
        flat.scale()


def test_verdicts_kept_and_lost(tmp_path: Path) -> None:
    paths = make_box(tmp_path / "box", 3)
    # Their peaks are 1.6, 1.7 and 1.8, and the rest of each alarm is 1.5.
    write_verdict(paths[0], Verdict("normal"))
    write_verdict(paths[2], Verdict("anomaly"))
    catalog = Catalog([tmp_path / "box"])
    catalog.look()
    entries = list(catalog.entries.values())
    settings = AlarmSettings(raise_frames=1, raise_window_frames=1, immediate_level=1.0)

    def tried(threshold: float) -> tuple[dict[str, int], dict[str, int], list[str]]:
        found = try_settings(entries, [], threshold, settings, None)
        return dict(found["kept"]), dict(found["lost"]), found["lost_anomalies"]

    anomaly = next(entry.id for entry in entries if entry.event.path == paths[2])
    assert tried(1.0) == ({"normal": 1, "unreviewed": 1, "anomaly": 1}, {}, [])
    assert tried(1.65) == ({"unreviewed": 1, "anomaly": 1}, {"normal": 1}, [])
    assert tried(1.9) == ({}, {"normal": 1, "unreviewed": 1, "anomaly": 1}, [anomaly])
    found = try_settings(entries, [], 1.65, settings, None)
    assert (found["days"], found["a_day"], found["drives_a_day"]) == (1.0, 2.0, None)
    # A frame of 20 a second that was recorded at 5 stands for four.
    thin = replace(entries[0], event=replace(entries[0].event, alarm_frames=4 * 20))
    assert (scores_of(entries[0]).hold, scores_of(thin).hold) == (1, 4)
    six = AlarmSettings(raise_frames=50, raise_window_frames=60, immediate_level=1.0)
    assert [alarms(scores_of(entry), 1.0, six, None) for entry in (entries[0], thin)] == [0, 1]


def test_other_tables_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    with pytest.raises(SourceError, match="is no table of scores"):
        read_scores(table)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["stamp", "score", "normalized_score"], ["", "nan", "0.5"]])
    with pytest.raises(SourceError, match="scores that are no numbers"):
        read_scores(table)

"""The detector: the scores it gives, its thresholds, and the models it refuses."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from model_files import grey_difference_score, write_grey_difference_model

from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.preprocessing import View, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.normalization import normalize_for
from anomaly_detector.model.session import IoBinding
from anomaly_detector.recordings import open_source
from anomaly_detector.scoring.stream import score_recording


def random_images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_scores_follow_the_formula(tmp_path: Path) -> None:
    detector = Detector(write_grey_difference_model(tmp_path / "grey.onnx"))
    images = random_images(5)
    scores, _, maps = detector.score_batch(images)
    expected = [grey_difference_score(image) for image in images]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert maps.shape == (5, 64, 64)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), scores, rtol=1e-5)


def test_model_says_how_large_its_input_is(tmp_path: Path) -> None:
    detector = Detector(write_grey_difference_model(tmp_path / "large.onnx", input_size=128))
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    expected = grey_difference_score(preprocess(Image(frame, "rgb"), 128))
    result = detector.detect(frame, "rgb")
    assert result.score == pytest.approx(expected, rel=1e-5)
    assert result.score > 1.3 * grey_difference_score(preprocess(Image(frame, "rgb")))
    assert result.anomaly_map.shape == detector.prepare(frame, "rgb").array.shape[:2] == (128, 128)
    # What overrides the rest of its view leaves the size.
    detector.set_view(View(RegionOfInterest(0, 0, 160, 120)))
    assert detector.prepare(frame, "rgb").array.shape == (128, 128, 3)
    cv2.imwrite(str(tmp_path / "0.png"), frame[..., ::-1])
    detector.set_view(View())
    (scored,) = score_recording(detector, open_source(tmp_path))
    assert scored.score == result.score
    with pytest.raises(ModelError, match=r"shape \['N', 128, 128, 3\]; .* \[N, 64, 64, 3\]"):
        Detector(
            write_grey_difference_model(
                tmp_path / "wrong.onnx",
                input_size=128,
                metadata=replace(detector.metadata, input_size=64).to_json(),
            )
        )


def test_detection_of_a_camera_frame(tmp_path: Path) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx", threshold=100.0)
    detector = Detector(model)
    grey = detector.detect(Image(np.full((480, 640, 3), 128, np.uint8), "rgb"))
    assert (grey.score, grey.threshold, grey.is_anomaly) == (0.0, 100.0, False)
    bright = detector.detect(Image(np.full((480, 640, 3), 138, np.uint8), "rgb"))
    assert (bright.score, bright.is_anomaly) == (100.0, True)  # at the threshold is anomalous
    assert bright.inference_ms > 0
    assert (
        not Detector(model, threshold=100.5).detect(random_images(1)[0] * 0 + 138, "rgb").is_anomaly
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"with_metadata": False}, "no metadata entry 'anomaly_detector'"),
        ({"input_height": 32}, "input 'image' has shape"),
        ({"score_output": "loss"}, "outputs are"),
        ({"metadata": "not json"}, "is not JSON"),
        ({"metadata": "[1]"}, "is a list"),
    ],
)
def test_wrong_models_are_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        Detector(write_grey_difference_model(tmp_path / "wrong.onnx", **options))
    assert "\n" not in str(error.value)
    assert "wrong.onnx" in str(error.value)


def test_model_whose_score_is_nan_is_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    model = onnx.load(path)
    grey = next(item for item in model.graph.initializer if item.name == "grey")
    grey.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "grey"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="not finite"):
        Detector(path)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    with pytest.raises(AnomalyDetectorError, match="NoSuchProvider not available"):
        Detector(path, providers=["NoSuchProvider"])
    with pytest.raises(AnomalyDetectorError, match="threshold is nan"):
        Detector(path, threshold=math.nan)


def test_threshold_changes_between_frames_and_back(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx", threshold=100.0)
    detector = Detector(path)
    frame = np.full((64, 64, 3), 138, np.uint8)  # scores 100
    at_own = detector.detect(frame, "rgb")
    assert (at_own.is_anomaly, at_own.normalized_score) == (True, 0.5)
    detector.set_threshold(400.0)
    higher = detector.detect(frame, "rgb")
    assert (higher.threshold, higher.is_anomaly, detector.threshold) == (400.0, False, 400.0)
    assert (
        higher.normalized_score
        == Detector(path, threshold=400.0).detect(frame, "rgb").normalized_score
    )
    assert higher.normalized_score < 0.5
    batch = detector.score_batch(np.stack([frame, frame + 10]))  # 100 and 400
    np.testing.assert_array_equal(batch.normalized_score >= 0.5, [False, True])
    wanted = normalize_for(detector.metadata, batch.score, 400.0)
    np.testing.assert_array_equal(batch.normalized_score, wanted)
    with pytest.raises(AnomalyDetectorError, match="threshold is inf: give a finite number"):
        detector.set_threshold(math.inf)
    assert detector.threshold == 400.0
    detector.set_threshold(None)
    assert detector.detect(frame, "rgb").normalized_score == 0.5


def test_no_frame_mixes_two_thresholds(tmp_path: Path) -> None:
    """Another thread changes the threshold all the time; every result belongs together."""
    detector = Detector(write_grey_difference_model(tmp_path / "grey.onnx", threshold=100.0))
    frame = np.full((64, 64, 3), 138, np.uint8)
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            for threshold in (None, 400.0, 50.0):
                detector.set_threshold(threshold)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        # On a busy machine the other thread may not run for a while.
        seen: set[tuple[float, bool, bool]] = set()
        count, deadline = 0, time.monotonic() + 60.0
        while count < 300 or (len(seen) < 2 and time.monotonic() < deadline):
            r = detector.detect(frame, "rgb")
            seen.add((r.threshold, r.is_anomaly, r.normalized_score >= 0.5))
            count += 1
    finally:
        ended.set()
        thread.join()
    assert seen <= {(100.0, True, True), (400.0, False, False), (50.0, True, True)}
    assert len(seen) > 1


def test_closed_detector_has_freed_its_session_and_says_so(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    with Detector(path) as detector:
        detector.detect(random_images(1)[0], "rgb")
        session = weakref.ref(detector._session._session)
    gc.collect()
    assert session() is None
    with pytest.raises(AnomalyDetectorError, match=r"detector of .*grey\.onnx is closed"):
        detector.detect(random_images(1)[0], "rgb")
    detector.close()
    assert detector.metadata.threshold == 1000.0


def test_score_that_turns_nan_on_a_frame_is_an_error(tmp_path: Path) -> None:
    """Black, which is tried when the model is loaded, gives a finite score; white does not."""
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    model = onnx.load(path)
    limit = onnx.numpy_helper.from_array(np.array(100.0, np.float32), "limit")
    model.graph.initializer.append(limit)
    place = next(i for i, node in enumerate(model.graph.node) if "squared" in node.output)
    model.graph.node[place].input[0] = "root"
    model.graph.node.insert(place, onnx.helper.make_node("Sub", ["limit", "difference"], ["room"]))
    model.graph.node.insert(place + 1, onnx.helper.make_node("Sqrt", ["room"], ["root"]))
    onnx.save(model, path)
    detector = Detector(path)
    assert math.isfinite(detector.detect(np.zeros((64, 64, 3), np.uint8), "rgb").score)
    with pytest.raises(ModelError, match="a score that is not finite"):
        detector.detect(np.full((64, 64, 3), 255, np.uint8), "rgb")


def test_runs_with_fixed_memory_give_the_same_and_keep_their_results(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    binding = IoBinding(session, (1, 64, 64, 3), {"anomaly_map": (1, 64, 64), "score": (1,)})
    images = random_images(3)
    results = [binding.run(image[np.newaxis]) for image in images]
    for image, (anomaly_map, score) in zip(images, results, strict=True):
        expected = session.run(["anomaly_map", "score"], {"image": image[np.newaxis]})
        np.testing.assert_array_equal(anomaly_map, expected[0])
        np.testing.assert_array_equal(score, expected[1])

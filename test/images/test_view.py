"""What a model was trained to see of a frame (region, scaling) is what every verb shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    make_drive,
    read_rows,
    skip_without_keras,
    write_encoded_bag,
    write_images,
)
from numpy.typing import NDArray
from ros_harness import image_message, ros_client, running_node

from anomaly_detector.alarms.calibration import calibrate_threshold
from anomaly_detector.cli.main import main as robot
from anomaly_detector.drawing.timeline import draw_timeline
from anomaly_detector.errors import AnomalyDetectorError, ImageError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import Image, RegionOfInterest, crop, parse_region
from anomaly_detector.images.preprocessing import View, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.latents import LatentEncoder
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import cache_frames
from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.replay import picture
from training.cli.main import main as workstation
from training.config.options import TrainOptions
from training.train import train

REGION = RegionOfInterest(20, 10, 80, 0)
SCALING = ImageScaling(500, 3500)
VIEWS = {"region": View(REGION), "scaling": View(scaling=SCALING)}
OPTIONS: dict[str, dict[str, Any]] = {
    "region": {"region": "20,10,80,0"},
    "scaling": {"image_scaling": (500.0, 3500.0)},
}
COUNT = 40


@dataclass
class Viewed:
    """A model trained with a view, its drive, and what both must give, worked out by hand.

    Attributes:
        kind: of :data:`VIEWS`.
        bag: the drive: rgb8 for the region, 12-bit mono16 for the scaling.
        frames: its pictures.
        model: trained on it.
        inputs: uint8 [N, 64, 64, 3], what the model is to see.
        scores: float32 [N], what ONNX Runtime alone makes of them.
    """

    kind: str
    bag: Path
    frames: list[NDArray[Any]]
    model: Path
    inputs: NDArray[np.uint8]
    scores: NDArray[np.float32]


def by_hand(kind: str, frame: NDArray[Any]) -> NDArray[np.uint8]:
    if kind == "region":
        return preprocess(Image(np.ascontiguousarray(frame[10:, 20:100]), "rgb"))
    scaled = np.rint((np.clip(frame.astype(float), 500, 3500) - 500) * 255 / 3000)
    return preprocess(Image(scaled.astype(np.uint8), "mono"))


@pytest.fixture(scope="module", params=list(VIEWS))
def viewed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Viewed:
    skip_without_keras()
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    frames: list[NDArray[Any]] = list(make_drive(COUNT))
    if kind == "scaling":
        frames = [frame[..., 0].astype(np.uint16) * 16 for frame in frames]
    encoding = "rgb8" if kind == "region" else "mono16"
    bag = write_encoded_bag(folder / "drive", frames, encoding)
    options = TrainOptions(
        [str(bag)],
        folder / "model.onnx",
        scorer="reconstruction",
        epochs=1,
        cache=folder / "cache",
        progress=False,
        **OPTIONS[kind],
    )
    train(options)
    inputs = np.stack([by_hand(kind, frame) for frame in frames])
    session = onnxruntime.InferenceSession(options.out, providers=["CPUExecutionProvider"])
    scores = [session.run(["score"], {"image": image[np.newaxis]})[0] for image in inputs]
    return Viewed(kind, bag, frames, options.out, inputs, np.concatenate(scores))


def run(
    main: Callable[[list[str]], int], viewed: Viewed, verb: str, recordings: str, *options: object
) -> None:
    """Run a verb with the model and its drive, which is the value of the option ``recordings``."""
    command = [verb, "--model", viewed.model, recordings, viewed.bag, *options]
    assert main([str(word) for word in command]) == 0


def written_scores(table: Path) -> NDArray[np.float32]:
    return np.array([row["score"] for row in read_rows(table)], np.float32)


def test_training_sees_the_view_and_the_model_remembers_it(viewed: Viewed) -> None:
    metadata = Detector(viewed.model).metadata
    assert metadata.view == VIEWS[viewed.kind]
    ((name, value),) = OPTIONS[viewed.kind].items()
    assert metadata.provenance["recipe"][name] == (value if name == "region" else list(value))
    (entry,) = (viewed.model.parent / "cache").iterdir()
    cached = np.fromfile(entry / "frames.u8", np.uint8)
    np.testing.assert_array_equal(cached.reshape(viewed.inputs.shape), viewed.inputs)


@pytest.mark.parametrize("output", ["--output scores.csv", "--output-dir all"])
def test_score(viewed: Viewed, output: str, tmp_path: Path) -> None:
    option, name = output.split()
    run(robot, viewed, "score", "--input", "--batch-size", 1, option, tmp_path / name)
    (table,) = tmp_path.rglob("*scores.csv")
    np.testing.assert_array_equal(written_scores(table), viewed.scores)


def test_calibrate(viewed: Viewed, tmp_path: Path) -> None:
    out = tmp_path / "again.onnx"
    run(robot, viewed, "calibrate", "--data", "--false-alarm-rate", 0.2, "--output", out)
    metadata = Detector(out).metadata
    assert metadata.threshold == calibrate_threshold(viewed.scores, 0.2)[0]
    assert metadata.view == VIEWS[viewed.kind]


def test_encode(viewed: Viewed, tmp_path: Path) -> None:
    out, cache = tmp_path / "latents.npz", tmp_path / "cache"
    run(workstation, viewed, "encode", "--data", "--out", out, "--cache", cache)
    latents = np.load(out)["codes"]
    np.testing.assert_array_equal(latents, LatentEncoder(viewed.model).encode(viewed.inputs))


def test_stress(viewed: Viewed, tmp_path: Path) -> None:
    options = ["--faults", "plain_black", "--bootstrap", 0, "--out", tmp_path / "out"]
    run(workstation, viewed, "stress", "--normal", *options)
    result = json.loads((tmp_path / "out" / "stress.json").read_text())
    assert result["clean_median_score"] == pytest.approx(np.median(viewed.scores), rel=1e-5)
    (black,) = result["faults"]
    (score,) = Detector(viewed.model).score_batch(np.zeros((1, 64, 64, 3), np.uint8)).score
    assert black["median_score"] == pytest.approx(score, rel=1e-5)


def test_evaluate(viewed: Viewed, tmp_path: Path) -> None:
    run(workstation, viewed, "evaluate", "--normal", "--bootstrap", 0, "--out", tmp_path / "out")
    np.testing.assert_array_equal(written_scores(tmp_path / "out" / "scores.csv"), viewed.scores)


def test_replay(
    viewed: Viewed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn: list[Any] = []

    def draw(*arguments: Any, **options: Any) -> None:
        drawn.extend(arguments[5])
        draw_timeline(*arguments, **options)

    monkeypatch.setattr(picture, "draw_timeline", draw)
    command = ["replay", str(viewed.bag), "--model", str(viewed.model), "--no-pictures"]
    assert robot([*command, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f"same score {COUNT}, same flag {COUNT}" in printed
    assert "the scores do not differ" in printed
    np.testing.assert_array_equal(written_scores(tmp_path / "out" / "scores.csv"), viewed.scores)
    # The thumbnails' maps are those of what the model sees, too.
    maps = Detector(viewed.model).score_batch(viewed.inputs).anomaly_map
    assert drawn
    for *_, anomaly_map in drawn:
        assert np.abs(maps - anomaly_map).max(axis=(1, 2)).min() < 1e-2


def test_node(viewed: Viewed) -> None:
    with running_node(model=viewed.model) as node, ros_client() as client:
        for index in (0, 7, COUNT - 1):
            frame = viewed.frames[index]
            message = image_message(
                frame.view(np.uint8).reshape(len(frame), -1),
                "rgb8" if viewed.kind == "region" else "mono16",
            )
            message.width = frame.shape[1]
            answer = read_detection(client.ask(client.stamp(message)))
            assert np.float32(answer.score) == viewed.scores[index]
        assert "not its own" not in node.output


def test_an_override_is_warned_of_and_kept_by_calibrate(
    viewed: Viewed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.onnx"
    override = ["--region", "0,0,64,64", "--image-scaling", 0, 4095]
    run(robot, viewed, "calibrate", "--data", *override, "--output", out)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "not its own" in text]
    own = VIEWS[viewed.kind]
    assert f"region of interest 0,0,64,64, not its own {own.region}" in line
    assert f"image scaling 0 4095, not its own {own.scaling or 'none'}" in line
    assert line.endswith(": train it with the same, or leave them out")
    view = View(RegionOfInterest(0, 0, 64, 64), ImageScaling(0, 4095))
    assert Detector(out).view == view
    options = ["--batch-size", 1, "--output"]
    again, overridden = tmp_path / "again.csv", tmp_path / "overridden.csv"
    run(robot, replace(viewed, model=out), "score", "--input", *options, again)
    assert "not its own" not in capsys.readouterr().err
    run(robot, viewed, "score", "--input", *override, *options, overridden)
    np.testing.assert_array_equal(written_scores(overridden), written_scores(again))


def test_the_node_warns_once_of_parameters_that_override_the_view(viewed: Viewed) -> None:
    own = VIEWS[viewed.kind]
    with (
        running_node(
            model=viewed.model,
            region_of_interest="[0, 0, 64, 64]",
            image_scaling="[0.0, 4095.0]",
        ) as node,
        ros_client() as client,
    ):
        client.wait_for_log("active, waiting")
        warned = [line for line in node.output.splitlines() if "not its own" in line]
        assert len(warned) == 1
        assert f"region of interest 0,0,64,64, not its own {own.region}" in warned[0]
        assert f"image scaling 0 4095, not its own {own.scaling or 'none'}" in warned[0]
        client.set_parameters(region_of_interest=[0, 0, 0, 0], image_scaling=[0.0, 0.0])
        message = image_message(viewed.frames[0].view(np.uint8).reshape(FRAME_HEIGHT, -1), "")
        message.encoding = "rgb8" if viewed.kind == "region" else "mono16"
        message.width = FRAME_WIDTH
        answer = read_detection(client.ask(client.stamp(message)))
        assert np.float32(answer.score) == viewed.scores[0]


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_trained_on_and_scored_with_the_models_scaling(
    encoding: str, colour: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metres = [frame[..., 0] / 64.0 for frame in make_drive(COUNT)]
    kind, unit = (np.uint16, 1000) if encoding == "16UC1" else (np.float32, 1)
    frames = [(frame * unit).astype(kind) for frame in metres]
    bag = write_encoded_bag(tmp_path / "depth", frames, encoding)
    model = tmp_path / "depth.onnx"
    command = ["train", "--data", str(bag), "--scorer", colour]
    command += ["--cache", str(tmp_path / "cache"), "--out", str(model)]
    assert workstation(command) == 1
    assert "is not known: give --image-scaling MIN MAX" in capsys.readouterr().err
    assert not model.exists()
    assert workstation([*command, "--image-scaling", str(unit / 2), str(3 * unit)]) == 0
    scores = tmp_path / "scores.csv"
    command = ["score", "--model", str(model), "--input", str(bag), "--batch-size", "1"]
    assert robot([*command, "--output", str(scores)]) == 0
    values = frames[0].astype(float)
    scaled = np.rint(np.clip(values / unit - 0.5, 0, 2.5) * 102).astype(np.uint8)
    expected = Detector(model).detect(preprocess(Image(scaled, "mono")), "rgb").score
    assert written_scores(scores)[0] == pytest.approx(expected, rel=0.02, abs=0.05)


def test_the_node_names_its_own_remedy_for_depth_without_a_scaling(model: Path) -> None:
    depth = image_message(np.zeros((8, 16), np.uint8), "16UC1")
    depth.width = 8
    log = "depth or infrared, whose range is not known: set the parameter image_scaling"
    with running_node(model=model), ros_client() as client:
        client.publish_until(
            client.stamp(depth), lambda: any(log in line for line in client.log_lines()), log
        )
        assert client.detections == []


def test_pixels_that_are_the_region_already_are_not_cut_again(model: Path) -> None:
    frame = Image(np.arange(90 * 120 * 3, dtype=np.uint8).reshape(90, 120, 3), "rgb")
    detector = Detector(model, view=View(REGION))
    once = crop(frame, REGION)
    np.testing.assert_array_equal(detector.prepare(once).array, detector.prepare(frame).array)
    np.testing.assert_array_equal(once.array, frame.array[10:, 20:100])
    with pytest.raises(ImageError, match="are the region 20,10,80,0 already"):
        crop(once, RegionOfInterest(1, 1, 2, 2))


def test_cache_holds_the_region(tmp_path: Path) -> None:
    source = open_source(write_images(tmp_path / "drive", make_drive(3)))
    whole = np.asarray(cache_frames(source, tmp_path / "cache", progress=False).images)
    source.view = View(REGION)
    part = np.asarray(cache_frames(source, tmp_path / "cache", progress=False).images)
    assert not np.array_equal(whole, part)
    frame = make_drive(1)[0]
    np.testing.assert_array_equal(part[0], preprocess(Image(frame[10:, 20:100], "rgb")))


def test_frames_that_the_region_does_not_fit_into_are_unreadable(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_images(tmp_path / "small", [frame[:40, :50] for frame in make_drive(3)])
    command = ["score", "--model", str(model), "--region", "20,10,80,0", "--input", str(small)]
    assert robot([*command, "--output", str(tmp_path / "scores.csv")]) == 1
    assert "region of interest" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "-1,0,0,0"])
def test_region_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AnomalyDetectorError, match="region"):
        parse_region(text)

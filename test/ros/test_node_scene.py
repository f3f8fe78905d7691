"""Another scene, as the node says it: log, diagnostics, detections and overlay; and in a replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import START_NS, write_stamped_bag
from lifecycle_msgs.msg import Transition
from model_files import grey_difference_score, write_calibrated_model
from numpy.typing import NDArray
from ros_harness import RosClient, image_message, node_in
from sensor_msgs.msg import Image

from anomaly_detector.cli.main import main
from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.node.status_message import status_values

SECONDS = 45
"""More than are needed; with one frame a second, by its stamps."""


def place(contrast: int, seed: int) -> NDArray[np.uint8]:
    """Return a picture of 64x64 whose score rises with its contrast."""
    generator = np.random.default_rng(seed)
    return generator.integers(128 - contrast, 128 + contrast, (64, 64, 3), dtype=np.uint8)


NORMAL = [place(20, seed) for seed in range(SECONDS)]  # scores around 133
CALM = min(NORMAL, key=grey_difference_score)
OTHER = [place(120, seed) for seed in range(SECONDS)]  # around 4800: flagged


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that is calibrated on the normal pictures."""
    return write_calibrated_model(tmp_path_factory.mktemp("scene") / "grey.onnx", NORMAL)


@pytest.fixture(scope="module")
def node(model: Path) -> Iterator[RosClient]:
    # Nothing else is said of a camera that counts as stopped.
    with node_in("scene", model=model, diagnostics_period=0.2, stale_timeout=60.0) as client:
        client.wait_for_log("active, waiting for")
        yield client


def start_again(client: RosClient) -> None:
    assert client.change_state(Transition.TRANSITION_DEACTIVATE)
    assert client.change_state(Transition.TRANSITION_ACTIVATE)


@pytest.fixture
def client(node: RosClient) -> RosClient:
    """A node that has forgotten the test before."""
    start_again(node)
    node.detections.clear()
    node.logs.clear()
    return node


def at(stamp_s: int, picture: NDArray[np.uint8]) -> Any:
    message = image_message(picture, "rgb8")
    message.header.stamp.sec = stamp_s
    return message


def send(client: RosClient, pictures: Sequence[NDArray[np.uint8]], start_s: int) -> list[str]:
    """Send one picture a second of their stamps; return what the node says of the scene."""
    words = []
    for index, picture in enumerate(pictures):
        words.append(read_detection(client.ask(at(start_s + index, picture))).scene)
    return words


def warnings(client: RosClient) -> list[str]:
    return [line for line in client.log_lines() if "the scene differs" in line]


def test_another_scene_is_said_once_and_so_is_the_return(client: RosClient) -> None:
    overlays: dict[int, Any] = {}
    client.node.create_subscription(
        Image, f"{client.node_name}/overlay", lambda m: overlays.update({m.header.stamp.sec: m}), 10
    )
    client.wait_until_found()

    def band(picture: NDArray[np.uint8], stamp_s: int) -> bytes:
        """Return the upper left corner of a frame's overlay, where the words would be."""
        message = at(stamp_s, picture)
        client.publish_until(message, lambda: stamp_s in overlays, "an overlay")
        return bytes(overlays[stamp_s].data)[:15]

    assert set(send(client, NORMAL, 1000)) == {"unknown", "as trained"}
    status = client.wait_for_diagnostics(lambda _, v: v["Scene"] == "as trained", "as trained")
    assert "scene" not in status.message
    assert status_values(status)["Scene since"] == ""
    assert warnings(client) == []
    normal_band = band(CALM, 1500)

    words = send(client, [*OTHER, *OTHER], 2000)
    assert words[-1] == "differs"
    assert words.count("as trained") == words.index("differs")
    warning = client.wait_for_log("the scene differs from training as a whole since 2000.")
    status = client.wait_for_diagnostics(lambda _, v: v["Scene"] == "differs", "another scene")
    assert "the scene differs from training as a whole since 2000.000000000 (" in status.message
    assert "python -m anomaly_detector adapt" in status.message
    client.wait_for_state("unknown", "scene differs", at(2000 + 2 * SECONDS, OTHER[0]))
    assert client.states[-1].is_anomaly
    values = status_values(status)
    assert values["Scene since"] == "2000.000000000"
    assert values["Scene flagged"] == "1.00"
    assert 4000 < float(values["Scene median score"]) < 5500
    assert 130 < float(values["Calibrated 95 % quantile"]) < 140
    assert f"less than {float(values['Calibrated 95 % quantile']):.4g}" in warning.msg

    other_band = band(CALM, 2500)
    words = send(client, [*NORMAL, *NORMAL], 3000)
    assert (words[0], words[-1]) == ("differs", "as trained")
    client.wait_for_log("the scene is as in training again")
    assert len(warnings(client)) == 1
    assert band(CALM, 3500) == normal_band != other_band


def test_stop_and_another_model_forget_the_scene(
    client: RosClient, model: Path, tmp_path: Path
) -> None:
    def swap(client: RosClient) -> None:
        other = tmp_path / "other.onnx"
        other.write_bytes(model.read_bytes())
        client.logs.clear()
        (result,) = client.set_parameters(model=str(other))
        assert result.successful
        client.wait_for_log("swapped: ")

    for start_s, forget in ((4000, start_again), (5000, swap)):
        words = send(client, OTHER, start_s)
        assert (words[0], words[-1]) == ("unknown", "differs")
        forget(client)
    assert send(client, OTHER[:1], 6000) == ["unknown"]


def test_covered_lens_is_named_as_one(client: RosClient) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    assert send(client, [black] * 13, 7000)[-1] == "blank picture"
    client.wait_for_log("the picture has hardly any edges since 7000.000000000 (9 s)")
    status = client.wait_for_diagnostics(lambda _, v: v["Scene"] == "blank picture", "it")
    assert "is the lens covered" in status.message
    client.wait_for_state("unknown", "blank picture", at(7013, black))
    assert "anomaly_detector adapt" not in status.message
    assert send(client, NORMAL[:3], 7014)[-1] == "unknown"
    client.wait_for_log("the picture has edges again")


def bag_of(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> Path:
    """Write a bag of one picture a second by their stamps, which plays fast."""
    stamps = [(1000 + index, 0) for index in range(len(pictures))]
    recorded_ns = [START_NS + index * 30_000_000 for index in range(len(pictures))]
    return write_stamped_bag(path, pictures, stamps, recorded_ns)


def test_replay_and_offline_scoring_say_it_too(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = bag_of(tmp_path / "drive", [*NORMAL, *OTHER, *OTHER])
    assert main(["replay", str(bag), "--model", str(model), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    said = "scene differs from training, said from "
    assert f"\n{said}" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The scene as a whole" in page
    assert "scene differs from training" in page
    output = ["--output", str(tmp_path / "scores.csv")]
    assert main(["score", "--model", str(model), "--input", str(bag), *output]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if said in line)
    assert line.removeprefix("warning: ") in printed
    fleet = ["--output-dir", str(tmp_path / "fleet"), "--workers", "1"]
    assert main(["score", "--model", str(model), "--input", str(bag), *fleet]) == 0
    assert line.replace("warning: ", f"warning: {bag}: ") in capsys.readouterr().err
    for name in ("summary.csv", "report.html"):
        assert said in (tmp_path / "fleet" / name).read_text()


def test_normal_recording_has_no_word_of_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = bag_of(tmp_path / "drive", NORMAL)
    output = ["--output", str(tmp_path / "scores.csv")]
    assert main(["score", "--model", str(model), "--input", str(bag), *output]) == 0
    printed = capsys.readouterr()
    assert "scene differs" not in printed.out + printed.err

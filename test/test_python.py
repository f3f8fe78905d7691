"""The front door in Python: what ``anomaly_detector`` shows, and what ``docs/python.md`` says."""

from __future__ import annotations

import ast
import doctest
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import make_drive, write_bag, write_encoded_bag, write_images
from model_files import write_grey_difference_model
from numpy.typing import NDArray
from programs import run_python
from videos import write_video

import anomaly_detector as ad
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.metadata import Calibration, ModelMetadata
from anomaly_detector.recordings import open_source
from training.data.corridor import CorridorDrive

ROOT = Path(__file__).parents[1]
HEAVY = ("cv2", "onnxruntime", "rclpy", "matplotlib", "yaml", "rosbags", "tensorflow")
NAMES = sorted(set(ad.__all__) - {"__version__"})


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag and a folder of the same frames: 20 of a normal corridor, 20 with a person in it."""
    folder = tmp_path_factory.mktemp("corridor")
    normal = CorridorDrive(60, 0, drive=3)
    hazardous = sorted(
        CorridorDrive(60, 0, drive=1, hazards=("human",)), key=lambda f: f.mask.sum()
    )
    frames = [normal[index].image for index in range(20)] + [f.image for f in hazardous[-20:]]
    write_images(folder / "drive", frames)
    write_bag(folder / "drive_bag", frames)
    return folder


@pytest.fixture
def colours() -> NDArray[np.uint8]:
    """A frame that is another one when its channels are taken the wrong way round."""
    return np.ascontiguousarray(make_drive(1)[0][..., ::-1])


@pytest.mark.parametrize(
    "code",
    [
        "import anomaly_detector",
        "import anomaly_detector; dir(anomaly_detector)",
        "import runpy; sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('anomaly_detector', run_name='__main__')\n"
        "except SystemExit: pass",
    ],
)
def test_import_and_help_load_nothing_heavy(code: str) -> None:
    done = run_python(
        f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_public_name_is_there() -> None:
    assert set(NAMES) <= set(dir(ad))
    for name in NAMES:
        assert getattr(ad, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'anomaly_detector' has no attribute 'Pixels'"):
        _ = ad.Pixels  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names_at_the_same_places() -> None:
    tree = ast.parse((ROOT / "anomaly_detector" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == ad._HOMES
    assert sorted(typed) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_an_example_that_holds(name: str) -> None:
    thing = getattr(ad, name)
    names = {public: getattr(ad, public) for public in NAMES} | {"np": np}
    (test,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs=names)
    assert test.examples
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    assert failures == []


def run_page(path: Path, drive: Path, folder: Path) -> dict[str, Any]:
    """Run the Python of a page, one block after the other, beside a drive; return its variables."""
    for name in ("drive", "drive_bag"):
        (folder / name).symlink_to(drive / name)
    (folder / "frame.png").symlink_to(drive / "drive" / "frame_0.png")
    page = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, path.name, "exec"), names)
    return names


def test_the_page_runs(drive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "python.md"
    names = run_page(page, drive, tmp_path)
    assert len(names["scores"]) == 40
    assert names["events"]
    assert np.asarray(cv2.imread("overlay.png")).shape == names["picture"].shape
    table = re.findall(r"^\| (`.*?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    table += re.findall(r"base of all errors; (.*) \|", page.read_text(encoding="utf-8"))
    assert {name for row in table for name in re.findall(r"`(\w+)`", row)} == set(NAMES)


def test_the_first_page_runs(drive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page(ROOT / "README.md", drive, tmp_path)
    assert np.asarray(cv2.imread("alarm.png")).shape[1] == names["frame"].pixels.array.shape[1]


def test_a_message_of_ros_scores_as_its_picture(colours: NDArray[np.uint8]) -> None:
    messages = pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
    detector = ad.Detector("corridor")
    wanted = detector.detect(colours, "bgr").score
    height, width = colours.shape[:2]
    raw = messages.Image(height=height, width=width, encoding="bgr8", step=3 * width)
    raw.data = colours.tobytes()
    assert detector.detect(raw).score == wanted
    png = cv2.imencode(".png", colours)[1].tobytes()
    assert detector.detect(messages.CompressedImage(format="png", data=png)).score == wanted
    raw.encoding = "unknown"
    with pytest.raises(ad.ImageError, match="image encoding 'unknown' is not supported"):
        detector.detect(raw)


def test_the_example_plots_a_bag(drive: Path, tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "Agg"}
    for name in ("drive_bag", "drive"):
        picture = tmp_path / f"{name}.png"
        done = subprocess.run(
            [sys.executable, "examples/plot_bag.py", str(drive / name), str(picture)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{picture}: 40 frames\n"
        drawn = np.asarray(cv2.imread(str(picture)))
        # The line of the scores, and the alarm's area behind it.
        assert (np.abs(drawn.astype(int) - (178, 114, 0)).max(axis=-1) < 30).sum() > 300
        assert (np.abs(drawn.astype(int) - (191, 214, 245)).max(axis=-1) < 8).sum() > 1000


def test_the_example_says_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    picture = tmp_path / "scores.png"
    monkeypatch.setattr(sys, "argv", ["plot_bag.py", str(tmp_path / "nowhere"), str(picture)])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(ROOT / "examples" / "plot_bag.py"), run_name="__main__")
    error = (
        f"error: {tmp_path / 'nowhere'} does not exist: give an image folder, a bag or a video\n"
    )
    assert capsys.readouterr().err == error
    assert not picture.exists()


def test_whatever_holds_the_same_picture_scores_the_same(colours: NDArray[np.uint8]) -> None:
    detector = ad.Detector("corridor")
    wanted = detector.detect(ad.Image(colours, "bgr")).score
    alpha = np.dstack([colours, np.full(colours.shape[:2], 7, np.uint8)])
    for frame, order in (
        (colours, "bgr"),
        (colours[..., ::-1], "rgb"),
        (np.asfortranarray(colours), "bgr"),
        (alpha, "bgra"),
        (alpha[..., [2, 1, 0, 3]], "rgba"),
        (detector.prepare(colours, "bgr"), None),
        (SimpleNamespace(pixels=ad.Image(colours, "bgr")), None),
    ):
        assert detector.detect(frame, order).score == wanted, order  # type: ignore[arg-type]
    assert detector.detect(colours, "rgb").score != wanted
    grey = colours[..., 0]
    assert detector.detect(grey).score == detector.detect(grey[..., np.newaxis]).score
    assert detector.detect(grey).score == detector.detect(ad.Image(grey, "mono")).score
    deep = grey.astype(np.uint16) * 257
    assert detector.detect(deep).score == detector.detect(grey).score


@pytest.mark.parametrize(
    ("frame", "order", "error"),
    [
        (np.zeros((4, 5, 3), np.uint8), None, r"shape \(4, 5, 3\) has no order: give order='bgr'"),
        (np.zeros((4, 5, 3), np.uint8), "mono", "has order 'mono': give order='bgr' or"),
        (np.zeros((4, 5), np.uint8), "rgb", r"shape \(4, 5\) has order 'rgb': give order='mono'"),
        (np.zeros((4, 5, 4), np.uint8), None, "give order='bgra' or order='rgba'"),
        (np.zeros((4, 5, 2), np.uint8), "bgr", r"shape \(4, 5, 2\): give \[height, width"),
        (np.zeros(5, np.uint8), None, r"array has shape \(5,\): give"),
        (np.zeros((), np.uint8), None, r"array has shape \(\): give"),
        (np.zeros((0, 5), np.uint8), None, "array has size 5x0"),
        (np.zeros((4, 5), np.float32), None, "array has type float32: give uint8 from 0 to 255"),
        (np.zeros((4, 5), bool), None, "array has type bool: give uint8"),
        ([[1, 2], [3, 4]], None, "frame is of type list: give a numpy array, an Image or a"),
        ("frame.png", None, "frame is of type str"),
    ],
)
def test_what_is_no_frame_is_refused_in_one_line(
    model: Path, frame: Any, order: Any, error: str
) -> None:
    with pytest.raises(ad.ImageError, match=error) as raised:
        ad.Detector(model).detect(frame, order)
    assert "\n" not in str(raised.value)


def test_the_models_view_applies_to_arrays_messages_and_drawing(tmp_path: Path) -> None:
    region, scaling = RegionOfInterest(20, 10, 80, 0), ImageScaling(1000.0, 3000.0)
    metadata = ModelMetadata("m", "grey", "mean", "grey levels", 100.0, Calibration("fixed"))
    text = metadata.with_view(View(region, scaling)).to_json()
    path = write_grey_difference_model(tmp_path / "view.onnx", metadata=text)
    depth = np.random.default_rng(0).integers(1000, 3000, (90, 120), np.uint16)
    depth[:, :20] = depth[:, 100:] = depth[:10] = 0
    bag = write_encoded_bag(tmp_path / "bag", [depth], "16UC1")
    with ad.Detector(path) as detector:
        ((frame, streamed),) = detector.stream(bag)
        ((_, opened),) = detector.stream(open_source(bag))
        result = detector.detect(depth)
        inner = ad.Image(frame.pixels.array, "mono", region=region)
        assert frame.pixels.array.shape == (80, 80)
        assert streamed.score == opened.score == result.score
        assert detector.detect(inner).score == result.score
        assert detector.detect(depth.astype(np.float64)).score == pytest.approx(
            result.score, rel=0.02
        )
        drawn = ad.draw_overlay(depth, result, max_side=80)
        np.testing.assert_array_equal(drawn, ad.draw_overlay(frame, result, max_side=80))
        with pytest.raises(ad.ImageError, match="is not inside the frame of 60x90"):
            detector.detect(depth[:, :60])


def test_stream_reads_bag_folder_and_video_in_order(drive: Path, tmp_path: Path) -> None:
    pictures = [np.asarray(cv2.imread(str(drive / "drive" / f"frame_{n}.png"))) for n in range(40)]
    video = write_video(tmp_path / "drive.avi", [picture[..., ::-1] for picture in pictures])
    with ad.Detector("corridor") as detector:
        bag = list(detector.stream(drive / "drive_bag"))
        folder = list(detector.stream(str(drive / "drive"), fps=20.0))
        assert [result.score for _, result in bag] == [result.score for _, result in folder]
        times = [frame.time_ns for frame, _ in bag if frame.time_ns is not None]
        assert len(times) == 40
        assert times == sorted(set(times))
        assert [frame.time_ns for frame, _ in folder] == [n * 50_000_000 for n in range(40)]
        assert [frame.name for frame, _ in folder] == [f"frame_{n}.png" for n in range(40)]
        np.testing.assert_array_equal(folder[3][0].pixels.array, pictures[3])
        filmed = list(detector.stream(video))
        assert [frame.stamp_ns for frame, _ in filmed] == [n * 50_000_000 for n in range(40)]
        difference = np.subtract([r.score for _, r in filmed], [r.score for _, r in bag])
        assert np.abs(difference).max() < np.ptp([r.score for _, r in bag])
        with pytest.raises(ad.SourceError, match="is not a bag, so it has no topic 'x'"):
            detector.stream(drive / "drive", "x")
        with pytest.raises(ad.AnomalyDetectorError, match="frame rate is 0"):
            detector.stream(drive / "drive", fps=0)


def test_shipped_names_are_resolved_as_in_the_commands(tmp_path: Path) -> None:
    shipped = ROOT / "models" / "corridor.onnx"
    assert ad.Detector("corridor").path == shipped
    assert (
        ad.read_metadata("corridor") == ad.read_metadata(shipped) == ad.Detector(shipped).metadata
    )
    for read in (ad.Detector, ad.read_metadata):
        with pytest.raises(ad.ModelError, match="model 'attic' is neither a file nor a model in"):
            read("attic")
        with pytest.raises(ad.ModelError, match=r"nowhere\.onnx"):
            read(tmp_path / "nowhere.onnx")


def test_alarms_and_overlay_take_a_result(drive: Path) -> None:
    alarms = ad.AlarmFilter()
    with ad.Detector("corridor") as detector:
        states = [
            alarms.update(result, stamp_ns=frame.time_ns, name=frame.name).is_alarm
            for frame, result in detector.stream(drive / "drive_bag")
        ]
        bgr = np.asarray(cv2.imread(str(drive / "drive" / "frame_39.png")), np.uint8)
        result = detector.detect(bgr, "bgr")
        wanted = ad.draw_overlay(ad.Image(bgr, "bgr"), result)
        np.testing.assert_array_equal(ad.draw_overlay(bgr, result), wanted)
        rgb = np.ascontiguousarray(bgr[..., ::-1])
        np.testing.assert_array_equal(ad.draw_overlay(rgb, detector.detect(rgb, "rgb")), wanted)
        alarm = ad.draw_overlay(bgr, result, is_alarm=True)
    assert not states[0]
    assert states[-1]
    assert alarm.shape == wanted.shape
    assert not np.array_equal(alarm, wanted)


@pytest.mark.parametrize(
    ("script", "function", "module"),
    [
        ("anomaly-detector", "main", "anomaly_detector"),
        ("anomaly-detector-train", "train", "training"),
    ],
)
def test_usage_says_how_the_command_was_called(
    script: str, function: str, module: str, tmp_path: Path
) -> None:
    assert f'"{script} = anomaly_detector.__main__:{function}"' in (ROOT / "setup.py").read_text()
    program = tmp_path / script
    program.write_text(
        f"import sys\nfrom anomaly_detector.__main__ import {function}\nsys.exit({function}())\n"
    )
    # Another folder than the checkout: training is found all the same.
    for command, folder in (([str(program)], tmp_path), (["-m", module], ROOT)):
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        called = script if folder == tmp_path else f"python -m {module}"
        assert done.stdout.startswith(f"usage: {called} [-h]")


def test_training_without_a_checkout_says_how_to_get_it(tmp_path: Path) -> None:
    package = tmp_path / "site" / "anomaly_detector"
    package.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py", "signals.py"):
        (package / name).write_bytes((ROOT / "anomaly_detector" / name).read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r}); "
        "from anomaly_detector.__main__ import train; sys.exit(train())"
    )
    done = run_python(code, "train", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {package.parent} has no folder training: clone the repository on a workstation "
        "and run pip install -e '.[cpu,training]' in it\n"
    )

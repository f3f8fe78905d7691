"""Fixtures shared by all tests; models are trained once per session."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import colour_scorer
import cv2
import numpy as np
import pytest
from model_files import write_grey_difference_model
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.ordered_pool import usable_cores
from training.config.options import TrainOptions
from training.data.bags import StampedImage, write_image_bag
from training.scorers import registry
from training.train import train

TESTS = Path(__file__).parent
FRAME_HEIGHT, FRAME_WIDTH = 90, 120
START_NS = 1_700_000_000_123_456_789
PERIOD_NS = 50_000_000
HAS_FAILED = pytest.StashKey[bool]()


def pytest_xdist_auto_num_workers() -> int:
    """Take a process more than there are cores: the tests of ROS wait more than they compute."""
    return usable_cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process works alone at the end.

    Those that wait for ROS come after those that compute: beside these they would wait too long.
    One of ROS that fails runs once more, and the summary names it.
    """
    longest = ["test_tutorial.py", "training", "ros"]

    def rank(item: pytest.Item) -> int:
        first = item.path.relative_to(TESTS).parts[0]
        return longest.index(first) if first in longest else len(longest)

    items.sort(key=rank)
    for item in items:
        if item.path.parent.name == "ros":
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure give up what a module shares, such as a node: nobody knows its state."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed
    if call.when == "teardown" and item.stash[HAS_FAILED]:
        item.stash[HAS_FAILED] = False
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                if definition.scope == "module":
                    with suppress(Exception):  # the test has failed already
                        definition.finish(item._request)  # type: ignore[arg-type]
    return report


def make_drive(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Make a drive of smooth moving colour gradients with some noise, RGB [90, 120, 3] each."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:FRAME_HEIGHT, 0:FRAME_WIDTH]
    frames = []
    for index in range(count):
        red = 127 + 80 * np.sin(columns / 25 + index / 9)
        green = 127 + 80 * np.cos(rows / 20 + index / 13)
        blue = 60 + rows
        noise = generator.normal(0, 3, (FRAME_HEIGHT, FRAME_WIDTH, 3))
        frame = np.stack([red, green, blue], -1) + noise
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


def preprocessed(frames: Sequence[NDArray[np.uint8]], size: int = 64) -> NDArray[np.uint8]:
    """Return RGB frames as the model sees them, uint8 [N, size, size, 3]."""
    return np.stack([preprocess(Image(frame, "rgb"), size) for frame in frames])


def add_box(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a bright box with a dark frame into a copy of a frame."""
    frame = frame.copy()
    cv2.rectangle(frame, (50, 40), (85, 75), (255, 255, 255), -1)
    cv2.rectangle(frame, (50, 40), (85, 75), (0, 0, 0), 4)
    return frame


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def write_images(folder: Path, frames: list[NDArray[np.uint8]]) -> Path:
    """Write frames as ``frame_0.png``, ``frame_1.png``, ..."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"frame_{index}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def write_bag(path: Path, frames: list[NDArray[np.uint8]], **options: object) -> Path:
    """Write frames as a rosbag2 at 20 Hz."""
    stamped = (StampedImage(START_NS + i * PERIOD_NS, frame) for i, frame in enumerate(frames))
    write_image_bag(path, stamped, **options)  # type: ignore[arg-type]
    return path


def write_stamped_bag(
    path: Path,
    frames: Sequence[NDArray[Any]],
    stamps: Sequence[tuple[int, int]],
    recorded_ns: Sequence[int] | None = None,
    encoding: str = "rgb8",
) -> Path:
    """Write frames as a rosbag2 with any header stamps (sec, nanosec) and times of recording."""
    store = get_typestore(Stores.LATEST)
    types, name = store.types, "sensor_msgs/msg/Image"
    if recorded_ns is None:
        recorded_ns = [START_NS + index * PERIOD_NS for index in range(len(frames))]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connection = bag.add_connection("/camera/image_raw", name, typestore=store)
        for frame, (sec, nanosec), time_ns in zip(frames, stamps, recorded_ns, strict=True):
            stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            height, width = frame.shape[:2]
            data = np.ascontiguousarray(frame).view(np.uint8).reshape(-1)
            message = types[name](
                header=header,
                height=height,
                width=width,
                encoding=encoding,
                is_bigendian=0,
                step=data.size // height,
                data=data,
            )
            bag.write(connection, time_ns, store.serialize_cdr(message, name))
    return path


def write_encoded_bag(path: Path, frames: Sequence[NDArray[Any]], encoding: str) -> Path:
    """Write frames of any type as raw images of an encoding, at 20 Hz."""
    stamps = [divmod(START_NS + index * PERIOD_NS, 10**9) for index in range(len(frames))]
    return write_stamped_bag(path, frames, stamps, encoding=encoding)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of grey difference with a threshold of 1000, which no test changes.

    Modules that want another one have a fixture of this name of their own.
    """
    return write_grey_difference_model(tmp_path_factory.mktemp("model") / "grey.onnx")


def skip_without_keras() -> None:
    """Skip a test that trains where only the robot side is installed (``make test-jazzy``)."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("trains a model, and Keras is not installed here")


def options_for(drive: Path, out: Path, **options: Any) -> TrainOptions:
    """Return the options of a training without progress bars; its cache is beside the model."""
    return TrainOptions([str(drive)], out, cache=out.parent / "cache", progress=False, **options)


@pytest.fixture(scope="session")
def normal_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 normal frames."""
    return write_images(tmp_path_factory.mktemp("normal") / "drive", make_drive(120))


@pytest.fixture(scope="session")
def anomalous_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 frames with a box in each."""
    frames = [add_box(frame) for frame in make_drive(40, seed=1)]
    return write_images(tmp_path_factory.mktemp("anomalous") / "drive", frames)


@pytest.fixture(scope="module")
def colour() -> Iterator[str]:
    """Name of a scorer whose training takes no time, for what is the same with every scorer."""
    skip_without_keras()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_registered", {})
        registry.register(colour_scorer.SCORER)
        yield colour_scorer.SCORER.name


@pytest.fixture(scope="session")
def trained_model(normal_drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v5 reconstruction detector, trained for three epochs on the normal drive."""
    skip_without_keras()
    folder = tmp_path_factory.mktemp("models")
    out = folder / "tiny.onnx"
    train(options_for(normal_drive, out, scorer="reconstruction", epochs=3))
    return out

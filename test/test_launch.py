"""The launch file, run by the real launch system as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="needs launch_ros, which comes with ROS 2 and not by pip")

from model_files import write_grey_difference_model
from ros_harness import (
    ROOT,
    Process,
    image_message,
    jpeg_message,
    noise,
    ros_client,
    running,
)
from sensor_msgs.msg import CompressedImage

from anomaly_detector.ros.detection_message import read_detection

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
path, *arguments = sys.argv[1:]
service = LaunchService()
pairs = [tuple(argument.split(":=", 1)) for argument in arguments]
source = AnyLaunchDescriptionSource(path)
include = IncludeLaunchDescription(source, launch_arguments=pairs)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

EXECUTABLE = f"""#!{sys.executable}
import sys
from anomaly_detector.ros.detector_node import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the checkout is an installed ROS package."""
    prefix = tmp_path_factory.mktemp("prefix")
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "anomaly_detector").touch()
    executable = prefix / "lib" / "anomaly_detector" / "detector_node"
    executable.parent.mkdir(parents=True)
    executable.write_text(EXECUTABLE, encoding="utf-8")
    executable.chmod(0o755)

    def with_first(first: Path, name: str) -> str:
        return os.pathsep.join(part for part in (str(first), os.environ.get(name, "")) if part)

    return {
        **os.environ,
        "AMENT_PREFIX_PATH": with_first(prefix, "AMENT_PREFIX_PATH"),
        "PYTHONPATH": with_first(ROOT, "PYTHONPATH"),
        "ROS_LOG_DIR": str(tmp_path_factory.mktemp("log")),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grey_difference_model(tmp_path_factory.mktemp("model") / "grey.onnx")


@contextmanager
def launched(environment: dict[str, str], **arguments: object) -> Iterator[Process]:
    pairs = [f"{name}:={value}" for name, value in arguments.items()]
    file = ROOT / "launch" / "detector.launch.py"
    with running([sys.executable, "-c", RUN, str(file), *pairs], environment) as process:
        try:
            yield process
        finally:
            if process.is_running:
                # Ctrl-C: on SIGTERM, launch goes away without its processes.
                process.send_signal(signal.SIGINT)
                process.wait()


def test_arguments_are_described_and_have_defaults() -> None:
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import AnyLaunchDescriptionSource

    source = AnyLaunchDescriptionSource(str(ROOT / "launch" / "detector.launch.py"))
    description = source.try_get_launch_description_without_context()
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert list(arguments) == [
        "model",
        "image_topic",
        "image_transport",
        "params_file",
        "namespace",
        "use_sim_time",
        "log_level",
    ]
    for argument in arguments.values():
        assert argument.default_value is not None
        assert len(argument.description) > 10
    params_file = arguments["params_file"].default_value
    path = "".join(part.perform(LaunchContext()) for part in params_file)
    assert Path(path).is_file()


def test_namespace_and_topic(environment: dict[str, str], model: Path) -> None:
    arguments = {"model": model, "namespace": "front", "image_topic": "camera/image_raw"}
    with (
        launched(environment, **arguments) as process,
        ros_client("/front/anomaly_detector", "/front/camera/image_raw") as client,
    ):
        client.ask(client.stamp(image_message(noise(1), "rgb8")))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert "process has finished cleanly" in process.output


def test_compressed_transport(environment: dict[str, str], model: Path) -> None:
    arguments = {"model": model, "image_topic": "/camera/image", "image_transport": "compressed"}
    with (
        launched(environment, **arguments),
        ros_client("/anomaly_detector", "/camera/image/compressed", CompressedImage) as client,
    ):
        client.ask(client.stamp(jpeg_message(noise(2))))


def test_params_file_counts_where_no_argument_is_given(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(
        f"/**:\n  ros__parameters:\n    model: {model}\n    threshold: 2.5\n", encoding="utf-8"
    )
    with launched(environment, params_file=params), ros_client() as client:
        answer = client.ask(client.stamp(image_message(noise(3), "rgb8")))
        assert read_detection(answer).threshold == 2.5


def test_wrong_model_is_reported(environment: dict[str, str]) -> None:
    # Digits only: the argument must stay a text.
    with launched(environment, model="2024") as process:
        process.wait()
        assert "model '2024' is neither a file nor a model" in process.output
        assert "exit code 1" in process.output
        assert "Traceback" not in process.output


def test_wrong_transport_is_refused(environment: dict[str, str], model: Path) -> None:
    with launched(environment, model=model, image_transport="theora") as process:
        assert process.wait() != 0
        assert "Valid options are" in process.output


@pytest.mark.parametrize("own", [None, "/etc/robot/dds.xml"])
def test_profile_is_set_unless_the_user_has_one(
    environment: dict[str, str], own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch.actions import SetEnvironmentVariable
    from launch.launch_description_sources import AnyLaunchDescriptionSource

    from anomaly_detector.ros.dds import PROFILE_VARIABLES

    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(PROFILE_VARIABLES[0], own)
    source = AnyLaunchDescriptionSource(str(ROOT / "launch" / "detector.launch.py"))
    description = source.try_get_launch_description_without_context()
    actions: list[Any] = [
        entity for entity in description.entities if isinstance(entity, SetEnvironmentVariable)
    ]
    assert len(actions) == (1 if own is None else 0)

"""The launch files, run by the real launch system as a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="needs launch_ros, which comes with ROS 2 and not by pip")

from launch.launch_context import LaunchContext
from launch_harness import launch_environment, launched, load
from lifecycle_msgs.msg import Transition
from ros_harness import (
    ROOT,
    Process,
    RosClient,
    jpeg_message,
    noise,
    ros_client,
)
from sensor_msgs.msg import CompressedImage

from anomaly_detector.model.shipped import share_path
from anomaly_detector.ros.graph.dds import (
    CYCLONE_VARIABLE,
    PROFILE_VARIABLES,
    large_image_environment,
)
from anomaly_detector.ros.launching.actions import dds_profile, given_file, given_parameters
from anomaly_detector.ros.node.detection_message import read_detection
from docs import generate

EXAMPLE = ROOT / "examples" / "patrol_guard.launch.py"
FILES = sorted(file.name for file in (ROOT / "launch").glob("*.launch.py"))
ACTIVE = "active, waiting for"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return launch_environment(tmp_path_factory.mktemp("launch"))


@pytest.mark.parametrize("file", FILES)
def test_arguments_are_documented_as_launch_declares_them(file: str) -> None:
    documented = generate.launch_arguments(file)
    declared = load(file).get_launch_arguments()
    assert [action.name for action in declared] == [name for name, *_ in documented]
    for action, (_, default, choices, description) in zip(declared, documented, strict=True):
        assert action.description.startswith(description)
        assert list(action.choices or ()) == choices
        given = action.default_value
        text = None if given is None else "".join(p.perform(LaunchContext()) for p in given)
        if default is not None and default.startswith("config/"):
            default = str(share_path(default))
            assert Path(default).is_file()
        assert text == default


@pytest.mark.parametrize("file", FILES)
def test_ros2_launch_shows_the_arguments(file: str, environment: dict[str, str]) -> None:
    if importlib.util.find_spec("ros2launch") is None:
        pytest.skip("needs ros2launch, which comes with ROS 2")
    code = "import sys; from ros2cli.cli import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "launch", str(ROOT / "launch" / file), "--show-args"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    for name, _, _, description in generate.launch_arguments(file):
        assert f"'{name}':" in result.stdout
        assert description in result.stdout


def wait_until_unconfigured(client: RosClient) -> None:
    """Wait for a node that waits. By a topic: an answer of a service just found may get lost."""
    client.wait_for_diagnostics(lambda _, v: v["State"] == "unconfigured", "unconfigured")


def test_namespace_name_and_topic(environment: dict[str, str], model: Path) -> None:
    arguments = {
        "model": model,
        "namespace": "front",
        "node_name": "watchman",
        "image_topic": "camera/image_raw",
        "providers": "cuda,cpu",
    }
    with (
        launched(environment, **arguments) as process,
        ros_client("/front/watchman", "/front/camera/image_raw") as client,
    ):
        client.ask_picture(noise(1))
        assert client.get_parameter("providers") == ["cuda", "cpu"]
        assert client.get_parameter("use_sim_time") is False
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
        f"/**:\n  ros__parameters:\n    model: {model}\n    threshold: 2.5\n    autostart: false\n",
        encoding="utf-8",
    )
    with launched(environment, params_file=params), ros_client() as client:
        wait_until_unconfigured(client)
        assert client.change_state(Transition.TRANSITION_CONFIGURE)
        assert client.change_state(Transition.TRANSITION_ACTIVATE)
        assert client.ask_picture(noise(3)).threshold == 2.5


def test_without_autostart_it_waits_for_a_manager(environment: dict[str, str], model: Path) -> None:
    with launched(environment, model=model, autostart="false"), ros_client() as client:
        wait_until_unconfigured(client)


def node_process_id(process: Process) -> int:
    """Return the process id of the node that was started last, from launch's own words."""
    started = [line for line in process.lines if "process started with pid [" in line]
    return int(started[-1].split("pid [")[1].split("]")[0])


def test_respawned_node_comes_back_active(environment: dict[str, str], model: Path) -> None:
    arguments: dict[str, object] = {"model": model, "respawn": "true", "respawn_delay": 0.1}
    with launched(environment, **arguments) as process, ros_client() as client:
        client.ask_picture(noise(4))
        first = node_process_id(process)
        os.kill(first, signal.SIGKILL)
        client.spin_until(lambda: process.output.count(ACTIVE) == 2, "the node is active again")
        assert node_process_id(process) != first
        client.ask_picture(noise(5))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.output.count("process started with pid") == 2


def test_wrong_model_is_reported(environment: dict[str, str]) -> None:
    # Digits only: the argument must stay a text.
    with launched(environment, model="2024") as process:
        line = process.wait_for_line("model '2024' is neither a file nor a model")
        assert "ros2 lifecycle set /anomaly_detector configure" in line
        assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_transport": "theora"}, "Valid options are"),
        ({"dds_profile": "small_images"}, "Valid options are"),
        ({"respawn_delay": "soon"}, "respawn_delay is 'soon': give a positive number"),
        ({"params_file": "nowhere.yaml"}, "params_file is 'nowhere.yaml', which is no file"),
    ],
)
def test_wrong_argument_is_refused(
    environment: dict[str, str], arguments: dict[str, str], message: str
) -> None:
    with launched(environment, **arguments) as process:
        assert process.wait() != 0
        assert message in process.output
        assert "process started" not in process.output


def test_values_of_arguments_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "robot.yaml").touch()
    context = LaunchContext()
    given = {"params_file": "~/robot.yaml", "providers": " , ", "autostart": "", "model": "2024"}
    context.launch_configurations.update(given)
    assert given_file(context, "params_file") == str(tmp_path / "robot.yaml")
    assert given_parameters(context, "model", "providers", "autostart") == {"model": "2024"}
    context.launch_configurations["providers"] = "cuda, cpu"
    assert given_parameters(context, "providers") == {"providers": ["cuda", "cpu"]}


@pytest.mark.parametrize("choice", ["large_images", "none"])
def test_profile_is_set_for_what_is_started_later(
    choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (CYCLONE_VARIABLE, *PROFILE_VARIABLES):
        monkeypatch.setenv(name, "")  # launch's own change is undone, too
        monkeypatch.delenv(name)
    context = LaunchContext()
    context.launch_configurations["dds_profile"] = choice
    before = dict(os.environ)
    actions = dds_profile().execute(context) or []
    assert dict(os.environ) == before
    for action in actions:
        action.execute(context)
    assert dict(os.environ) == (
        large_image_environment(before) if choice == "large_images" else before
    )


def test_cameras_have_nodes_of_their_own(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "rear.yaml").write_text(
        "/**:\n  ros__parameters:\n    threshold: 2.5\n    expected_rate: 3.0\n",
        encoding="utf-8",
    )
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        f"""cameras:
  - name: front
    image_topic: /front_camera/image
    model: {model}
  - name: robot/rear
    image_topic: camera/image
    image_transport: compressed
    model: {model}
    params_file: rear.yaml
    parameters: {{expected_rate: 15.0}}
""",
        encoding="utf-8",
    )
    rear_name = "/robot/rear/anomaly_detector"
    with (
        launched(environment, "multi_camera.launch.py", cameras_file=cameras) as process,
        ros_client("/front/anomaly_detector", "/front_camera/image") as front,
        ros_client(rear_name, "/robot/rear/camera/image/compressed", CompressedImage) as rear,
    ):
        front.ask_picture(noise(6))
        answer = rear.ask(rear.stamp(jpeg_message(noise(7))))
        assert read_detection(answer).threshold == 2.5
        assert rear.get_parameter("expected_rate") == 15.0
        assert front.get_parameter("expected_rate") == 0.0
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def test_wrong_camera_list_starts_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text("cameras: [{name: front, topic: /image}]\n", encoding="utf-8")
    with launched(environment, "multi_camera.launch.py", cameras_file=cameras) as process:
        assert process.wait() != 0
        assert "camera 1 has the unknown key 'topic'" in process.output
        assert "process started" not in process.output


def test_example_starts_a_detector_and_its_guard(environment: dict[str, str]) -> None:
    with launched(environment, str(EXAMPLE), image_topic="/patrolled/image") as process:
        process.wait_for_line("stopped, until /anomaly_detector has been ok for 3 s")
        process.wait_for_line(ACTIVE)

"""The lifecycle of the node: what each state holds, failed transitions, signals in every state."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from model_files import write_grey_difference_model
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_harness import RosClient, image_message, noise, ros_client, ros_context, running_node

from anomaly_detector.black_box import find_events, read_event
from anomaly_detector.ros.node.frame_processor import FrameProcessor
from anomaly_detector.ros.node.node import DetectorNode
from anomaly_detector.ros.node.process import spin
from anomaly_detector.ros.node.result_publishers import INSTALLED_TOPICS
from anomaly_detector.ros.state.message import read_state

CONFIGURE = Transition.TRANSITION_CONFIGURE
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
CLEANUP = Transition.TRANSITION_CLEANUP

# The transitions that lead from the start to each state.
PATHS = {
    "unconfigured": [],
    "inactive": [CONFIGURE],
    "active": [CONFIGURE, ACTIVATE],
    "finalized": [Transition.TRANSITION_UNCONFIGURED_SHUTDOWN],
}


def result_topics(client: RosClient) -> set[str]:
    """Return the result topics that the node offers."""
    own = f"{client.node_name}/"
    names = {own + topic.name.removeprefix("~/"): topic.name for topic in INSTALLED_TOPICS}
    return {names[name] for name in names if client.node.count_publishers(name)}


def is_subscribed(client: RosClient) -> bool:
    return bool(client.node.count_subscribers(client.image_topic))


def check_no_answer(client: RosClient) -> None:
    """Send frames for a while: none may be answered."""
    message = client.stamp(image_message(noise(1), "rgb8"))
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        client.publisher.publish(message)
        client.state()  # answered after what came before it
    assert client.answers_to(message) == []


def test_each_state_holds_what_it_should(model: Path) -> None:
    with running_node(model=model, autostart="false") as node, ros_client() as client:
        assert client.state() == "unconfigured"
        assert client.wait_for_state("unknown", "not active").state.detail == "unconfigured"
        assert result_topics(client) == set()
        for _ in range(2):  # once more after clean-up: nothing is left over
            assert client.change_state(CONFIGURE)
            assert client.state() == "inactive"
            client.spin_until(
                lambda: result_topics(client) == {topic.name for topic in INSTALLED_TOPICS},
                "all topics",
            )
            assert not is_subscribed(client)
            check_no_answer(client)
            assert client.wait_for_state("unknown", "not active").state.detail == "inactive"

            for _ in range(2):  # and once more after deactivation
                assert client.change_state(ACTIVATE)
                assert client.state() == "active"
                client.wait_for_state("unknown", "no frames")
                client.ask_picture(noise(1))
                assert client.change_state(DEACTIVATE)
                assert client.state() == "inactive"
                client.spin_until(lambda: not is_subscribed(client), "no subscription")
                check_no_answer(client)

            assert client.change_state(CLEANUP)
            assert client.state() == "unconfigured"
            client.spin_until(lambda: result_topics(client) == set(), "no topics")
        assert client.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert client.state() == "finalized"
        client.wait_for_silence()
        assert not client.node.count_publishers(f"{client.node_name}/state")
        node.send_signal(signal.SIGINT)
        assert node.wait() == 0
        assert "Traceback" not in node.output


def test_missing_model_leaves_it_unconfigured_until_the_model_is_there(tmp_path: Path) -> None:
    model = tmp_path / "late.onnx"
    with running_node(model=model) as node, ros_client() as client:
        line = node.wait_for_line("cannot configure")
        assert node.lines == [line]
        assert client.state() == "unconfigured"
        assert line.startswith("[ERROR]")
        assert f"model {model} is not a file" in line
        assert "ros2 lifecycle set /anomaly_detector configure" in line
        status = client.wait_for_diagnostics(lambda status, _: status.level == b"\x02", "ERROR")
        assert "late.onnx is not a file" in status.message
        state = client.wait_for_state("unknown", "not active").state
        assert "late.onnx is not a file" in state.detail

        assert not client.change_state(CONFIGURE)
        assert client.state() == "unconfigured"
        write_grey_difference_model(model)
        assert client.change_state(CONFIGURE)
        assert client.change_state(ACTIVATE)
        client.ask_picture(noise(1))


def test_bad_qos_override_leaves_it_inactive(model: Path) -> None:
    override = "qos_overrides./image.subscription.reliability:=sometimes"
    with running_node("-p", override, model=model) as node, ros_client() as client:
        assert "cannot subscribe to /image" in node.wait_for_line("cannot activate")
        assert client.state() == "inactive"
        assert not is_subscribed(client)
        assert client.change_state(CLEANUP)
        assert client.state() == "unconfigured"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_in_every_state_ends_it_quietly(model: Path, number: signal.Signals) -> None:
    """Four nodes at once, because each takes seconds to start."""
    with ExitStack() as stack:
        nodes = {
            state: stack.enter_context(
                running_node("-r", f"__ns:=/{state}", model=model, autostart="false")
            )
            for state in PATHS
        }
        for state, node in nodes.items():
            client = stack.enter_context(ros_client(f"/{state}/anomaly_detector"))
            for transition in PATHS[state]:
                assert client.change_state(transition)
            assert client.state() == state
            node.send_signal(number)
        for node in nodes.values():
            assert node.wait() == 0
            assert "Traceback" not in node.output
            assert "[ERROR]" not in node.output


def test_signal_leaves_no_shared_memory_behind(model: Path) -> None:
    # It looks into that of this process' own participants, too.
    others = set(Path("/dev/shm").iterdir())
    with running_node(model=model) as node:
        node.wait_for_line("active, waiting for")
        segments = node.wait_for_shared_memory(others)
        node.send_signal(signal.SIGINT)
        assert node.wait() == 0
    assert not [path for path in segments if path.exists()]


@pytest.fixture
def configured(model: Path) -> Iterator[DetectorNode]:
    """A configured and active node in this process, to break from inside."""
    overrides = [Parameter("model", value=str(model))]
    with ros_context() as context:
        node = DetectorNode(context=context, parameter_overrides=overrides)
        assert node.start()
        yield node
        node.release()
        node.destroy_node()


def test_state_of_a_participant_that_is_gone_is_missed(configured: DetectorNode) -> None:
    """Its process lives."""
    with ros_client() as client:
        client.wait_for_state("unknown", "no frames")
        configured.context.shutdown()
        client.wait_for_silence()


def test_node_that_stood_still_does_not_take_it_for_the_cameras_silence(
    configured: DetectorNode,
) -> None:
    limits = {"stale_timeout": 0.8, "diagnostics_period": 0.1}
    configured.set_parameters([Parameter(name, value=value) for name, value in limits.items()])
    executor = SingleThreadedExecutor(context=configured.context)
    executor.add_node(configured)
    with ros_client() as client:

        def film(until: Callable[[], object], *, stands_still: bool = False) -> None:
            def has_come() -> object:
                client.publisher.publish(image_message(noise(1), "rgb8"))
                if not stands_still:
                    executor.spin_once(timeout_sec=0.01)
                return until()

            client.spin_until(has_come, "film")

        film(lambda: client.diagnostics and configured._statistics.received)
        end = time.monotonic() + 1.0
        film(lambda: time.monotonic() > end, stands_still=True)
        client.diagnostics.clear()
        client.logs.clear()
        film(lambda: client.diagnostics)
        assert "no frame" not in client.diagnostics[0].message
        assert not [line for line in client.log_lines() if "no image" in line]


def frames_of(node: DetectorNode) -> FrameProcessor:
    assert node._frames is not None
    return node._frames


def test_state_says_what_holds_while_an_alarm_is_being_ended(
    configured: DetectorNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written in a thread of its own, at any moment."""
    frames = frames_of(configured)
    publish = frames._results.publish_event
    said: list[tuple[str, str, bool | None]] = []

    def look_and_publish(message: Any) -> None:
        record = read_state(configured._write_state(time.monotonic()))
        said.append((record.state.word, record.state.reason, record.alarm))
        publish(message)

    black = image_message(np.zeros((64, 64, 3), np.uint8), "rgb8")
    frames.process(black)
    monkeypatch.setattr(frames._results, "publish_event", look_and_publish)
    frames.reset_alarm()
    assert said == [("anomaly", "", False)]
    frames.process(black)
    said.clear()
    frames.enable(False)
    assert said == [("unknown", "paused", None)]


def test_broken_transition_leads_to_unconfigured_and_can_be_retried(
    configured: DetectorNode,
) -> None:
    black = image_message(np.zeros((64, 64, 3), np.uint8), "rgb8")
    frames_of(configured).process(black)
    assert frames_of(configured).is_alarm
    # The end of the alarm cannot be published on a topic that is gone.
    (topic,) = [p for p in configured.publishers if p.topic_name == "/anomaly_detector/event"]
    configured.destroy_publisher(topic)
    assert configured.trigger_deactivate() == TransitionCallbackReturn.ERROR
    assert configured._state_label == "unconfigured"
    assert "cannot deactivate" in configured._last_error
    assert configured.start()


def test_error_in_a_callback_does_not_end_the_node(configured: DetectorNode) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) == 3:
            configured.context.shutdown()
        raise ValueError("not expected")

    configured.create_timer(0.01, fail)
    executor = SingleThreadedExecutor(context=configured.context)
    executor.add_node(configured)
    with pytest.raises(ExternalShutdownException):
        spin(executor, configured)
    assert len(calls) == 3


def test_time_that_jumps_back_starts_nothing_while_inactive(
    configured: DetectorNode, tmp_path: Path
) -> None:
    folder = Parameter("black_box_folder", value=str(tmp_path / "box"))
    (result,) = configured.set_parameters([folder])
    assert result.successful
    frames = frames_of(configured)
    assert frames.black_box is not None
    assert configured.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    configured._start_afresh()
    assert frames.black_box is None


def test_frame_that_a_signal_interrupts_is_recorded(
    configured: DetectorNode, tmp_path: Path
) -> None:
    folder = tmp_path / "box"
    configured.set_parameters([Parameter("black_box_folder", value=str(folder))])
    frames = frames_of(configured)
    configured.context.shutdown()
    with pytest.raises(RuntimeError):  # from the publishers
        frames.process(image_message(np.zeros((64, 64, 3), np.uint8), "rgb8"))
    configured.release()
    (event,) = find_events(folder)
    assert len(read_event(event).anomalous_frames) == 1


def test_what_another_callback_refuses_has_no_effect(
    configured: DetectorNode, tmp_path: Path
) -> None:
    """Rclpy asks the newest callback first: this one comes after the node's own."""

    def refuse(_: Any) -> SetParametersResult:
        return SetParametersResult(successful=False, reason="not today")

    own = configured._check_parameters
    configured.remove_on_set_parameters_callback(own)
    configured.add_on_set_parameters_callback(refuse)
    configured.add_on_set_parameters_callback(own)
    before = configured._settings
    other = write_grey_difference_model(tmp_path / "other.onnx", name="other")
    changes = [
        Parameter("model", value=str(other)),
        Parameter("black_box_folder", value=str(tmp_path / "box")),
        Parameter("image_transport", value="compressed"),
    ]
    results = [configured.set_parameters_atomically(changes), *configured.set_parameters(changes)]
    assert [(result.successful, result.reason) for result in results] == [(False, "not today")] * 4
    assert frames_of(configured).black_box is None
    assert not configured._loader.is_busy
    assert configured._settings == before
    assert configured._images is not None
    assert configured._images.description == "sensor_msgs/msg/Image on /image"
    assert not (tmp_path / "box").exists()

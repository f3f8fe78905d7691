"""Parameters that change while the node runs, the model above all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lifecycle_msgs.msg import Transition
from model_files import write_grey_difference_model
from onnx import TensorProto, helper
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from ros_harness import (
    RosClient,
    image_message,
    jpeg_message,
    node_in,
    noise,
    ros_client,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.node.event_message import read_event
from anomaly_detector.ros.node.status_message import status_values

BLACK = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good models, of which the second has another threshold, and bad ones."""
    folder = tmp_path_factory.mktemp("models")
    write_grey_difference_model(folder / "first.onnx", name="first")
    write_grey_difference_model(folder / "second.onnx", name="second", threshold=20000.0)
    write_grey_difference_model(folder / "third.onnx", name="third")
    for number in range(1, 5):
        write_grey_difference_model(
            folder / f"slow_{number}.onnx", name=f"slow_{number}", slow_steps=20
        )
    write_grey_difference_model(folder / "small_input.onnx", input_height=32)
    write_grey_difference_model(folder / "truncated.onnx")
    whole = (folder / "truncated.onnx").read_bytes()
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    identity = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "other_program",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    other = helper.make_model(identity, opset_imports=[helper.make_opsetid("", 18)])
    other.ir_version = 9
    onnx.save(other, folder / "other_program.onnx")
    return folder


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[RosClient]:
    """A client of one node for all tests here; each leaves the parameters as it found them."""
    bad_qos = "qos_overrides./live/image/compressed.subscription.depth:=many"
    with node_in("live", "-p", bad_qos, model=models / "first.onnx") as client:
        yield client


def ask(client: RosClient, picture: Any = BLACK) -> Any:
    return client.ask_picture(picture)


def set_parameter(client: RosClient, name: str, value: Any) -> None:
    (result,) = client.set_parameters(**{name: value})
    assert result.successful, result.reason


def refusal(client: RosClient, name: str, value: Any) -> str:
    before = client.get_parameter(name)
    (result,) = client.set_parameters(**{name: value})
    assert not result.successful
    assert repr(client.get_parameter(name)) == repr(before)  # NaN is itself here
    return str(result.reason)


def set_together(client: RosClient, **values: Any) -> Any:
    """Set parameters in one step, all or none; return the result."""
    parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    request = SetParametersAtomically.Request(parameters=parameters)
    return client.call(SetParametersAtomically, "set_parameters_atomically", request).result


def logged(client: RosClient, text: str) -> list[str]:
    return [line for line in client.log_lines() if text in line]


def wait_for_end_of_alarm(client: RosClient) -> None:
    """Wait for it; the event of its start may be as late as that."""
    client.spin_until(lambda: "end" in [read_event(e).kind for e in client.events], "its end")


def set_first_again(client: RosClient, models: Path) -> None:
    client.logs.clear()
    set_parameter(client, "model", str(models / "first.onnx"))
    # The line can come after the first results; the next test shall not take it for its own.
    client.wait_for_log("swapped: model first")
    assert ask(client).model == "first"


def test_threshold_applies_from_the_next_frame_on(client: RosClient) -> None:
    assert ask(client).threshold == 1000.0
    set_parameter(client, "threshold", 16384.5)
    record = ask(client)
    assert (record.threshold, record.is_anomaly) == (16384.5, False)
    assert record.normalized_score < 0.5
    set_parameter(client, "threshold", math.nan)
    record = ask(client)
    assert (record.threshold, record.is_anomaly) == (1000.0, True)


def test_alarm_filter_changes_and_ends_an_alarm_that_is_on(client: RosClient) -> None:
    assert ask(client).alarm  # far above the threshold: at once
    client.events.clear()
    set_parameter(client, "alarm_immediate_level", 1.0)
    wait_for_end_of_alarm(client)
    assert not ask(client).alarm
    set_parameter(client, "alarm_mode", "off")
    assert ask(client).alarm
    set_parameter(client, "alarm_mode", "frames")
    set_parameter(client, "alarm_immediate_level", 0.75)


def test_model_is_swapped_without_losing_a_frame(client: RosClient, models: Path) -> None:
    ask(client)
    client.detections.clear()
    sent = []
    frames = iter(range(10_000))

    def send_next() -> None:
        message = client.stamp(image_message(noise(next(frames) % 7), "rgb8"))
        sent.append(message)
        client.ask(message, once=True)

    for _ in range(5):
        send_next()
    set_parameter(client, "model", str(models / "second.onnx"))
    while read_detection(client.detections[-1]).model == "first":
        assert len(sent) < 5_000
        send_next()
    for _ in range(5):
        send_next()
    assert [len(client.answers_to(message)) for message in sent] == [1] * len(sent)
    names = [read_detection(detection).model for detection in client.detections]
    swap = names.index("second")
    assert names == ["first"] * swap + ["second"] * (len(names) - swap)
    assert read_detection(client.detections[-1]).threshold == 20000.0
    set_first_again(client, models)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.onnx", "missing.onnx is not a file"),
        ("truncated.onnx", "truncated.onnx cannot be loaded by ONNX Runtime"),
        ("other_program.onnx", "other_program.onnx has no metadata entry"),
        ("small_input.onnx", "input 'image' has shape"),
    ],
)
def test_bad_model_is_refused_and_the_old_one_goes_on(
    client: RosClient, models: Path, name: str, reason: str
) -> None:
    assert reason in refusal(client, "model", str(models / name))
    assert ask(client).model == "first"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("threshold", math.inf, "finite number"),
        ("black_box_folder", "FILE/box", "is no folder: choose another place"),
        ("image_transport", "compressed", "cannot subscribe to /live/image/compressed"),
    ],
)
def test_model_set_together_with_what_is_refused_does_not_take_over(
    client: RosClient, models: Path, name: str, value: Any, reason: str
) -> None:
    """The bad QoS of the compressed topic shows when it is subscribed to, and not before."""
    ask(client)
    client.logs.clear()
    if isinstance(value, str):
        value = value.replace("FILE", str(models / "first.onnx"))
    before = client.get_parameter(name)
    result = set_together(
        client, model=str(models / "second.onnx"), alarm_raise_frames=3, **{name: value}
    )
    assert not result.successful
    assert reason in result.reason
    assert client.get_parameter("model") == str(models / "first.onnx")
    assert client.get_parameter("alarm_raise_frames") == 6
    assert repr(client.get_parameter(name)) == repr(before)
    # A model that is loaded after all would be there before this one.
    set_parameter(client, "model", str(models / "third.onnx"))
    client.wait_for_log("swapped: model third")
    assert not logged(client, "second")
    assert ask(client).model == "third"
    set_first_again(client, models)


def test_of_many_models_the_newest_is_loaded_and_those_between_are_not(
    client: RosClient, models: Path
) -> None:
    ask(client)
    client.logs.clear()
    client.states.clear()
    client.diagnostics.clear()
    paths = [str(models / f"slow_{number}.onnx") for number in range(1, 5)]
    set_parameter(client, "model", paths[0])
    client.wait_for_log("loading model")
    request = SetParameters.Request(
        parameters=[Parameter("model", value=path).to_parameter_msg() for path in paths[1:]]
    )
    results = client.call(SetParameters, "set_parameters", request).results
    assert [result.successful for result in results] == [True] * 3
    client.publish_until(
        image_message(BLACK, "rgb8"), lambda: bool(logged(client, "model slow_4 ")), "the newest"
    )
    # What was said meanwhile: it may be over as soon as it is read.
    assert "model being changed" in {record.state.reason for record in client.states}
    assert paths[-1] in {status_values(status)["Model loading"] for status in client.diagnostics}
    begun = [line.split()[2].rstrip(",") for line in logged(client, "loading model")]
    swapped = [line.split()[2] for line in logged(client, "swapped: ")]
    # The first takes over, and another one is begun, if the others were asked for that late.
    was_late = swapped[0] == "slow_1"
    assert swapped == ["slow_1"] * was_late + ["slow_4"]
    assert (begun[0], begun[-1]) == (paths[0], paths[3])
    assert len(begun) <= 2 + was_late
    assert ask(client).model == "slow_4"
    assert client.get_parameter("model") == paths[3]
    set_first_again(client, models)


def test_model_set_while_inactive_scores_the_first_frame(client: RosClient, models: Path) -> None:
    ask(client)
    assert client.change_state(Transition.TRANSITION_DEACTIVATE)
    client.logs.clear()
    set_parameter(client, "model", str(models / "slow_2.onnx"))
    assert client.change_state(Transition.TRANSITION_ACTIVATE)
    assert ask(client).model == "slow_2"
    client.wait_for_log("swapped: model slow_2")
    assert len(logged(client, "swapped: ")) == 1
    set_first_again(client, models)


def test_model_that_was_being_loaded_at_clean_up_never_comes(
    client: RosClient, models: Path
) -> None:
    client.logs.clear()
    set_parameter(client, "model", str(models / "slow_3.onnx"))
    assert client.change_state(Transition.TRANSITION_DEACTIVATE)
    assert client.change_state(Transition.TRANSITION_CLEANUP)
    client.wait_for_log("cleaned up")
    client.logs.clear()
    client.wait_for_diagnostics(lambda _, v: v["Model loading"] == "", "no model")
    # No model is in use: the file is checked, and loaded by the next transition.
    set_parameter(client, "model", str(models / "second.onnx"))
    assert client.change_state(Transition.TRANSITION_CONFIGURE)
    assert client.change_state(Transition.TRANSITION_ACTIVATE)
    assert ask(client).model == "second"
    assert not logged(client, "swapped: ")
    set_first_again(client, models)


def test_model_that_onnx_runtime_cannot_use_is_reported_and_the_parameter_goes_back(
    client: RosClient, models: Path
) -> None:
    set_parameter(client, "require_gpu", True)
    client.wait_for_log("model not swapped: ")
    client.spin_until(lambda: client.get_parameter("require_gpu") is False, "the old value")
    assert ask(client).model == "first"
    # What is in effect is what the parameters say, for later changes too.
    set_parameter(client, "threshold", 2000.0)
    assert ask(client).threshold == 2000.0
    set_parameter(client, "threshold", math.nan)
    assert not client.get_parameter("require_gpu")


def test_another_clock_is_no_jump_back(client: RosClient) -> None:
    assert ask(client).alarm
    client.events.clear()
    client.logs.clear()
    set_parameter(client, "use_sim_time", True)
    client.wait_for_log("use_sim_time was set: another clock counts")
    wait_for_end_of_alarm(client)
    clock = client.node.create_publisher(Clock, "/clock", 10)
    client.spin_until(lambda: clock.get_subscription_count() > 0, "the node")
    client.wait_until_found()
    message = Clock()
    message.clock.sec = 5000
    clock.publish(message)
    assert ask(client).alarm
    set_parameter(client, "use_sim_time", False)
    said = "use_sim_time was set: another clock counts"
    client.spin_until(lambda: len(logged(client, said)) == 2, "it is said again")
    client.node.destroy_publisher(clock)
    assert ask(client).alarm
    assert logged(client, "time jumped back") == []


def test_deleted_model_goes_on_in_memory(client: RosClient, models: Path) -> None:
    gone = write_grey_difference_model(models / "gone.onnx", name="gone")
    set_parameter(client, "model", str(gone))
    client.spin_until(lambda: ask(client).model == "gone", "the new model")
    gone.unlink()
    assert ask(client).model == "gone"
    assert "gone.onnx is not a file" in refusal(client, "model", str(gone))
    set_first_again(client, models)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("threshold", math.inf, "threshold"),
        ("threshold", "high", "'high' (string), it must be a double"),
        ("max_rate_hz", 5, "5 (integer), it must be a double from 0 to 1000"),
        ("providers", [], "[] (byte_array), it must be an array of at least one string"),
        ("model", "m" * 300, "File name too long"),
        ("model", "~nobody_here/m.onnx", "home directory"),
        ("black_box_folder", "b" * 300, "File name too long"),
        ("black_box_folder", "~nobody_here/box", "give the whole path"),
        ("intra_op_threads", 0, "intra_op_threads"),
        ("image_transport", "theora", "it must be raw or compressed"),
        ("alarm_mode", "sometimes", "it must be off or frames or seconds"),
        ("alarm_raise_frames", 11, "raise_frames is 11, more than raise_window_frames"),
        ("alarm_clear_level", 0.7, "alarm_clear_level"),
        ("region_of_interest", [0, 0, 10], "region_of_interest"),
        ("region_of_interest", [-1, 0, 10, 10], "region of interest"),
        ("image_scaling", [5.0], "image_scaling"),
        ("image_scaling", [5.0, 1.0], "is no range"),
        ("providers", ["NoSuchProvider"], "NoSuchProvider"),
        ("autostart", False, "read-only"),
        ("diagnostics_period", 0.0, "diagnostics_period"),
    ],
)
def test_bad_value_is_refused_with_the_reason(
    client: RosClient, name: str, value: Any, reason: str
) -> None:
    assert reason in refusal(client, name, value)
    assert ask(client).score == 16384.0


def test_parameters_of_others_are_none_of_its_business(client: RosClient) -> None:
    # use_sim_time is rclpy's, qos_overrides are the subscription's.
    (result,) = client.set_parameters(use_sim_time=False)
    assert result.successful
    assert ask(client).score == 16384.0


def test_region_of_interest_is_looked_at_alone(client: RosClient) -> None:
    picture = np.full((100, 200, 3), 128, np.uint8)
    picture[:, :100] = 0
    assert 0 < ask(client, picture).score < 16384
    set_parameter(client, "region_of_interest", [100, 0, 0, 0])
    assert ask(client, picture).score == 0.0
    set_parameter(client, "region_of_interest", [10, 20, 60, 60])
    assert ask(client, picture).score == 16384.0
    # A frame that the region does not fit into is a bad frame.
    client.logs.clear()
    small = client.stamp(image_message(noise(1, 32, 32), "rgb8"))
    client.publish_until(
        small, lambda: any("region of interest" in line for line in client.log_lines()), "an error"
    )
    set_parameter(client, "region_of_interest", [0, 0, 0, 0])
    ask(client)
    assert client.answers_to(small) == []


def test_transport_changes_while_active(models: Path) -> None:
    with node_in("transport", model=models / "first.onnx") as client:
        set_parameter(client, "image_transport", "compressed")
        topic = f"{client.image_topic}/compressed"
        with ros_client(client.node_name, topic, CompressedImage) as compressed:
            compressed.ask(compressed.stamp(jpeg_message(noise(2))))
        client.spin_until(
            lambda: not client.node.count_subscribers(client.image_topic), "no raw subscription"
        )
        set_parameter(client, "image_transport", "raw")
        ask(client)

"""Replay a recorded drive through the detector, in simulated time, and keep what it says.

ros2 launch anomaly_detector replay.launch.py bag:=drive out:=drive_results model:=corridor_7.onnx

Recorder and node start; once the node is active, and all have found each other, the bag is played;
when it ends it is scored offline as well, a report is made, and all processes end. A process that
fails ends the launch with exit code 1.
"""

from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import (
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    UnregisterEventHandler,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown, matches_action
from launch.events.process import ShutdownProcess

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.recordings import find_image_topic, list_image_topics
from anomaly_detector.resources import resolve_model
from anomaly_detector.ros.launch_actions import (
    argument_values,
    dds_profile,
    declare_arguments,
    detector_node,
    parameter_overrides,
    positive_number,
)
from anomaly_detector.ros.launch_arguments import REPLAY_ARGUMENTS
from anomaly_detector.ros.replay_commands import (
    play_command,
    record_command,
    recorded_topics,
    report_command,
    score_command,
    view_options,
)
from anomaly_detector.timeline import import_matplotlib

ACTIVE = "active, waiting for"
FAILED = ("cannot configure:", "cannot activate:")


def make_replay(context: Any) -> list[Any]:
    """Make the processes, once the values of the arguments are known."""
    values = argument_values(context, REPLAY_ARGUMENTS)
    bag = Path(values["bag"]).expanduser()
    out = Path(values["out"]).expanduser()
    rate = positive_number("rate", values["rate"])
    timeout_s = positive_number("start_timeout", values["start_timeout"])
    model = resolve_model(values["model"])
    topic, _ = find_image_topic(bag, values["image_topic"] or None)
    if any((out / name).exists() for name in ("recording", "scores.csv", "report")):
        raise AnomalyDetectorError(f"out is {out}, which has results: give another folder")

    if values["report"] == "true":
        # Told now, and not when the bag has been played.
        try:
            import_matplotlib()
        except AnomalyDetectorError as error:
            raise AnomalyDetectorError(f"{error}; report:=false makes no report") from error

    compressed = list_image_topics(bag)[topic][0].endswith("CompressedImage")
    values["image_transport"] = "compressed" if compressed else "raw"
    node = detector_node(
        namespace=values["namespace"],
        node_name=values["node_name"],
        image_topic=topic,
        compressed_topic=topic if compressed else None,
        parameters=[
            values["params_file"],
            {**parameter_overrides(values), "autostart": True, "use_sim_time": True},
        ],
    )
    name = "/".join(["", *values["namespace"].strip("/").split("/"), values["node_name"]])
    name = name.replace("//", "/")
    topics = recorded_topics(name, topic, images=values["record_images"] == "true")
    recorder = process(
        "recorder", record_command(out / "recording", topics, storage=values["storage"])
    )
    player = process("player", play_command(bag, topic, name, rate=rate, timeout_s=timeout_s))
    view = view_options(Path(values["params_file"]), values["node_name"])
    scorer = process("scorer", score_command(bag, topic, model, out, view))
    reporter = process("reporter", report_command(bag, topic, model, out, view, rate=rate))
    ended = [
        LogInfo(msg=f"the replay is complete, its results are in {out}"),
        EmitEvent(event=Shutdown(reason="the replay is complete")),
    ]
    staying = (node, recorder)
    watches = [OnProcessExit(target_action=action, on_exit=too_early) for action in staying]
    # The reporter replays in a node of its own: ours are done, and may end.
    report = [
        *(UnregisterEventHandler(watch) for watch in watches),
        *(
            EmitEvent(event=ShutdownProcess(process_matcher=matches_action(action)))
            for action in staying
        ),
        reporter,
    ]
    return [
        # Before the processes: none of their events is missed.
        when_active(node, player),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=then([scorer]))),
        RegisterEventHandler(
            OnProcessExit(
                target_action=scorer,
                on_exit=then(report if values["report"] == "true" else ended),
            )
        ),
        RegisterEventHandler(OnProcessExit(target_action=reporter, on_exit=then(ended))),
        *(RegisterEventHandler(watch) for watch in watches),
        recorder,
        node,
    ]


def process(name: str, command: list[str]) -> ExecuteProcess:
    """Make the action that runs a command."""
    return ExecuteProcess(cmd=command, name=name, output="screen")


def when_active(node: Any, action: Any) -> RegisterEventHandler:
    """Start an action once the node says that it is active; fail when it cannot become so.

    Its words and not its lifecycle's topic: a message on that may come before launch listens.
    """
    said = bytearray()
    started: list[bool] = []

    def listen(event: Any) -> Any:
        said.extend(event.text)
        if started:
            return None
        text = said.decode(errors="replace")
        if any(words in text for words in FAILED):
            started.append(False)
            return failure("the detector node cannot be used: its message is above")
        if ACTIVE in text:
            started.append(True)
            return [action]
        return None

    return RegisterEventHandler(OnProcessIO(target_action=node, on_stdout=listen, on_stderr=listen))


def then(actions: list[Any]) -> Any:
    """Give a handler of a process' end: go on with actions, or fail when it failed."""

    def handle(event: Any, context: Any) -> Any:
        if context.is_shutdown:
            return None
        if event.returncode != 0:
            return failure(f"{event.process_name} ended with exit code {event.returncode}")
        return actions

    return handle


def too_early(event: Any, context: Any) -> Any:
    """Fail when a process ends that was to stay until the end."""
    if context.is_shutdown:
        return None
    return failure(f"{event.process_name} ended too early, with exit code {event.returncode}")


def failure(reason: str) -> list[Any]:
    """Give the actions that end the launch with an error."""

    def fail(_: Any) -> None:
        raise AnomalyDetectorError(reason)

    return [OpaqueFunction(function=fail)]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the processes."""
    return LaunchDescription(
        [
            *declare_arguments(REPLAY_ARGUMENTS),
            dds_profile(),
            OpaqueFunction(function=make_replay),
        ]
    )

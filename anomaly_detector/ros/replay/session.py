"""Runs the node on a bag: its process, the player, the recorder, and offline scoring beside it."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_detector.alarms.alarm_filter import AlarmSettings
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import TrainedRecording, find_trained, trained_warning
from anomaly_detector.model.normalization import normalization_scale
from anomaly_detector.recordings import BagSource, open_source, warn_unreadable
from anomaly_detector.ros.graph.dds import large_image_environment
from anomaly_detector.ros.replay.comparison import Comparison, OfflineFrame, compare, read_scores
from anomaly_detector.ros.tools.player import play
from anomaly_detector.ros.tools.tool_node import check_domain_id, domain_id, signals_set, tool_node
from anomaly_detector.scoring.tables import write_scores

if TYPE_CHECKING:
    from anomaly_detector.ros.node.event_message import EventRecord

_CLOCK_HZ = 100.0
_QUEUE_FRAMES = 100
_PATIENCE_S = 30.0
_EXIT_S = 30.0
_STALE_S = 60.0


@dataclass(frozen=True)
class ReplayOptions:
    """What to replay, and how; the model's own values where None is given.

    Raises:
        AnomalyDetectorError: a bad rate, time, node name or domain.
    """

    bag: Path
    model: Path
    topic: str | None = None  # None: the only one
    rate: float = 1.0
    threshold: float | None = None
    view: View = WHOLE_FRAME
    providers: Sequence[str] | None = None
    alarm: AlarmSettings = field(default_factory=AlarmSettings)
    # As on a robot: a machine that is too slow leaves frames out; else they wait in line.
    newest_only: bool = False
    pictures: bool = True  # of camera and overlay, in the recorded bag
    domain: int | None = None  # None: one that nobody else is likely to use
    node_name: str = "/anomaly_detector"
    params_file: Path | None = None  # what is given here wins
    storage: str = "mcap"
    start_timeout_s: float = 60.0
    large_images: bool = True  # load the package's profile for them

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("start timeout", self.start_timeout_s)):
            if not (math.isfinite(value) and value > 0):
                raise AnomalyDetectorError(f"{name} is {value:g}: give a number above 0")
        if not re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+", self.node_name):
            raise AnomalyDetectorError(
                f"node name is {self.node_name}: give one with its namespace, such as /front/eye, "
                "of letters, digits and _, of which no part begins with a digit"
            )
        if self.domain is not None:
            check_domain_id(self.domain)


@dataclass(frozen=True)
class ReplayResult:
    """What came of it: the node's answers and events, beside those of the detector offline.

    ``latencies_ms`` are from publishing a frame to its answer, in another process; ``states`` is
    how often ``~/state`` said each state and reason.
    """

    options: ReplayOptions
    source: BagSource
    detector: Detector
    sent: int
    duration_s: float
    unreadable: Sequence[str]
    comparison: Comparison
    events: Sequence[EventRecord]
    same_events: bool
    latencies_ms: Sequence[float]
    states: Mapping[tuple[str, str], int] = field(default_factory=dict)
    trained_on: tuple[TrainedRecording, ...] = ()

    @property
    def warning(self) -> str | None:
        """The line that says that the model was trained on this bag; None if it was not."""
        return _trained_warning(self.trained_on)

    @property
    def is_complete(self) -> bool:
        """Whether every readable frame was answered."""
        return not self.comparison.missing

    @property
    def is_equal(self) -> bool:
        """Whether scores and alarms of the node are those of offline scoring, where it answered.

        Scores may differ by ``SCORE_TOLERANCE``. Alarms depend on all frames before: where some are
        missing, only scores and flags are compared.
        """
        comparison = self.comparison
        if comparison.other_anomalies or comparison.far_scores or comparison.extra:
            return False
        return not self.is_complete or (self.same_events and not comparison.other_alarms)


def _trained_warning(found: Sequence[TrainedRecording]) -> str | None:
    return trained_warning(found, "new drives have higher scores and more alarms: replay another")


def replay(options: ReplayOptions, folder: Path) -> ReplayResult:
    """Score a bag offline, then play it to the node at the recorded pace and record what it says.

    To be called from the main thread: while the node runs, SIGINT and SIGTERM are taken over to end
    it in order.

    Args:
        options: what and how.
        folder: an existing folder; gets ``scores.csv``, ``events.csv`` and the bag ``results``.

    Raises:
        AnomalyDetectorError: no bag, image topic or readable frame, a model that cannot be used, no
            ROS 2, a node that does not come up or ends badly, or a signal.
    """
    source = open_source(options.bag, options.topic)
    if not isinstance(source, BagSource):
        raise AnomalyDetectorError(f"{options.bag} is not a bag: only a rosbag2 can be replayed")
    if source.topic.startswith(f"{options.node_name}/"):
        raise AnomalyDetectorError(
            f"{source.topic} is what a detector node published: choose a camera's topic"
        )
    detector = Detector(
        options.model,
        providers=options.providers,
        threshold=options.threshold,
        view=options.view,
    )
    trained_on = find_trained([source], detector.metadata)
    if warning := _trained_warning(trained_on):
        print(warning, flush=True)
    scores, events = folder / "scores.csv", folder / "events.csv"
    write_scores(
        detector,
        source,
        scores,
        decision=options.alarm,
        events=events,
        batch_size=1,  # the node's scores to the last bit
        progress=True,
    )
    warn_unreadable(source.path, source.unreadable)
    unreadable = list(map(str, source.unreadable))
    frames = read_scores(scores)
    domain = domain_id() if options.domain is None else options.domain
    if options.large_images:
        os.environ.update(large_image_environment(os.environ))
    stop = threading.Event()
    with signals_set(stop), tool_node("anomaly_replay", "a replay", domain) as ros_node:
        from anomaly_detector.ros.replay.recorder import recording

        image = (source.topic, source.message_type) if options.pictures else None
        results = folder / "results"
        with (
            recording(
                ros_node, results, options.node_name, image, options.rate, options.storage
            ) as recorder,
            _node_command(options, source.topic, source.message_type) as command,
            _process(command, {**os.environ, "ROS_DOMAIN_ID": str(domain)}) as node,
        ):

            def goes_on() -> bool:
                return node.poll() is None and not stop.is_set()

            recorder.wait_until_active(goes_on, options.start_timeout_s)
            sent, duration_s = 0, 0.0
            if goes_on():
                played = play(
                    source.path,
                    topic=source.topic,
                    rate=options.rate,
                    queue=_QUEUE_FRAMES,
                    clock_hz=_CLOCK_HZ,
                    progress=True,
                    stop=stop,
                    on_frame=recorder.on_frame,
                    node=ros_node,  # which the detector node knows already
                )
                sent, duration_s = played.sent, played.duration_s
                recorder.wait_for_answers(len(frames), goes_on, _PATIENCE_S)
            if stop.is_set():
                raise AnomalyDetectorError(f"stopped after {sent} frames: nothing is kept")
            if not goes_on():
                raise AnomalyDetectorError(
                    f"the detector node ended after {len(recorder.detections)} answers: its own "
                    "message is above"
                )
            recorder.deactivate(_PATIENCE_S)
    # The model's own: a threshold far off would let any score pass.
    scale = float(normalization_scale(detector.metadata))
    return ReplayResult(
        options,
        source,
        detector,
        sent,
        duration_s,
        unreadable,
        compare(frames, recorder.detections, scale),
        recorder.events,
        _same_events(frames, recorder.events, events),
        recorder.latencies_ms,
        recorder.states,
        trained_on,
    )


@contextmanager
def _node_command(options: ReplayOptions, topic: str, message_type: str) -> Iterator[list[str]]:
    """Yield the command that starts the node, for as long as its parameters lie in a file."""
    compressed = message_type.endswith("CompressedImage")
    parameters: dict[str, Any] = {
        "model": str(options.model.absolute()),
        "image_transport": "compressed" if compressed else "raw",
        "autostart": True,
        "use_sim_time": True,
        # The camera is not to be missed before the player has it and after the last frame.
        "stale_timeout": _STALE_S,
        # Every frame is compared.
        "max_rate_hz": 0.0,
        **{f"alarm_{name}": value for name, value in vars(options.alarm).items()},
    }
    if options.threshold is not None:
        parameters["threshold"] = float(options.threshold)
    if not options.view.region.is_whole_frame:
        parameters["region_of_interest"] = list(astuple(options.view.region))
    if options.view.scaling is not None:
        parameters["image_scaling"] = list(map(float, astuple(options.view.scaling)))
    if options.providers is not None:
        parameters["providers"] = list(options.providers)
    if not options.newest_only:
        qos = f"qos_overrides.{topic}.subscription"
        parameters[f"{qos}.reliability"] = "reliable"
        parameters[f"{qos}.depth"] = _QUEUE_FRAMES
    namespace, _, name = options.node_name.rpartition("/")
    remappings = {
        "image/compressed" if compressed else "image": topic,
        "__ns": namespace or "/",
        "__node": name,
    }
    command = [sys.executable, "-m", "anomaly_detector.ros.detector_node", "--ros-args"]
    if options.params_file is not None:
        command += ["--params-file", str(options.params_file)]
    for left, right in remappings.items():
        command += ["-r", f"{left}:={right}"]
    # Not -p, over which a params file with the node's name would win.
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        # JSON is a part of YAML: a text stays one, whatever it looks like.
        json.dump({options.node_name: {"ros__parameters": parameters}}, file)
        file.flush()
        yield [*command, "--params-file", file.name]


@contextmanager
def _process(
    command: Sequence[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, end it as Ctrl-C would, and insist that it ends well."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0:
        raise AnomalyDetectorError(
            f"the detector node ended with exit code {code}: its own message is above"
        )


def _same_events(
    frames: Sequence[OfflineFrame], published: Sequence[EventRecord], written: Path
) -> bool:
    """Return whether the ends of alarms are those of an ``events.csv``."""
    columns = ["start_stamp", "end_stamp", "frames", "peak_stamp"]
    if any(frame.stamp_ns is None for frame in frames):
        columns = ["frames"]  # for frames without a stamp, the node takes the time of arrival
    with written.open(newline="", encoding="utf-8") as file:
        expected = [[row[name] for name in columns] for row in csv.DictReader(file)]
    ends = [event for event in published if event.kind == "end"]
    return [[str(getattr(event, name)) for name in columns] for event in ends] == expected

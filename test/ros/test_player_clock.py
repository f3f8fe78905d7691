"""The player's /clock: even, never ahead of the next frame, and back with a bag that loops."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import START_NS, write_stamped_bag
from ros_harness import RosClient, noise, playing, ros_client, running_node, write_image_bag
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.node.event_message import read_event
from anomaly_detector.stamps import stamp_to_ns

TOPIC = "/camera/image_raw"
BLACK = np.zeros((48, 64, 3), np.uint8)  # score 16384
GREY = np.full((48, 64, 3), 128, np.uint8)  # score 0


class Listener:
    """Keeps the times on /clock and the stamps of the images, in nanoseconds, in their order."""

    def __init__(self, client: RosClient) -> None:
        self.client = client
        self.times: list[int] = []
        self.stamps: list[int] = []
        client.node.create_subscription(
            Clock, "/clock", lambda m: self.times.append(stamp_to_ns(m.clock) or 0), 1000
        )
        client.node.create_subscription(
            Image, TOPIC, lambda m: self.stamps.append(stamp_to_ns(m.header.stamp) or 0), 100
        )


@pytest.fixture
def listener() -> Iterator[Listener]:
    with ros_client(image_topic="/unused") as client:
        yield Listener(client)


def is_ascending(times: Sequence[int]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("options", [{}, {"rate": 4.0}, {"hz": 10.0}])
def test_clock_runs_from_before_the_first_frame_to_the_last(
    listener: Listener, tmp_path: Path, options: dict[str, float]
) -> None:
    stamps = write_image_bag(tmp_path / "bag", [noise(i) for i in range(6)], hz=5.0)
    with playing(tmp_path / "bag", clock_hz=200.0, **options):
        listener.client.spin_until(
            lambda: len(listener.stamps) == 6 and listener.times[-1:] == stamps[-1:], "the end"
        )
    assert listener.stamps == stamps
    assert is_ascending(listener.times)
    assert listener.times[0] < stamps[0]
    # Times between the frames, too.
    assert len({time for time in listener.times if time > stamps[0]} - set(stamps)) > 5


@pytest.mark.parametrize(
    "recorded",
    [
        [1_000_000_000 + i * 50_000_000 for i in range(4)]
        + [START_NS + i * 50_000_000 for i in range(4)],
        [START_NS + i * 50_000_000 for i in range(7)] + [2**63],
    ],
    ids=["from 1970 to now", "a time that no clock shows"],
)
def test_step_of_the_recorders_clock_is_reported_and_not_waited_for(
    listener: Listener, tmp_path: Path, recorded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    headers = [(1_700_000_000, i * 50_000_000 + 1) for i in range(8)]
    write_stamped_bag(tmp_path / "bag", [noise(i) for i in range(8)], headers, recorded)
    stamps = [sec * 10**9 + nanosec for sec, nanosec in headers]
    with playing(tmp_path / "bag", clock_hz=50.0, rate=10.0):
        listener.client.spin_until(lambda: len(listener.stamps) == 8, "all frames")
    assert listener.stamps == stamps
    printed = capsys.readouterr().err
    assert len(re.findall(r"clock steps by \+[\d.e+]+ s, played as 5 s", printed)) == 1
    # It never runs through the years between.
    assert is_ascending(listener.times)
    assert all(min(abs(time - other) for other in recorded) < 6e9 for time in listener.times)


def test_clock_jumps_back_once_with_each_start_of_a_looped_bag(
    listener: Listener, tmp_path: Path
) -> None:
    stamps = write_image_bag(tmp_path / "bag", [noise(i) for i in range(4)], hz=10.0)

    def jumps() -> list[tuple[int, int]]:
        return [(a, b) for a, b in itertools.pairwise(listener.times) if b < a]

    with playing(tmp_path / "bag", loop=True, clock_hz=50.0):
        # The two topics need not be received in step.
        listener.client.spin_until(
            lambda: len(listener.stamps) >= 10 and len(jumps()) >= 2, "the third pass"
        )
    assert listener.stamps[:10] == (stamps * 3)[:10]
    assert all(before >= stamps[-1] and after <= stamps[0] for before, after in jumps())


def test_looped_bag_in_simulated_time_gives_the_same_alarms_in_each_pass(
    model: Path, tmp_path: Path
) -> None:
    """Decided in seconds; the alarm is on at the end of the bag and must not last into the next.

    Played slowly: the time jumps back in the middle between two frames. By then the node has
    answered the last one, unless the machine is busy: then this pass has fewer frames with alarm.
    """
    pictures = [GREY] * 2 + [BLACK] * 6
    stamps = write_image_bag(tmp_path / "bag", pictures, hz=20.0)
    qos = f"qos_overrides.{TOPIC}.subscription"
    with (
        running_node(
            *("-r", f"image:={TOPIC}"),
            *("-p", f"{qos}.reliability:=reliable", "-p", f"{qos}.depth:=100"),
            model=model,
            use_sim_time="true",
            alarm_mode="seconds",
            alarm_immediate_level=1.0,
        ) as node,
        ros_client(image_topic="/unused") as client,
    ):
        client.wait_for_diagnostics(lambda _, v: v["State"] == "active", "an active node")
        with playing(tmp_path / "bag", loop=True, clock_hz=100.0, rate=0.1):
            client.spin_until(lambda: len(client.detections) >= 3 * len(stamps), "three passes")
        node.wait_for_line("time jumped back")
    answers = [read_detection(message) for message in client.detections[: 3 * len(stamps)]]
    assert [answer.stamp_ns for answer in answers] == stamps * 3
    # 0.2 s of anomalous frames, each of which counts until the next one.
    alarms = np.reshape([answer.alarm for answer in answers], (3, len(stamps)))
    assert not alarms[:, :6].any()
    assert [True, True] in alarms[:, 6:].tolist()
    ends = [event for event in map(read_event, client.events) if event.kind == "end"]
    assert ("0.300000000", 2) in {(event.start_stamp[-11:], event.frames) for event in ends}

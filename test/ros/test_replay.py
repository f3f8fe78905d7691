"""Replays through the real node: every frame answered, the bits of offline scoring, a bag of it."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import write_bag, write_stamped_bag
from disks import leave_free, small_disk
from mcap.reader import make_reader
from model_files import write_grey_difference_model
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from ros_harness import ROOT, noise, running
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool, Float32

from anomaly_detector.cli.main import main
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import fingerprints
from anomaly_detector.ros.node.detection_message import DetectionRecord
from anomaly_detector.ros.replay import session
from anomaly_detector.ros.replay.command import _some
from anomaly_detector.ros.replay.comparison import OfflineFrame, compare, frame_ranges
from anomaly_detector.ros.replay.recorder import ResultRecorder
from anomaly_detector.ros.tools.played_frames import PlayedFrame
from anomaly_detector.ros.tools.tool_node import tool_node
from anomaly_detector.scoring.tables import format_score

GREY = np.full((48, 64, 3), 128, np.uint8)  # score 0
BLACK = np.zeros((48, 64, 3), np.uint8)  # score 16384: an alarm at once
NODE = "/anomaly_detector"
COMMAND = [sys.executable, "-m", "anomaly_detector", "replay"]


def replay(bag: Path, model: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Replay a bag in a process of its own, as a user does."""
    command = [*COMMAND, str(bag), "--model", str(model), "--out", str(out), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def pictures() -> list[NDArray[np.uint8]]:
    """Scores of all kinds, with one alarm that is on when the drive ends."""
    return [GREY, *(noise(seed) for seed in range(12)), GREY, BLACK, BLACK, BLACK]


ALARMS = {"raw": [], "compressed": ["--decision", "seconds", "--immediate-level", "1.0"]}
"""In seconds, the alarm depends on the stamps; three black frames last for 0.1 s of the 0.2 s."""


@dataclass
class Replayed:
    """A bag, what its replay printed, the folder that it wrote, and its alarm filter's options."""

    bag: Path
    output: str
    folder: Path
    alarm: list[str]


@pytest.fixture(scope="module", params=list(ALARMS))
def replayed(request: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """A replay as a user starts it, at real-time rate."""
    folder = tmp_path_factory.mktemp(request.param)
    bag = write_bag(
        folder / "drive", pictures(), compressed=request.param == "compressed", storage="mcap"
    )
    alarm = ALARMS[request.param]
    result = replay(bag, model, folder / "out", *alarm)
    assert result.returncode == 0, result.stdout + result.stderr
    return Replayed(bag, result.stdout, folder / "out", alarm)


def messages(folder: Path) -> dict[str, list[bytes]]:
    """Read a recorded bag with a reader that is not ours: topic to serialized messages."""
    found: dict[str, list[bytes]] = {}
    with (folder / "results" / "results.mcap").open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            # Readers without ROS need the definition.
            assert schema is not None
            assert schema.encoding == "ros2msg"
            assert schema.data
            assert channel.message_encoding == "cdr"
            found.setdefault(channel.topic, []).append(message.data)
    return found


def test_node_and_offline_scoring_agree_to_the_bit(
    replayed: Replayed, model: Path, tmp_path: Path
) -> None:
    count = len(pictures())
    assert f"{count} of {count} answered" in replayed.output
    assert (
        f"same score {count}, same flag {count}, same alarm {count} of {count} frames; same events"
        in replayed.output
    )
    source = ["--model", str(model), "--input", str(replayed.bag), *replayed.alarm]
    source += ["--batch-size", "1"]
    scores, events = tmp_path / "scores.csv", tmp_path / "events.csv"
    assert main(["score", *source, "--output", str(scores), "--events", str(events)]) == 0
    assert "scene" not in replayed.output  # a model without quantiles
    assert (replayed.folder / "scores.csv").read_bytes() == scores.read_bytes()
    assert (replayed.folder / "events.csv").read_bytes() == events.read_bytes()
    assert len(events.read_text().splitlines()) > 1


def test_replay_of_a_drive_that_the_model_was_trained_on_says_so(
    replayed: Replayed, tmp_path: Path
) -> None:
    if replayed.bag.parent.name.startswith("compressed"):
        pytest.skip("JPEG has other pixels than the fingerprint below")
    model = write_grey_difference_model(tmp_path / "trained.onnx")
    images = np.stack([preprocess(Image(picture, "rgb")) for picture in pictures()])
    metadata = dataclasses.replace(
        read_metadata(model), training_recordings=fingerprints([("normal", images)])
    )
    write_grey_difference_model(model, metadata=metadata.to_json())
    out = tmp_path / "out"
    result = replay(replayed.bag, model, out, "--no-pictures")
    assert result.returncode == 0, result.stdout + result.stderr
    warning = "warning: the model was trained on drive (trained as normal): "
    assert result.stdout.startswith(warning)
    page = (out / "report.html").read_text()
    assert page.index(warning) < page.index('class="keys"')
    # The other model says nothing of its training.
    assert "trained on" not in replayed.output
    assert "trained on" not in (replayed.folder / "report.html").read_text()


@pytest.mark.parametrize("page", ["", "report.html"])
def test_summary_names_a_page_only_where_there_is_one(page: str) -> None:
    names = [str(number) for number in range(11)]
    assert _some(names[:10], "; ", page) == "; ".join(names[:10])
    where = ", see report.html" if page else ""
    assert _some(names, "; ", page) == f"{'; '.join(names[:10])} and more{where}"


def test_recorded_bag_has_every_result_and_the_pictures_as_they_were(replayed: Replayed) -> None:
    found = messages(replayed.folder)
    count = len(pictures())
    with AnyReader([replayed.bag]) as reader:
        (topic,) = reader.topics
        played = [bytes(data) for _, _, data in reader.messages()]
    assert found[topic] == played
    counts = {name: len(items) for name, items in found.items()}
    for name in ("score", "normalized_score", "anomaly", "alarm", "detection"):
        assert counts[f"{NODE}/{name}"] == count, name
    assert counts[f"{NODE}/overlay/compressed"] == count
    # As many ends as starts: deactivating the node ended the last alarm.
    assert counts[f"{NODE}/event"] % 2 == 0
    assert counts["/diagnostics"] > 0
    assert counts[f"{NODE}/state"] > 0
    rows = [line.split(",") for line in (replayed.folder / "scores.csv").read_text().split()[1:]]
    scores = [deserialize_message(data, Float32).data for data in found[f"{NODE}/score"]]
    assert [str(np.float32(score)) for score in scores] == [row[2] for row in rows]
    flags = [deserialize_message(data, Bool).data for data in found[f"{NODE}/anomaly"]]
    assert [str(int(flag)) for flag in flags] == [row[3] for row in rows]
    assert len(set(flags)) == 2
    overlay = deserialize_message(found[f"{NODE}/overlay/compressed"][0], CompressedImage)
    assert cv2.imdecode(np.frombuffer(overlay.data, np.uint8), cv2.IMREAD_COLOR) is not None


def test_log_times_are_those_of_the_bag(replayed: Replayed) -> None:
    with AnyReader([replayed.bag]) as reader:
        start, end = reader.start_time, reader.end_time
    with AnyReader([replayed.folder / "results"]) as reader:
        assert reader.start_time == start
        # The last ones come when the bag is over; not in another year.
        assert end <= reader.end_time < end + 120 * 10**9


def test_report_is_whole_and_loads_nothing(replayed: Replayed) -> None:
    page = (replayed.folder / "report.html").read_text()
    assert "What ~/state said" in page
    assert cv2.imread(str(replayed.folder / "timeline.png")) is not None
    assert "to the last bit" in page
    assert Counter(re.findall(r'src="(data:image/\w+);', page))["data:image/jpeg"] >= 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "<h2>Alarms</h2>" in page


def test_params_file_goes_to_the_node_and_to_offline_scoring(model: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", pictures(), storage="mcap")
    params, out = tmp_path / "params.yaml", tmp_path / "out"
    params.write_text(
        "/front/eye:\n  ros__parameters:\n    threshold: 2.5\n    alarm_mode: off\n"
        "    region_of_interest: [0, 8, 64, 0]\n    autostart: false\n    model: nowhere\n"
    )
    options = ["--node-name", "/front/eye", "--params-file", str(params), "--storage", "sqlite3"]
    options += ["--region", "0,16,64,0", "--no-report", "--no-pictures"]
    result = replay(bag, model, out, *options)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {"scores.csv", "events.csv", "results"}
    offline = ["score", "--model", str(model), "--input", str(bag), "--batch-size", "1"]
    offline += ["--threshold", "2.5", "--region", "0,16,64,0", "--decision", "off"]
    assert main([*offline, "--output", str(tmp_path / "scores.csv")]) == 0
    assert (out / "scores.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    with AnyReader([out / "results"]) as reader:
        connections = [c for c in reader.connections if c.topic == "/front/eye/anomaly"]
        messages = [reader.deserialize(d, c.msgtype) for c, _, d in reader.messages(connections)]
    rows = (out / "scores.csv").read_text().splitlines()[1:]
    assert len(messages) == len(rows) == len(pictures())


def test_frames_left_out_are_named_and_an_error(model: Path, tmp_path: Path) -> None:
    """Played far faster than any node scores, to a subscription that keeps the newest frame."""
    frames = [noise(seed, 480, 640) for seed in range(40)]
    bag = write_bag(tmp_path / "drive", frames)
    out = tmp_path / "out"
    # In a process of its own: where there was a participant before, the profile for large images
    # is not loaded any more, and none may get through.
    result = replay(bag, model, out, "--newest-only", "--no-pictures", "--rate", "10000")
    assert result.returncode == 1
    (named,) = re.findall(r"(\d+) frames without an answer: 0", result.stdout)
    assert 0 < int(named) < 40
    assert f"error: {named} frames without an answer" in result.stderr
    assert "Frames without an answer" in (out / "report.html").read_text()
    found = messages(out)
    assert len(found[f"{NODE}/detection"]) == 40 - int(named)
    assert f"{NODE}/overlay/compressed" not in found


def test_results_keep_their_order_when_frames_are_played_late(tmp_path: Path) -> None:
    """The first answer comes later than the bag's time of the second frame."""
    now = time.monotonic()
    with (
        tool_node("recorder", "testing") as node,
        Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as bag,
    ):
        recorder = ResultRecorder(node, bag, NODE, None, rate=1.0)
        times = []
        for recorded_ns in (10**9, 2 * 10**9, 10**9):
            recorder.on_frame(PlayedFrame(0.0, recorded_ns, bytes(12)))
            times += [recorder._time(now + late_s) for late_s in (60.0, 120.0)]
    assert times[:4] == sorted(times[:4])
    assert times[4] < times[0] + 10**9  # where the bag's clock steps back, the recording's does


def test_scores_that_differ_are_an_error_even_where_no_flag_does(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The real node, made to look at another part of the frame than offline scoring."""
    own = session._process
    region = ["-p", "region_of_interest:=[8, 8, 20, 20]"]
    monkeypatch.setattr(session, "_process", lambda given, env: own([*given, *region], env))
    bag = write_bag(tmp_path / "drive", [noise(seed) for seed in range(4)])
    options = ["--model", str(model), "--no-pictures", "--threshold", "1e9"]
    out = tmp_path / "out"
    assert main(["replay", str(bag), "--out", str(out), *options]) == 1
    printed = capsys.readouterr()
    assert "same score 0, same flag 4, same alarm 4 of 4 frames" in printed.out
    assert "4 of 4 by more than the tolerance of 0.0001" in printed.err
    assert "0 flags and 0 alarms are others" in printed.err
    assert "4 frames with a score beyond the tolerance: 000000-000003" in printed.out
    page = (out / "report.html").read_text()
    assert "The node and offline scoring differ, scores differ by at most" in page
    assert "Frames with a score beyond the tolerance" in page


def test_signal_ends_it_in_order_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", [GREY] * 3)
    options = ["--model", str(model), "--out", str(tmp_path / "out"), "--rate", "0.0001"]
    with running([*COMMAND, str(bag), *options]) as process:
        process.wait_for_line("active, waiting for")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        assert "error: stopped after" in process.output
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


@pytest.mark.parametrize(("free", "name"), [(0, "out/scores.csv"), (60_000, "out")])
def test_full_disk_is_one_line_and_leaves_nothing(
    free: int, name: str, model: Path, tmp_path: Path
) -> None:
    """At the first table, and while the node's results are recorded."""
    bag = write_bag(tmp_path / "drive", pictures())
    with small_disk(tmp_path / "disk", "4m") as disk:
        leave_free(disk, free)
        result = replay(bag, model, disk / "out")
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "Exception ignored" not in result.stderr
        (line,) = (line for line in result.stderr.splitlines() if "error: " in line)
        place = f"{disk / name} cannot be written (No space left on device): make room in {disk}"
        assert f"error: {place}" in line
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "does not exist"),
        (["folder"], "only a rosbag2 can be replayed"),
        (["bag", "--topic", "/other"], "has no image topic '/other'"),
        (["bag", "--model", "nowhere"], "model 'nowhere' is neither"),
        (["bag", "--model", "folder/a.png"], "a.png"),
        (["bag", "--params-file", "none.yaml"], "params file none.yaml cannot be read"),
        (["bag", "--params-file", "empty.yaml"], "params file empty.yaml names no node"),
        (["bag", "--raise-frames", "0"], "raise_frames is 0"),
        (["bag", "--out", "full"], "is there and not empty"),
        (["bag", "--rate", "0"], "rate is 0"),
        (["bag", "--domain-id", "233"], "ROS_DOMAIN_ID is 233"),
        (["bag", "--node-name", "/9x"], "no part begins with a digit"),
    ],
)
def test_what_cannot_be_replayed_is_an_error_and_leaves_nothing(
    arguments: list[str],
    reason: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / "bag", [GREY])
    (tmp_path / "empty.yaml").touch()
    for name in ("folder", "full"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), GREY)
    before = sorted(tmp_path.rglob("*"))
    assert main(["replay", "--model", str(model), "--out", "out", *arguments]) == 1
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def offline(stamps: Sequence[int | None], flags: str) -> list[OfflineFrame]:
    return [
        OfflineFrame(f"{i:06d}", stamp, i * 0.05, "1.5", flag == "x", "0.5", False)
        for i, (stamp, flag) in enumerate(zip(stamps, flags, strict=True))
    ]


def answer(stamp_ns: int | None, is_anomaly: bool = False, alarm: bool = False) -> DetectionRecord:
    return DetectionRecord(stamp_ns, "camera", 1.5, 0.5, 1.0, is_anomaly, alarm, "model", 1.0)


def test_comparison_names_what_differs() -> None:
    frames = offline([10, 20, 30, 40], ".x..")
    one_bit_more = dataclasses.replace(
        answer(30), score=float(np.nextafter(np.float32(1.5), np.float32(2)))
    )
    result = compare(frames, [answer(20), answer(30), answer(10, alarm=True), answer(20)])
    assert result.missing == ["000003"]
    assert result.other_anomalies == ["000001"]
    assert result.other_alarms == ["000000"]
    assert result.other_scores == []
    assert result.scores_text == "the scores do not differ"
    assert result.extra == 1
    near = compare(frames, [one_bit_more])
    assert (near.other_scores, near.far_scores) == (["000002"], [])
    assert near.scores_text == (
        "scores differ by at most 1.19e-07 (frame 000002), 0 of 1 by more than the tolerance of "
        "0.0001"
    )


def test_the_shortest_text_of_a_score_is_no_difference() -> None:
    score = float(np.float32(13611.7))
    (frame,) = offline([10], ".")
    frame = dataclasses.replace(frame, score=format_score(score))
    assert float(frame.score) != score
    result = compare([frame], [dataclasses.replace(answer(10), score=score)])
    assert result.scores_text == "the scores do not differ"


@pytest.mark.parametrize(
    ("score", "normalized", "scale", "far"),
    [
        (1.5001, 0.5, 0.0, False),
        (1.5002, 0.5, 0.0, True),
        (1.4998, 0.5, 0.0, True),
        (1.5002, 0.5, 3.0, False),
        (1.5, 0.50009, 0.0, False),
        (1.5, 0.5002, 0.0, True),
        (float("nan"), 0.5, 0.0, True),
    ],
)
def test_scores_are_compared_within_the_tolerance(
    score: float, normalized: float, scale: float, far: bool
) -> None:
    given = dataclasses.replace(answer(30), score=score, normalized_score=normalized)
    result = compare(offline([10, 20, 30], "..."), [answer(10), given], scale)
    assert result.far_scores == (["000002"] if far else [])
    assert result.other_scores == ["000002"]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_missing_package_is_reported_before_anything_is_played(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    bag = write_bag(tmp_path / "drive", [GREY] * 3)
    options = ["--model", str(model), "--out", str(tmp_path / "out")]
    assert main(["replay", str(bag), *options]) == 1
    printed = capsys.readouterr()
    assert f"pip install {package.partition('.')[0]}, or apt install python3-" in printed.err
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_frames_are_named_in_ranges() -> None:
    names = [f"{number:06d}" for number in (0, 2, 3, 4, 8, 9)]
    assert frame_ranges(names) == ["000000", "000002-000004", "000008-000009"]


def test_frames_without_a_stamp_are_answered(model: Path, tmp_path: Path) -> None:
    """As a FLIR driver stamps: a second of nanoseconds at times; and negative ones."""
    frames = [GREY, *[BLACK] * 12, *[GREY] * 7]
    stamps = [
        (1_700_000_000, 20_000_000 * i + (10**9 if i % 3 == 0 else 0)) for i in range(len(frames))
    ]
    stamps[4] = (-1, 500_000_000)
    bag = write_stamped_bag(tmp_path / "drive", frames, stamps)
    result = replay(bag, model, tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "20 of 20 answered" in result.stdout
    assert "same score 20, same flag 20, same alarm 20 of 20 frames; same events" in result.stdout
    assert "8 frames have no time stamp" in result.stdout
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("stamp", [7, None])
def test_equal_and_missing_stamps_are_answered_in_their_order(stamp: int | None) -> None:
    frames = offline([stamp] * 3, ".x.")
    result = compare(frames, [answer(stamp), answer(stamp, True), answer(stamp)])
    assert (result.missing, result.other_anomalies, result.extra) == ([], [], 0)

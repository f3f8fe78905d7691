"""The black box against full, read-only and vanished disks, kills, and others in its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from black_box_frames import (
    DEADLINE_S,
    Drive,
    both_formats,
    event_json,
    events_in,
    frame,
    jpeg,
    open_box,
    wait_until,
)
from disks import small_disk

from anomaly_detector.alarms.alarm_filter import AlarmState
from anomaly_detector.black_box import BlackBox, BlackBoxStatistics, EncodedPicture

ROOT = Path(__file__).parents[2]


def record(box: BlackBox, drive: Drive, kilobytes: int = 10) -> BlackBoxStatistics:
    """Let an event happen, of 20 or so frames of a size, until it is written or dropped."""
    camera = EncodedPicture("jpeg", jpeg(kilobytes * 1000))
    before = box.statistics
    drive.normal(1.0, make=lambda _: camera)
    drive.anomaly(2.0, make=lambda _: camera)
    drive.normal(1.2, make=lambda _: camera)  # closes it; else the black box waits for 3 s
    wait_until(
        lambda: (
            box.statistics.events_written + box.statistics.events_dropped
            > before.events_written + before.events_dropped
        )
    )
    # What remains of a dropped event is taken by then, too.
    wait_until(lambda: box.statistics.frames_waiting == 0)
    return box.statistics


def is_whole(event: Path) -> bool:
    """Return whether an event has all it lists."""
    content = event_json(event)
    if content["format"] == "mcap":
        return (event / "metadata.yaml").is_file() and (event / "event.mcap").is_file()
    return {file.name for file in event.iterdir()} == {
        "event.json",
        *(row["name"] for row in content["frames"]),
    }


@both_formats
def test_full_disk_drops_the_event_and_recording_goes_on_when_there_is_room(
    format_name: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk, open_box(disk, format_name) as box:
        drive = Drive(box)
        filler = disk / "filler"
        filler.write_bytes(bytes(900_000))
        statistics = record(box, drive)
        assert (statistics.events_written, statistics.events_dropped) == (0, 1)
        assert statistics.is_failing
        assert statistics.frames_dropped >= 15
        assert statistics.last_error == (
            f"black box folder {disk} cannot be written (No space left on device): "
            "make room or choose another folder"
        )
        assert events_in(disk) == []
        assert filler.stat().st_size == 900_000
        filler.unlink()
        statistics = record(box, drive)
        assert (statistics.events_written, statistics.is_failing) == (1, False)
        assert [is_whole(event) for event in events_in(disk)] == [True]


@both_formats
def test_read_only_disk(format_name: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "10m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with open_box(disk / "box", format_name) as box:
            drive = Drive(box)
            statistics = record(box, drive)
            assert (statistics.events_dropped, statistics.is_failing) == (1, True)
            assert "Read-only file system" in statistics.last_error
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            assert record(box, drive).events_written == 1
        assert [is_whole(event) for event in events_in(disk / "box")] == [True]


_LIMITED = """
import resource, sys
sys.path[:0] = ["test", "test/support", "test/black_box"]
from pathlib import Path
from black_box_frames import Drive, events_in
from test_black_box_faults import open_box, record

folder, limit = Path(sys.argv[1]), resource.RLIMIT_FSIZE
with open_box(folder, sys.argv[2]) as box:
    drive = Drive(box)
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (4000, hard))
    failed = record(box, drive)
    assert failed.events_dropped == 1, failed
    assert "File too large" in failed.last_error, failed
    assert events_in(folder) == []
    resource.setrlimit(limit, (hard, hard))
    assert record(box, drive).events_written == 1
"""


@both_formats
def test_file_size_limit(format_name: str, tmp_path: Path) -> None:
    """As a full disk, and it needs no permission."""
    subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path), format_name],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    assert [is_whole(event) for event in events_in(tmp_path)] == [True]


@both_formats
def test_folder_removed_in_the_middle_of_an_event(format_name: str, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    with open_box(folder, format_name) as box:
        drive = Drive(box)
        drive.normal(1.0)
        drive.anomaly(1.0)
        wait_until(lambda: box.statistics.frames_waiting == 0)
        shutil.rmtree(folder)
        drive.normal(1.0)
        wait_until(lambda: box.statistics.events_dropped == 1)
        assert "No such file or directory" in box.statistics.last_error
        assert record(box, drive).events_written == 1
    assert [is_whole(event) for event in events_in(folder)] == [True]


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with open_box(file) as box:
        statistics = record(box, Drive(box))
    assert (statistics.events_written, statistics.events_dropped) == (0, 1)
    assert str(file) in statistics.last_error
    assert file.read_text() == "mine"


def test_oldest_events_are_removed_to_keep_the_size_and_only_ours(tmp_path: Path) -> None:
    foreign = {
        "event_20200101T000000Z_000000": None,
        "event_20200101T000000Z_000001": '{"kind": "something else"}',
        "event_20200101T000000Z_000002": "no JSON",
        "event_20200101T000000Z_000003": "[]",
        "holiday": json.dumps({"kind": "anomaly_detector black box event"}),
    }
    for name, text in foreign.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "big").write_bytes(bytes(2_000_000))
        if text is not None:
            (tmp_path / name / "event.json").write_text(text)
    elsewhere = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    with open_box(elsewhere) as box:
        record(box, Drive(box))
    (other,) = events_in(elsewhere)
    (tmp_path / "event_20200101T000000Z_000004").symlink_to(other)
    (tmp_path / ".black_box_mine").mkdir()
    (tmp_path / ".black_box_mine" / "file").write_text("mine")
    untouched = {path.name for path in tmp_path.iterdir()}

    with open_box(tmp_path, max_megabytes=1.0) as box:
        drive = Drive(box)
        for count in range(1, 8):
            statistics = record(box, drive)  # some 190 kB
            assert statistics.events_written == count
            assert statistics.bytes_on_disk <= 1_000_000
    names = {path.name for path in tmp_path.iterdir()}
    assert untouched <= names
    ours = sorted(names - untouched, key=lambda name: name[-6:])
    assert len(ours) >= 4
    # The newest are there: numbers go on after those of the others.
    assert [int(name[-6:]) for name in ours] == list(range(12 - len(ours), 12))
    assert statistics.events_removed == 7 - len(ours)
    assert all(is_whole(tmp_path / name) for name in ours)
    assert statistics.bytes_on_disk == sum(
        file.stat().st_size for name in ours for file in (tmp_path / name).iterdir()
    )
    assert is_whole(other)
    shutil.rmtree(elsewhere)


@both_formats
def test_size_is_kept_while_an_event_is_being_written(format_name: str, tmp_path: Path) -> None:
    with open_box(tmp_path, format_name, max_megabytes=1.0) as box:
        drive = Drive(box)
        for _ in range(4):
            record(box, drive)
        sizes = []
        for _ in range(16):
            drive.anomaly(1.0, make=lambda _: EncodedPicture("jpeg", jpeg(10_000)))
            wait_until(lambda: box.statistics.frames_waiting == 0)
            sizes.append(sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()))
        assert box.statistics.events_removed == 4
    assert max(sizes) <= 1_000_000
    assert len(events_in(tmp_path)) == 1


def test_event_larger_than_the_folder_may_be_is_recorded_as_far_as_it_fits(tmp_path: Path) -> None:
    with open_box(tmp_path, max_megabytes=1.0) as box:
        drive = Drive(box)
        record(box, drive)
        statistics = record(box, drive, kilobytes=100)
    assert statistics.events_written == 2
    assert statistics.events_removed == 1
    assert statistics.frames_dropped >= 5
    assert "one event is larger than max_megabytes, which is 1" in statistics.last_error
    assert 500_000 < statistics.bytes_on_disk <= 1_000_000
    (event,) = events_in(tmp_path)
    assert is_whole(event)


_KILLED = """
import sys
sys.path[:0] = ["test", "test/support", "test/black_box"]
from pathlib import Path
from black_box_frames import Drive
from test_black_box_faults import open_box, record

box = open_box(Path(sys.argv[1]), sys.argv[2], max_event_seconds=3600.0)
drive = Drive(box)
record(box, drive)
drive.normal(1.0)
drive.anomaly(10.0)
print("recording", flush=True)
while True:
    drive.anomaly(1.0)
"""


@both_formats
def test_kill_leaves_no_half_event(format_name: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path), format_name],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "recording\n"
            (workspace,) = tmp_path.glob(".black_box_*")
            # While the process lives another box leaves its workspace alone.
            with open_box(tmp_path, format_name) as other:
                assert record(other, Drive(other)).events_written == 1
            assert any((workspace / "event").iterdir())
        finally:
            process.send_signal(signal.SIGKILL)
    events = events_in(tmp_path)
    assert [is_whole(event) for event in events] == [True, True]
    assert any((workspace / "event").iterdir())  # the half event
    with open_box(tmp_path, format_name) as box:
        assert record(box, Drive(box)).events_written == 1
    assert not workspace.exists()
    assert len(events_in(tmp_path)) == 3
    assert sorted(tmp_path.iterdir()) == sorted(events_in(tmp_path))


@pytest.mark.parametrize("megabytes", [2.0, 1.0], ids=["room for all", "oldest removed"])
def test_two_boxes_in_one_folder(megabytes: float, tmp_path: Path) -> None:
    def run() -> None:
        with open_box(tmp_path, max_megabytes=megabytes) as box:
            drive = Drive(box)
            for _ in range(4):
                record(box, drive)
            results.append(box.statistics)

    results: list[BlackBoxStatistics] = []
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(item.events_written, item.events_dropped) for item in results] == [(4, 0)] * 2
    assert [item.last_error for item in results] == [""] * 2
    events = events_in(tmp_path)
    removed = sum(item.events_removed for item in results)
    assert len(events) == 8 - removed
    assert (removed > 0) == (megabytes < 2.0)
    assert all(is_whole(event) for event in events)
    assert sorted(tmp_path.iterdir()) == sorted(events)


def test_disk_that_hangs_delays_neither_add_nor_close(tmp_path: Path) -> None:
    """The first look at the folder waits for a writer of a FIFO, as for a disk."""
    foreign = tmp_path / "event_20200101T000000Z_000001"
    foreign.mkdir()
    os.mkfifo(foreign / "event.json")
    box = open_box(tmp_path, max_rate_hz=20.0)
    drive = Drive(box)
    state = AlarmState(True, False, None)
    for number in range(500):
        box.add(frame(EncodedPicture("jpeg", jpeg()), 1.5, state, drive.now_ns + number * 10**8))
    statistics = box.statistics
    assert statistics.frames_waiting == 32
    assert statistics.frames_dropped == 500 - 32
    assert not box.close(timeout=0.05)
    assert "did not finish within 0.05 s" in box.statistics.last_error
    with (foreign / "event.json").open("w"):  # what it waits for
        shutil.rmtree(foreign)
    assert box.close(timeout=DEADLINE_S)
    assert box.statistics.frames_recorded == 32
    assert box.statistics.events_written == 1
    assert [is_whole(event) for event in events_in(tmp_path)] == [True]

"""Outputs appear whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from disks import leave_free, null_device, small_disk

from anomaly_detector.errors import OutputError
from anomaly_detector.files import (
    atomic_directory,
    atomic_path,
    check_output_file,
    check_output_folder,
)

both = pytest.mark.parametrize("write", [atomic_path, atomic_directory])


def test_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "scores.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    with atomic_path(target) as temporary:
        temporary.write_text("second")
        assert target.read_text() == "first"
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def fail_halfway(
    write: Callable[[Path], AbstractContextManager[Path]], target: Path, content: bytes = b"half"
) -> None:
    with write(target) as temporary:
        file = temporary / "frame.png" if temporary.is_dir() else temporary
        file.write_bytes(content)
        raise RuntimeError("on purpose")


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="on purpose"):
        fail_halfway(atomic_path, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "drive"
    with pytest.raises(RuntimeError, match="on purpose"):
        fail_halfway(atomic_directory, target)
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(target) as temporary:
        (temporary / "frame.png").write_text("whole")
    assert [file.name for file in target.iterdir()] == ["frame.png"]


def test_folder_with_contents_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="not empty"), atomic_directory(tmp_path / "drive"):
        pass
    assert (tmp_path / "drive" / "mine.txt").read_text() == "keep"


@both
def test_folders_made_on_the_way_go_when_nothing_is_written(write: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError, match="on purpose"):
        fail_halfway(write, tmp_path / "there" / "new" / "deeper" / "scores.csv")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
def test_checking_makes_nothing(check: Any, tmp_path: Path) -> None:
    assert check(tmp_path / "new" / "scores.csv") == tmp_path / "new" / "scores.csv"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file is a file\): choose another place for .*scores"):
        check(tmp_path / "file" / "deeper" / "scores.csv")
    with pytest.raises(OutputError, match="cannot be written \\(File name too long\\)"):
        check(tmp_path / ("n" * 300))


@both
def test_permissions_follow_the_umask_which_is_left_alone(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may make a file at any time."""
    before = os.umask(0o027)

    def changed(mask: int) -> int:
        raise AssertionError(f"umask set to {mask:o}")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", changed)
            with write(tmp_path / "out") as temporary:
                assert stat.S_IMODE(temporary.stat().st_mode) & 0o027 == 0
    finally:
        os.umask(before)
    mode = stat.S_IMODE((tmp_path / "out").stat().st_mode)
    assert mode == (0o640 if write is atomic_path else 0o750)


@both
def test_content_is_on_the_disk_before_its_name(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else, a power cut leaves the new name with nothing in it."""
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def path_of(handle: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{handle}")).name

    def synced(handle: int) -> None:
        calls.append(("fsync", path_of(handle)))
        fsync(handle)

    def renamed(source: Any, target: Any, **options: Any) -> None:
        calls.append(("rename", Path(target).name))
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    with write(tmp_path / "out.onnx") as temporary:
        file = temporary / "inner" / "frame.png" if temporary.is_dir() else temporary
        file.parent.mkdir(exist_ok=True)
        file.write_text("content")
        name = file.name
    place = calls.index(("rename", "out.onnx"))
    assert ("fsync", name) in calls[:place]
    assert calls[place + 1 :] == [("fsync", tmp_path.name)]
    if write is atomic_directory:
        assert ("fsync", "inner") in calls[:place]


def test_many_files_are_written_through_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    sync = os.sync

    def counted() -> None:
        calls.append(count)
        sync()

    monkeypatch.setattr(os, "sync", counted)
    for count in (100, 101):
        with atomic_directory(tmp_path / str(count)) as temporary:
            (temporary / "link").symlink_to("nowhere")
            for index in range(1, count):
                (temporary / f"{index}.png").write_text("")
    assert calls == [101]


def test_device_is_written_into(tmp_path: Path) -> None:
    device = null_device(tmp_path / "null.csv")
    before = device.lstat()
    with atomic_path(device) as temporary:
        assert temporary.parent != tmp_path
        temporary.write_text("gone")
    after = device.lstat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_rdev) == (before.st_ino, os.makedev(1, 3))
    assert list(tmp_path.iterdir()) == [device]


def test_full_device_is_an_error() -> None:
    with (
        pytest.raises(OutputError, match=r"^/dev/full cannot be written \(No space left on device"),
        atomic_path(Path("/dev/full")) as temporary,
    ):
        temporary.write_text("too much")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert not temporary.exists()


@pytest.mark.parametrize("through_link", [False, True])
def test_pipe_is_written_into(through_link: bool, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    target = pipe
    if through_link:
        target = tmp_path / "link"
        target.symlink_to("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    content = bytes(range(256)) * 1000  # more than a pipe holds
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    reader.join(10)
    assert read == [content]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OutputError, match="socket is a socket: name a file"):
            check_output_file(tmp_path / "socket")
    assert stat.S_ISSOCK((tmp_path / "socket").lstat().st_mode)


@pytest.mark.parametrize("is_there", [True, False])
def test_link_stays_and_what_it_leads_to_is_replaced(is_there: bool, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "model.onnx"
    if is_there:
        real.write_text("old")
    (tmp_path / "first").symlink_to("real/model.onnx")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "first")
    with atomic_path(link) as temporary:
        assert temporary.parent == real.parent
        temporary.write_text("new")
    assert real.read_text() == "new"
    assert not real.is_symlink()
    assert os.readlink(link) == str(tmp_path / "first")
    assert os.readlink(tmp_path / "first") == "real/model.onnx"
    assert list(real.parent.iterdir()) == [real]


@both
def test_link_that_leads_nowhere_is_refused(write: Any, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "unmounted").symlink_to("disk/model.onnx")
    for name, reason in (
        ("loop", "link that leads to itself"),
        ("unmounted", "link into the folder .*disk, which is not there"),
        ("unmounted/out", "unmounted is a link that leads nowhere"),
        ("loop/new/out", "loop is a link that leads nowhere"),
    ):
        with pytest.raises(OutputError, match=reason), write(tmp_path / name):
            raise AssertionError("the work began")
        assert sorted(item.is_symlink() for item in tmp_path.iterdir()) == [True, True]


@pytest.mark.parametrize("through_link", [False, True])
def test_folder_is_no_file(through_link: bool, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder"
    if through_link:
        target = tmp_path / "link"
        target.symlink_to("folder")
    with pytest.raises(OutputError, match="is a folder: name a file"), atomic_path(target):
        raise AssertionError("the work began")
    assert (tmp_path / "folder").is_dir()


@pytest.mark.parametrize("is_there", [True, False])
def test_new_folder_through_a_link(is_there: bool, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    if is_there:
        (tmp_path / "real").mkdir()
    with atomic_directory(tmp_path / "link") as temporary:
        (temporary / "frame.png").write_text("whole")
    assert (tmp_path / "link").is_symlink()
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["frame.png"]


def test_folder_that_cannot_be_replaced_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk's own folder, as a container is given one, and the one that the user is in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_directory(Path()) as temporary:
        (temporary / "frame.png").write_text("whole")
    assert os.listdir() == ["frame.png"]
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(RuntimeError):
            fail_halfway(atomic_directory, disk)
        assert list(disk.iterdir()) == []
        with atomic_directory(disk) as temporary:
            (temporary / "frame.png").write_text("whole")
        assert [file.name for file in disk.iterdir()] == ["frame.png"]


@both
def test_full_disk(write: Any, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        leave_free(disk, 8192)
        target = disk / "out"
        reason = (
            f"^{target} cannot be written \\(No space left on device\\): make room in {disk} or"
        )
        with pytest.raises(OutputError, match=reason):
            fail_halfway(write, target, bytes(100_000))
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_file_in_a_new_folder_is_named_as_it_would_be(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "1m") as disk,
        pytest.raises(OutputError, match=f"^{disk}/out/scores.csv cannot be .* room in {disk}/out"),
        atomic_directory(disk / "out") as folder,
        atomic_path(folder / "scores.csv") as temporary,
    ):
        temporary.write_bytes(bytes(2_000_000))


@both
def test_error_of_reading_is_no_error_of_the_output(write: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="drive"), write(tmp_path / "out"):
        (tmp_path / "drive").read_bytes()
    assert list(tmp_path.iterdir()) == []


@both
def test_two_writers_of_one_place(write: Any, tmp_path: Path) -> None:
    """Files: the last one wins, whole. Folders: the first one."""
    target = tmp_path / "out"

    def put(temporary: Path, text: str) -> None:
        (temporary / "content" if temporary.is_dir() else temporary).write_text(text)

    def both_at_once() -> None:
        with write(target) as slow:
            put(slow, "slow")
            with write(target) as fast:
                put(fast, "fast")

    if write is atomic_path:
        both_at_once()
        assert target.read_text() == "slow"
    else:
        with pytest.raises(OutputError, match="out is there and not empty"):
            both_at_once()
        assert (target / "content").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_name_of_the_greatest_length(tmp_path: Path) -> None:
    target = tmp_path / ("ß" * 125 + ".csv")
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [target]

"""The download of a Zenodo record, from a server that drops, lies and refuses."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
import zipfile
from collections import deque
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_server import RecordServer, record_server

from anomaly_detector.errors import AnomalyDetectorError
from training.cli.data.download import add_arguments, run
from training.data.hazards_robots import download
from training.data.hazards_robots.archives import archive_stem, extract_archive
from training.data.hazards_robots.download import ATTEMPTS, download_record, list_record

BLOCK = 1 << 16
DATA = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _near_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE_S", 0.001)


@pytest.fixture
def server() -> Iterator[RecordServer]:
    with record_server(files={"frames.bin": DATA}) as running:
        yield running


def fetch(server: RecordServer, out: Path, **options: Any) -> list[Path]:
    return download_record(server.record_id, out, api_url=server.api_url, progress=False, **options)


def command(server: RecordServer, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["hazards-robots", "--api-url", server.api_url, *arguments]))


def test_whole_record_arrives_and_a_second_call_asks_for_no_file(
    server: RecordServer, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder"
    (path,) = fetch(server, out)
    assert path.read_bytes() == DATA
    assert os.listdir(out) == ["frames.bin"]
    fetch(server, out)
    assert server.file_requests("frames.bin") == [None]


def test_dropped_connections_are_resumed_where_they_broke(
    server: RecordServer, tmp_path: Path
) -> None:
    server.drop_after = deque([15 * BLOCK, 10 * BLOCK, 0])
    (path,) = fetch(server, tmp_path)
    assert path.read_bytes() == DATA
    assert server.file_requests("frames.bin") == [
        None,
        f"bytes={15 * BLOCK}-",
        f"bytes={25 * BLOCK}-",
        f"bytes={25 * BLOCK}-",
    ]


def test_getting_on_resets_the_count_of_failures(tmp_path: Path) -> None:
    data = DATA * 4
    with record_server(files={"a.bin": data}, drop_after=deque([20 * BLOCK] * 9)) as server:
        (path,) = fetch(server, tmp_path)
    assert path.read_bytes() == data


def test_a_server_that_keeps_dropping_is_given_up_and_a_later_run_goes_on(
    server: RecordServer, tmp_path: Path
) -> None:
    server.drop_after = deque([8 * BLOCK] + [0] * (ATTEMPTS - 1))
    with pytest.raises(AnomalyDetectorError, match=r"frames\.bin cannot .* 524288 of 3000000"):
        fetch(server, tmp_path)
    assert (tmp_path / "frames.bin.part").stat().st_size == 8 * BLOCK
    (path,) = fetch(server, tmp_path)
    assert path.read_bytes() == DATA
    assert server.file_requests("frames.bin")[-1] == f"bytes={8 * BLOCK}-"


@pytest.mark.parametrize("fault", [{"ranges": False}, {"shift": 7}, {"range_status": 416}])
def test_a_range_answer_that_does_not_fit_starts_again(
    fault: dict[str, Any], tmp_path: Path
) -> None:
    with record_server(files={"a.bin": DATA}, drop_after=deque([BLOCK]), **fault) as server:
        (path,) = fetch(server, tmp_path)
        asked = server.file_requests("a.bin")
    assert asked[:2] == [None, f"bytes={BLOCK}-"]
    # An answer with the whole file is taken as it is.
    assert asked[2:] == ([] if "ranges" in fault else [None])
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(("tail", "asked"), [(b"more", [None]), (b"", [])])
def test_a_part_file_of_another_size_starts_again_and_a_whole_one_is_only_verified(
    tail: bytes, asked: list[str | None], server: RecordServer, tmp_path: Path
) -> None:
    (tmp_path / "frames.bin.part").write_bytes(DATA + tail)
    (path,) = fetch(server, tmp_path)
    assert path.read_bytes() == DATA
    assert server.file_requests("frames.bin") == asked


def test_an_empty_file_arrives(tmp_path: Path) -> None:
    with record_server(files={"empty.txt": b""}) as server:
        (path,) = fetch(server, tmp_path)
    assert path.read_bytes() == b""


def test_corrupted_data_are_refused_and_deleted(server: RecordServer, tmp_path: Path) -> None:
    server.corrupt = True
    with pytest.raises(AnomalyDetectorError, match=r"frames\.bin has MD5 \w{32} but .* deleted"):
        fetch(server, tmp_path)
    assert os.listdir(tmp_path) == []


def test_verify_finds_a_file_damaged_later(server: RecordServer, tmp_path: Path) -> None:
    (path,) = fetch(server, tmp_path)
    path.write_bytes(bytes(len(DATA)))
    fetch(server, tmp_path)
    with pytest.raises(AnomalyDetectorError, match=r"has MD5 .* remove .*frames\.bin"):
        fetch(server, tmp_path, verify=True)
    assert path.exists()


def test_a_foreign_file_of_the_same_name_is_not_overwritten(
    server: RecordServer, tmp_path: Path
) -> None:
    (tmp_path / "frames.bin").write_text("mine")
    with pytest.raises(AnomalyDetectorError, match="has 4 bytes but the record's file has 3000000"):
        fetch(server, tmp_path)
    assert (tmp_path / "frames.bin").read_text() == "mine"


def test_server_errors_are_tried_again(server: RecordServer, tmp_path: Path) -> None:
    server.statuses = deque([500, 503, 429])
    (path,) = fetch(server, tmp_path)
    assert path.read_bytes() == DATA


def test_lasting_server_errors_end_in_one_line(server: RecordServer, tmp_path: Path) -> None:
    server.statuses = deque([500] * ATTEMPTS)
    with pytest.raises(AnomalyDetectorError, match=r"record 7074958 cannot be read .*500"):
        fetch(server, tmp_path)
    assert len(server.requests) == ATTEMPTS


def test_an_unknown_record_is_not_tried_again(server: RecordServer, tmp_path: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"records/12 answers 404 .*check the record"):
        download_record(12, tmp_path, api_url=server.api_url)
    assert len(server.requests) == 1


def test_nobody_listening_ends_in_one_line(server: RecordServer, tmp_path: Path) -> None:
    with record_server() as gone:
        pass
    with pytest.raises(AnomalyDetectorError, match="cannot be read") as caught:
        fetch(gone, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/api", "zenodo.org/api", "http://"])
def test_addresses_that_are_none_are_named(url: str) -> None:
    with pytest.raises(AnomalyDetectorError, match="check --api-url"):
        list_record(1, api_url=url)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        *((body, "is no record of Zenodo") for body in (b"<html>", b"[1]", b"{}", b'{"files": 3}')),
        (b'{"files": [{"key": "a"}]}', "no JSON with files of key, size and links"),
        (b'{"files": []}', "holds no file"),
    ],
)
def test_an_answer_that_is_no_record_is_named(
    answer: bytes, message: str, server: RecordServer
) -> None:
    server.record_body = answer
    with pytest.raises(AnomalyDetectorError, match=message):
        list_record(server.record_id, api_url=server.api_url)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "a\\b", ""])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, server: RecordServer) -> None:
    server.entries = [{"key": name, "size": 1, "links": {"self": "http://127.0.0.1/"}}]
    with pytest.raises(AnomalyDetectorError, match="is no plain file"):
        list_record(server.record_id, api_url=server.api_url)


def test_too_little_disk_space_is_said_before_anything_is_downloaded(
    server: RecordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files = {"a.zip": bytes(2_000_000), "b.bin": bytes(1_000_000)}
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(AnomalyDetectorError, match=r"5\.00MB free but 5\.20MB are needed"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    # What is there already needs no room again.
    (tmp_path / "b.bin.part").write_bytes(bytes(900_000))
    fetch(server, tmp_path, only=["b*"])


def test_archives_are_extracted_once(tmp_path: Path) -> None:
    content = zip_bytes({"unlabeled_set/000001_512_512.jpg": b"jpeg", "unlabeled_set/x/": b""})
    with record_server(files={"training_mixed_set.zip": content}) as server:
        fetch(server, tmp_path)
        frame = tmp_path / "training_mixed_set" / "unlabeled_set" / "000001_512_512.jpg"
        assert frame.read_bytes() == b"jpeg"
        frame.write_bytes(b"touched")
        fetch(server, tmp_path)
        assert frame.read_bytes() == b"touched"


def test_no_extract_leaves_archives_packed(tmp_path: Path) -> None:
    with record_server(files={"a.zip": zip_bytes({"a": b"a"})}) as server:
        fetch(server, tmp_path, extract=False)
    assert os.listdir(tmp_path) == ["a.zip"]


def test_only_takes_the_files_that_fit(tmp_path: Path) -> None:
    with record_server(files={"metadata.csv": b"1", "test_set.bin": b"2"}) as server:
        fetch(server, tmp_path, only=["meta*"])
        assert os.listdir(tmp_path) == ["metadata.csv"]
        with pytest.raises(AnomalyDetectorError, match=r"fits \*\.7z: it holds metadata\.csv, tes"):
            fetch(server, tmp_path, only=["*.7z"])


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "..\\evil"])
def test_zip_members_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"good": b"1", name: b"2"}))
    with pytest.raises(AnomalyDetectorError, match="leads out of the folder"):
        extract_archive(tmp_path / "a.zip", tmp_path / "a", progress=False)
    assert os.listdir(tmp_path) == ["a.zip"]


def write_tar(path: Path, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))


def test_tar_archives_are_extracted_safely(tmp_path: Path) -> None:
    good = tarfile.TarInfo("test_set/1.jpg")
    good.size = 3
    write_tar(tmp_path / "good.tar.gz", good)
    extract_archive(tmp_path / "good.tar.gz", tmp_path / "good", progress=False)
    assert (tmp_path / "good" / "test_set" / "1.jpg").read_bytes() == bytes(3)
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
    for evil in (link, tarfile.TarInfo("../evil")):
        write_tar(tmp_path / "evil.tgz", evil)
        with pytest.raises(AnomalyDetectorError, match=r"evil\.tgz"):
            extract_archive(tmp_path / "evil.tgz", tmp_path / "evil", progress=False)
        assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_damaged_archives_are_named_and_leave_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(AnomalyDetectorError, match="cannot be extracted"):
        extract_archive(tmp_path / name, tmp_path / "a", progress=False)
    assert os.listdir(tmp_path) == [name]


def test_archive_names() -> None:
    names = ["a.zip", "b.TAR.GZ", "c.tgz", "d.tar", "e.csv", ".zip"]
    assert [archive_stem(name) for name in names] == ["a", "b", "c", "d", None, None]


def test_list_shows_files_and_downloads_nothing(
    server: RecordServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(server, "--list") == 0
    printed = capsys.readouterr().out
    assert "frames.bin      3.00MB  md5 " in printed
    assert "total" in printed
    assert server.file_requests("frames.bin") == []


def test_command_downloads_with_a_progress_bar(
    server: RecordServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(server, "--out", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"record 7074958 is whole in {tmp_path}\n"
    assert "frames.bin: 100%" in captured.err
    with pytest.raises(AnomalyDetectorError, match="give --out"):
        command(server)


def test_ctrl_c_keeps_the_part_and_says_how_to_go_on(
    server: RecordServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = HTTPResponse.read

    def interrupted(response: HTTPResponse, most: int = -1) -> bytes:
        # The record itself is not interrupted.
        if most != -1 and (tmp_path / "frames.bin.part").stat().st_size:
            raise KeyboardInterrupt
        return whole(response, most)

    monkeypatch.setattr(HTTPResponse, "read", interrupted)
    assert command(server, "--out", str(tmp_path)) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    begun = (tmp_path / "frames.bin.part").stat().st_size
    assert 0 < begun < len(DATA)
    monkeypatch.setattr(HTTPResponse, "read", whole)
    assert command(server, "--out", str(tmp_path)) == 0
    assert server.file_requests("frames.bin")[-1] == f"bytes={begun}-"
    assert (tmp_path / "frames.bin").read_bytes() == DATA

"""What people said of events: read back, never lost, never overwritten unseen."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from disks import small_disk

from anomaly_detector.black_box import (
    Verdict,
    VerdictChangedError,
    find_events,
    read_verdict,
    write_verdict,
)
from anomaly_detector.black_box.events import EVENT_KIND
from anomaly_detector.errors import AnomalyDetectorError, OutputError, SourceError


@pytest.fixture
def event(tmp_path: Path) -> Path:
    folder = tmp_path / "event_20261124T065843Z_000001"
    folder.mkdir()
    (folder / "event.json").write_text(json.dumps({"kind": EVENT_KIND}))
    return folder


def test_verdict_is_read_as_it_was_written(event: Path) -> None:
    assert read_verdict(event) is None
    given = Verdict(
        "anomaly", "door, größer", "2026-11-25T07:00:00+00:00", (3, 9), "corridor", True, ("a/b",)
    )
    assert write_verdict(event, given) == given == read_verdict(event)
    assert [given.covers(number) for number in (2, 3, 9, 10)] == [False, True, True, False]
    assert sorted(path.name for path in event.iterdir()) == ["event.json", "review.json"]
    assert find_events(event.parent) == [event]
    taken_back = write_verdict(event, Verdict("unreviewed"))
    assert not taken_back.is_reviewed
    assert taken_back.when > given.when
    assert taken_back == read_verdict(event)


def test_unknown_keys_of_a_newer_version_are_kept(event: Path) -> None:
    write_verdict(event, Verdict("normal"))
    file = event / "review.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"operator": {"shift": 2}}))
    write_verdict(event, Verdict("unsure"))
    content = json.loads(file.read_text())
    assert content["operator"] == {"shift": 2}
    assert content["verdict"] == "unsure"


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"kind": "anomaly_detector review"}', "\x00", "[" * 100_000),
        *(
            json.dumps({"kind": "anomaly_detector review", "verdict": "normal"} | wrong)
            for wrong in (
                *({"kind": "other"}, {"verdict": "bad"}, {"verdict": ["normal"]}),
                *({"frames": [2, 1]}, {"frames": [0]}, {"frames": "some"}, {"frames": [0, True]}),
                *({"keep": "no"}, {"shown": 3}),
            )
        ),
    ],
)
def test_damaged_verdict_is_an_error_and_stays(event: Path, content: str) -> None:
    file = event / "review.json"
    file.write_text(content)
    for use in (read_verdict, lambda folder: write_verdict(folder, Verdict("normal"))):
        with pytest.raises(SourceError, match=rf"{file} cannot be read \(.+\): mend it"):
            use(event)
    assert file.read_text() == content


def test_link_is_not_followed(event: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"kind": "anomaly_detector review", "verdict": "normal"}))
    (event / "review.json").symlink_to(other)
    with pytest.raises(SourceError, match="no regular file"):
        write_verdict(event, Verdict("anomaly"))
    assert json.loads(other.read_text())["verdict"] == "normal"


@pytest.mark.parametrize("wrong", [Verdict("maybe"), Verdict("normal", frames=(5, 2))])
def test_wrong_verdict_is_not_written(event: Path, wrong: Verdict) -> None:
    with pytest.raises(AnomalyDetectorError):
        write_verdict(event, wrong)
    assert [path.name for path in event.iterdir()] == ["event.json"]


def test_event_that_is_gone_is_not_made_anew(event: Path) -> None:
    (event / "event.json").unlink()
    event.rmdir()
    with pytest.raises(SourceError, match="removed or moved"):
        write_verdict(event, Verdict("normal"))
    assert not event.exists()


def test_disk_that_cannot_be_written(event: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        there = Path(shutil.copytree(event, disk / event.name))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OutputError, match="not writable"):
            write_verdict(there, Verdict("normal"))
        assert read_verdict(there) is None


def test_of_many_that_saw_the_same_one_is_written(event: Path) -> None:
    results: list[Any] = []

    def judge(number: int) -> None:
        try:
            results.append(write_verdict(event, Verdict("normal", str(number)), seen=""))
        except VerdictChangedError as error:
            results.append(str(error))

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (written,) = (item for item in results if isinstance(item, Verdict))
    assert read_verdict(event) == written
    assert sum("judged normal on another page" in str(item) for item in results) == 7
    later = write_verdict(event, Verdict("anomaly"), seen=written.when)
    assert read_verdict(event) == later

"""The review page's server: what it shows, what it writes, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from black_box_frames import event_json
from conftest import make_drive, preprocessed
from disks import small_disk
from numpy.typing import NDArray
from review_server import Server, make_box, name_of, review_server, write_map

from anomaly_detector.black_box import Verdict, read_event, read_verdict, write_verdict
from anomaly_detector.cli.main import main
from anomaly_detector.images.mask import MaskSource
from anomaly_detector.images.preprocessing import WHOLE_FRAME
from anomaly_detector.recordings import open_source
from anomaly_detector.review.catalog import Catalog
from anomaly_detector.review.likeness import Likeness
from anomaly_detector.review.pictures import Pictures
from anomaly_detector.review.server import is_own_host

SECRET = b"nobody may read this"
NO_UTF8 = os.fsdecode(b"n\xf6tes")


def hashes(folder: Path) -> dict[str, str]:
    """Return the contents of all files below a folder but verdicts, by path."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "review.json"
    }


def decoded(data: bytes) -> NDArray[np.uint8]:
    """Return an encoded picture's pixels, BGR."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[SimpleNamespace]:
    """A server of two robots' boxes, one on a disk that cannot be written, and much that is wrong.

    Nothing but verdicts may have changed at the end.
    """
    root = tmp_path_factory.mktemp("review")
    (root / "secret.txt").write_bytes(SECRET)
    anna, berta = root / "anna", root / "berta"
    events = make_box(anna, 4), make_box(berta, 2, "mcap")
    half, foreign = anna / "event_20261124T065843Z_000099", anna / NO_UTF8
    half.mkdir()
    foreign.mkdir()
    (anna / ".black_box_x").mkdir()
    (anna / "linked").symlink_to(events[1][0])
    damaged = anna / "event_20261124T065843Z_000098"
    damaged.mkdir()
    content = event_json(events[0][0])
    (damaged / "event.json").write_text(json.dumps(content | {"peak": None}))
    judged = anna / "judged"
    shutil.copytree(events[0][0], judged)
    (judged / "review.json").write_text("{")
    # An event whose event.json names files elsewhere, and one that is a link.
    evil = anna / "evil"
    evil.mkdir()
    names = ["../../secret.txt", str(root / "secret.txt"), "link.jpg", "..", "pipe.jpg"]
    (evil / "link.jpg").symlink_to(root / "secret.txt")
    os.mkfifo(evil / "pipe.jpg")
    rows = [row | {"name": name} for row, name in zip(content["frames"], names, strict=False)]
    (evil / "event.json").write_text(json.dumps(content | {"frames": rows}))
    # The training folder beside a model.
    trained = root / "model.onnx"
    shutil.copy(model, trained)
    (root / "model.training").mkdir()
    webp = [cv2.imencode(".webp", image)[1].ravel() for image in preprocessed(make_drive(30))]
    np.savez(
        root / "model.training" / "past.npz",
        images=np.concatenate(webp),
        images_lengths=[len(item) for item in webp],
    )
    with ExitStack() as stack:
        folders = [anna, berta]
        locked = None
        if os.geteuid() == 0:
            disk = stack.enter_context(small_disk(root / "disk", "4m"))
            locked = disk / "carla"
            shutil.copytree(events[0][0], locked / events[0][0].name)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            folders.append(locked)
        options = ["--model", str(trained), "--map", str(write_map(root))]
        before = hashes(root)
        server = stack.enter_context(review_server(folders, *options))
        yield SimpleNamespace(
            server=server, root=root, anna=events[0], berta=events[1], locked=locked
        )
        assert hashes(root) == before


def test_events_of_both_formats_and_what_is_wrong_are_listed(place: SimpleNamespace) -> None:
    found = place.server.json("/api/events")
    assert [found["model"], found["normal"]] == ["grey_difference", True]
    events = {k: v for k, v in place.server.events().items() if v["folder"] != "carla"}
    assert len(events) == 8
    first = events[name_of(place.anna[0])]
    content = event_json(place.anna[0])
    assert first["folder"] == "anna"
    assert first["time"] == content["start_stamp_ns"] / 1e9
    assert first["seconds"] == pytest.approx(0.95)
    assert (first["score"], first["threshold"], first["model"]) == (1.6, 1.0, "corridor")
    assert (first["verdict"], first["writable"]) == (None, True)
    assert first["picture"] == f"{first['name']}/{content['peak']['frame']}"
    assert events[name_of(place.berta[0])]["folder"] == "berta"
    assert "cannot be read" in events["anna/judged"]["problem"]
    problems = {Path(path).name: reason for path, reason in found["problems"]}
    assert problems == {
        "event_20261124T065843Z_000099": "it has no event.json: half an event; copy it again",
        "event_20261124T065843Z_000098": problems["event_20261124T065843Z_000098"],
        NO_UTF8: "it is no event of the black box",
        ".black_box_x": "an event is being written here, or was when the power went",
        "linked": "it is a link, and links are not followed",
    }
    assert "event.json" in problems["event_20261124T065843Z_000098"]
    status, data, _ = place.server.ask(f"/api/events?version={found['version']}")
    assert (status, data) == (204, b"")


def test_pictures_are_those_recorded_and_small_and_with_the_overlay(
    place: SimpleNamespace,
) -> None:
    events = place.server.events()
    for path in (place.anna[1], place.berta[1]):
        event = events[name_of(path)]
        frames = place.server.json(f"/api/events/{event['id']}")["frames"]
        recorded = read_event(path)
        assert [row["score"] for row in frames] == [frame.score for frame in recorded.frames]
        assert [row["phase"] for row in frames] == [frame.phase for frame in recorded.frames]
        assert (frames[0]["t"], round(frames[1]["t"], 6)) == (0.0, 0.05)
        truth = [item.pixels.array for item in open_source(path)]
        # Back, too: a film of a bag is read ahead.
        for number in (1, len(frames) - 1, 0):
            status, data, headers = place.server.ask(f"/full/{event['id']}/{number}")
            assert (status, headers["content-type"]) == (200, "image/jpeg")
            assert np.abs(decoded(data).astype(int) - truth[number]).mean() < 1
        sizes = []
        for how in ("small", "overlay", "nearest"):
            status, data, headers = place.server.ask(f"/{how}/{event['id']}/{event['peak']}")
            assert status == 200, data
            assert "max-age" in headers["cache-control"]
            sizes.append(decoded(data).shape[1])
        assert sizes == [320, 3 * truth[0].shape[1], 256]
    for wrong in ("/full/0123/0", f"/full/{event['id']}/9999", f"/other/{event['id']}/0"):
        assert place.server.ask(wrong)[0] == 404


def test_nothing_outside_of_the_folders_is_served(place: SimpleNamespace) -> None:
    evil = place.server.events()["anna/evil"]
    paths = [f"/{how}/{evil['id']}/{n}" for how in ("full", "small", "overlay") for n in range(5)]
    for text in ("..", "%2e%2e", "..%2f..", "%2e%2e%2f%2e%2e"):
        paths += [f"/{text}/secret.txt", f"/full/{text}/secret.txt", f"/full/{evil['id']}/{text}"]
    paths += [f"/full/{place.root}/0", "//etc/passwd", "/review.js/../server.py", "/server.py"]
    paths += [f"/api/events/{place.root}", "/page/review.html", "/full/../../secret.txt/0"]
    for path in paths:
        status, data, _ = place.server.ask(path)
        assert status in (404, 409), path
        assert SECRET not in data
        assert b"root:" not in data


def test_other_sites_and_names_are_refused(place: SimpleNamespace) -> None:
    server: Server = place.server
    event = server.events()[name_of(place.anna[2])]
    verdict = {"verdict": "anomaly", "events": [{"id": event["id"], "seen": None}]}
    own = f"127.0.0.1:{server.port}"
    for headers in (
        {"host": f"evil.example:{server.port}"},
        {"host": ""},
        {"host": f"127.0.0.1.evil.example:{server.port}"},
        {"host": own, "origin": "http://evil.example"},
        {"host": own, "origin": f"http://localhost:{server.port}"},
        {"host": own, "origin": "null"},
    ):
        for path, content in (("/", None), ("/api/events", None), ("/api/verdicts", verdict)):
            status, data, _ = server.ask(path, content, headers)
            assert status == 403, (headers, path)
            assert b"anna" not in data
    text = {"content-type": "text/plain"}  # what a form elsewhere can send
    assert server.ask("/api/verdicts", verdict, text)[0] == 415
    assert server.ask("/api/verdicts", {"x": "y" * 3_000_000})[0] == 413
    assert read_verdict(place.anna[2]) is None
    status, _, headers = server.ask("/", None, {"host": own, "origin": f"http://{own}"})
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("header", "host", "own"),
    [
        ("localhost:1", "127.0.0.1", True),
        ("[::1]:8765", "::1", True),
        ("10.0.0.5:8765", "127.0.0.1", False),
        ("10.0.0.5:8765", "0.0.0.0", True),
        ("robot.example:8765", "0.0.0.0", False),
        ("robot.example:8765", "robot.example", True),
        (f"{socket.gethostname()}:8765", "0.0.0.0", True),
        ("", "127.0.0.1", False),
    ],
)
def test_own_hosts(header: str, host: str, own: bool) -> None:
    assert is_own_host(header, host) is own


def test_verdicts_are_written_and_none_is_lost_unseen(place: SimpleNamespace) -> None:
    server: Server = place.server
    path = place.anna[1]
    event = server.events()[name_of(path)]
    before = server.json("/api/events")["version"]

    def judge(verdict: str, seen: str | None, **more: Any) -> Any:
        events = [{"id": event["id"], "seen": seen}]
        return server.json("/api/verdicts", {"verdict": verdict, "events": events, **more})

    first = judge("normal", "", note="a dôor", frames=[3, 8], keep=True)["written"][event["id"]]
    on_disk = read_verdict(path)
    assert on_disk == Verdict("normal", "a dôor", first["when"], (3, 8), "grey_difference", True)
    # Another page, which has not seen it yet.
    answer = judge("anomaly", "")
    assert answer["written"] == {}
    assert "was judged normal on another page meanwhile" in answer["refused"][event["id"]]
    assert read_verdict(path) == on_disk
    assert server.json("/api/events")["version"] != before
    # Written by another program.
    write_verdict(path, Verdict("unsure"))
    answer = judge("anomaly", first["when"])
    assert "was judged unsure" in answer["refused"][event["id"]]
    now = server.events()[name_of(path)]["verdict"]
    assert now["verdict"] == "unsure"
    judge("unreviewed", now["when"])
    assert server.events()[name_of(path)]["verdict"]["verdict"] == "unreviewed"
    for wrong in (
        {"verdict": "fine", "events": [{"id": event["id"], "seen": None}]},
        {"verdict": "normal", "frames": [9, 2], "events": [{"id": event["id"], "seen": None}]},
    ):
        assert event["id"] in server.json("/api/verdicts", wrong)["refused"]
    gone = {"verdict": "normal", "events": [{"id": "no", "seen": None}]}
    assert "is gone" in server.json("/api/verdicts", gone)["refused"]["no"]
    wrongs: list[Any] = [{}, [], {"verdict": "normal", "events": []}, {"verdict": "normal"}]
    for nonsense in wrongs:
        assert server.ask("/api/verdicts", nonsense)[0] == 400
    assert json.loads((path / "review.json").read_text())["verdict"] == "unreviewed"


def test_a_verdict_of_another_program_right_after_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(path: Path, verdict: Verdict, **options: Any) -> None:
        write_verdict(path, verdict, **options)
        write_verdict(path, Verdict("unsure"))

    make_box(tmp_path / "box", 1)
    catalog = Catalog([tmp_path / "box"])
    catalog.look()
    (key,) = catalog.entries
    monkeypatch.setattr("anomaly_detector.review.catalog.write_verdict", overtaken)
    now = catalog.judge(key, Verdict("normal"), "").verdict
    assert now is not None
    assert now.verdict == "unsure"


def test_a_group_is_judged_as_far_as_it_was_shown(place: SimpleNamespace) -> None:
    server: Server = place.server
    found = server.events()
    events = [found[name_of(path)] for path in place.berta]
    shown = [events[0]["picture"]]
    content = {
        "verdict": "normal",
        "shown": shown,
        "events": [{"id": event["id"], "seen": ""} for event in events],
    }
    answer = server.json("/api/verdicts", content)
    assert list(answer["written"]) == [events[0]["id"]]
    assert answer["refused"] == {events[1]["id"]: "its picture was not on the screen"}
    verdict = read_verdict(place.berta[0])
    assert verdict is not None
    assert verdict.shown == tuple(shown)
    assert read_verdict(place.berta[1]) is None


def test_a_folder_that_cannot_be_written_is_said(place: SimpleNamespace) -> None:
    if place.locked is None:
        pytest.skip("no permission to mount")
    (event,) = (e for e in place.server.json("/api/events")["events"] if e["folder"] == "carla")
    assert event["writable"] is False
    content = {"verdict": "normal", "events": [{"id": event["id"], "seen": ""}]}
    answer = place.server.json("/api/verdicts", content)
    assert "not writable" in answer["refused"][event["id"]]
    assert answer["written"] == {}


def test_events_that_look_alike_are_in_one_group(place: SimpleNamespace) -> None:
    server: Server = place.server
    ids = [server.events()[name_of(path)]["id"] for path in place.anna]
    while (found := server.json("/api/groups?alike=0.97"))["waiting"]:
        pass
    groups = {key: number for number, group in enumerate(found["groups"]) for key in group}
    assert found["by"] == "pictures of 8x8 cells: model.onnx has no encoder"
    # The last event is of the same place as the first one.
    assert groups[ids[0]] == groups[ids[3]]
    assert len({groups[key] for key in ids}) == 3
    assert len(server.json("/api/groups?alike=-1")["groups"]) == 1
    assert server.ask("/api/groups?alike=x")[0] == 400


def test_an_event_is_in_a_group_or_waits(tmp_path: Path) -> None:
    class DescribedMeanwhile(dict[Any, Any]):
        """What is not there when it is asked for is there right after."""

        def get(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            self.setdefault(key, np.ones(3, np.float32))
            return found

    make_box(tmp_path / "box", 2)
    catalog = Catalog([tmp_path / "box"])
    catalog.look()
    likeness = Likeness(catalog, Pictures(), None)
    likeness._vectors = DescribedMeanwhile()
    groups, waiting = likeness.groups(0.9)
    assert sum(map(len, groups)) + waiting == 2


def test_heat_that_stays_at_its_pixels_proposes_a_mask(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    server: Server = place.server
    events = server.events()
    first, second, third, last, *berta = (
        events[name_of(path)]["id"] for path in (*place.anna, *place.berta)
    )
    found = server.json("/api/mask", {"events": [first, last, *berta]})["proposal"]
    pictures = [
        decoded(base64.b64decode(found[name].partition("base64,")[2]))
        for name in ("mask", "picture")
    ]
    # The red stripe is rows 0 to 19 of frames of 120x90.
    mask = pictures[0][:, :, 0]
    assert mask.shape == (90, 120)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[:19].all()
    assert not mask[30:].any()
    file = tmp_path / "mask.png"
    file.write_bytes(base64.b64decode(found["mask"].partition("base64,")[2]))
    assert MaskSource(file).ignored(120, 90, WHOLE_FRAME)[:14].all()
    assert pictures[1].shape == (240, 320, 3)
    assert str(place.root / "model.onnx") in found["command"]
    assert "--mask mask.png" in found["command"]
    # What is elsewhere in each, and what is of too few events, has none.
    for keys in ([first, second, third, last], [first, last]):
        assert server.json("/api/mask", {"events": keys}) == {"proposal": None}
    wrongs: list[Any] = [{}, {"events": ["no"]}, {"events": 3}, []]
    for nonsense in wrongs:
        assert server.ask("/api/mask", nonsense)[0] == 400


def test_events_are_on_the_plan_where_they_were(place: SimpleNamespace) -> None:
    server: Server = place.server
    (plan,) = server.json("/api/plans")["plans"]
    assert plan["frame_id"] == "map"
    # The peak comes after 29 frames of 20 a second, at 1 m in ten seconds.
    for number, path in enumerate(place.anna):
        key = server.events()[name_of(path)]["id"]
        assert plan["events"][key] == pytest.approx([number + 0.145, -2.0])
    assert (plan["x"][0], plan["y"]) == (0.0, [-2.0, -2.0])
    assert plan["map"] == {"x": -1.0, "y": -3.0, "yaw": 0.0, "width": 8.0, "height": 4.0}
    _, data, headers = server.ask("/map")
    assert headers["content-type"] == "image/png"
    assert decoded(data).shape == (40, 80, 3)


def test_every_verdict_that_was_confirmed_is_there_after_a_kill(tmp_path: Path) -> None:
    (first,) = make_box(tmp_path / "one", 1, "mcap")
    box = tmp_path / "box"
    for number in range(100):
        shutil.copytree(first, box / f"event_20261124T065843Z_{number:06d}")
    confirmed: dict[str, str] = {}
    with review_server([box]) as server:
        events = server.events()
        kill_at = random.Random(5).randrange(30, 60)
        killed = threading.Event()

        def kill() -> None:
            killed.wait(30)
            server.process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        for number, (name, event) in enumerate(events.items()):
            if number == kill_at:
                killed.set()
            if number == len(events) - 1:
                thread.join()  # it may not run for a while
            verdict = ("normal", "anomaly", "unsure")[number % 3]
            content = {"verdict": verdict, "events": [{"id": event["id"], "seen": ""}]}
            try:
                answer = server.json("/api/verdicts", content)
            except (OSError, AssertionError, ValueError):
                break
            if answer["written"]:
                confirmed[name] = verdict
        killed.set()
        thread.join()
    assert len(confirmed) >= kill_at
    for name in events:
        found = read_verdict(box.parent / name)  # whole or not there, and never half
        assert found is not None or name not in confirmed
        if name in confirmed:
            assert found is not None
            assert found.verdict == confirmed[name]
    assert len(confirmed) < 100, "the kill came too late to prove anything"


def test_a_server_that_was_suspended_can_be_ended(tmp_path: Path) -> None:
    """As by Ctrl-Z and ``kill %1``."""
    with review_server([tmp_path]) as server:
        server.process.send_signal(signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        assert server.process.wait(30) == 143


def test_wrong_command_lines_are_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, reason in (
            ([str(tmp_path / "no")], "is not there: give folders of the robot's black box"),
            ([str(table)], "is no folder: give folders of the robot's black box"),
            ([str(tmp_path), "--model", "attic"], "model 'attic'"),
            ([str(tmp_path), "--scores", str(table)], "is no table of scores"),
            ([str(tmp_path), "--scores", str(tmp_path)], "is no table of scores (Is a directory)"),
            ([str(tmp_path), "--map", str(table)], "cannot be read (it has no names)"),
            ([str(tmp_path), "--port", port], f"cannot listen on 127.0.0.1 port {port}"),
            ([str(tmp_path), "--port", "99999"], "cannot listen"),
            ([str(tmp_path), "--host", "no.such.host.invalid"], "cannot listen"),
        ):
            assert main(["review", *arguments]) == 1
            error = capsys.readouterr().err.splitlines()
            assert error[-1].startswith("error: ")
            assert reason in error[-1]

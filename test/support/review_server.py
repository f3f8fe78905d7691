"""The review page's real server in a process of its own, and events for it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from black_box_frames import Drive, events_in, open_box
from conftest import START_NS, make_drive

from anomaly_detector.images.image import Image
from anomaly_detector.poses import Place, Pose

HOUR_NS = 3_600_000_000_000


def make_box(folder: Path, events: int, format_name: str = "jpeg") -> list[Path]:
    """Record so many events, an hour apart; the last looks like the first, others do not."""
    frames = make_drive(60 * events)
    for number in range(events):
        look = number % max(1, events - 1)

        def make(index: int, look: int = look) -> Image:
            picture = frames[index].copy()
            picture[20 * look : 20 * look + 20] = 255, 0, 0
            return Image(picture, "rgb")

        def place(stamp_ns: int, number: int = number) -> Place:
            seconds = (stamp_ns - START_NS) % HOUR_NS / 1e9
            return Place(Pose(stamp_ns, "map", number + seconds / 10, -2.0, 0.0, 0.0), 0.0)

        with open_box(folder, format_name, max_rate_hz=20.0) as box:
            drive = Drive(box, start_ns=START_NS + number * HOUR_NS, place=place)
            drive.feed([0.4, 0.5, 0.6, 0.7] * 5, make)
            drive.feed([1.5] * 9 + [1.6 + number / 10] + [1.5] * 10, make)
            drive.feed([0.4, 0.5, 0.6, 0.7] * 5, make)
    return events_in(folder)


def write_map(folder: Path) -> Path:
    """Write a ROS map of 8 by 4 m whose corner is at -1, -3."""
    cv2.imwrite(str(folder / "floor.pgm"), np.full((40, 80), 254, np.uint8))
    path = folder / "floor.yaml"
    path.write_text("image: floor.pgm\nresolution: 0.1\norigin: [-1.0, -3.0, 0.0]\n")
    return path


def name_of(event: Path) -> str:
    """Return an event's name with that of its box: two robots may record in the same second."""
    return f"{event.parent.name}/{event.name}"


class Server:
    """A running server, as a browser on this machine asks it.

    Attributes:
        port: that it listens on.
        process: its process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        self.port = int(line.split("/")[2].rpartition(":")[2])
        self.url = line.split()[0]
        self.process = process

    def ask(
        self, path: str, content: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of an answer; content is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"content-type": "application/json", **(headers or {})}
        connection.putrequest("GET" if content is None else "POST", path, skip_host="host" in sent)
        body = b"" if content is None else json.dumps(content).encode()
        for name, value in {**sent, "content-length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data, {k.lower(): v for k, v in response.getheaders()}

    def json(self, path: str, content: Any = None) -> Any:
        """Return what a good answer says."""
        status, data, _ = self.ask(path, content)
        assert status == 200, data
        return json.loads(data)

    def events(self) -> dict[str, Any]:
        """Return all events by :func:`name_of` their folders."""
        found = self.json("/api/events")["events"]
        return {f"{event['folder']}/{event['name']}": event for event in found}


@contextmanager
def review_server(folders: Sequence[Path], *options: str) -> Iterator[Server]:
    """Start the command, and end it."""
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    command = [sys.executable, "-m", "anomaly_detector", "review", *map(str, folders)]
    with subprocess.Popen(
        [*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()

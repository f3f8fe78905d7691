"""What the review page costs with many events, against its bars.

    python -m benchmarks.review_load

Makes the events itself, half of them as bags, and asks the real server as a browser does: the
first page with the pictures on its screen, all other pictures, verdicts one after the other, many
requests at once, what if over all events.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anomaly_detector.alarms.alarm_filter import AlarmFilter, AlarmSettings
from anomaly_detector.black_box import BlackBox, BlackBoxFrame, BlackBoxSettings, EncodedPicture
from anomaly_detector.model.detector import Detection
from benchmarks.common import options, run

FIRST_PAGE_S, VERDICT_MS, MEMORY_MB = 2.0, 50.0, 300.0
AT_ONCE = 200
_ON_SCREEN = 24
_SCENES = 10
_FPS = 20
_START_NS = 1_760_000_000_000_000_000


def make_events(folder: Path, events: int, boxes: int, seed: int = 0) -> None:
    """Make black boxes with events: a few are recorded, the others copies at other times."""
    generator = np.random.default_rng(seed)
    scenes = []
    for number in range(_SCENES):
        place = folder / "scenes" / str(number)
        kind = "mcap" if number % 2 else "jpeg"
        noise = generator.integers(0, 256, (6, 8, 3), np.uint8)
        picture = np.asarray(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8)
        with BlackBox(BlackBoxSettings(str(place), kind, seconds_before=2.0), model="m") as box:
            decide = AlarmFilter(AlarmSettings(mode="off"))
            for index in range(5 * _FPS):
                value = 0.5 + 0.01 * (index % 7) + (index >= 50) * (1.0 + 0.05 * number)
                scored = Detection(
                    value, min(1.0, value / 2), 1.0, value >= 1.0, np.zeros((1, 1), np.float32), 1.0
                )
                _, data = cv2.imencode(".jpg", np.roll(picture, 5 * index, axis=1))
                stamp_ns = _START_NS + index * 1_000_000_000 // _FPS
                state = decide.update(scored, stamp_ns=stamp_ns)
                while box.statistics.frames_waiting > 8:
                    time.sleep(0.001)
                box.add(
                    BlackBoxFrame(EncodedPicture("jpeg", bytes(data)), scored, state, stamp_ns, 0)
                )
        scenes.append(next(place.glob("event_*")))
    for number in range(events):
        scene = scenes[number % _SCENES]
        name = f"event_20261124T{number // 3600 % 24:02d}{number // 60 % 60:02d}{number % 60:02d}Z"
        target = folder / f"robot_{number % boxes:02d}" / f"{name}_{number + 1:06d}"
        shutil.copytree(scene, target)
        content = json.loads((target / "event.json").read_text())
        later = number * 613_000_000_000
        for place in (content, content["peak"], *content["frames"]):
            for key in place:
                if key.endswith("stamp_ns"):
                    place[key] += later
        (target / "event.json").write_text(json.dumps(content, indent=1))
    shutil.rmtree(folder / "scenes")


class Client:
    """Asks a server over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, content: Any = None) -> bytes:
        """Return the answer; anything but 200 is an error."""
        headers = {"content-type": "application/json"}
        body = None if content is None else json.dumps(content)
        self._connection.request("GET" if content is None else "POST", path, body, headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {data[:200]!r}")
        return data


def first_page(port: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the seconds until the list is there with the pictures on its screen, and the list."""
    start = time.perf_counter()
    client = Client(port)
    for path in ("/", "/review.css", "/review.js", "/tools.js"):
        client.ask(path)
    events = json.loads(client.ask("/api/events?version="))["events"]
    newest = sorted(events, key=lambda event: event["time"], reverse=True)[:_ON_SCREEN]
    with ThreadPoolExecutor(6) as pool:  # as many connections as a browser opens
        list(pool.map(lambda e: Client(port).ask(f"/small/{e['id']}/{e['peak']}"), newest))
    return time.perf_counter() - start, events


def memory_mb(pid: int) -> float:
    """Return the most memory that a process had so far, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1]) / 1e3


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], bool]:
    """Measure, print, and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_events(folder, arguments.events, arguments.boxes)
        command = [sys.executable, "-m", "anomaly_detector", "review"]
        command += map(str, folder.iterdir())
        with subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline().split("/")[2].rpartition(":")[2])
                figures = _measured(port, process.pid)
            finally:
                process.terminate()
    bars = {
        "first_page_s": FIRST_PAGE_S,
        "verdict_ms_worst": VERDICT_MS,
        "memory_mb": MEMORY_MB,
    }
    for key, value in figures.items():
        bar = f"  (bar: {bars[key]:g})" if key in bars else ""
        print(f"{key:24} {value:10.3f}{bar}")
    return figures, all(figures[key] <= bar for key, bar in bars.items())


def _measured(port: int, pid: int) -> dict[str, float]:
    figures: dict[str, float] = {"load_average": os.getloadavg()[0]}
    figures["start_cpu_s"] = before = cpu_s(pid)
    figures["first_page_s"], events = first_page(port)
    figures["first_page_cpu_s"] = cpu_s(pid) - before
    figures["second_page_s"], _ = first_page(port)
    client = Client(port)
    start = time.perf_counter()
    for event in events:
        client.ask(f"/small/{event['id']}/{event['peak']}")
    figures["picture_ms"] = 1e3 * (time.perf_counter() - start) / len(events)
    costs, spent = [], cpu_s(pid)
    for event in events[:200]:
        start = time.perf_counter()
        content = {"verdict": "normal", "events": [{"id": event["id"], "seen": ""}]}
        answer = json.loads(client.ask("/api/verdicts", content))
        costs.append(1e3 * (time.perf_counter() - start))
        assert answer["written"], answer
    figures["verdict_cpu_ms"] = 1e3 * (cpu_s(pid) - spent) / len(costs)
    figures["verdict_ms_median"] = float(np.median(costs))
    figures["verdict_ms_worst"] = max(costs)
    start = time.perf_counter()
    paths = [f"/full/{event['id']}/{event['peak']}" for event in events[:AT_ONCE]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda path: Client(port).ask(path), paths))
    figures["at_once"] = float(sum(len(data) > 1000 for data in answers))
    figures["at_once_s"] = time.perf_counter() - start
    start = time.perf_counter()
    chosen = {"threshold": 1.2, "alarm": {}, "events": [event["id"] for event in events]}
    client = Client(port)  # the server closes a connection that says nothing for 5 s
    client.ask("/api/what-if", chosen)
    figures["what_if_s"] = time.perf_counter() - start
    start = time.perf_counter()
    while json.loads(client.ask("/api/groups?alike=0.9"))["waiting"]:
        time.sleep(0.1)
    figures["alike_s"] = time.perf_counter() - start
    figures["memory_mb"] = memory_mb(pid)
    return figures


def main() -> int:
    """Run the command line and return the exit code."""
    parser = options(__doc__)
    parser.add_argument("--events", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--boxes", type=int, default=20, help="folders (%(default)s)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())

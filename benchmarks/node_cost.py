"""What a frame costs in the node of this checkout over that of an earlier revision, in one run.

    python -m benchmarks.node_cost --against REVISION

Both nodes run by turns, each with the shipped model, a camera of 640x480 rgb8 in a process of its
own and nobody who subscribes but to /diagnostics. Work is the node's own ``Processing time p50``:
from a message in hand to the results sent. Processor time is that of the whole process, timers and
threads included. Exit code 1 when work is more than 1.05 times that before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anomaly_detector.benchmarking.machine import process_usage
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.benchmarking.live import running
from anomaly_detector.ros.graph.dds import large_image_environment
from anomaly_detector.ros.node.status_message import status_values
from anomaly_detector.ros.tools.tool_node import domain_id, spinning, tool_node
from benchmarks.common import judge, options, print_table, run

BAR = 1.05
_HERE = Path(__file__).parents[1]
_WARM_UP = 60  # frames
_START_S = 60.0


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Have a work tree of a revision while the block runs.

    Raises:
        AnomalyDetectorError: there is no such revision, or no git checkout.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        git = ["git", "-C", str(_HERE), "worktree"]
        made = subprocess.run(
            [*git, "add", "--detach", str(tree), revision], capture_output=True, text=True
        )
        if made.returncode:
            raise AnomalyDetectorError(f"--against {revision}: {made.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def cost(root: Path, seconds: float) -> tuple[float, float]:
    """Run the node of a checkout; return its work and its processor time a frame, ms."""
    environment = os.environ | {"PYTHONPATH": str(root), "ROS_DOMAIN_ID": str(domain_id())}
    os.environ["ROS_DOMAIN_ID"] = environment["ROS_DOMAIN_ID"]
    samples: list[tuple[int, float, str]] = []
    node_command = [sys.executable, "-m", "anomaly_detector.ros.detector_node", "--ros-args"]
    node_command += ["-p", "model:=corridor", "--log-level", "error"]
    camera_command = [sys.executable, "-m", "anomaly_detector.ros.benchmarking.camera"]
    with tempfile.TemporaryDirectory() as folder, running(node_command, environment) as node:

        def keep(message: Any) -> None:
            for status in message.status:
                values = status_values(status)
                if "Frames scored" in values:
                    cpu_s = process_usage(node.pid)[0]
                    sample = int(values["Frames scored"]), cpu_s
                    samples.append((*sample, values["Processing time p50 (ms)"]))

        def wait_for(frames: int) -> None:
            deadline = time.monotonic() + _START_S + seconds
            while not samples or samples[-1][0] < frames:
                if time.monotonic() > deadline or node.poll() is not None:
                    raise AnomalyDetectorError(f"the node of {root} scores no frames")
                time.sleep(0.05)

        from diagnostic_msgs.msg import DiagnosticArray

        count = round(30 * seconds)
        camera_options = {"size": "640x480", "hz": 30.0, "frames": 2 * count + 2 * _WARM_UP}
        camera_options |= {"transport": "raw", "encoding": "rgb8", "reliability": "reliable"}
        camera_options |= {"out": str(Path(folder, "sent.json"))}
        camera_command += [f"--{name}={value}" for name, value in camera_options.items()]
        with tool_node("node_cost", "nothing") as listener:
            listener.create_subscription(DiagnosticArray, "/diagnostics", keep, 10)
            with spinning(listener):
                wait_for(0)
                with running(camera_command, large_image_environment(environment)):
                    wait_for(_WARM_UP)
                    first = samples[-1]
                    wait_for(first[0] + count)
                    last = samples[-1]
    return float(last[2]), 1e3 * (last[1] - first[1]) / (last[0] - first[0])


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure both by turns, print and return their medians."""
    names = ("work p50 (ms)", "processor time (ms)")
    with checkout(arguments.against) as before:
        trees = {arguments.against: before, "now": _HERE}
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
        for _ in range(arguments.rounds):
            for name, tree in trees.items():
                costs[name].append(cost(tree, arguments.seconds))
    medians = {
        name: [statistics.median(values) for values in zip(*rows, strict=True)]
        for name, rows in costs.items()
    }
    ratios = [now / old for old, now in zip(*medians.values(), strict=True)]
    print_table(
        ("a frame", *names),
        [(name, *(f"{v:.3f}" for v in row)) for name, row in (medians | {"ratio": ratios}).items()],
    )
    met = judge({f"work at most {BAR} times that before": ratios[0] <= BAR})
    return {"medians": medians, "ratios": dict(zip(names, ratios, strict=True))}, met


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = options(__doc__)
    parser.add_argument("--against", required=True, metavar="REVISION", help="the earlier one")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(run(parser(), measure))

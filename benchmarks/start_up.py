"""What a start costs: imports, and a model from its file to its first score.

Run with ``python -m benchmarks.start_up [--model NAME] [--rounds N]``. Each round is a process of
its own; the medians are printed. Files come from the page cache after the first round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from anomaly_detector.model.shipped import resolve_model

ROOT = Path(__file__).resolve().parents[1]

STEPS = {
    "import core": "import anomaly_detector.model.detector",
    "import node": "import anomaly_detector.ros.node.node",
    "read and check the model": "anomaly_detector.model.file.read_model_file(sys.argv[1])",
    "load it and score a frame": "anomaly_detector.model.detector.Detector(sys.argv[1])",
}

SCRIPT = "import json, sys, time\nmarks = [time.perf_counter()]\n" + "".join(
    f"{statement}\nmarks.append(time.perf_counter())\n" for statement in STEPS.values()
)


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="corridor", help="model file, or name of a shipped one")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    model = str(resolve_model(arguments.model).resolve())
    rounds = []
    for _ in range(arguments.rounds):
        result = subprocess.run(
            [sys.executable, "-c", f"{SCRIPT}print(json.dumps(marks))", model],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        rounds.append(np.diff(json.loads(result.stdout)))
    medians = np.median(rounds, axis=0)
    for name, seconds in zip(STEPS, medians, strict=True):
        print(f"{name:28} {seconds * 1e3:7.1f} ms")
    print(f"{'together':28} {medians.sum() * 1e3:7.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

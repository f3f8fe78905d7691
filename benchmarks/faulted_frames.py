"""Write frames with injected faults, for scorers that learn from anomalies.

A recorded drive seldom comes with recorded anomalies. For ``training compare`` on such a drive this
puts a set of faults (:mod:`training.evaluation.faults`) on its frames, one fault a frame in turn:

    python -m benchmarks.faulted_frames --data normal_drive --set reference --out faulted
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2

from anomaly_detector.files import atomic_directory
from anomaly_detector.images.preprocessing import WHOLE_FRAME
from anomaly_detector.recordings import open_source
from benchmarks.common import options, run
from training.evaluation.faults import FAULT_SETS
from training.evaluation.stress import fault_generator, inject, numbered_frames


def write(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Write the frames, 64x64."""
    faults = [fault for fault in FAULT_SETS[arguments.set] if fault.per_frame]
    source = open_source(arguments.data, arguments.topic)
    with atomic_directory(arguments.out) as folder:
        for number, frame in numbered_frames(source, WHOLE_FRAME):
            fault = faults[number % len(faults)]
            image, _ = inject(fault, frame, fault_generator(arguments.seed, fault, number))
            name = f"{number:06d}_{fault.name}.png"
            cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    print(f"{arguments.out}: {len(source)} frames, {len(faults)} faults in turn")
    return {"frames": len(source), "faults": [fault.name for fault in faults]}, True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--topic", "--seed")
    parser.add_argument("--data", required=True, metavar="RECORDING", help="normal drive")
    parser.add_argument("--set", choices=tuple(FAULT_SETS), default="reference")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return run(parser, write)


if __name__ == "__main__":
    sys.exit(main())

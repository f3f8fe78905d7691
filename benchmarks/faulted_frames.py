"""Writes frames with injected faults, for scorers that learn from anomalies.

A recorded drive seldom comes with recorded anomalies. For ``training compare`` on such a drive this
puts a set of faults (:mod:`training.evaluation.faults`) on its frames, one fault a frame in turn:

    python -m benchmarks.faulted_frames --data normal_drive --set reference --out faulted
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory
from anomaly_detector.images.preprocessing import WHOLE_FRAME
from anomaly_detector.recordings import open_source
from training.evaluation.faults import FAULT_SETS
from training.evaluation.stress import fault_generator, inject, numbered_frames


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="SOURCE", help="normal drive")
    parser.add_argument("--topic", help="image topic, for a bag with more than one")
    parser.add_argument("--set", choices=tuple(FAULT_SETS), default="reference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the 64x64 frames")
    arguments = parser.parse_args()
    faults = [fault for fault in FAULT_SETS[arguments.set] if fault.per_frame]
    try:
        source = open_source(arguments.data, arguments.topic)
        with atomic_directory(arguments.out) as folder:
            for number, frame in numbered_frames(source, WHOLE_FRAME):
                fault = faults[number % len(faults)]
                image, _ = inject(fault, frame, fault_generator(arguments.seed, fault, number))
                name = f"{number:06d}_{fault.name}.png"
                cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except AnomalyDetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {len(source)} frames, {len(faults)} faults in turn")
    return 0


if __name__ == "__main__":
    sys.exit(main())

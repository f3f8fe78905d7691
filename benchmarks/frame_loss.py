"""Count the camera frames that are lost between a camera and the detector node.

Camera, node and listener run in processes of their own and talk over real DDS. Every answer is
matched with its frame by stamp::

    python -m benchmarks.frame_loss
    python -m benchmarks.frame_loss --no-profile     # Fast DDS as it comes

The exit code is 1 when a frame was lost.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from anomaly_detector.benchmarking.camera import parse_size
from anomaly_detector.cli.benchmark import machine
from anomaly_detector.files import atomic_path
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.ros.benchmarking.live import measure_live


def main() -> int:
    """Run the benchmark; give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--hz", type=float, default=30.0)
    parser.add_argument("--size", default="640x480", metavar="WIDTHxHEIGHT")
    parser.add_argument("--model", default="corridor", help="name or path (default: %(default)s)")
    parser.add_argument("--no-profile", action="store_true", help="leave Fast DDS as it comes")
    parser.add_argument(
        "--reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="of the camera's publisher (default: %(default)s)",
    )
    parser.add_argument(
        "--depth",
        type=int,
        default=1,
        help="frames that the node's subscription keeps while the node is busy "
        "(default: %(default)s, as the node's own)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    arguments = parser.parse_args()
    width, height = parse_size(arguments.size)
    result = measure_live(
        resolve_model(arguments.model),
        width=width,
        height=height,
        hz=arguments.hz,
        seconds=arguments.frames / arguments.hz,
        profile=not arguments.no_profile,
        reliability=arguments.reliability,
        parameters=[f"qos_overrides./image.subscription.depth:={arguments.depth}"],
        progress=True,
    )
    where = machine()
    print(
        f"{result.lost} of {result.sent} frames of {width}x{height} rgb8 at {result.hz:g} Hz lost "
        f"({result.answered} answered, {'without' if arguments.no_profile else 'with'} the "
        f"profile, load average {where['load_average']:.1f} on {where['cores']} cores)"
    )
    if arguments.json is not None:
        report = {"machine": where, "profile": not arguments.no_profile} | result.summary()
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if result.lost else 0


if __name__ == "__main__":
    sys.exit(main())

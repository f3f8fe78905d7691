"""Count the camera frames that are lost between a camera and the detector node.

Camera, node and listener run in processes of their own and talk over real DDS. Every answer is
matched with its frame by stamp::

    python -m benchmarks.frame_loss
    python -m benchmarks.frame_loss --no-profile     # Fast DDS as it comes

The exit code is 1 when a frame was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from anomaly_detector.ros.benchmarking.live import measure_live
from benchmarks.common import options, run


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Count what is lost."""
    width, height = arguments.size
    result = measure_live(
        arguments.model,
        width=width,
        height=height,
        hz=arguments.hz,
        seconds=arguments.frames / arguments.hz,
        profile=not arguments.no_profile,
        reliability=arguments.reliability,
        parameters=[f"qos_overrides./image.subscription.depth:={arguments.depth}"],
        progress=True,
    )
    print(
        f"{result.lost} of {result.sent} frames of {width}x{height} rgb8 at {result.hz:g} Hz lost "
        f"({result.answered} answered, {'without' if arguments.no_profile else 'with'} the "
        f"profile, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    )
    return {"profile": not arguments.no_profile, **result.summary()}, not result.lost


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model", "--size", "--hz")
    parser.add_argument("--frames", type=int, default=300, help="(%(default)s)")
    parser.add_argument("--no-profile", action="store_true", help="leave Fast DDS as it comes")
    parser.add_argument(
        "--reliability", choices=("reliable", "best_effort"), default="reliable",
        help="of the camera's publisher (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--depth", type=int, default=1,
        help="frames that wait while the node is busy (%(default)s, as the node's own)",
    )  # fmt: skip
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())

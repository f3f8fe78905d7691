"""Count the camera frames that are lost between a publisher and the detector node.

Publisher (the player) and node run in processes of their own and talk over real DDS. A bag of noisy
frames is written, played once, and every answer is matched with its frame by stamp::

    python benchmarks/frame_loss.py
    python benchmarks/frame_loss.py --no-profile     # Fast DDS as it comes

The exit code is 1 when a frame was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from anomaly_detector.resources import resolve_model  # noqa: E402
from anomaly_detector.ros.collector import DetectionCollector  # noqa: E402
from anomaly_detector.ros.dds import PROFILE_VARIABLES, large_image_environment  # noqa: E402

TOPIC = "/image"
NO_PROFILE = """<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <participant profile_name="none"><rtps><name>none</name></rtps></participant>
</profiles>
"""
START_S = 20.0
"""Enough for a node to start on a busy machine."""


@dataclass(frozen=True)
class Result:
    """What one run measured.

    Attributes:
        width: of the frames, pixels.
        height: of the frames, pixels.
        hz: frame rate.
        profile: the Fast DDS profile for large images was loaded.
        sent: frames published.
        answered: frames whose detection came back.
        lost: the rest.
        lost_frames: their numbers, counted from 0.
        duplicates: frames that were answered twice.
        load_average: runnable processes on this machine, mean over the last minute; well above
            ``cores``, frames are lost because the node is not given a core in time.
        cores: of this machine.
    """

    width: int
    height: int
    hz: float
    profile: bool
    sent: int
    answered: int
    lost: int
    lost_frames: list[int]
    duplicates: int
    load_average: float
    cores: int


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
        help="of the publisher (default: %(default)s)",
    )
    parser.add_argument(
        "--depth",
        type=int,
        default=1,
        help="frames that the node's subscription keeps while the node is busy "
        "(default: %(default)s, as the node's own)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    args = parser.parse_args()
    width, height = (int(number) for number in args.size.split("x"))
    result = measure(
        frames=args.frames,
        hz=args.hz,
        width=width,
        height=height,
        model=resolve_model(args.model),
        profile=not args.no_profile,
        reliability=args.reliability,
        depth=args.depth,
    )
    print(
        f"{result.lost} of {result.sent} frames of {width}x{height} rgb8 at {result.hz:g} Hz lost "
        f"({result.answered} answered, {'with' if result.profile else 'without'} the profile, "
        f"load average {result.load_average:.1f} on {result.cores} cores)"
    )
    if result.lost:
        print(f"lost frames: {', '.join(map(str, result.lost_frames))}")
    if args.json is not None:
        args.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return 1 if result.lost else 0


def measure(
    *,
    frames: int,
    hz: float,
    width: int,
    height: int,
    model: Path,
    profile: bool,
    reliability: str = "reliable",
    depth: int = 1,
) -> Result:
    """Play ``frames`` frames to a node and count the answers."""
    # A domain that nobody else is likely to use.
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    for name in PROFILE_VARIABLES:
        os.environ.pop(name, None)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stamps = write_bag(folder / "bag", frames, hz, width, height)
        collector = stack.enter_context(DetectionCollector(depth=1000))
        node = subprocess.Popen(
            [
                *(sys.executable, "-m", "anomaly_detector.ros.detector_node", "--ros-args"),
                *("-p", f"model:={model}", "--log-level", "warn"),
                *("-p", f"qos_overrides.{TOPIC}.subscription.depth:={depth}"),
            ],
            cwd=ROOT,
        )
        stack.callback(stop, node)
        if not collector.wait_for_node(START_S):
            raise SystemExit("the detector node did not start")
        environment = dict(os.environ)
        if not profile:
            # The player loads the profile by itself, unless there is one: here one that sets
            # nothing.
            nothing = folder / "nothing.xml"
            nothing.write_text(NO_PROFILE, encoding="utf-8")
            (variable,) = set(large_image_environment(environment)) - set(environment)
            environment[variable] = str(nothing)
        player = subprocess.run(
            [
                *(sys.executable, "-c", PLAYER, str(folder / "bag")),
                *("--hz", str(hz), "--reliability", reliability),
            ],
            cwd=ROOT,
            env=environment,
        )
        if player.returncode:
            raise SystemExit(f"the player ended with exit code {player.returncode}")
        collector.wait_for(frames, timeout=2.0)
        answers = [detection.stamp_ns for detection in collector.detections()]
    lost_frames = [index for index, stamp in enumerate(stamps) if stamp not in set(answers)]
    return Result(
        width=width,
        height=height,
        hz=hz,
        profile=profile,
        sent=frames,
        answered=frames - len(lost_frames),
        lost=len(lost_frames),
        lost_frames=lost_frames,
        duplicates=len(answers) - len(set(answers)),
        load_average=os.getloadavg()[0],
        cores=os.cpu_count() or 1,
    )


PLAYER = """
import argparse, sys
from anomaly_detector.ros import player
parser = argparse.ArgumentParser()
player.add_arguments(parser)
sys.exit(player.run(parser.parse_args()))
"""


def write_bag(path: Path, frames: int, hz: float, width: int, height: int) -> list[int]:
    """Write a bag of noise; give the frames' stamps, nanoseconds."""
    typestore = get_typestore(Stores.LATEST)
    types = typestore.types
    image_type = "sensor_msgs/msg/Image"
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (8, height * width * 3), dtype=np.uint8)
    stamps = []
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, image_type, typestore=typestore)
        for index in range(frames):
            stamp = 1_700_000_000_000_000_000 + round(index * 1e9 / hz)
            stamps.append(stamp)
            time_type = types["builtin_interfaces/msg/Time"]
            message = types[image_type](
                header=types["std_msgs/msg/Header"](
                    stamp=time_type(sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id="camera"
                ),
                height=height,
                width=width,
                encoding="rgb8",
                is_bigendian=0,
                step=width * 3,
                data=pictures[index % len(pictures)],
            )
            writer.write(connection, stamp, typestore.serialize_cdr(message, image_type))
    return stamps


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the node as launch does."""
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())

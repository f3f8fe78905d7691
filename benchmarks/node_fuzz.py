"""Malformed images through the real subscription, mixed with good ones.

Two nodes (raw and compressed) run in processes of their own. Every good frame must be answered with
the score that the core gives offline, no bad one may be answered, and each must be counted under
the reason that it is bad for; the processes must live and their memory stay flat::

    python -m benchmarks.node_fuzz                        # 10,000 bad, 1,000 good
    python -m benchmarks.node_fuzz --bad 200 --good 20

The exit code is 1 when anything of that did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.message import decode_compressed, decode_image
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.ros.benchmarking.live import process_usage, running_node
from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.tools.tool_node import domain_id, tool_node

Random = np.random.Generator

DEADLINE_S = 60.0
SCALING = ImageScaling(0.0, 5.0)
DEPTH = 200

BAD_BETWEEN_GOOD = 10
"""Bad frames between two good ones: the answer to the good one shows that all have been taken."""


@dataclass(frozen=True)
class Bad:
    """One malformed message, and the reasons that it may be refused for."""

    message: Any
    reasons: frozenset[str]


def picture(random: Random, height: int = 48, width: int = 64) -> Any:
    """Return a random picture, uint8 [height, width, 3]."""
    low, high = sorted(random.integers(0, 256, 2))
    return random.integers(low, high + 1, (height, width, 3), dtype=np.uint8)


def good_raw(random: Random) -> Any:
    """Return a good image in one of the common encodings, of random size and padding."""
    height, width = (int(n) for n in random.integers(2, 200, 2))
    if random.random() < 0.1:  # depth with holes
        values = random.uniform(-1, 6, (height, width)).astype(np.float32)
        values[0, : max(1, width // 2)] = random.choice(np.array([np.nan, np.inf], np.float32))
        message = Image(height=height, width=width, encoding="32FC1", step=width * 4)
        message.data = array("B", values.tobytes())
        return message
    channels, names = [(3, ("rgb8", "bgr8")), (4, ("rgba8", "bgra8")), (1, ("mono8",))][
        int(random.integers(3))
    ]
    padding = int(random.integers(0, 9))
    rows = random.integers(0, 256, (height, width * channels + padding), dtype=np.uint8)
    message = Image(height=height, width=width, encoding=str(random.choice(names)))
    message.step = rows.shape[1]
    message.data = array("B", rows.tobytes())
    return message


def good_compressed(random: Random) -> Any:
    """Return a good JPEG or PNG of random size."""
    height, width = (int(n) for n in random.integers(8, 400, 2))
    kind = ("jpeg", "png")[int(random.integers(2))]
    encoded = cv2.imencode(f".{kind}", picture(random, height, width))[1]
    return CompressedImage(format=kind, data=array("B", encoded.tobytes()))


def _raw(**changes: Any) -> Any:
    message = Image(height=48, width=64, encoding="rgb8", step=192)
    message.data = array("B", bytes(48 * 192))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def _step(random: Random) -> Bad:
    return Bad(_raw(step=int(random.integers(0, 192))), frozenset({"step"}))


def _other_step(random: Random) -> Bad:
    return Bad(_raw(step=int(random.integers(193, 2**32))), frozenset({"data", "size"}))


def _short(random: Random) -> Bad:
    data = array("B", bytes(int(random.integers(0, 48 * 192))))
    return Bad(_raw(data=data), frozenset({"data"}))


def _overlong(random: Random) -> Bad:
    data = array("B", bytes(48 * 192 + int(random.integers(1, 10_000))))
    return Bad(_raw(data=data), frozenset({"data"}))


def _zero(random: Random) -> Bad:
    name = ("height", "width")[int(random.integers(2))]
    return Bad(_raw(**{name: 0}), frozenset({"size"}))


def _giant(random: Random) -> Bad:
    sides = {
        "height": int(random.integers(2**16, 2**32)),
        "width": int(random.integers(2**16, 2**32)),
    }
    return Bad(_raw(**sides), frozenset({"size"}))


def _unknown(random: Random) -> Bad:
    names = ("", "RGB8", "rgb", "jpeg", "32FC7", "rgb8 ", "rgb8\n", "yuv", "x" * 5000, "64FC1")
    return Bad(_raw(encoding=str(random.choice(names))), frozenset({"encoding"}))


def _not_ascii(random: Random) -> Bad:
    text = "".join(chr(int(n)) for n in random.integers(0x80, 0xD7FF, 8))
    return Bad(_raw(encoding=text), frozenset({"encoding"}))


def _floats(random: Random) -> Bad:
    values = random.choice(np.array([np.nan, np.inf, -np.inf], np.float32), (48, 64))
    message = _raw(encoding="32FC1", step=256, data=array("B", values.tobytes()))
    return Bad(message, frozenset({"depth"}))


RAW_FAULTS: tuple[Callable[[Random], Bad], ...] = (
    *(_step, _other_step, _short, _overlong, _zero, _giant),
    *(_unknown, _not_ascii, _floats),
)


def _compressed(data: bytes, kind: str = "jpeg") -> Any:
    return CompressedImage(format=kind, data=array("B", data))


def _file(random: Random, kind: str) -> bytes:
    return bytes(cv2.imencode(f".{kind}", picture(random, 96, 128))[1].tobytes())


DECODE = frozenset({"decode", "data", "size", "empty"})


def _empty(random: Random) -> Bad:
    return Bad(_compressed(b""), DECODE)


def _junk(random: Random) -> Bad:
    data = bytes(random.integers(0, 256, int(random.integers(1, 3000)), dtype=np.uint8))
    return Bad(_compressed(data), DECODE)


def _truncated(random: Random) -> Bad:
    kind = ("jpeg", "png")[int(random.integers(2))]
    data = _file(random, kind)
    return Bad(_compressed(data[: int(random.integers(1, len(data) * 9 // 10))], kind), DECODE)


def _bad_png(random: Random) -> Bad:
    """A PNG whose header was hit: its checksum tells."""
    data = bytearray(_file(random, "png"))
    data[int(random.integers(8, 33))] ^= 0xFF
    return Bad(_compressed(bytes(data), "png"), DECODE)


def _bad_jpeg(random: Random) -> Bad:
    """A JPEG whose start was hit."""
    data = bytearray(_file(random, "jpeg"))
    data[0:2] = b"\x00\x00"
    return Bad(_compressed(bytes(data)), DECODE)


def _png_bomb(random: Random) -> Bad:
    """A small PNG that says it is 30,000 pixels wide and high, or more."""
    side = int(random.integers(30_000, 2**31 - 1))

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    return Bad(_compressed(data, "png"), DECODE)


def _depth_format(random: Random) -> Bad:
    message = _compressed(_file(random, "png"), "16UC1; compressedDepth png")
    return Bad(message, frozenset({"depth", "format", "encoding"}))


COMPRESSED_FAULTS: tuple[Callable[[Random], Bad], ...] = (
    *(_empty, _junk, _truncated, _bad_png, _bad_jpeg, _png_bomb),
    _depth_format,
)


@dataclass(frozen=True)
class Result:
    """What one node made of its share.

    Attributes:
        transport: ``raw`` or ``compressed``.
        bad: malformed messages sent.
        good: good frames sent.
        right: good frames that were answered once, with the score that the core gives.
        answered_bad: bad frames that were answered.
        failed: frames that the node counts as failed, by reason.
        miscounted: bad frames that were counted under a reason that they were not bad for.
        alive: the node's process ran to the end.
        first_mb: resident memory after a tenth of the frames, 10^6 bytes.
        last_mb: the same at the end.
    """

    transport: str
    bad: int
    good: int
    right: int
    answered_bad: int
    failed: dict[str, int]
    miscounted: int
    alive: bool
    first_mb: float
    last_mb: float

    @property
    def holds(self) -> bool:
        """Whether everything is as it should be, memory aside."""
        return (
            self.right == self.good
            and not self.answered_bad
            and not self.miscounted
            and sum(self.failed.values()) == self.bad
            and self.alive
        )


class Client:
    """Sends to one node and collects its answers."""

    def __init__(self, node: Any, message_type: Any, topic: str) -> None:
        self.answers: dict[int | None, list[float]] = {}
        self.values: dict[str, str] = {}
        self.publisher = node.create_publisher(message_type, topic, QoSProfile(depth=DEPTH))
        node.create_subscription(
            DiagnosticArray, "/anomaly_detector/detection", self._on_detection, DEPTH
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def _on_detection(self, message: Any) -> None:
        record = read_detection(message)
        self.answers.setdefault(record.stamp_ns, []).append(record.score)

    def _on_diagnostics(self, message: Any) -> None:
        self.values = {item.key: item.value for status in message.status for item in status.values}

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Receive until the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"not in {DEADLINE_S:g} s: {what}")
            self._executor.spin_once(timeout_sec=0.05)

    def wait_for_answer(self, stamp: int) -> None:
        """Receive until the frame with this stamp has been answered."""
        self.wait(lambda: stamp in self.answers, "the answer to a good frame")

    def close(self) -> None:
        """Receive no more."""
        self._executor.shutdown()


def fuzz(transport: str, bad: int, good: int, model: Path, seed: int, progress: bool) -> Result:
    """Send ``bad`` malformed and ``good`` good frames to one node."""
    raw = transport == "raw"
    random = np.random.default_rng((seed, raw))
    faults, make_good = (RAW_FAULTS, good_raw) if raw else (COMPRESSED_FAULTS, good_compressed)
    topic = "/image" if raw else "/image/compressed"
    qos = f"qos_overrides.{topic}.subscription"
    arguments = [
        *("-p", f"model:={model}", "-p", f"image_transport:={transport}"),
        *("-p", f"{qos}.reliability:=reliable", "-p", f"{qos}.depth:={DEPTH}"),
        # Thousands of errors are the point here.
        *("-p", "diagnostics_period:=0.2", "--log-level", "fatal"),
        *("-p", f"image_scaling:=[{SCALING.minimum}, {SCALING.maximum}]"),
    ]
    detector = Detector(model)
    wanted: dict[int, float] = {}
    bad_stamps: set[int] = set()
    reasons: Counter[frozenset[str]] = Counter()
    with ExitStack() as stack:
        node = stack.enter_context(running_node(arguments))
        own = stack.enter_context(tool_node("fuzzer", "fuzzing"))
        client = Client(own, Image if raw else CompressedImage, topic)
        stack.callback(client.close)
        client.wait(lambda: client.values.get("State") == "active", "an active node")
        client.wait(lambda: client.publisher.get_subscription_count() > 0, "its subscription")
        first_mb = 0.0
        stamp = 1_700_000_000 * 10**9
        ratio = bad / good
        with tqdm(total=bad + good, desc=transport, disable=not progress) as bar:
            sent_bad = 0
            for index in range(good):
                while sent_bad < round((index + 1) * ratio):
                    item = faults[int(random.integers(len(faults)))](random)
                    stamp += 1_000_000
                    item.message.header.stamp.sec = stamp // 10**9
                    item.message.header.stamp.nanosec = stamp % 10**9
                    bad_stamps.add(stamp)
                    reasons[item.reasons] += 1
                    client.publisher.publish(item.message)
                    sent_bad += 1
                    bar.update()
                message = make_good(random)
                stamp += 1_000_000
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
                if raw:
                    pixels = decode_image(message, scaling=SCALING)
                else:
                    pixels = decode_compressed(message, scaling=SCALING, reduced=True)
                wanted[stamp] = detector.detect(pixels).score
                client.publisher.publish(message)
                client.wait_for_answer(stamp)
                bar.update()
                if index == good // 10:
                    first_mb = process_usage(node.pid)[1]
        client.wait(
            lambda: int(client.values.get("Frames received", 0)) >= bad + good, "all are counted"
        )
        alive = node.poll() is None
        last_mb = process_usage(node.pid)[1]
        failed = {
            key.removeprefix("Frames failed (").removesuffix(")"): int(value)
            for key, value in client.values.items()
            if key.startswith("Frames failed (")
        }
    return Result(
        transport=transport,
        bad=sent_bad,
        good=good,
        right=sum(client.answers.get(stamp) == [score] for stamp, score in wanted.items()),
        answered_bad=len(bad_stamps & set(client.answers)) + len(set(client.answers) - set(wanted)),
        failed=failed,
        miscounted=miscounted(failed, reasons),
        alive=alive,
        first_mb=round(first_mb, 1),
        last_mb=round(last_mb, 1),
    )


def miscounted(failed: dict[str, int], reasons: Counter[frozenset[str]]) -> int:
    """Count the failures whose reason no sent message explains.

    Every message may be refused for any of a few reasons; the counts have to be a way of choosing
    one for each. Groups of reasons here do not overlap or are equal, or one holds the other, so
    that filling the narrowest first is enough.
    """
    left = Counter(failed)
    unexplained = 0
    for group, count in sorted(reasons.items(), key=lambda item: len(item[0])):
        for reason in sorted(group):
            taken = min(count, left[reason])
            left[reason] -= taken
            count -= taken
        unexplained += count
    return unexplained + sum(left.values())


def main() -> int:
    """Run the benchmark; give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bad", type=int, default=10_000, help="malformed messages, both kinds")
    parser.add_argument("--good", type=int, default=1_000, help="good frames among them")
    parser.add_argument("--model", default="corridor", help="name or path (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    args = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(domain_id())
    model = resolve_model(args.model)
    results = [
        fuzz(transport, args.bad // 2, args.good // 2, model, args.seed, progress=True)
        for transport in ("raw", "compressed")
    ]
    for result in results:
        print(
            f"{result.transport}: {result.right} of {result.good} good frames scored right; "
            f"{sum(result.failed.values())} of {result.bad} bad ones counted "
            f"({result.failed}), "
            f"{result.miscounted} under a wrong reason, {result.answered_bad} answered; node "
            f"{'alive' if result.alive else 'DEAD'}, "
            f"memory {result.first_mb} to {result.last_mb} MB"
        )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n")
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

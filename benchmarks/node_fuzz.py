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
import itertools
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

from anomaly_detector.benchmarking.machine import process_usage
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.message import decode_compressed, decode_image
from anomaly_detector.model.detector import Detector
from anomaly_detector.ros.benchmarking.live import NODE_COMMAND, running
from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.tools.tool_node import domain_id, tool_node
from benchmarks.common import options, run

Random = np.random.Generator
Fault = tuple[Callable[[Random], Any], set[str]]
"""Makes a malformed message, and the reasons that it may be refused for."""

DEADLINE_S = 60.0
SCALING = ImageScaling(0.0, 5.0)
DEPTH = 200


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


def _integer(random: Random, low: int, high: int) -> int:
    return int(random.integers(low, high))


def _short_or_long(random: Random, low: int, high: int) -> Any:
    return _raw(data=array("B", bytes(48 * 192 + _integer(random, low, high))))


_UNKNOWN = ("", "RGB8", "rgb", "jpeg", "32FC7", "rgb8 ", "rgb8\n", "yuv", "x" * 5000, "64FC1")


def _foreign_letters(random: Random) -> str:
    return "".join(chr(int(number)) for number in random.integers(0x80, 0xD7FF, 8))


def _no_finite_value(random: Random) -> Any:
    values = random.choice(np.array([np.nan, np.inf, -np.inf], np.float32), (48, 64))
    return _raw(encoding="32FC1", step=256, data=array("B", values.tobytes()))


RAW_FAULTS: tuple[Fault, ...] = (
    # Rows shorter than the picture, or so long that the data ends before the last.
    (lambda r: _raw(step=_integer(r, 0, 192)), {"step"}),
    (lambda r: _raw(step=_integer(r, 193, 2**32)), {"data", "size"}),
    (lambda r: _short_or_long(r, -48 * 192, 0), {"data"}),
    (lambda r: _short_or_long(r, 1, 10_000), {"data"}),
    (lambda r: _raw(**{str(r.choice(["height", "width"])): 0}), {"size"}),
    (lambda r: _raw(height=_integer(r, 2**16, 2**32), width=_integer(r, 2**16, 2**32)), {"size"}),
    (lambda r: _raw(encoding=str(r.choice(_UNKNOWN))), {"encoding"}),
    (lambda r: _raw(encoding=_foreign_letters(r)), {"encoding"}),
    (_no_finite_value, {"depth"}),
)


def _compressed(data: bytes | bytearray, kind: str = "jpeg") -> Any:
    return CompressedImage(format=kind, data=array("B", data))


def _file(random: Random, kind: str) -> bytearray:
    return bytearray(cv2.imencode(f".{kind}", picture(random, 96, 128))[1].tobytes())


def _truncated(random: Random) -> Any:
    kind = str(random.choice(["jpeg", "png"]))
    data = _file(random, kind)
    return _compressed(data[: _integer(random, 1, len(data) * 9 // 10)], kind)


def _hit_png(random: Random) -> Any:
    """Return a PNG whose header was hit: its checksum is wrong."""
    data = _file(random, "png")
    data[_integer(random, 8, 33)] ^= 0xFF
    return _compressed(data, "png")


def _png_bomb(random: Random) -> Any:
    """Return a small PNG that claims to be 30,000 pixels wide and high, or more."""
    side = _integer(random, 30_000, 2**31 - 1)

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    return _compressed(data, "png")


_DAMAGED = {"decode", "data", "size", "empty"}
COMPRESSED_FAULTS: tuple[Fault, ...] = (
    (lambda r: _compressed(b""), _DAMAGED),
    (lambda r: _compressed(r.bytes(_integer(r, 1, 3000))), _DAMAGED),
    (_truncated, _DAMAGED),
    (_hit_png, _DAMAGED),
    # A JPEG whose start was hit.
    (lambda r: _compressed(b"\x00\x00" + _file(r, "jpeg")[2:]), _DAMAGED),
    (_png_bomb, _DAMAGED),
    (
        lambda r: _compressed(_file(r, "png"), "16UC1; compressedDepth png"),
        {"depth", "format", "encoding"},
    ),
)


@dataclass(frozen=True)
class Result:
    """What one node made of its share.

    Attributes:
        transport: ``raw`` or ``compressed``.
        bad: malformed messages sent.
        good: good frames sent.
        right: good frames that were answered once, with the score that the core gives.
        answered_bad: answers to other frames than the good ones.
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


def fuzz(
    transport: str, bad: int, good: int, model: Path, seed: int, progress: bool = True
) -> Result:
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
    reasons: Counter[frozenset[str]] = Counter()
    with ExitStack() as stack:
        node = stack.enter_context(running([*NODE_COMMAND, *arguments]))
        own = stack.enter_context(tool_node("fuzzer", "fuzzing"))
        client = Client(own, Image if raw else CompressedImage, topic)
        stack.callback(client.close)
        client.wait(lambda: client.values.get("State") == "active", "an active node")
        client.wait(lambda: client.publisher.get_subscription_count() > 0, "its subscription")
        first_mb = 0.0
        stamps = itertools.count(1_700_000_000 * 10**9, 1_000_000)

        def send(message: Any) -> int:
            stamp = next(stamps)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            client.publisher.publish(message)
            bar.update()
            return stamp

        with tqdm(total=bad + good, desc=transport, disable=not progress) as bar:
            for index in range(good):
                # The answer to the good frame shows that all bad ones before it have been taken.
                while reasons.total() < round((index + 1) * bad / good):
                    make, why = faults[_integer(random, 0, len(faults))]
                    send(make(random))
                    reasons[frozenset(why)] += 1
                message = make_good(random)
                if raw:
                    pixels = decode_image(message, scaling=SCALING)
                else:
                    pixels = decode_compressed(message, scaling=SCALING, reduced=True)
                score = detector.detect(pixels).score
                stamp = send(message)
                wanted[stamp] = score
                client.wait_for_answer(stamp)
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
        bad=reasons.total(),
        good=good,
        right=sum(client.answers.get(stamp) == [score] for stamp, score in wanted.items()),
        answered_bad=len(set(client.answers) - set(wanted)),
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


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Send half of the messages to a node of each transport."""
    os.environ["ROS_DOMAIN_ID"] = str(domain_id())
    results = [
        fuzz(transport, arguments.bad // 2, arguments.good // 2, arguments.model, arguments.seed)
        for transport in ("raw", "compressed")
    ]
    for result in results:
        print(
            f"{result.transport}: {result.right} of {result.good} good frames scored right; "
            f"{sum(result.failed.values())} of {result.bad} bad ones counted ({result.failed}), "
            f"{result.miscounted} under a wrong reason, {result.answered_bad} answered; node "
            f"{'alive' if result.alive else 'DEAD'}, "
            f"memory {result.first_mb} to {result.last_mb} MB"
        )
    return {r.transport: asdict(r) for r in results}, all(r.holds for r in results)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model", "--seed")
    parser.add_argument("--bad", type=int, default=10_000, help="malformed messages, both kinds")
    parser.add_argument("--good", type=int, default=1_000, help="good frames among them")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())

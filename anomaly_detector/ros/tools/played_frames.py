"""The frames of a bag as they are played: read ahead, in even time, without what is damaged."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from anomaly_detector.errors import SourceError, as_one_line
from anomaly_detector.ordered_pool import map_in_order
from anomaly_detector.recordings import UnreadableFrame, count_frames, open_bag, to_cdr

_LOOKAHEAD_FRAMES = 16
"""Frames read ahead, so that a slow disk does not disturb the pace."""

MAX_GAP_S = 5.0
"""Longest time between two frames that is played: longer ones are mostly steps of a clock that was
set, such as from 1970 to now."""


@dataclass(frozen=True)
class PlayedFrame:
    """One recorded message, its serialized bytes, and the gap before it where that is skipped.

    ``time_s`` counts from the first one, without gaps longer than :data:`MAX_GAP_S`, and goes on
    when the bag starts again.
    """

    time_s: float
    recorded_ns: int
    cdr: bytes
    skipped: str = ""


def read_ahead(frames: Iterator[PlayedFrame]) -> Generator[PlayedFrame, None, None]:
    """Yield frames that a thread reads in advance."""
    for frame in map_in_order(lambda _: next(frames, None), count(), 1, _LOOKAHEAD_FRAMES):
        if frame is None:
            return
        yield frame


def read_frames(
    bag: Path, topic: str, message_type: str, loop: bool, unreadable: list[UnreadableFrame]
) -> Iterator[PlayedFrame]:
    """Yield the messages of a topic; what cannot be read goes into the list."""
    with open_bag(bag) as reader:
        start_s = 0.0
        while True:
            last_ns, time_s, period_s, sent = 0, 0.0, 0.0, 0
            unreadable.clear()
            for item in reader.messages(topic, (message_type,)):
                if isinstance(item, UnreadableFrame):
                    unreadable.append(item)
                    continue
                try:
                    cdr = to_cdr(item)
                except Exception as error:  # whatever a damaged payload runs into
                    name = f"{sent + count_frames(unreadable):06d}"
                    unreadable.append(UnreadableFrame(name, as_one_line(error)))
                    continue
                recorded_ns = item.time_ns
                gap_s, skipped = (recorded_ns - last_ns) / 1e9 if sent else 0.0, ""
                if 0 <= gap_s <= MAX_GAP_S:
                    period_s = gap_s
                else:
                    skipped = f"the recorder's clock steps by {gap_s:+.4g} s"
                    gap_s = MAX_GAP_S if gap_s > 0 else period_s
                    skipped += f", played as {gap_s:.4g} s"
                time_s += gap_s
                # No message holds a time after 2038, and rollovers make such ones.
                last_ns = recorded_ns if recorded_ns < 2**31 * 10**9 else last_ns + 1
                sent += 1
                yield PlayedFrame(start_s + time_s, last_ns, cdr, skipped)
            if not sent:
                reason = f": {unreadable[0]}" if unreadable else ""
                raise SourceError(f"bag {bag} has no whole message on {topic}{reason}")
            if not loop:
                return
            # The gap between the end and the start is a mean one, if there is one.
            start_s += time_s + (time_s / (sent - 1) if time_s else 1.0)

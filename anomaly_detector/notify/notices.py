"""When somebody is told: once for each alarm or trouble, and not again for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["alarm", "unknown", "camera"]


@dataclass(frozen=True)
class Notice:
    """What somebody is to be told.

    Attributes:
        kind: ``alarm``; ``unknown``, the node cannot tell; ``camera``, it is sick.
        text: one line.
        details: values for programs.
        suppressed: notices of this kind that were left out since the one before.
    """

    kind: Kind
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    suppressed: int = 0


@dataclass
class _Trouble:
    notice: Notice
    due_s: float
    is_told: bool = False


class Notices:
    """Decides what is told, from what begins and ends. All times are of one monotonic clock.

    Args:
        cooldown_s: no second notice of one kind before this is over. What lasts longer is told
            then, and what has ended meanwhile is counted.
    """

    def __init__(self, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self._troubles: dict[Kind, _Trouble] = {}
        self._told_s: dict[Kind, float] = {}
        self._suppressed: dict[Kind, int] = {}

    def is_on(self, kind: Kind) -> bool:
        """Return whether something of a kind has begun and not ended."""
        return kind in self._troubles

    def begin(self, notice: Notice, now: float, *, after_s: float = 0.0) -> None:
        """Something is wrong, to be told when it lasts for a time; what is on already goes on."""
        trouble = self._troubles.get(notice.kind)
        if trouble is None:
            self._troubles[notice.kind] = _Trouble(notice, now + after_s)
        elif not trouble.is_told:
            trouble.notice = notice  # the newest reason

    def end(self, kind: Kind, now: float) -> None:
        """It is well again."""
        trouble = self._troubles.pop(kind, None)
        if trouble is not None and not trouble.is_told and now >= trouble.due_s:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1

    def due(self, now: float) -> list[Notice]:
        """Return what is to be told now, once."""
        found = []
        for kind, trouble in self._troubles.items():
            told_s = self._told_s.get(kind)
            is_cool = told_s is None or now - told_s >= self._cooldown_s
            if trouble.is_told or now < trouble.due_s or not is_cool:
                continue
            trouble.is_told = True
            self._told_s[kind] = now
            notice = trouble.notice
            suppressed = self._suppressed.pop(kind, 0)
            found.append(Notice(kind, notice.text, notice.details, suppressed))
        return found

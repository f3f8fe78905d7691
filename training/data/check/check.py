"""What a look at drives before training tells, and the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError
from training.data.check.curve import LearningCurve, learn
from training.data.check.findings import Finding, find_faults
from training.data.check.look import FEWEST, Floats, Look, look_at
from training.data.check.patches import Encoder, encode_frames
from training.data.check.route import Route, find_route
from training.data.check.samples import Samples
from training.data.check.stretches import find_strange, strangeness
from training.data.frames import FrameSet

TWICE = 0.7
"""Share of the drive whose places are to be seen twice."""

_ANOTHER = "record another lap, and give both recordings to train --data"


@dataclass(frozen=True)
class DriveCheck:
    """What was found.

    Attributes:
        looks: what was measured on each recording.
        strangeness: of each recording, how strange the frames looked at are.
        findings: what to know, the reasons to look first.
        samples: the frames in which the robot moves.
        route: where else each of these was seen.
        curve: whether more of the drive would teach more; None where that was not measured.
    """

    looks: Sequence[Look]
    strangeness: Sequence[Floats]
    findings: Sequence[Finding]
    samples: Samples
    route: Route
    curve: LearningCurve | None

    @property
    def is_good(self) -> bool:
        """Whether there is no reason to look before training."""
        return not any(finding.counts for finding in self.findings)

    @property
    def length(self) -> str:
        """Length of the drives, in words."""
        return self._time([np.ones(len(look), bool) for look in self.looks])

    @property
    def usable(self) -> str:
        """How much of the drives is fit to be trained on, in words."""
        masks = [look.used.copy() for look in self.looks]
        for finding in self.findings:
            for item in finding.stretches if finding.spoils else ():
                masks[item.recording][item.first : item.last + 1] = False
        return self._time(masks)

    @property
    def route_text(self) -> str:
        """How much of the route was seen twice, in words."""
        return f"{self.route.share:.0%} of the route seen more than once"

    @property
    def verdict(self) -> str:
        """The verdict in one line."""
        reasons = [finding for finding in self.findings if finding.counts]
        if not reasons:
            enough = "" if self.curve is None else ", and more of it would teach little"
            return f"good: {self.usable} of {self.length} usable, {self.route_text}{enough}"
        words = {finding.is_shortage: "" for finding in reasons}
        title = " and ".join("not enough" if short else "look at it" for short in words)
        return f"{title}: {'; '.join(finding.what for finding in reasons)}"

    def _time(self, masks: Sequence[NDArray[np.bool_]]) -> str:
        pairs = list(zip(self.looks, masks, strict=True))
        if all(look.timed for look in self.looks):
            return f"{sum(mask.sum() * look.step for look, mask in pairs):.1f} s"
        return f"{sum(int(mask.sum()) * look.every for look, mask in pairs)} frames"


def check_drive(
    frames: FrameSet,
    *,
    fps: float | None = None,
    curve: bool = True,
    encode: Encoder | None = None,
) -> DriveCheck:
    """Look at drives before training.

    Args:
        frames: the drives.
        fps: frames a second of recordings without stamps.
        curve: measure the learning curve, too.
        encode: pretrained encoder, with which smaller things stand out, too.

    Raises:
        SourceError: a recording has too few frames.
    """
    for part in frames.parts:
        if len(part) < FEWEST:
            raise SourceError(
                f"{part.source} has {len(part)} frames, too few to check: give at least {FEWEST}"
            )
    looks = look_at(frames, fps)
    if (left := sum(int(look.used.sum()) for look in looks)) < FEWEST:
        raise SourceError(
            f"--exclude leaves {left} frames to look at, too few to check: leave at least {FEWEST}"
        )
    strange = strangeness(looks, encode and encode_frames(encode, frames, looks))
    samples = Samples.of(looks)
    route = find_route(samples)
    learnt = learn(samples) if curve else None
    findings = [*find_faults(looks), *find_strange(looks, strange), *_shortage(route, learnt)]
    # Of reasons to look, what ails the drive comes first; a shortage is said last.
    findings.sort(key=lambda finding: not finding.counts)
    return DriveCheck(looks, strange, findings, samples, route, learnt)


def _shortage(route: Route, curve: LearningCurve | None) -> Iterator[Finding]:
    reasons = []
    if route.share < TWICE:
        reasons.append(f"only {route.share:.0%} of the route was seen more than once")
    if curve is not None and curve.falls:
        reasons.append(str(curve))
    if reasons:
        what = "; ".join(reasons)
        yield Finding("too little", what, _ANOTHER, counts=True, is_shortage=True)


def quick_look(frames: FrameSet, sources: Sequence[str]) -> str:
    """Return what a look without the learning curve and the encoder finds, in one line or two.

    Args:
        frames: the drives; recordings that are too short are left out.
        sources: their names on the command line.
    """
    frames = frames.without([n for n, count in enumerate(frames.lengths) if count < FEWEST])
    try:
        check = check_drive(frames, curve=False)
    except SourceError:
        return f"The drive is too short to be checked: fewer than {FEWEST} frames"
    if check.is_good:
        return f"The drive looks {check.verdict}"
    return (
        f"Before you trust this model: {check.verdict}\n"
        f"python -m training check {shlex.join(sources)} shows it, and what to do"
    )

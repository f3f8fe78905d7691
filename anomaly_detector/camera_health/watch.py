"""What ails a camera, judged frame by frame against the reference of the training drive.

The rules, the first that holds counts:

- *frozen*: the picture has not changed for longer than a limit of the caller's.
- *dark*, *overexposed*: the mean level, or the share of white, of two seconds leaves the range of
  the training.
- *covered* as a whole: the picture of two seconds has lost its structure: the contrast of its
  cells, for its brightness, and its detail.
- *blurred*: even the sharpest quarter of the frames of eight seconds has less fine detail, for its
  coarse detail, than in training.
- *tilted*: the newest views that differ are more like the training's when these are turned, and
  not only because the camera points a little elsewhere.
- *covered* in part, *dirt*: over these views some cells hardly change or have lost their detail,
  for what they did in training, or show edges that stay at the same pixels. One connected part
  that reaches the edge of the picture and is large is a cover, anything else is dirt.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.camera_health.figures import Figures, Smoothing
from anomaly_detector.camera_health.look import VIEWS, Floats, Look, Views
from anomaly_detector.camera_health.parts import BlockedParts, changed_parts, lost_parts
from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.camera_health.roll import Rolls, roll_of
from anomaly_detector.stamps import format_stamp

_PERIOD_NS = 200_000_000
"""Frames that follow sooner are not looked at."""

_SLACK_NS = 20_000_000
_CONFIRMED = 5
"""Frames in a row, of those looked at, that are judged alike before it is said."""

_KEPT = 0.9
"""A cause that is said stays until the figures are so much nearer to the training's."""

_BLACK = 6.0
_PLAINLY_WHITE = 0.6
_BLANK = 0.05
_STILL_FRAMES = 15
_COVER, _DIRT = 0.21, 0.055
"""Shares of the picture: of the largest part that reaches its edge, and of all parts."""

_STILL_COVER = 0.1
"""The same share before a camera that stood in training."""

_ROLLED, _PLAINLY_ROLLED = 0.022, 0.03
"""How plain the roll has to be: of so many views without much dirt, and else."""

_ROLL_VIEWS, _MUCH_DIRT = 60, 0.1
"""Every other view of the newest 120."""

_JUDGED_VIEWS = 6
"""Views after which what they say together is judged again."""


@dataclass(frozen=True)
class Cause:
    """What can ail a camera.

    Attributes:
        what: is seen.
        strength: what the number from 0 to 1 means.
        remedy: for maintenance.
        needs_reference: whether a model without a camera reference never says it.
    """

    what: str
    strength: str
    remedy: str
    needs_reference: bool = True


CAUSES: Mapping[str, Cause] = {
    "frozen": Cause(
        "every frame shows the same picture for longer than `frozen_timeout`",
        "always 1",
        "restart the camera driver",
        needs_reference=False,
    ),
    "dark": Cause(
        "the picture is much darker than in training, or black",
        "light that is lacking, of the training's",
        "look for lamps that are out, a closed shutter, a cap on the lens, a wrong exposure",
        needs_reference=False,
    ),
    "overexposed": Cause(
        "much more of the picture is white than in training",
        "share of the picture that is white",
        "check the exposure; look for a lamp or the sun in the lens",
        needs_reference=False,
    ),
    "covered": Cause(
        "the whole picture, or a large part that reaches its edge, shows nothing of the scene",
        "share of the picture that is covered",
        "free the lens: a hand, a cloth, tape, a cap, something that hangs down",
        needs_reference=False,
    ),
    "blurred": Cause(
        "fine detail is lacking everywhere, also while the robot stands",
        "detail that is lacking, of the training's",
        "clean the lens, look for fog and grease, focus it, tighten its mount",
    ),
    "tilted": Cause(
        "the scene is rolled: upright lines lean",
        "angle over 45 degrees",
        "straighten the camera and tighten its mount",
    ),
    "dirt": Cause(
        "spots that stay at the same pixels while the robot moves: little changes there, detail "
        "is lacking, or edges stand still",
        "share of the picture that is dirty",
        "clean the lens",
    ),
}
"""Word to cause, in the order in which they are judged: the first that holds is said."""

WITHOUT_REFERENCE = tuple(word for word, cause in CAUSES.items() if not cause.needs_reference)


@dataclass(frozen=True)
class CameraState:
    """What ails the camera at one moment.

    Attributes:
        cause: key of :data:`CAUSES`; empty when nothing does.
        since_ns: onset: stamp of the first frame of the stretch in which it was judged so,
            nanoseconds.
        strength: 0 to 1, as the cause says.
    """

    cause: str = ""
    since_ns: int | None = None
    strength: float = 0.0

    @property
    def text(self) -> str:
        """The finding in one line, with what to do."""
        if self.since_ns is None:
            return "no fault is seen"
        return (
            f"{self.cause} since {format_stamp(self.since_ns)}, strength {self.strength:.2f}: "
            f"{CAUSES[self.cause].remedy}"
        )


class CameraWatch:
    """Watches the frames of one camera. Not for use from several threads at a time.

    Args:
        reference: of the model that sees the same part of the frames; None where there is none.

    Attributes:
        state: the newest.
    """

    def __init__(self, reference: CameraReference | None) -> None:
        self.state = CameraState()
        self._reference = reference
        self._smoothing = Smoothing()
        self._views = Views() if reference is None else Views(reference.figures["steps"][1])
        moves = reference is not None and reference.has_moved
        self._rolls = Rolls(reference.view_array) if reference is not None and moves else None
        self._past: Mapping[str, Floats] = {} if reference is None else reference.map_arrays
        figures = {} if reference is None else reference.figures
        self._ranges = {name: _Range(*values) for name, values in figures.items()}
        self._alike: deque[Floats] = deque(maxlen=_ROLL_VIEWS)
        self._by_views: tuple[str, float] = ("", 0.0)
        self._seen = 0
        self._unmoved = 0
        self._looked_ns: int | None = None
        self._judged = ("", 0.0)
        self._since_ns, self._times = 0, 0

    def update(self, time_ns: int, image: NDArray[np.uint8], frozen_s: float = 0.0) -> CameraState:
        """Take the next frame into account.

        Args:
            time_ns: its stamp, nanoseconds.
            image: the model's input, uint8 [H, W, 3] RGB.
            frozen_s: for how long the picture has been the same, when that is too long; else 0.
        """
        if frozen_s:
            since_ns = time_ns - round(frozen_s * 1e9)
            self.state = CameraState("frozen", since_ns, 1.0)
            self._times = 0
            return self.state
        if self.state.cause == "frozen":
            self.state = CameraState()
        looked_ns = self._looked_ns
        if looked_ns is not None and 0 <= time_ns - looked_ns < _PERIOD_NS - _SLACK_NS:
            return self.state
        self._looked_ns = time_ns
        self._see(time_ns, Look.at(image))
        return self.state

    def _see(self, time_ns: int, look: Look) -> None:
        cause, strength = self._judge(look)
        if cause != self._judged[0] or not self._times:
            self._since_ns, self._times = time_ns, 0
        self._judged = (cause, strength)
        self._times += 1
        if cause == self.state.cause:
            if cause:
                self.state = CameraState(cause, self.state.since_ns, strength)
        elif self._times >= _CONFIRMED:
            self.state = CameraState(cause, self._since_ns, strength) if cause else CameraState()

    def _judge(self, look: Look) -> tuple[str, float]:
        """Return cause and strength by the newest frames."""
        figures = self._smoothing.add(look)
        moves_on = self._views.moves_on(look)
        self._unmoved = 0 if moves_on else self._unmoved + 1
        if self._reference is None:
            return _plain(figures)
        found = self._of_light(figures, self._ranges)
        if found[0]:
            return found
        if self._rolls is None:
            share = changed_parts(look.cells, self._past).share
            if share >= self._eased_up("covered", _STILL_COVER):
                return "covered", share
            return self._blur(figures, self._ranges)
        if moves_on:
            self._see_view(look, self._rolls)
        blur = self._blur(figures, self._ranges)
        # A cover has no detail, and turning a picture takes some. A blur does neither.
        is_explained = self._by_views[0] in ("covered", "tilted")
        return blur if blur[0] and not is_explained else self._by_views

    def _of_light(self, now: Figures, past: Mapping[str, _Range]) -> tuple[str, float]:
        """Return what the newest figures say of light and structure."""
        dim, bright, structure = past["dim"], past["bright"], past["structure"]
        darkest = min(0.5 * bright.usual, 0.8 * bright.low)
        is_dim = self._rolls is not None and _BLACK < now.bright < 0.93 * bright.low
        # In the dark the scene still moves by, and has its structure.
        if is_dim and now.structure < 0.95 * structure.low and self._unmoved >= _STILL_FRAMES:
            return "covered", 1.0
        if now.bright < self._eased("dark", darkest):
            return "dark", 1.0 - now.bright / bright.usual
        brightest = max(1.55 * dim.usual, 1.25 * dim.high)
        if now.dim > brightest or now.white > past["white"].high + 0.15:
            return "overexposed", max(now.white, 1.0 - dim.usual / now.dim)
        is_blank = now.contrast < 0.5 * past["contrast"].low
        if is_blank and now.structure < 0.5 * structure.low:
            return "covered", 1.0
        return "", 0.0

    def _blur(self, now: Figures, past: Mapping[str, _Range]) -> tuple[str, float]:
        sharpness, detail = past["sharpness"], past["detail"]
        if now.sharpness and (
            now.sharpness < self._eased("blurred", 0.83 * sharpness.low)
            or now.detail < self._eased("blurred", 0.5 * detail.low)
        ):
            return "blurred", max(0.0, 1.0 - now.detail / detail.usual)
        return "", 0.0

    def _eased(self, cause: str, limit: float) -> float:
        """Return a lower limit, which is higher for a cause that is said."""
        return limit / _KEPT if self.state.cause == cause else limit

    def _eased_up(self, cause: str, limit: float) -> float:
        """Return an upper limit, which is lower for a cause that is said."""
        return limit * _KEPT if self.state.cause == cause else limit

    def _see_view(self, look: Look, rolls: Rolls) -> None:
        """Take another view in; what costs time is spread over several of them."""
        self._views.add(look)
        self._seen += 1
        if self._seen % 2:
            self._alike.append(rolls.similarities(look.half))
        if self._seen % _JUDGED_VIEWS == 0:
            self._by_views = self._of_views()

    def _of_views(self) -> tuple[str, float]:
        """Return what the newest views together say."""
        if len(self._views) < VIEWS // 2:
            return "", 0.0
        parts = self._named(lost_parts(self._views.maps(), self._past))
        if parts[0] == "covered" or len(self._views) < VIEWS:
            return parts if parts[0] == "covered" else ("", 0.0)
        angle, gain = roll_of(np.mean(self._alike, axis=0))
        is_sure = len(self._alike) == _ROLL_VIEWS and parts[1] < _MUCH_DIRT
        least = _ROLLED if is_sure else _PLAINLY_ROLLED
        if angle and gain >= self._eased_up("tilted", least):
            return "tilted", abs(angle) / 45
        return parts

    def _named(self, parts: BlockedParts) -> tuple[str, float]:
        if parts.at_edge >= self._eased_up("covered", _COVER):
            return "covered", parts.share
        if parts.share >= self._eased_up("dirt", _DIRT):
            return "dirt", parts.share
        return "", 0.0


class _Range(NamedTuple):
    low: float
    usual: float
    high: float


def _plain(now: Figures) -> tuple[str, float]:
    """Return what is plain without a reference."""
    if now.bright < _BLACK:
        return "dark", 1.0
    if now.white > _PLAINLY_WHITE:
        return "overexposed", now.white
    is_blank = now.contrast < _BLANK and now.structure < _BLANK
    return ("covered", 1.0) if is_blank else ("", 0.0)


@dataclass(frozen=True)
class CameraStretch:
    """A stretch of a recording in which something ailed the camera.

    Attributes:
        cause: key of :data:`CAUSES`.
        start_s: its first frame, seconds since the first of the recording. ``end_s`` is its last.
        strength: the greatest.
    """

    cause: str
    start_s: float
    end_s: float
    strength: float

    @property
    def text(self) -> str:
        """The stretch in one line, with what to do."""
        return (
            f"camera {self.cause}, said from {self.start_s:.1f} s to {self.end_s:.1f} s, strength "
            f"up to {self.strength:.2f}: {CAUSES[self.cause].remedy}"
        )


def camera_stretches(frames: Iterable[tuple[CameraState, float]]) -> list[CameraStretch]:
    """Return the stretches of a recording, from the state and seconds of each frame."""
    stretches = []
    for cause, group in itertools.groupby(frames, key=lambda frame: frame[0].cause):
        if cause:
            states, seconds = zip(*group, strict=True)
            strength = max(state.strength for state in states)
            stretches.append(CameraStretch(cause, seconds[0], seconds[-1], strength))
    return stretches

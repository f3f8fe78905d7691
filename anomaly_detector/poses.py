"""Where the robot was: the poses of its localisation, and the one nearest in time to a frame.

Nothing is guessed: no pose is made up between two others or carried over from another frame of
reference. What is not known is said.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.settings import Setting, setting, settings_of
from anomaly_detector.stamps import stamp_to_ns

POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
)
"""Types of messages that :func:`read_pose` reads."""

_TURN_AGE_NS, _TURN_SPAN_NS = 500_000_000, 300_000_000

PLACE_COLUMNS = (
    "pose_frame",
    "pose_x",
    "pose_y",
    "pose_z",
    "pose_yaw",
    "pose_age",
    "pose_problem",
)
"""Names of :meth:`Place.texts`."""


@dataclass(frozen=True)
class PoseSettings:
    """Where the poses come from, and which of them count.

    Raises:
        AnomalyDetectorError: a value out of its range.
    """

    topic: str = setting(
        "",
        "Topic of the robot's pose: PoseStamped, PoseWithCovarianceStamped (AMCL) or Odometry; "
        "empty for none.",
    )
    frame: str = setting(
        "", "frame_id that the poses must have, such as map; empty takes that of the first."
    )
    max_age: float = setting(
        1.0,
        "Time between a frame and the pose nearest to it above which the place counts as unknown, "
        "seconds. AMCL sends poses only while the robot moves.",
        minimum=0.0,
        maximum=86_400.0,
    )

    def __post_init__(self) -> None:
        for definition in POSE_SETTINGS:
            definition.check(getattr(self, definition.name))


POSE_SETTINGS: tuple[Setting, ...] = settings_of(PoseSettings)
"""The definitions of the fields of :class:`PoseSettings`, in order."""


@dataclass(frozen=True)
class Pose:
    """A pose of the robot: stamp in nanoseconds, frame of reference, metres, and yaw in radians."""

    stamp_ns: int
    frame_id: str
    x: float
    y: float
    z: float
    yaw: float


@dataclass(frozen=True)
class Place:
    """Where a frame was taken.

    Attributes:
        pose: the pose nearest in time; None where none counts.
        age_s: the frame's time less the pose's; negative for a pose that came later.
        problem: why there is none.
    """

    pose: Pose | None = None
    age_s: float = math.nan
    problem: str = ""

    def content(self) -> dict[str, Any]:
        """Return it as it stands in ``event.json``."""
        pose = self.pose
        if pose is None:
            return {"problem": self.problem}
        return {
            "frame_id": pose.frame_id,
            "x": pose.x,
            "y": pose.y,
            "z": pose.z,
            "yaw": pose.yaw,
            "age_s": round(self.age_s, 9),
        }

    def texts(self) -> dict[str, str]:
        """Return it by the names of :data:`PLACE_COLUMNS`; what is not known is empty."""
        values = list(self.content().values())
        if self.pose is None:
            return dict(zip(PLACE_COLUMNS, [""] * 6 + values, strict=True))
        numbers = [f"{value:.9g}" for value in values[1:]]
        return dict(zip(PLACE_COLUMNS, [values[0], *numbers, ""], strict=True))

    def __str__(self) -> str:
        pose = self.pose
        if pose is None:
            return self.problem
        return f"{pose.frame_id} {pose.x:.2f} {pose.y:.2f}, yaw {pose.yaw:.2f}, {self.age_s:.2f} s"


def place_of(content: Any, time_ns: int) -> Place | None:
    """Return what :meth:`Place.content` wrote of the frame of this time; None for nothing.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    if content is None:
        return None
    if "problem" in content:
        return Place(problem=str(content["problem"]))
    x, y, z, yaw, age_s = (float(content[name]) for name in ("x", "y", "z", "yaw", "age_s"))
    pose = Pose(time_ns - round(age_s * 1e9), str(content["frame_id"]), x, y, z, yaw)
    return Place(pose, age_s)


def read_pose(message: Any) -> Pose:
    """Return the pose in a message of one of :data:`POSE_TYPES`, of rclpy or of a bag reader.

    Raises:
        AnomalyDetectorError: no stamp, a number that is not finite, or no orientation.
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    if stamp_ns is None:
        raise AnomalyDetectorError("poses have no stamp: set it in the localisation")
    pose = message.pose
    pose = getattr(pose, "pose", pose)
    place, turn = pose.position, pose.orientation
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    position = float(place.x), float(place.y), float(place.z)
    # Of the length of a quaternion, 1 up to rounding.
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if not (all(map(math.isfinite, position)) and abs(length - 1.0) < 0.1):
        raise AnomalyDetectorError(
            f"pose is {', '.join(f'{value:g}' for value in position)} with a quaternion of length "
            f"{length:g}: look at what the localisation sends"
        )
    yaw = math.atan2(2.0 * (w * z + x * y), length * length - 2.0 * (y * y + z * z))
    return Pose(stamp_ns, str(message.header.frame_id), *position, yaw)


class PoseTrack:
    """The poses so far, of one frame of reference.

    Args:
        settings: which poses count.
        keep_s: poses older than this before the newest are forgotten; infinity keeps all. Time
            that jumps back further forgets all.
    """

    def __init__(self, settings: PoseSettings, keep_s: float = math.inf) -> None:
        self._settings = settings
        self._keep_ns = keep_s * 1e9
        self._frame_id = settings.frame
        self._poses: list[Pose] = []
        self._refused = ""
        self._missing = f"no pose on {settings.topic} yet"

    def see(self, message: Any) -> None:
        """Take a message with a pose; one that does not count is the reason for what is missing."""
        try:
            pose = read_pose(message)
        except AnomalyDetectorError as error:
            self.refuse(str(error))
            return
        frame_id = self._frame_id = self._frame_id or pose.frame_id
        if pose.frame_id != frame_id:
            self.refuse(
                f"poses on {self._settings.topic} are in frame {pose.frame_id!r}, not in "
                f"{frame_id!r}"
            )
            return
        self._refused = ""
        poses = self._poses
        if poses and pose.stamp_ns < poses[-1].stamp_ns - self._keep_ns:
            poses.clear()
        if not poses or pose.stamp_ns >= poses[-1].stamp_ns:
            poses.append(pose)
        else:
            insort(poses, pose, key=_stamp)
        # Not at every pose: moving the rest costs.
        if poses[-1].stamp_ns - poses[0].stamp_ns > 2 * self._keep_ns:
            del poses[: bisect_left(poses, poses[-1].stamp_ns - self._keep_ns, key=_stamp)]

    def refuse(self, reason: str) -> None:
        """Keep the reason why there is no pose."""
        self._refused = reason

    def at(self, time_ns: int) -> Place:
        """Return where the robot was at a time, nanoseconds."""
        poses = self._poses
        if not poses:
            return Place(problem=self._refused or self._missing)
        index = bisect_left(poses, time_ns, key=_stamp)
        pose = min(
            poses[max(0, index - 1) : index + 1], key=lambda pose: abs(time_ns - pose.stamp_ns)
        )
        age_s = (time_ns - pose.stamp_ns) / 1e9
        if abs(age_s) > self._settings.max_age:
            when = "older" if age_s > 0 else "newer"
            nearest = f"nearest pose is {abs(age_s):.1f} s {when} than the frame"
            return Place(problem=f"{nearest}; {self._refused}" if self._refused else nearest)
        return Place(pose, age_s)

    def turn_rate(self, time_ns: int) -> float | None:
        """Return how fast the robot turned just before a time, radians a second.

        From the newest pose up to then, and that of up to 0.3 s before it. None where the newest is
        older than 0.5 s, or there is one only: nobody knows.
        """
        poses = self._poses
        end = bisect_right(poses, time_ns, key=_stamp) - 1
        if end < 1 or time_ns - poses[end].stamp_ns > _TURN_AGE_NS:
            return None
        last = poses[end]
        first = poses[bisect_left(poses, last.stamp_ns - _TURN_SPAN_NS, 0, end, key=_stamp)]
        elapsed_ns = last.stamp_ns - first.stamp_ns
        if not elapsed_ns:
            return None
        return math.remainder(last.yaw - first.yaw, math.tau) / (elapsed_ns / 1e9)


def _stamp(pose: Pose) -> int:
    return pose.stamp_ns

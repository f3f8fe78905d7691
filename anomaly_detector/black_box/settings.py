"""What the black box records, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.settings import Setting, setting, settings_of

BLACK_BOX_FORMATS = ("mcap", "jpeg")


@dataclass(frozen=True)
class BlackBoxSettings:
    """Settings of :class:`anomaly_detector.black_box.BlackBox`.

    The field definitions carry description and range (:data:`BLACK_BOX_SETTINGS`), so that the
    node's parameters can be made from them.

    Raises:
        AnomalyDetectorError: a value out of its range.
    """

    folder: str = setting(
        "", "Where the events are recorded, one folder an event; empty records nothing."
    )
    format: str = setting(
        "mcap",
        "mcap: a rosbag2 that 'ros2 bag' and Foxglove open. jpeg: the pictures as files.",
        choices=BLACK_BOX_FORMATS,
    )
    seconds_before: float = setting(
        5.0, "Time recorded before the alarm is raised.", minimum=0.0, maximum=60.0
    )
    seconds_after: float = setting(
        3.0,
        "Time recorded after the alarm is cleared; an alarm raised in it belongs to the same "
        "event.",
        minimum=0.0,
        maximum=60.0,
    )
    max_rate_hz: float = setting(
        5.0,
        "Frames recorded a second at most; the peak frame of an event comes on top.",
        minimum=0.1,
        maximum=60.0,
    )
    max_event_seconds: float = setting(
        60.0,
        "A longer event goes on in a next part, which may take twice the time at half the rate, "
        "and so on.",
        minimum=1.0,
        maximum=3600.0,
    )
    max_megabytes: float = setting(
        1000.0,
        "Size of all events in the folder together; others are removed to keep it, those judged "
        "normal first and anomalies last.",
        minimum=1.0,
        maximum=100_000.0,
    )
    sample_rate: float = setting(
        1.0,
        "Normal frames recorded a minute, at random times, each as an event of kind sample; they "
        "are removed before other events. 0 for none.",
        minimum=0.0,
        maximum=60.0,
    )
    memory_megabytes: float = setting(
        64.0,
        "Memory for the frames before an event, and as much again for those waiting to be encoded.",
        minimum=1.0,
        maximum=4096.0,
    )

    def __post_init__(self) -> None:
        for definition in BLACK_BOX_SETTINGS:
            definition.check(getattr(self, definition.name))

    @property
    def path(self) -> Path:
        """The folder as an absolute path.

        Raises:
            AnomalyDetectorError: none is given, or it begins with the ``~`` of nobody.
        """
        if not self.folder:
            raise AnomalyDetectorError("folder is '': name a folder for the black box")
        try:
            return Path(self.folder).expanduser().absolute()
        except RuntimeError as error:
            raise AnomalyDetectorError(
                f"black box folder is {self.folder}, and nobody of this name has a home: give the "
                "whole path"
            ) from error


BLACK_BOX_SETTINGS: tuple[Setting, ...] = settings_of(BlackBoxSettings)
"""The definitions of the fields of :class:`BlackBoxSettings`, in order."""

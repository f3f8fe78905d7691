"""The black box: records the frames around every alarm, for a look later and for training.

:class:`BlackBox` is fed with every scored frame. Before an alarm it holds the frames of the last
seconds in memory; with the alarm it writes them, the frames during it and those shortly after it
into a folder of their own, as a rosbag2 or as image files with ``event.json``.
:func:`find_events` and :func:`read_event` read what it recorded. ``docs/black-box.md`` describes
the files. :func:`read_verdict` and :func:`write_verdict` are for what people said of an event.
"""

from anomaly_detector.black_box.events import RecordedEvent, RecordedFrame, find_events, read_event
from anomaly_detector.black_box.frames import BlackBoxFrame, EncodedPicture
from anomaly_detector.black_box.recorder import BlackBox, BlackBoxStatistics
from anomaly_detector.black_box.settings import (
    BLACK_BOX_FORMATS,
    BLACK_BOX_SETTINGS,
    BlackBoxSettings,
)
from anomaly_detector.black_box.store import check_black_box
from anomaly_detector.black_box.verdicts import (
    UNREVIEWED,
    VERDICTS,
    Verdict,
    VerdictChangedError,
    read_verdict,
    write_verdict,
)

__all__ = [
    "BLACK_BOX_FORMATS",
    "BLACK_BOX_SETTINGS",
    "UNREVIEWED",
    "VERDICTS",
    "BlackBox",
    "BlackBoxFrame",
    "BlackBoxSettings",
    "BlackBoxStatistics",
    "EncodedPicture",
    "RecordedEvent",
    "RecordedFrame",
    "Verdict",
    "VerdictChangedError",
    "check_black_box",
    "find_events",
    "read_event",
    "read_verdict",
    "write_verdict",
]

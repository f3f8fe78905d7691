"""All stress faults by name, and the sets in which they are run."""

from __future__ import annotations

from collections.abc import Sequence

from anomaly_detector.errors import AnomalyDetectorError
from training.evaluation.faults.base import Fault
from training.evaluation.faults.objects import CableLoop, SolidObject, ThinLines
from training.evaluation.faults.optics import (
    AllCover,
    ClothCover,
    Defocus,
    GaussianBlur,
    HandCover,
    LensDirt,
    LensDrops,
    MotionBlur,
    TapeCover,
    Tilt,
)
from training.evaluation.faults.reference import (
    FlatBox,
    FlatDisc,
    PlainBlur,
    PlainGain,
    PlainNoise,
    PlainTurn,
)
from training.evaluation.faults.sensor import (
    Black,
    Bright,
    ColorCast,
    Dark,
    Overexposed,
    SaltAndPepper,
    SensorNoise,
)
from training.evaluation.faults.transport import (
    FrozenFrame,
    JpegRuin,
    LostBlocks,
    ShiftedRows,
    TornFrame,
)

_REFERENCE: tuple[Fault, ...] = (
    FlatBox("flat_box_6", size=6),
    FlatBox("flat_box_10", size=10),
    FlatBox("flat_box_16", size=16),
    FlatBox("flat_box_24", size=24),
    PlainBlur("plain_blur", sigma=2.0),
    PlainGain("plain_dark", gain=0.3),
    PlainGain("plain_black", gain=0.0),
    PlainGain("plain_bright", gain=1.8),
    PlainNoise("plain_noise", sigma=20.0),
    FlatDisc("plain_dirt", radius=14.0),
    PlainTurn("plain_turn", degrees=10.0),
)

_FULL: tuple[Fault, ...] = (
    SolidObject("object_6", size=6.0),
    SolidObject("object_10", size=10.0),
    SolidObject("object_16", size=16.0),
    SolidObject("object_24", size=24.0),
    ThinLines("thin_lines"),
    CableLoop("cable_loop"),
    GaussianBlur("blur_1", sigma=1.0),
    GaussianBlur("blur_2", sigma=2.0),
    GaussianBlur("blur_4", sigma=4.0),
    Defocus("defocus_2.5", radius=2.5),
    Defocus("defocus_5", radius=5.0),
    MotionBlur("motion_blur_8", length=8.0),
    MotionBlur("motion_blur_16", length=16.0),
    Tilt("tilt_5", degrees=5.0),
    Tilt("tilt_10", degrees=10.0),
    Tilt("tilt_20", degrees=20.0),
    LensDirt("lens_dirt"),
    LensDrops("lens_drops"),
    HandCover("cover_hand"),
    ClothCover("cover_cloth"),
    TapeCover("cover_tape"),
    AllCover("cover_all"),
    Dark("dark", gain=0.3),
    Black("black"),
    Bright("bright", gain=1.8),
    Overexposed("overexposed"),
    ColorCast("color_cast"),
    SensorNoise("noise_20", sigma=20.0),
    SaltAndPepper("salt_pepper", share=0.05),
    TornFrame("torn_frame"),
    ShiftedRows("shifted_rows"),
    JpegRuin("jpeg_ruin"),
    LostBlocks("lost_blocks"),
    FrozenFrame("frozen"),
)

FAULT_SETS: dict[str, tuple[Fault, ...]] = {"reference": _REFERENCE, "full": _FULL}
"""``reference`` is plain and fixed, for quoted figures; ``full`` looks like real faults."""

FAULTS: dict[str, Fault] = {fault.name: fault for faults in FAULT_SETS.values() for fault in faults}
"""Name to fault, over all sets."""


def choose_faults(names: Sequence[str]) -> tuple[Fault, ...]:
    """Return faults by name, in the order given.

    Raises:
        AnomalyDetectorError: a name is unknown or given twice.
    """
    for name in names:
        if name not in FAULTS:
            raise AnomalyDetectorError(
                f"fault {name!r} is unknown: choose from {', '.join(FAULTS)}"
            )
    if len(set(names)) != len(names):
        raise AnomalyDetectorError(f"faults {' '.join(names)}: give every name once")
    return tuple(FAULTS[name] for name in names)

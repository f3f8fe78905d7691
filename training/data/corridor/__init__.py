"""A synthetic corridor: seeded patrol drives with hazards and ground truth, nothing to download."""

from training.data.corridor.drive import CorridorDrive, CorridorFrame
from training.data.corridor.hazards import HAZARD_LABELS
from training.data.corridor.writer import render_frames, write_drive

__all__ = ["HAZARD_LABELS", "CorridorDrive", "CorridorFrame", "render_frames", "write_drive"]

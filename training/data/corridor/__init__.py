"""A synthetic corridor: seeded patrol drives with hazards and ground truth, nothing to download."""

from .drive import CorridorDrive, CorridorFrame
from .hazards import HAZARD_LABELS
from .writer import render_frames, write_drive

__all__ = ["HAZARD_LABELS", "CorridorDrive", "CorridorFrame", "render_frames", "write_drive"]

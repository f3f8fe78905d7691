"""A look at normal drives before training: what of them is usable, and whether they are enough.

Everything is measured on the resized frames that training sees; the only network is a pretrained
encoder, for stretches that stand out.
"""

from training.data.check.check import DriveCheck, check_drive, quick_look
from training.data.check.curve import LearningCurve
from training.data.check.findings import Finding, Stretch
from training.data.check.look import FEWEST, Look

__all__ = [
    "FEWEST",
    "DriveCheck",
    "Finding",
    "LearningCurve",
    "Look",
    "Stretch",
    "check_drive",
    "quick_look",
]

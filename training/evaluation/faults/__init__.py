"""Documented, seeded camera faults for the stress test of a trained model.

This package stands on its own: it draws everything itself and shares neither code nor parameters
with whatever makes outliers for training, because a model must not be tested with what it has
seen. ``docs/stress-faults.md`` describes every fault.
"""

from training.evaluation.faults.base import UNITS, Fault, as_seen
from training.evaluation.faults.registry import FAULT_SETS, FAULTS, choose_faults
from training.evaluation.faults.transport import FrozenFrame

__all__ = [
    "FAULTS",
    "FAULT_SETS",
    "UNITS",
    "Fault",
    "FrozenFrame",
    "as_seen",
    "choose_faults",
]

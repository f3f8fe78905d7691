"""The one kind of message that carries words and named values: ``DiagnosticArray``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue


def status_message(
    level: str, name: str, message: str, values: Mapping[str, str], header: Any
) -> Any:
    """Make a ``diagnostic_msgs/DiagnosticArray`` with one status, of the header's frame."""
    status = DiagnosticStatus(
        level=getattr(DiagnosticStatus, level),
        name=name,
        message=message,
        hardware_id=header.frame_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    return DiagnosticArray(header=header, status=[status])


def status_values(status: Any) -> dict[str, str]:
    """Return the values of a status, by their keys."""
    return {item.key: item.value for item in status.values}


def float32_text(value: float) -> str:
    """Return nine significant digits, which give every float32 back exactly."""
    return f"{np.float32(value):.9g}"

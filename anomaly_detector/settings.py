"""Settings that are defined once: each field carries its description and range.

A frozen dataclass declares its fields with :func:`setting`; :func:`settings_of` gives the
definitions, from which the command lines, the node's parameters and the tables of the documents
are made.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError


@dataclass(frozen=True)
class Setting:
    """The definition of one field.

    Attributes:
        name: of the field.
        default: of the type the value must have (an integer will do for a float).
        description: one sentence or two.
        choices: the values a string may have; empty for numbers and for any string.
        minimum: smallest value; None for strings.
        maximum: largest value; None for strings.
    """

    name: str
    default: str | int | float
    description: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None

    @property
    def constraint(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return " or ".join(self.choices)
        if isinstance(self.default, str):
            return "a string"
        kind = "an integer" if isinstance(self.default, int) else "a number"
        return f"{kind} from {self.minimum:g} to {self.maximum:g}"

    def check(self, value: object) -> None:
        """Refuse a wrong value.

        Raises:
            AnomalyDetectorError: it is of another type or out of range.
        """
        if self.minimum is None or self.maximum is None:
            good = value in self.choices if self.choices else isinstance(value, str)
        else:
            kinds = (int,) if isinstance(self.default, int) else (int, float)
            good = (
                isinstance(value, kinds)
                and not isinstance(value, bool)
                and self.minimum <= float(value) <= self.maximum
            )
        if not good:
            raise AnomalyDetectorError(f"{self.name} is {value!r}, it must be {self.constraint}")


def setting(
    default: str | int | float,
    description: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a field of a dataclass of settings; arguments as in :class:`Setting`."""
    details = {
        "default": default,
        "description": description,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=details)


def settings_of(kind: type) -> tuple[Setting, ...]:
    """Return the definitions of a dataclass whose fields are declared with :func:`setting`."""
    return tuple(Setting(name=item.name, **item.metadata) for item in fields(kind))

"""Checkpoints: all that a training needs to go on after it was cut off, in one file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path

_VALUES = "values"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training at the end of an epoch.

    Attributes:
        arrays: lists of arrays by name, for example the model's variables in their order.
        values: everything else, as JSON knows it.
    """

    arrays: dict[str, Sequence[NDArray[Any]]]
    values: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the file; one that is there stays whole until the new one is."""
        entries: dict[str, Any] = {
            f"{name}/{index}": array
            for name, arrays in self.arrays.items()
            for index, array in enumerate(arrays)
        }
        lengths = {name: len(arrays) for name, arrays in self.arrays.items()}
        entries[_VALUES] = np.array(json.dumps({"lengths": lengths, "values": self.values}))
        with atomic_path(path) as temporary:
            np.savez(temporary, **entries)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file.

        Raises:
            AnomalyDetectorError: it is damaged.
        """
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                index = json.loads(str(file[_VALUES]))
                arrays: dict[str, Sequence[NDArray[Any]]] = {
                    name: [file[f"{name}/{i}"] for i in range(length)]
                    for name, length in index["lengths"].items()
                }
                return cls(arrays, index["values"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise AnomalyDetectorError(
                f"checkpoint {path} is damaged ({error}): remove it and train again"
            ) from error

"""The folder beside a model in which its training keeps what it would need to go on.

``NAME.training/`` beside ``NAME.onnx`` holds a checkpoint of every network while they are trained.
When the model is written, their weights (``NETWORK.weights.h5``) and the model's metadata
(``metadata.json``) take its place, for ``python -m training export``, and with a scorer that can
adapt a sample of what it has seen (``past.npz``, :mod:`training.data.past`).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.model.metadata import ModelMetadata
from training.data.past import Past
from training.fitting.settings import FitResult

_RUN = "run.json"
_METADATA = "metadata.json"
_PAST = "past.npz"
_CHECKPOINT = ".checkpoint.npz"
_WEIGHTS = ".weights.h5"

_HDF5_BYTES = 1 << 17
"""What the names of the weights take in their file."""


class RunFolder:
    """Checkpoints and weights of one training.

    Args:
        path: the folder.
        resume: take checkpoints that are there; else they are overwritten.
        prefix: of the names of its checkpoints.
    """

    def __init__(self, path: Path, resume: bool = False, prefix: str = "") -> None:
        self.path = path
        self._resume = resume
        self._prefix = prefix

    @classmethod
    def beside(cls, model: Path, resume: bool = False) -> RunFolder:
        """Return the folder of a model file."""
        return cls(model.with_suffix(".training"), resume)

    def part(self, name: str) -> RunFolder:
        """Return the same folder for a training that is a part of this one."""
        return RunFolder(self.path, self._resume, f"{name}_")

    def start(self, run: Mapping[str, Any]) -> None:
        """Begin a training, or go on with one.

        Args:
            run: all that the result depends on, as JSON knows it.

        Raises:
            AnomalyDetectorError: resuming, but ``run`` differs from that of the checkpoints.
        """
        file = self.path / _RUN
        wanted = json.loads(json.dumps(run))
        if self._resume and file.is_file():
            try:
                before = json.loads(file.read_text())
            except ValueError:
                before = None
            if not isinstance(before, dict):
                raise AnomalyDetectorError(f"{file} is damaged: leave --resume out")
            for name, value in wanted.items():
                if before.get(name) != value:
                    raise AnomalyDetectorError(
                        f"checkpoints in {self.path} were made with {name} {before.get(name)!r}, "
                        f"now it is {value!r}: repeat the command they were made with or leave "
                        "--resume out"
                    )
            return
        # What an older model needs stays until there is a new one.
        self._remove("*" + _CHECKPOINT)
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1))

    def checkpoint(self, network: str) -> dict[str, Any]:
        """Return arguments ``checkpoint`` and ``resume`` of :func:`training.fitting.fit.fit`."""
        return {
            "checkpoint": self.path / (self._prefix + network + _CHECKPOINT),
            "resume": self._resume,
        }

    def trained(self, result: FitResult) -> None:
        """Take note of a finished network: what was trained on top of an older one is void."""
        if result.trained:
            self._resume = False

    def keep(
        self, networks: Mapping[str, Any], metadata: ModelMetadata, past: Past | None = None
    ) -> None:
        """Keep weights, metadata and what was seen.

        Args:
            networks: name to Keras model.
            metadata: of the model that is about to be written.
            past: for a scorer that can adapt.
        """
        self._remove("*" + _WEIGHTS, _METADATA, _PAST)
        for name, network in networks.items():
            with atomic_path(self.path / (name + _WEIGHTS)) as temporary:
                # HDF5 tells of a full disk with tracebacks that no caller can keep back.
                with temporary.open("wb") as file:
                    size = sum(weights.nbytes for weights in network.get_weights())
                    os.posix_fallocate(file.fileno(), 0, size + _HDF5_BYTES)
                    file.truncate(0)
                # Keras insists on this ending.
                saved = temporary.with_name(temporary.name + _WEIGHTS)
                try:
                    network.save_weights(saved)
                    saved.replace(temporary)
                finally:
                    saved.unlink(missing_ok=True)
        if past is not None:
            past.write(self.path / _PAST)
        with atomic_path(self.path / _METADATA) as temporary:
            temporary.write_text(metadata.to_json())

    def remove_checkpoints(self) -> None:
        """Remove what only a training that goes on needs."""
        self._remove("*" + _CHECKPOINT, _RUN)

    def metadata(self) -> ModelMetadata:
        """Return the metadata of a finished training.

        Raises:
            AnomalyDetectorError: there is none.
        """
        file = self.path / _METADATA
        if not file.is_file():
            raise AnomalyDetectorError(
                f"folder {self.path} has no {_METADATA}: name the NAME.training folder of a "
                "finished training"
            )
        text = file.read_text(encoding="utf-8", errors="backslashreplace")
        return ModelMetadata.from_json(text, str(file))

    def past(self) -> Past:
        """Return the sample of what the model has seen.

        Raises:
            AnomalyDetectorError: there is none, or it is damaged.
        """
        return Past.read(self.path / _PAST)

    def load_weights(self, name: str, network: Any) -> None:
        """Load the weights of a network.

        Raises:
            AnomalyDetectorError: there are none, or they are of another network.
        """
        load_weights(self.path / (name + _WEIGHTS), network)

    def _remove(self, *patterns: str) -> None:
        for pattern in patterns:
            for file in self.path.glob(pattern):
                file.unlink()


def load_weights(file: Path, network: Any) -> None:
    """Load a ``.weights.h5`` file into a Keras model.

    Raises:
        AnomalyDetectorError: no such file, or weights of another network.
    """
    if not file.is_file():
        raise AnomalyDetectorError(f"weights {file} do not exist: name a .weights.h5 file")
    try:
        with warnings.catch_warnings():
            # Keras only warns when a part of the network finds no weights in the file.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(file)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AnomalyDetectorError(
            f"weights {file} do not fit the network {network.name} ({reason}): "
            "name the architecture they were trained with"
        ) from error

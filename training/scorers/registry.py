"""The scorers by name: those of this package, and those that are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.normalization import normalization_scale
from training.scorers import mlp, outlier_exposure, realnvp, reconstruction
from training.scorers.base import Scorer

_MODULES = (outlier_exposure, reconstruction, mlp, realnvp)

_OWN = {scorer.name: scorer for module in _MODULES for scorer in module.SCORERS}
_registered: dict[str, Scorer] = {}


def scorers() -> Mapping[str, Scorer]:
    """Return all scorers by name, the package's own first."""
    return {**_OWN, **_registered}


def register(scorer: Scorer) -> None:
    """Add a scorer, which can then be trained, exported and compared like the package's own.

    Example:
        >>> register(Scorer("brightness", "mean grey", "grey levels (0..255)", train, restore))
        >>> train(TrainOptions(["drive"], Path("model.onnx"), scorer="brightness"))

    Raises:
        AnomalyDetectorError: there is one of this name.
    """
    if scorer.name in scorers():
        raise AnomalyDetectorError(f"scorer {scorer.name} is there already: choose another name")
    _registered[scorer.name] = scorer


def find_scorer(name: str) -> Scorer:
    """Return a scorer by its name.

    Raises:
        AnomalyDetectorError: there is none of this name.
    """
    found = scorers().get(name)
    if found is None:
        raise AnomalyDetectorError(
            f"scorer {name!r} is not known: choose one of {', '.join(scorers())}, or register it"
        )
    return found


def networks() -> tuple[str, ...]:
    """Return the names of the networks that scorers have of their own."""
    return tuple(dict.fromkeys(s.architecture for s in scorers().values() if s.architecture))


def with_scorer_facts(metadata: ModelMetadata) -> ModelMetadata:
    """Return metadata that say what the robot needs to know of the scorer.

    Raises:
        AnomalyDetectorError: the scorer is not known.
    """
    scorer = find_scorer(metadata.scorer)
    metadata = replace(metadata, score_maximum=scorer.maximum)
    scale = float(normalization_scale(metadata))
    return replace(metadata, map_scale=scorer.map_scale(metadata.threshold, scale))

"""What the parts of a training share: the run, and what each part gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.config.options import TrainOptions
from training.data.frames import BlockSplit, FrameSet
from training.fitting.cluster.cluster import Cluster
from training.fitting.run_folder import RunFolder
from training.fitting.settings import FitResult
from training.networks.autoencoders import Autoencoder

_BATCH = 64

ScoringFunction: TypeAlias = Callable[[Any], dict[str, Any]]
"""From uint8 [N, S, S, 3] to ``score`` float32 [N], ``anomaly_map`` float32 [N, H, W] and,
for networks with an encoder, ``code`` float32 [N, 128], its latent, which export keeps as a tensor
of this name.

It is what is exported. Everything after preprocessing is inside it: the cast, the network and the
score. Written with ``keras.ops`` alone, it runs on every Keras backend.
"""


@dataclass(frozen=True)
class TrainingRun:
    """What to train on and how.

    Attributes:
        options: checked.
        frames: normal frames.
        split: of the normal frames.
        anomalies: frames of anomalies, for scorers that learn from them.
        folder: of the checkpoints.
        cluster: the workers that train together; None for this machine alone.
        events: what is said in the model of the recorded events that joined.
    """

    options: TrainOptions
    frames: FrameSet
    split: BlockSplit
    anomalies: FrameSet | None
    folder: RunFolder
    cluster: Cluster | None = None
    events: Mapping[str, int] = field(default_factory=dict)

    def fit_arguments(self, network: str) -> dict[str, Any]:
        """Return the arguments of :func:`training.fitting.fit.fit` that no network has of its own.

        Args:
            network: name of its checkpoint and TensorBoard log.
        """
        logs = self.options.tensorboard
        return {
            "progress": self.options.progress,
            "tensorboard": None if logs is None else logs / network,
            "cluster": self.cluster,
            **self.folder.checkpoint(network),
        }


@dataclass
class TrainingResult:
    """A scoring function with what is known about its training.

    Attributes:
        autoencoder: its trained autoencoder; None for a scorer without one.
        scorer: the scoring function.
        networks: name to Keras model, everything whose weights make the scoring function.
        metrics: figures for the metadata, ``validation_loss`` among them.
        histories: name of a network to its history; that of the scorer itself last.
        provenance: further entries of the metadata's provenance; for every network the
            :meth:`~training.fitting.settings.FitResult.summary` of its training.
    """

    autoencoder: Autoencoder | None
    scorer: ScoringFunction
    networks: Mapping[str, Any]
    metrics: Mapping[str, Any]
    histories: Mapping[str, Mapping[str, list[float]]]
    provenance: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        network: Any,
        fitted: FitResult,
        scorer: ScoringFunction,
        *,
        base: TrainingResult | None = None,
        **metrics: Any,
    ) -> TrainingResult:
        """Return the result of a network by itself or on top of another one.

        Args:
            name: of the network.
            network: Keras model.
            fitted: how its training went.
            scorer: the scoring function.
            base: what it stands on.
            **metrics: further figures.
        """
        base = base or cls(None, scorer, {}, {}, {}, {})
        # Its own validation loss takes the place of the autoencoder's.
        older = {
            "autoencoder_validation_loss" if key == "validation_loss" else key: value
            for key, value in base.metrics.items()
        }
        return cls(
            base.autoencoder,
            scorer,
            {**base.networks, name: network},
            {**older, "validation_loss": fitted.best_loss, **metrics},
            {**base.histories, name: fitted.history},
            {**base.provenance, name: fitted.summary()},
        )

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the scores of frames, uint8 [N, H, W, 3], float32 [N]."""
        batches = np.array_split(images, range(_BATCH, len(images), _BATCH))
        return np.concatenate([np.asarray(self.scorer(batch)["score"]) for batch in batches])

    @property
    def interrupted(self) -> bool:
        """Ctrl-C cut the training of one of the networks short."""
        return any(
            isinstance(item, dict) and item.get("stopped_by") == "interrupt"
            for item in self.provenance.values()
        )

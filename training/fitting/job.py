"""What the parts of a training share: the job, and what each part gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.config.options import TrainOptions
from training.data.frames import BlockSplit, FrameSet
from training.fitting.cluster.cluster import Cluster
from training.networks.autoencoders import Autoencoder, NetworkSettings
from training.scorers.base import ScoringFunction

if TYPE_CHECKING:
    from training.fitting.run_folder import RunFolder


@dataclass(frozen=True)
class Job:
    """What to train on and how.

    Attributes:
        options: checked.
        frames: normal frames.
        split: of the normal frames.
        anomalies: frames of anomalies, for scorers that learn from them.
        folder: of the checkpoints.
        cluster: the workers that train together; None for this machine alone.
    """

    options: TrainOptions
    frames: FrameSet
    split: BlockSplit
    anomalies: FrameSet | None
    folder: RunFolder
    cluster: Cluster | None = None


@dataclass
class Trained:
    """A scoring function with what is known about its training.

    Attributes:
        autoencoder: its trained autoencoder; None for a scorer without one.
        scorer: the scoring function.
        networks: name to Keras model, everything whose weights make the scoring function.
        metrics: figures for the metadata, ``validation_loss`` among them.
        histories: name of a network to its history; that of the scorer itself last.
        provenance: further entries of the metadata's provenance; for every history its
            :func:`training.export.provenance.fit_summary`.
    """

    autoencoder: Autoencoder | None
    scorer: ScoringFunction
    networks: dict[str, Any]
    metrics: dict[str, Any]
    histories: dict[str, dict[str, list[float]]]
    provenance: dict[str, Any] = field(default_factory=dict)

    def base_metrics(self) -> dict[str, Any]:
        """Return the metrics for a scorer on top, which has a validation loss of its own."""
        return {
            "autoencoder_validation_loss" if name == "validation_loss" else name: value
            for name, value in self.metrics.items()
        }

    @property
    def interrupted(self) -> bool:
        """Ctrl-C cut the training of one of the networks short."""
        return any(
            isinstance(item, dict) and item.get("stopped_by") == "interrupt"
            for item in self.provenance.values()
        )


def network_settings(options: TrainOptions) -> NetworkSettings:
    """Return the part of the options that shapes the network."""
    return NetworkSettings(
        dropout=options.dropout,
        l1=options.l1,
        l2=options.l2,
        embedding_l1=options.embedding_l1,
        embedding_l2=options.embedding_l2,
        initializer=options.initializer,
    )

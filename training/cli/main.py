"""The offline command line: ``python -m training VERB``."""

from __future__ import annotations

from collections.abc import Sequence

from anomaly_detector.cli.verbs import run_verbs

_VERBS = {
    "check": ("training.cli.data.check", "look at a normal drive before training on it"),
    "train": ("training.cli.train", "train a detector on normal drives and export it to ONNX"),
    "adapt": ("training.cli.adapt", "adapt a trained detector to a normal drive of today"),
    "export": ("training.cli.export", "export saved weights to ONNX, without training"),
    "architectures": ("training.cli.architectures", "list the autoencoders to choose from"),
    "encode": ("training.cli.encode", "write the embeddings that a model's encoder gives"),
    "corridor": ("training.cli.data.corridor", "render a synthetic corridor drive"),
    "compare": (
        "training.cli.compare",
        "train and measure every architecture with every scorer",
    ),
    "evaluate": (
        "training.cli.evaluate",
        "measure a model on labelled drives and write a report",
    ),
    "stress": ("training.cli.stress", "measure what a model makes of injected faults"),
    "compare-models": (
        "training.cli.compare_models",
        "say whether a new model may replace an old one, with injected faults if wanted",
    ),
    "download": ("training.cli.data.download", "download the Hazards&Robots data set"),
    "inspect-hazards-robots": (
        "training.cli.data.inspect_hazards_robots",
        "list what a Hazards&Robots folder holds",
    ),
    "demo": (
        "training.cli.demo",
        "train, run the real node on a replayed drive, and draw the result",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_verbs(
        "python -m training",
        "Data, training, evaluation and export of visual anomaly detectors.",
        _VERBS,
        argv,
    )

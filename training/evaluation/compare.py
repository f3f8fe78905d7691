"""Every architecture with every scorer, on one pair of drives.

Each autoencoder is trained once, for a limited time, and every scorer is put on top of it; each of
the resulting detectors is exported and measured like any other.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import open_source, warn_unreadable
from training.config.options import TrainOptions
from training.data.frames import open_frame_set
from training.data.labels import read_labels, read_visible_shares
from training.evaluation.faults import FAULT_SETS
from training.evaluation.metrics import area_under_roc
from training.evaluation.stress import Exclusion, numbered_frames, run_stress
from training.scorers.options import check_options, without_unused
from training.scorers.registry import scorers as all_scorers

if TYPE_CHECKING:
    from training.fitting.run import TrainingResult, TrainingRun

SMALL_HAZARD = 0.01
"""Share of the picture under which a hazard counts as small."""

_SMALL_FAULTS = ("flat_box_6", "flat_box_10")
_TIMED_RUNS = 300


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
        architecture: the network.
        scorer: what makes the score.
        parameters: of the networks that make the score.
        macs: multiply-accumulates of the network for one frame; None where not counted.
        epochs: trained, of the network that the row adds.
        seconds_per_epoch: of that training.
        validation_loss: best on held-out blocks: of the autoencoder, the mean squared error.
        roc_auc: any hazard against normal, or the mean over the injected faults.
        roc_auc_small: of hazards that cover less than 1 % of the picture, or the mean over boxes
            of 6x6 and 10x10.
        roc_auc_unseen: of the classes that are not among the anomalies trained on; None when
            nothing says which these are.
        milliseconds: a frame in ONNX Runtime, one thread, median.
        trained_on: the training recordings that the test drive shows frames of.
    """

    architecture: str
    scorer: str
    parameters: int
    macs: int | None
    epochs: int
    seconds_per_epoch: float
    validation_loss: float
    roc_auc: float
    roc_auc_small: float
    roc_auc_unseen: float | None
    milliseconds: float
    trained_on: Sequence[str] = ()


Measure = Callable[[Detector], tuple[float, float, float | None]]
"""Returns ROC-AUC, that of small hazards, and that of unseen classes."""


def compare(
    options: TrainOptions,
    architectures: Sequence[str],
    scorers: Sequence[str],
    measure: Measure,
    folder: Path,
    report: Callable[[Comparison], None],
) -> list[Comparison]:
    """Train and measure every pair.

    Args:
        options: of the training; architecture, scorer and out are set for each pair.
        architectures: names of autoencoders.
        scorers: names of scorers; those that need no autoencoder are trained once.
        measure: measures a detector on the test drive.
        folder: where the models go, ``ARCHITECTURE_SCORER.onnx``.
        report: called with every row when it is there.

    Raises:
        AnomalyDetectorError: an option or a recording is at fault.
    """
    from training.train import prepare

    rows: list[Comparison] = []

    def add(job: TrainingRun, trained: TrainingResult) -> None:
        rows.append(_measured(job, trained, measure))
        report(rows[-1])

    known = all_scorers()
    alone = [name for name in scorers if known[name].architecture]
    on_top = [name for name in scorers if name not in alone]
    pairs = [(architecture, on_top) for architecture in architectures if on_top]
    for architecture, names in [*pairs, *((str(known[n].architecture), [n]) for n in alone)]:
        base: TrainingResult | None = None
        for name in names:
            out = folder / f"{architecture}_{name}.onnx"
            changed = without_unused(
                replace(options, architecture=architecture, scorer=name, out=out)
            )
            check_options(changed)
            job = prepare(changed)
            scorer = known[name]
            if scorer.needs_autoencoder and base is None:
                from training.scorers.autoencoder import train_autoencoder

                base = train_autoencoder(job)
            add(job, scorer.train(job, base))
    return rows


def _measured(job: TrainingRun, trained: TrainingResult, measure: Measure) -> Comparison:
    from training.networks.autoencoders import count_macs
    from training.train import export_trained

    options = job.options
    export_trained(job, trained)
    detector = Detector(options.out)
    network, history = list(trained.histories.items())[-1]
    epochs = len(history["loss"])
    roc_auc, small, unseen = measure(detector)
    main = trained.networks.get("autoencoder") or trained.networks[network]
    return Comparison(
        architecture=options.architecture,
        scorer=options.scorer,
        parameters=sum(model.count_params() for model in trained.networks.values()),
        macs=count_macs(main),
        epochs=epochs,
        seconds_per_epoch=trained.provenance[network]["seconds"] / epochs,
        validation_loss=trained.metrics["validation_loss"],
        roc_auc=roc_auc,
        roc_auc_small=small,
        roc_auc_unseen=unseen,
        milliseconds=_milliseconds(detector),
    )


def _milliseconds(detector: Detector) -> float:
    image = np.zeros((1, detector.view.size, detector.view.size, 3), np.uint8)
    times = timeit.repeat(lambda: detector.score_batch(image), number=1, repeat=_TIMED_RUNS)
    return float(np.median(times)) * 1e3


def labelled_measure(
    test: str,
    labels: Path,
    topic: str | None,
    cache: Path | None,
    seen: Sequence[str],
) -> Measure:
    """Measure on a drive whose hazards are labelled.

    Args:
        test: the recording.
        labels: its labels.csv.
        topic: image topic, for a bag with more than one.
        cache: folder for resized frames.
        seen: classes among the anomalies that were trained on.
    """

    def measure(detector: Detector) -> tuple[float, float, float | None]:
        frames = open_frame_set([test], topic, view=detector.view, cache=cache).parts[0]
        names, images = list(frames.names), frames.images
        truth, classes = read_labels(labels).for_frames(names)
        normal = truth == 0
        small = normal | (read_visible_shares(labels, names) < SMALL_HAZARD)
        unseen = normal | ~np.isin(np.array(classes), list(seen))
        parts = np.array_split(images, max(1, len(images) // 64))
        scores = np.concatenate([detector.score_batch(part).score for part in parts])
        aucs = [
            area_under_roc(scores[chosen], truth[chosen] > 0)
            for chosen in (np.ones(len(truth), bool), small, unseen)
        ]
        return aucs[0], aucs[1], aucs[2] if seen else None

    return measure


def stress_measure(
    test: str, topic: str | None, exclude: Sequence[Exclusion], fault_set: str, seed: int
) -> Measure:
    """Measure on a normal drive with injected faults."""
    source = open_source(test, topic)
    faults = FAULT_SETS[fault_set]

    def measure(detector: Detector) -> tuple[float, float, float | None]:
        result = run_stress(
            detector,
            numbered_frames(source, detector.view, exclude),
            faults,
            seed,
            bootstrap=0,
            progress=False,
        )
        warn_unreadable(source.path, source.unreadable)
        known = {item.fault.name: item.roc_auc.value for item in result.faults}
        small = [known[name] for name in _SMALL_FAULTS if name in known]
        return result.mean_roc_auc.value, float(np.mean(small)) if small else np.nan, None

    return measure

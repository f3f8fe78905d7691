"""Adapts a trained model to a drive of today, without forgetting the days before.

The trained network is fine-tuned with rehearsal: half of each batch is of today's drive, half of
the sample of the past that lies in the model's training folder. First it is fine-tuned without each
part of today's drive in turn (cross-fitting): that gives scores of frames that it has not seen, for
the threshold. Then it is fine-tuned on all of it.
"""

from __future__ import annotations

import datetime
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import anomaly_detector
from anomaly_detector.alarms.calibration import (
    calibration_shortfall,
    check_false_alarm_rate,
    describe_calibration,
)
from anomaly_detector.black_box import find_events
from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.files import check_output_file, printable
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import fingerprints, known_again, trained_warning
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.shipped import check_model_output
from anomaly_detector.recordings import expand_sources
from training.adaptation.changes import FEWEST_FRAMES, Changes, compare, stand_out
from training.adaptation.threshold import DEFAULT_RULE, RULES
from training.config.options import FALSE_ALARM_RATE
from training.data.frames import (
    FrameSet,
    fold_blocks,
    joined,
    open_events,
    open_frame_set,
    weighed,
)
from training.data.past import Past, load_some, spread
from training.export.provenance import write_history
from training.fitting.device import select_device
from training.fitting.run import FineTuning, TrainingResult
from training.fitting.run_folder import RunFolder
from training.networks.backend import import_keras
from training.scorers.registry import find_scorer, scorers, with_scorer_facts

OnCompared: TypeAlias = Callable[
    [Changes, NDArray[np.uint8], NDArray[np.uint8], Sequence[tuple[int, int]]], None
]
FineTune: TypeAlias = Callable[[FineTuning], TrainingResult]

STEPS = 200
FOLDS = 2
"""Parts that today's drive is cut into for cross-fitting."""

_MOST_FRAMES = 3000
_MOST_EVENT_FRAMES = 2000
_VALIDATION_FRAMES = 48


@dataclass(frozen=True)
class AdaptOptions:
    """What to adapt and how.

    Attributes:
        model: the model file to start from, with its training folder beside it.
        data: normal drives of today.
        out: model file to write.
        events: folders of the robot's black box: events judged normal join today, those judged
            anomalies the anomalies; or recordings of anomalies.
        topic: image topic of bags with several.
        steps: of fine-tuning.
        false_alarm_rate: share of normal frames to be flagged; None for the model's own.
        accept_change: names of changes since the past that are no fault
            (:data:`training.adaptation.changes.LIMITS`).
        seed: makes it repeatable.
        on_compared: gets what has changed, the frames of the past and of today that were compared
            and the stretches that are left out, also of a drive that is then refused.
        resume: go on from the last checkpoint.
        device: where to compute.
        cache: folder for resized frames.
        progress: show progress bars and results.
    """

    model: Path
    data: Sequence[str]
    out: Path
    events: Sequence[str] = ()
    topic: str | None = None
    steps: int = STEPS
    false_alarm_rate: float | None = None
    accept_change: Sequence[str] = ()
    on_compared: OnCompared | None = None
    seed: int = 0
    resume: bool = False
    device: str = "auto"
    cache: Path | None = None
    progress: bool = True


@dataclass(frozen=True)
class _Today:
    """The frames to adapt to, recording by recording, at most :data:`_MOST_FRAMES`."""

    images: NDArray[np.uint8]
    lengths: Sequence[int]
    gaps: Sequence[int]
    names: Sequence[str]
    every: int

    @classmethod
    def of(cls, frames: FrameSet) -> _Today:
        every = max(1, -(-len(frames) // _MOST_FRAMES))
        starts = np.cumsum([0, *frames.lengths])
        numbers = [np.arange(a, b, every) for a, b in itertools.pairwise(starts)]
        return cls(
            frames.load(np.concatenate(numbers)),
            [len(own) for own in numbers],
            [-(-gap // every) for gap in frames.gaps],
            [part.source.name for part in frames.parts],
            every,
        )

    def without(self, stretches: Sequence[Sequence[tuple[int, int]]]) -> _Today:
        """Return the frames outside of some stretches of each recording."""
        kept = np.ones(len(self.images), bool)
        parts = np.split(kept, np.cumsum(self.lengths)[:-1])
        for part, own in zip(parts, stretches, strict=True):
            for first, last in own:
                part[first : last + 1] = False
        lengths = [int(part.sum()) for part in parts]
        return replace(self, images=self.images[kept], lengths=lengths)

    def with_events(self, frames: FrameSet) -> _Today:
        """Return these frames and, as one more recording, those of events judged normal."""
        images = frames.load(np.arange(len(frames)))
        # Each fold needs two of them.
        images = np.repeat(images, -(-2 * FOLDS // len(images)), axis=0)
        return replace(
            self,
            images=np.concatenate([self.images, images]),
            lengths=[*self.lengths, len(images)],
            gaps=[*self.gaps, max(frames.gaps)],
            names=[*self.names, frames.parts[0].source.name],
        )

    def parts(self) -> list[NDArray[np.uint8]]:
        return np.split(self.images, np.cumsum(self.lengths)[:-1])


def adapt(options: AdaptOptions) -> ModelMetadata:
    """Fine-tune, calibrate, export and check a detector.

    Writes ``options.out`` and, beside it, ``NAME.history.csv`` and the folder ``NAME.training``, as
    training does, so that the new model can be adapted in turn.

    Returns:
        The metadata that went into the model.

    Raises:
        AnomalyDetectorError: the model cannot adapt, a recording or an option is at fault, or
            Ctrl-C; no model is written.
    """
    adaptation = _prepare(options)
    # Keras takes seconds to import: only now that the data is known to be good.
    import_keras()
    select_device(options.device)
    fine_tune = adaptation.adapt(adaptation.source)
    scores, histories = _cross_fit(adaptation, fine_tune)
    today = adaptation.today.images
    everything = weighed(np.arange(len(today)), adaptation.first_of_events)
    result = fine_tune(adaptation.tuning("all", today[everything], options.steps))
    return _export(adaptation, result, scores, {**result.histories, **histories})


@dataclass(frozen=True)
class _Adaptation:
    """What is adapted to what.

    Attributes:
        options: checked.
        old: metadata of the model before.
        adapt: its scorer's.
        source: its training folder.
        past: the sample of what it has seen.
        today: what it adapts to.
        first_of_events: number of its first frame that is of an event judged normal.
        anomalies: frames of recorded anomalies, uint8 [A, H, W, 3].
        folder: of the new model.
        records: what is said of the data in the new model.
    """

    options: AdaptOptions
    old: ModelMetadata
    adapt: Callable[[RunFolder], FineTune]
    source: RunFolder
    past: Past
    today: _Today
    first_of_events: int
    anomalies: NDArray[np.uint8]
    folder: RunFolder
    records: Mapping[str, Any]

    def tuning(self, name: str, images: NDArray[np.uint8], steps: int) -> FineTuning:
        """Return what to fine-tune on: the past and some frames of today."""
        validation = self.past.calibration if self.past.held_out.any() else images
        checkpoint = self.folder.checkpoint(name.replace(" ", "_"))
        return FineTuning(
            self.past.trained,
            images,
            validation[spread(len(validation), _VALIDATION_FRAMES)],
            np.concatenate([self.past.anomalies, self.anomalies]),
            steps,
            self.options.seed,
            f"adapting ({name})",
            {"progress": self.options.progress, **checkpoint},
        )


def _cross_fit(
    adaptation: _Adaptation, fine_tune: FineTune
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return the score of each frame of today by a network that has not seen its part of it.

    The second are the histories of these networks.
    """
    today = adaptation.today
    scores = np.empty(len(today.images), np.float32)
    histories = {}
    for number, split in enumerate(fold_blocks(today.lengths, today.gaps, FOLDS), 1):
        name = f"without part {number}"
        steps = max(1, adaptation.options.steps // FOLDS)
        train = weighed(split.train, adaptation.first_of_events)
        result = fine_tune(adaptation.tuning(name, today.images[train], steps))
        scores[split.calibration] = result.scores(today.images[split.calibration])
        (histories[name],) = result.histories.values()
    return scores, histories


def _prepare(options: AdaptOptions) -> _Adaptation:
    """Check the options, and read the model and the recordings.

    Raises:
        AnomalyDetectorError: one of them is at fault.
    """
    source = RunFolder.beside(options.model)
    _check(options, source)
    old = read_metadata(options.model)
    can_adapt = _adaptable(old)
    _check_folder(options.model, old, source)
    past = source.past()
    frames = _open(options, options.data, old)
    today = _Today.of(frames)
    _check_today(today, old)
    events, normal = _open_events(options, old, len(today.images))
    anomalies = load_some(events, _MOST_EVENT_FRAMES, old.input_size)
    changes = compare(past.images, today.images)
    stretches = [stand_out(past.images, images) for images in today.parts()]
    if options.on_compared is not None:
        starts = np.cumsum([0, *today.lengths]).tolist()
        own = zip(starts, stretches, strict=False)
        shifted = [(a + start, b + start) for start, part in own for a, b in part]
        options.on_compared(changes, past.images, today.images, shifted)
    accepted = changes.refused(options.accept_change)
    kept = today.without(stretches)
    # What the past flagged differs from it, and people have said that it is no fault.
    adapted = kept if normal is None else kept.with_events(normal)
    folder = RunFolder.beside(options.out, options.resume)
    records: dict[str, Any] = {
        "data": [printable(name) for name in today.names],
        "events": [
            printable(name)
            for name in dict.fromkeys(
                part.source.name for item in (events, normal) if item for part in item.parts
            )
        ],
        "frames": {
            "recorded": len(frames),
            "adapted": len(kept.images),
            "anomalies": len(anomalies),
            **({} if normal is None else {"normal of events": len(normal)}),
        },
        "left_out": {
            name: [[today.every * number for number in stretch] for stretch in own]
            for name, own in zip(today.names, stretches, strict=True)
            if own
        },
        "accepted_changes": accepted,
        "steps": options.steps,
        "previous_name": old.name,
        "previous_threshold": old.threshold,
    }
    for name, own in records["left_out"].items():
        numbers = ", ".join(f"{first} to {last}" for first, last in own)
        print(
            f"warning: frames {numbers} of {name} stand out from the rest: they are left out",
            file=sys.stderr,
        )
    folder.start(records | {"lineage": _lineage(old), "seed": options.seed, "gaps": today.gaps})
    return _Adaptation(
        options, old, can_adapt, source, past,
        adapted, len(kept.images), anomalies, folder, records,
    )  # fmt: skip


def _open_events(
    options: AdaptOptions, old: ModelMetadata, drive_frames: int
) -> tuple[FrameSet | None, FrameSet | None]:
    """Return the anomalies, and the frames of events judged normal."""
    paths = expand_sources(options.events)
    boxes = [path for path in paths if find_events(Path(path))]
    others = [path for path in paths if path not in boxes]
    anomalies = _open(options, others, old, anomalous=True) if others else None
    if not boxes:
        return anomalies, None
    found = open_events(
        boxes, drive_frames, view=old.view, cache=options.cache, progress=options.progress
    )
    print(found)
    return joined(anomalies, found.anomalies), found.normal


def _check(options: AdaptOptions, source: RunFolder) -> None:
    check_model_output(options.out)
    out = RunFolder.beside(options.out).path
    if out.resolve() == source.path.resolve() or options.out.resolve() == options.model.resolve():
        raise AnomalyDetectorError(
            f"--out {options.out} is the model itself: name another file, so that there is a way "
            "back"
        )
    if options.steps < 1:
        raise AnomalyDetectorError(f"--steps is {options.steps}: give 1 or more")
    if options.false_alarm_rate is not None:
        check_false_alarm_rate(options.false_alarm_rate)
    check_output_file(options.out.with_suffix(".history.csv"))


def _adaptable(old: ModelMetadata) -> Callable[[RunFolder], FineTune]:
    scorer = find_scorer(old.scorer)
    if scorer.adapt is None:
        able = ", ".join(name for name, item in scorers().items() if item.adapt is not None)
        raise AnomalyDetectorError(
            f"model {old.name}: scorer {old.scorer} cannot adapt: train one with --scorer {able}"
        )
    if "precision" in old.provenance:
        kind = old.provenance["precision"].get("type")
        raise AnomalyDetectorError(
            f"model {old.name} is the {kind} variant of another: adapt that one, and export the "
            "result with --precision again"
        )
    return scorer.adapt


def _check_folder(model: Path, old: ModelMetadata, source: RunFolder) -> None:
    """Refuse a training folder that is missing or not the model's."""
    if not source.path.is_dir():
        raise AnomalyDetectorError(
            f"model {model} has no folder {source.path}, which its training wrote beside it: copy "
            "that folder there, or train the model again"
        )
    kept = source.metadata()
    if _lineage(kept) != _lineage(old):
        raise AnomalyDetectorError(
            f"folder {source.path} is of another training than model {model}: copy the folder that "
            "lay beside the model"
        )
    if kept.view != old.view:
        raise AnomalyDetectorError(
            f"model {model} looks at region {old.view.region}, its training folder's frames at "
            f"{kept.view.region}, or they scale values otherwise: train again with this view"
        )


def _lineage(metadata: ModelMetadata) -> list[Any]:
    """Return what a model's weights came from, as JSON knows it; recalibrating changes none."""
    made = metadata.provenance.get("created"), metadata.provenance.get("adapted", [])
    return [*made, [item.hashes for item in metadata.training_recordings]]


def _open(
    options: AdaptOptions,
    recordings: Sequence[str],
    old: ModelMetadata,
    *,
    anomalous: bool | None = None,
) -> FrameSet:
    return open_frame_set(
        expand_sources(recordings),
        options.topic,
        anomalous=anomalous,
        view=old.view,
        cache=options.cache,
        progress=options.progress,
    )


def _check_today(today: _Today, old: ModelMetadata) -> None:
    for name, images in zip(today.names, today.parts(), strict=True):
        if len(images) < FEWEST_FRAMES:
            raise SourceError(
                f"{name} has {len(images)} frames, too few to adapt to: record a minute of driving"
            )
        known = tuple(known_again(name, images, old.training_recordings))
        warning = trained_warning(
            known, "its scores are lower than those of a new drive, and so is a threshold from them"
        )
        if warning:
            print(warning, file=sys.stderr)


def _export(
    adaptation: _Adaptation,
    result: TrainingResult,
    today_scores: NDArray[np.float32],
    histories: Mapping[str, Any],
) -> ModelMetadata:
    from training.export.convert import convert, write_detector

    options, old, today, past = (
        adaptation.options, adaptation.old, adaptation.today, adaptation.past,
    )  # fmt: skip
    past_scores = result.scores(past.calibration)
    rate = options.false_alarm_rate or old.calibration.false_alarm_rate or FALSE_ALARM_RATE
    chosen = {name: rule(today_scores, past_scores, rate) for name, rule in RULES.items()}
    threshold, calibration = chosen[DEFAULT_RULE]
    seen = fingerprints(list(zip(today.names, today.parts(), strict=True)))
    drives = np.repeat(np.arange(len(today.lengths)), today.lengths)
    is_held_out = np.zeros(len(drives), bool)
    grown = past.grown(Past(today.images, drives, is_held_out, seen, adaptation.anomalies))
    entry = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "version": anomaly_detector.__version__,
        **adaptation.records,
        "covers": "same days",
        "scores": {"today": len(today_scores), "past": len(past_scores)},
        "thresholds": {name: value for name, (value, _) in chosen.items()},
        "fitted": result.provenance,
    }
    history = [*old.provenance.get("adapted", []), entry]
    metadata = replace(
        old.with_threshold(threshold, calibration),
        name=options.out.stem,
        training_recordings=old.training_recordings + seen,
        provenance={**old.provenance, "adapted": history},
    )
    metadata = with_scorer_facts(metadata)
    adaptation.folder.keep(result.networks, metadata, grown)
    write_history(options.out.with_suffix(".history.csv"), histories)
    model = convert(result.scorer, old.input_size)
    difference = write_detector(
        model, metadata, options.out, scorer=result.scorer, images=today.images
    )
    adaptation.folder.remove_checkpoints()
    if shortfall := calibration_shortfall(calibration):
        print(f"warning: {shortfall}", file=sys.stderr)
    if options.progress:
        shares = " and ".join(
            f"{np.mean(scores >= threshold):.1%} of {len(scores)} held-out frames of {day}"
            for day, scores in (("today", today_scores), ("the past", past_scores))
            if len(scores)
        )
        print(
            f"{options.out}: adapted to {', '.join(adaptation.records['data'])}, "
            f"{describe_calibration(threshold, calibration)}, was {old.threshold:.6g}; it flags "
            f"{shares}, and covers no other day; ONNX Runtime against Keras {difference:.1e} "
            "relative"
        )
    return metadata

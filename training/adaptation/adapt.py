"""Adapts a trained model to a drive of today, without forgetting the days before.

Its decoder and heads are fine-tuned with rehearsal: half of the frames are of today's drive, half
of the sample of the past that lies in the model's training folder. First they are fine-tuned
without each part of today's drive in turn (cross-fitting): that gives scores of frames that they
have not seen, for the threshold. Then they are fine-tuned on all of it. The encoder stays, and all
runs in numpy and ONNX Runtime, so a robot's computer can do it.
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
from tqdm import tqdm

import anomaly_detector
from anomaly_detector.alarms.calibration import (
    calibration_shortfall,
    check_false_alarm_rate,
    describe_calibration,
)
from anomaly_detector.black_box import find_events
from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.errors import AnomalyDetectorError, Interrupted, SourceError
from anomaly_detector.files import check_output_file, printable
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import fingerprints, known_again, trained_warning
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.shipped import check_model_output
from anomaly_detector.recordings import expand_sources
from training.adaptation.changes import FEWEST_FRAMES, Changes, compare, stand_out
from training.adaptation.decoder import Array, Optimizer, Weights, steps
from training.adaptation.decoder_file import Decoder
from training.adaptation.threshold import DEFAULT_RULE, RULES
from training.config.options import FALSE_ALARM_RATE
from training.data.frames import (
    FrameSet,
    fold_blocks,
    joined,
    names_of,
    open_events,
    open_frame_set,
    weighed,
)
from training.data.past import Past, load_some
from training.export.provenance import write_history
from training.fitting.checkpoint import Checkpoint
from training.fitting.run_folder import RunFolder
from training.scorers.outlier_exposure.batches import EXPOSURE_BATCH, make_batch
from training.scorers.registry import find_scorer, scorers, with_scorer_facts

OnCompared: TypeAlias = Callable[
    [Changes, NDArray[np.uint8], NDArray[np.uint8], Sequence[tuple[int, int]]], None
]
STEPS = 200
FOLDS = 2
"""Parts that today's drive is cut into for cross-fitting."""

_MOST_FRAMES = 3000
_MOST_EVENT_FRAMES = 2000

_MADE_BATCHES = 100
"""Of frames and outliers that every fine-tuning samples from; their features are computed once."""

_CHECKPOINT_STEPS = 20


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
            names_of(frames.parts),
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
    try:
        return _adapt(adaptation)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "adapting was interrupted, nothing is written: go on with --resume"
        ) from error


@dataclass(frozen=True)
class _Adaptation:
    """What is adapted to what.

    Attributes:
        options: checked.
        old: metadata of the model before.
        decoder: of the model before.
        past: the sample of what it has seen.
        today: what it adapts to.
        first_of_events: number of its first frame that is of an event judged normal.
        anomalies: frames of recorded anomalies, uint8 [A, H, W, 3].
        folder: of the new model.
        records: what is said of the data in the new model.
    """

    options: AdaptOptions
    old: ModelMetadata
    decoder: Decoder
    past: Past
    today: _Today
    first_of_events: int
    anomalies: NDArray[np.uint8]
    folder: RunFolder
    records: Mapping[str, Any]


@dataclass(frozen=True)
class _Made:
    """Frames to train on, normal ones and outliers made of them.

    Attributes:
        features: what the encoder sees in them.
        targets: what the decoder is to answer.
        frames: int64 [M], the number of the frame of today that each was made of; -1 for the past.
    """

    features: Sequence[Array]
    targets: Mapping[str, Array]
    frames: NDArray[np.int64]


def _adapt(adaptation: _Adaptation) -> ModelMetadata:
    made = _make(adaptation)
    today, decoder = adaptation.today, adaptation.decoder
    scores = np.empty(len(today.images), np.float32)
    histories = {}
    for number, split in enumerate(fold_blocks(today.lengths, today.gaps, FOLDS), 1):
        name = f"without part {number}"
        count = max(1, adaptation.options.steps // FOLDS)
        rows = np.flatnonzero((made.frames < 0) | np.isin(made.frames, split.train))
        weights, histories[name] = _fine_tune(adaptation, made, rows, name, count)
        scores[split.calibration] = decoder.scores(weights, today.images[split.calibration])
    rows = np.arange(len(made.frames))
    weights, histories["all"] = _fine_tune(adaptation, made, rows, "all", adaptation.options.steps)
    return _export(adaptation, weights, scores, histories)


def _make(adaptation: _Adaptation) -> _Made:
    """Make frames to train on: half of the past, half of today."""
    past, today, options = adaptation.past.trained, adaptation.today.images, adaptation.options
    own = weighed(np.arange(len(today)), adaptation.first_of_events)
    anomalies = np.concatenate([adaptation.past.anomalies, adaptation.anomalies])
    features: list[list[Array]] = []
    targets: list[Mapping[str, Array]] = []
    frames = []
    for number in tqdm(
        range(min(_MADE_BATCHES, options.steps)),
        "making frames to learn from",
        disable=not options.progress,
        unit="batch",
    ):
        generator = np.random.default_rng((options.seed, number))
        of_past = generator.integers(len(past), size=EXPOSURE_BATCH // 2)
        of_today = generator.choice(own, EXPOSURE_BATCH - len(of_past))
        order = generator.permutation(EXPOSURE_BATCH)
        images = np.concatenate([past[of_past], today[of_today]])[order]
        batch = make_batch(
            generator,
            images,
            anomalies if len(anomalies) else None,
            mask=adaptation.old.input_mask,
        )
        seen = adaptation.decoder.features(batch.pop("image").astype(np.uint8))
        # Half precision: 100 KB a frame, and finer than what the network tells apart.
        features.append([item.astype(np.float16) for item in seen])
        targets.append(batch)
        frames.append(np.concatenate([np.full(len(of_past), -1), of_today])[order])
    return _Made(
        [np.concatenate(parts) for parts in zip(*features, strict=True)],
        {name: np.concatenate([item[name] for item in targets]) for name in targets[0]},
        np.concatenate(frames),
    )


def _fine_tune(
    adaptation: _Adaptation, made: _Made, rows: NDArray[np.int64], name: str, count: int
) -> tuple[Weights, dict[str, list[float]]]:
    """Return the weights after some steps on some of the frames, and the losses."""
    options = adaptation.options
    optimizer = Optimizer(adaptation.decoder.weights, count)
    losses: list[float] = []
    file = adaptation.folder.checkpoint(name.replace(" ", "_"))["checkpoint"]
    if options.resume and file.is_file():
        checkpoint = Checkpoint.read(file)
        losses = checkpoint.values["losses"]
        optimizer.restore(checkpoint.arrays, len(losses))
    with tqdm(
        total=count,
        initial=optimizer.step,
        desc=f"adapting ({name})",
        disable=not options.progress,
        unit="step",
    ) as bar:
        for loss in steps(
            optimizer, made.features, made.targets, rows, options.seed, count,
            adaptation.decoder.kept,
        ):  # fmt: skip
            if not np.isfinite(loss):
                raise AnomalyDetectorError(
                    f"adapting ({name}) diverged, its loss is not finite: try another --seed"
                )
            losses.append(loss)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if optimizer.step % _CHECKPOINT_STEPS == 0 or optimizer.step == count:
                Checkpoint(optimizer.state, {"losses": losses}).write(file)
    return optimizer.weights, {"loss": losses}


def _prepare(options: AdaptOptions) -> _Adaptation:
    """Check the options, and read the model and the recordings.

    Raises:
        AnomalyDetectorError: one of them is at fault.
    """
    source = RunFolder.beside(options.model)
    _check(options, source)
    old = read_metadata(options.model)
    _check_scorer(old)
    _check_folder(options.model, old, source)
    decoder = Decoder(options.model)
    past = source.past()
    frames = _open(options, options.data, old)
    today = _Today.of(frames)
    _check_today(today, old)
    events, normal = _open_events(options, old, len(today.images))
    anomalies = load_some(events, _MOST_EVENT_FRAMES, old.input_size)
    changes = compare(past.images, today.images, old.input_mask)
    known = _seen(past.images, old)
    stretches = [stand_out(known, _seen(images, old)) for images in today.parts()]
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
    folder.start(
        records
        | {"lineage": _lineage(old), "seed": options.seed, "gaps": today.gaps}
        | {"frames' checksum": frames.checksum}
    )
    return _Adaptation(
        options, old, decoder, past,
        adapted, len(kept.images), anomalies, folder, records,
    )  # fmt: skip


def _seen(images: NDArray[np.uint8], old: ModelMetadata) -> NDArray[np.uint8]:
    """Return frames without what lies under the model's mask: its changes are none."""
    return images if old.input_mask is None else old.input_mask.filled(images)


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
    if options.seed < 0:
        raise AnomalyDetectorError(f"--seed is {options.seed}: give 0 or more")
    if options.false_alarm_rate is not None:
        check_false_alarm_rate(options.false_alarm_rate)
    check_output_file(options.out.with_suffix(".history.csv"))


def _check_scorer(old: ModelMetadata) -> None:
    scorer = find_scorer(old.scorer)
    if not scorer.adapts:
        able = ", ".join(name for name, item in scorers().items() if item.adapts)
        raise AnomalyDetectorError(
            f"model {old.name}: scorer {old.scorer} cannot adapt: train one with --scorer {able}"
        )
    if "precision" in old.provenance:
        kind = old.provenance["precision"].get("type")
        raise AnomalyDetectorError(
            f"model {old.name} is the {kind} variant of another: adapt that one, which it was "
            "exported from"
        )


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
    weights: Weights,
    today_scores: NDArray[np.float32],
    histories: Mapping[str, Any],
) -> ModelMetadata:
    options, old, today, past = (
        adaptation.options, adaptation.old, adaptation.today, adaptation.past,
    )  # fmt: skip
    # Of another place, the past says nothing of how high its normal scores are.
    elsewhere = any(item["name"] == "place" for item in adaptation.records["accepted_changes"])
    known = past.calibration[:0] if elsewhere else past.calibration
    past_scores = adaptation.decoder.scores(weights, known)
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
    }
    history = [*old.provenance.get("adapted", []), entry]
    camera = CameraReference.of(today.parts())
    if old.camera_reference is not None:
        camera = old.camera_reference.merged(camera)
    metadata = replace(
        old.with_threshold(threshold, calibration),
        name=options.out.stem,
        training_recordings=old.training_recordings + seen,
        camera_reference=camera,
        provenance={**old.provenance, "adapted": history},
    )
    metadata = with_scorer_facts(metadata)
    adaptation.folder.keep({}, metadata, grown)
    write_history(options.out.with_suffix(".history.csv"), histories)
    # The model last: where it is, all else is.
    write_with_metadata(options.model, metadata, options.out, adaptation.decoder.tensors(weights))
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
            f"{shares}, and covers no other day"
        )
    return metadata

"""Trains a detector: a recorded drive in, a model file out (``python -m training train``)."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.calibration import (
    calibrate_threshold,
    calibration_shortfall,
    describe_calibration,
    score_quantiles,
)
from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.errors import Interrupted, SourceError
from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.fingerprint import fingerprints
from anomaly_detector.model.metadata import Calibration, ModelMetadata
from anomaly_detector.recordings import expand_sources, frame_size
from training.config.options import FALSE_ALARM_RATE, TrainOptions
from training.data.check import quick_look
from training.data.days import days_of
from training.data.frames import (
    BlockSplit,
    EventFrames,
    FrameSet,
    exclude,
    joined,
    open_events,
    open_frame_set,
    split_blocks,
    weighed,
)
from training.data.opening import open_recording
from training.data.past import Past
from training.export.provenance import inputs, provenance, resolved_recipe, write_history
from training.fitting.cluster.cluster import Cluster, Membership, read_membership
from training.fitting.device import select_device
from training.fitting.run import TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.networks.backend import import_keras
from training.scorers.options import check_options, fixed_threshold, resolve_architecture
from training.scorers.registry import find_scorer, with_scorer_facts

HELD_OUT_DAYS = "held-out-days"
"""Method of a threshold from frames of days that their networks were not trained on."""


_FREE_TO_CHANGE = (
    *("epochs", "mlp_epochs", "realnvp_epochs", "time_limit"),
    *("false_alarm_rate", "threshold"),
)
"""Options that a resumed training may change: its checkpoints do not depend on them."""


OnTrained: TypeAlias = Callable[[TrainingRun], None]


def train(options: TrainOptions, on_trained: OnTrained | None = None) -> ModelMetadata:
    """Train, calibrate, export and check a detector.

    With ``options.cluster`` all its workers train together, and only the first of them writes.
    Writes ``options.out`` and, beside it, ``NAME.history.csv`` with the losses of every epoch and
    the folder ``NAME.training`` (see :mod:`training.fitting.run_folder`).

    Args:
        options: what to train and how.
        on_trained: gets the training when its model is written; of a cluster in its chief alone.

    Returns:
        The metadata that went into the model.

    Raises:
        AnomalyDetectorError: a recording, an option or the export is at fault, or another worker
            of the cluster is gone; no model is written.
    """
    if not options.cluster:
        return _train(options, None, on_trained)
    membership = read_membership(options.cluster, options.worker)
    with TemporaryDirectory() as folder:
        if not membership.is_chief:
            # It does all that the chief does, and what it writes is thrown away.
            options = replace(
                options, out=Path(folder, options.out.name), tensorboard=None, progress=False
            )
            on_trained = None
        metadata = _train(options, membership, on_trained)
    if not membership.is_chief:
        print(f"worker {membership.index}: done, worker 0 writes the model")
    return metadata


def _train(
    options: TrainOptions, membership: Membership | None, on_trained: OnTrained | None
) -> ModelMetadata:
    run = prepare(options)
    # Keras takes seconds to import: only now that the data is known to be good.
    import_keras()
    select_device(options.device)
    if membership is not None:
        run = replace(run, cluster=_join(membership, run))
    from training.scorers.autoencoder import cross_validate

    other_days = _scores_of_held_out_days(run)
    folds = {"cross_validation": cross_validate(run)} if options.folds else {}
    trained = _fit(run)
    trained = replace(trained, metrics={**folds, **trained.metrics})
    metadata = export_trained(run, trained, other_days)
    if on_trained is not None:
        on_trained(run)
    return metadata


def _fit(run: TrainingRun) -> TrainingResult:
    from training.scorers.autoencoder import train_autoencoder

    scorer = find_scorer(run.options.scorer)
    return scorer.train(run, train_autoencoder(run) if scorer.needs_autoencoder else None)


def _scores_of_held_out_days(run: TrainingRun) -> NDArray[np.float32] | None:
    """Return the score of each frame by a network that was trained without its day, float32 [N].

    None where days are not to be held out, or there is only one.

    Raises:
        AnomalyDetectorError: Ctrl-C.
    """
    options, parts = run.options, run.frames.parts
    if options.hold_out == "blocks" or fixed_threshold(options) is not None:
        return None
    days = days_of(run.frames, len(options.data), each=options.hold_out == "days")
    scores = []
    for number, day in enumerate(days, 1):
        names = ", ".join(parts[n].source.name for n in day)
        if options.progress:
            print(f"Holding out {names} ({number} of {len(days)})", file=sys.stderr)
        rest = run.frames.without(day)
        split = _split(options, rest)
        part = replace(run, frames=rest, split=split, folder=run.folder.part(f"without_{number}"))
        trained = _fit(part)
        if trained.interrupted:
            raise Interrupted(
                f"training without {names} was interrupted, nothing is written: go on with --resume"
            )
        # Read from the cache batch by batch.
        for n in day:
            own = _scores(trained, parts[n].images, run.frames.mask)
            scores.append(np.delete(own, FrameSet([parts[n]], [run.frames.left_out[n]]).unused))
    return np.concatenate(scores) if scores else None


def _scores(
    trained: TrainingResult, images: NDArray[np.uint8], mask: Mask | None
) -> NDArray[np.float32]:
    if mask is None:
        return trained.scores(images)
    from training.export.convert import convert, masked, score_images

    return score_images(masked(convert(trained.scorer, images.shape[1]), mask), images)


def _join(membership: Membership, run: TrainingRun) -> Cluster:
    """Connect to the other workers, and check that they are about to train the same."""
    cluster = Cluster.join(membership)
    cluster.agree(
        {
            "options": resolved_recipe(run.options)
            | {"resume": run.options.resume, "exclude": list(run.options.exclude)},
            "recordings": [
                _fingerprint(frames) for frames in (run.frames, run.anomalies) if frames is not None
            ],
        }
    )
    return cluster


def _fingerprint(frames: FrameSet) -> list[int]:
    """Return what distinguishes recordings: their lengths, and a checksum of some frames."""
    return [*frames.lengths, frames.checksum]


def prepare(options: TrainOptions) -> TrainingRun:
    """Check the options, read the recordings and split them.

    Raises:
        AnomalyDetectorError: a recording or an option is at fault.
    """
    check_options(options)
    options = replace(
        options,
        architecture=resolve_architecture(options.scorer, options.architecture),
        data=expand_sources(options.data),
        anomalies=expand_sources(options.anomalies),
        events=expand_sources(options.events),
    )
    mask = _mask(options)
    frames = exclude(open_frames(options, options.data), options.exclude)
    if mask is not None:
        frames = frames.masked(mask)
    if options.progress:
        print(quick_look(frames, options.data))
    scorer = find_scorer(options.scorer)
    anomalies = None
    if options.anomalies:
        anomalies = open_frames(options, options.anomalies, anomalous=True)
        if scorer.normal_of_anomalies:
            normal = open_frames(options, options.anomalies, anomalous=False)
            frames = joined(frames, normal)
    first, events = len(frames), _open_events(options, len(frames))
    if events is not None:
        frames = joined(frames, events.normal)
        if "anomalies" in scorer.options:
            anomalies = joined(anomalies, events.anomalies)
    if scorer.needs_anomalies and anomalies is None:
        raise SourceError(
            f"scorer {options.scorer} learns from anomalies, and no event is judged one: give "
            "--anomalies RECORDING"
        )
    split = _split(options, frames)
    if mask is not None and anomalies is not None:
        anomalies = anomalies.masked(mask)
    split = replace(split, train=weighed(split.train, first))
    folder = RunFolder.beside(options.out, options.resume)
    recipe = resolved_recipe(options)
    folder.start(
        {name: value for name, value in recipe.items() if name not in _FREE_TO_CHANGE}
        | inputs(options)
        | {
            # Before that of the frames, in which the mask is filled.
            **({} if mask is None else {"mask's checksum": zlib.crc32(mask.to_text().encode())}),
            "frames": frames.lengths,
            "frames' checksum": frames.checksum,
            "gaps": split.gaps,
            "anomalous frames": [] if anomalies is None else anomalies.lengths,
        }
    )
    counts = dict(events.counts) if events is not None else {}
    return TrainingRun(options, frames, split, anomalies, folder, events=counts)


def _mask(options: TrainOptions) -> Mask | None:
    """Return what is not to be looked at; None for no mask."""
    if not options.mask_source:
        return None
    source, view = open_recording(options.data[0], options.topic), _view(options)
    return Mask(options.mask_source.ignored(*frame_size(source, view), view))


def _split(options: TrainOptions, frames: FrameSet) -> BlockSplit:
    split = split_blocks(
        frames.lengths,
        frames.gaps,
        held_out=options.held_out,
        seed=options.seed,
        choose_epoch=find_scorer(options.scorer).chooses_epoch,
    )
    return split.without(frames.unused)


def _open_events(options: TrainOptions, drive_frames: int) -> EventFrames | None:
    if not options.events:
        return None
    events = open_events(
        options.events, drive_frames,
        view=_view(options), cache=options.cache, progress=options.progress,
    )  # fmt: skip
    unused = "anomalies" not in find_scorer(options.scorer).options
    note = f" (scorer {options.scorer} learns from no anomalies)" if unused else ""
    print(f"{events}{note}")
    return events


def open_frames(
    options: TrainOptions, sources: Sequence[str], *, anomalous: bool | None = None
) -> FrameSet:
    """Open recordings as the options say; see :func:`training.data.frames.open_frame_set`."""
    return open_frame_set(
        sources,
        options.topic,
        anomalous=anomalous,
        view=_view(options),
        cache=options.cache,
        progress=options.progress,
    )


def _view(options: TrainOptions) -> View:
    return replace(options.view, size=find_scorer(options.scorer).input_size)


def export_trained(
    run: TrainingRun, trained: TrainingResult, other_days: NDArray[np.float32] | None = None
) -> ModelMetadata:
    """Convert, calibrate, check and write what was trained.

    Args:
        run: the run.
        trained: what came of it.
        other_days: scores of frames by networks that were trained without their day.

    Raises:
        AnomalyDetectorError: the export is at fault; no model is written.
    """
    from training.export.convert import convert, masked, score_images, write_detector

    options = run.options
    model = convert(trained.scorer, run.frames.size)
    images = run.frames.load(run.split.calibration)
    threshold, calibration = choose_threshold(
        score_images(masked(model, run.frames.mask), images),
        fixed_threshold(options),
        options.false_alarm_rate or FALSE_ALARM_RATE,
        other_days,
    )
    metadata = ModelMetadata(
        name=options.out.stem,
        architecture=options.architecture,
        scorer=options.scorer,
        score_units=find_scorer(options.scorer).unit_on(options.architecture),
        threshold=threshold,
        calibration=calibration,
        training_recordings=fingerprints(
            [
                (part.source.name, part.images)
                for frames in (run.frames, run.anomalies)
                for part in (frames.parts if frames is not None else ())
            ]
        ),
        camera_reference=CameraReference.of([part.images for part in run.frames.parts]),
        provenance={**provenance(run), **trained.provenance},
        metrics=trained.metrics,
    )
    metadata = metadata.with_view(_view(options)).with_mask(run.frames.mask)
    metadata = with_scorer_facts(metadata)
    # The model last: where it is, all else is.
    past = None
    if find_scorer(options.scorer).adapts:
        past = Past.of(run.frames, run.split, run.anomalies)
    run.folder.keep(trained.networks, metadata, past)
    write_history(options.out.with_suffix(".history.csv"), trained.histories)
    difference = write_detector(model, metadata, options.out, scorer=trained.scorer, images=images)
    if not trained.interrupted:  # else the user may want to go on later
        run.folder.remove_checkpoints()
    if options.progress:
        print(
            f"{options.out}: {options.architecture} + {options.scorer}, "
            f"{describe_calibration(threshold, calibration)}; "
            f"ONNX Runtime against Keras {difference:.1e} relative"
        )
        if fixed_threshold(options) is None:
            print(_covers(options, other_days is not None))
    return metadata


def _covers(options: TrainOptions, other_days: bool) -> str:
    """Say what kind of unseen frames a threshold is for."""
    if other_days:
        return "The threshold covers other days as different as these are."
    text = "The threshold covers the light and the things of these drives, and no other day"
    if not find_scorer(options.scorer).adapts:
        return f"{text}."
    return (
        f"{text}: python -m anomaly_detector adapt --model {options.out} --data TODAY mends that."
    )


def choose_threshold(
    held_out_scores: NDArray[np.float32],
    fixed: float | None,
    false_alarm_rate: float,
    other_days: NDArray[np.float32] | None = None,
) -> tuple[float, Calibration]:
    """Calibrate on held-out normal frames, and warn if they are too few, or take the fixed one.

    With scores of held-out days the larger of both thresholds counts.
    """
    if fixed is not None:
        return fixed, Calibration("fixed", quantiles=score_quantiles(held_out_scores))
    threshold, calibration = calibrate_threshold(held_out_scores, false_alarm_rate)
    if other_days is not None:
        higher, calibration = calibrate_threshold(other_days, false_alarm_rate)
        threshold = max(threshold, higher)
        calibration = replace(calibration, method=HELD_OUT_DAYS)
    shortfall = calibration_shortfall(calibration)
    if shortfall is not None:
        print(f"warning: {shortfall}", file=sys.stderr)
    return threshold, calibration

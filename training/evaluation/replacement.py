"""A model that was just made against the one that it replaces, on what neither has learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmSettings
from anomaly_detector.files import printable
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import known_again
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.recordings import Frame, FrameSource
from anomaly_detector.review.comparison import Case, Comparison, compare_models, judged_events
from anomaly_detector.review.comparison_page import write_comparison
from training.data.frames import open_frame_set
from training.fitting.run import TrainingRun
from training.fitting.run_folder import RunFolder

_NO_FRAMES = (
    "There are no normal frames that neither model was trained on, so no false-alarm rate is "
    "compared: compare-models does it with --normal DRIVE."
)


class PreparedSource(FrameSource):
    """Frames that are as a model sees them already.

    Args:
        name: what they are called.
        images: uint8 [N, H, W, 3], RGB.
    """

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        super().__init__(Path(name))
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def _frames(self) -> Iterator[Frame]:
        for number, image in enumerate(self._images):
            yield Frame(f"{number:06d}", None, Image(image, "rgb", region=self.view.region))


def held_out_drives(run: TrainingRun, old: ModelMetadata) -> tuple[list[Case], list[str]]:
    """Return the held-out frames of a training's drives, but for those the old model learnt.

    The second are the notes on what limits the comparison.

    Args:
        run: the training.
        old: the model that is replaced.
    """
    options, frames = run.options, run.frames
    cases: list[Case] = []
    known: list[str] = []
    starts = np.cumsum([0, *frames.lengths])
    for number, recording in enumerate(options.data):
        part = frames.parts[number]
        name = printable(part.source.name)
        first, end = starts[number : number + 2]
        held_out = run.split.calibration
        held_out = held_out[(first <= held_out) & (held_out < end)] - first
        seen = part
        if replace(options.view, size=frames.size) != old.view:
            (seen,) = open_frame_set(
                [recording], options.topic,
                view=old.view, cache=options.cache, progress=options.progress,
            ).parts  # fmt: skip
        if any(known_again(name, seen.images, old.training_recordings)):
            known.append(name)
        elif len(held_out) and list(seen.names) == list(part.names):
            title = f"held-out frames of {name}"
            before, now = (PreparedSource(title, item.images[held_out]) for item in (seen, part))
            cases.append(Case(title, "drive", before, now, is_held_out=True))
    notes = []
    if known:
        notes.append(
            f"Of {', '.join(known)} no frame is compared: the old model was trained on it."
        )
    if cases:
        notes.append(
            "The held-out frames gave the new model its threshold: its rate there is near the "
            "wanted one by itself."
        )
    return cases, notes


def held_out_past(model: Path) -> list[Case]:
    """Return the frames in a model's training folder that neither it nor what adapts it learns."""
    past = RunFolder.beside(model).past()
    if not len(past.calibration):
        return []
    title = f"held-out frames of {', '.join(item.name for item in past.recordings)}"
    source = PreparedSource(title, past.calibration)
    # They are far apart, so that an alarm filter over them says nothing.
    settings = AlarmSettings(mode="off")
    return [Case(title, "drive", source, source, settings=settings, is_held_out=True)]


def compare_to_old(
    old: Path,
    new: Path,
    events: Sequence[str],
    drives: Sequence[Case],
    notes: Sequence[str],
) -> tuple[Comparison, Path]:
    """Compare a new model to the one that it replaces, and write the page beside it.

    Returns:
        The result, and the page; ``NAME.comparison.json`` is beside it.

    Raises:
        AnomalyDetectorError: an event is damaged, or the page cannot be written.
    """
    comparison = compare_models(
        Detector(old),
        Detector(new),
        judged_events(events, AlarmSettings()),
        drives,
        notes=[*notes, *([] if drives else [_NO_FRAMES])],
    )
    page = new.with_suffix(".comparison.html")
    write_comparison(comparison, page, page.with_suffix(".json"))
    return comparison, page

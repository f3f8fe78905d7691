"""The sections of an evaluation's report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.drawing.page import KeyFigure, Page, Section
from anomaly_detector.drawing.timeline import timeline_figure
from anomaly_detector.recordings import count_frames
from anomaly_detector.stamps import SteadyTime
from training.evaluation.evaluate import Evaluation, GalleryFrame, iterate_recordings
from training.evaluation.metrics import Curve, EventDelay, curves
from training.reports.figures import histogram_figure, pr_figure, roc_figure
from training.reports.latent_space import latent_space_section
from training.reports.page import (
    figure_picture,
    flag_text,
    frame_card,
    interval_text,
    model_card_section,
    number_text,
    percent_text,
    range_text,
    table_of,
)

_MAX_TIMELINES = 12


def evaluation_report(evaluation: Evaluation) -> Page:
    """Arrange an evaluation as a report."""
    ranking = evaluation.ranking
    skipped = sum(count_frames(recording.unreadable) for recording in evaluation.recordings)
    subtitle = (
        f"{len(evaluation.frames)} frames of {len(evaluation.recordings)} "
        f"recording{'s' if len(evaluation.recordings) != 1 else ''}: {ranking.normal_frames} "
        f"normal, {ranking.pooled.frames} anomalous in {len(ranking.classes)} "
        f"class{'es' if len(ranking.classes) != 1 else ''}"
        + (f"; {skipped} unreadable frames skipped" if skipped else "")
    )
    sections = [
        _summary(evaluation),
        _curves(evaluation),
        _scores(evaluation),
        _timelines(evaluation),
        _classes(evaluation),
        latent_space_section(
            evaluation.latents, evaluation.frames.labels, evaluation.frames.classes
        ),
        _events(evaluation),
        _gallery(
            evaluation,
            "Worst misses",
            "Anomalous frames with the lowest scores, worst first",
            evaluation.misses,
        ),
        _gallery(
            evaluation,
            "Worst false alarms",
            "Normal frames with the highest scores, worst first",
            evaluation.false_alarms,
        ),
        _data(evaluation),
        model_card_section(evaluation.metadata, evaluation.model),
    ]
    title = f"Evaluation of {evaluation.metadata.name}"
    shown = [section for section in sections if section is not None]
    return Page(title, subtitle, shown, evaluation.warning)


def _summary(evaluation: Evaluation) -> Section:
    point = evaluation.operating_points[0]
    ranking = evaluation.ranking
    keys = [
        KeyFigure(
            "ROC-AUC, pooled",
            number_text(ranking.pooled.roc_auc.value),
            f"{range_text(ranking.pooled.roc_auc)}0.5 is chance",
        ),
        KeyFigure(
            "PR-AUC, pooled",
            number_text(ranking.pooled.pr_auc.value),
            f"{range_text(ranking.pooled.pr_auc)}{number_text(_chance(evaluation))} is chance",
        ),
        KeyFigure(
            "ROC-AUC, macro",
            number_text(ranking.macro.roc_auc.value),
            f"{range_text(ranking.macro.roc_auc)}mean over classes",
        ),
        KeyFigure(
            "Hazards flagged",
            percent_text(point.recall),
            f"{point.true_positives} of {ranking.pooled.frames} frames, "
            f"at threshold {point.threshold:.4g}",
        ),
        KeyFigure(
            "False alarms",
            percent_text(point.false_alarm_rate),
            f"{point.false_positives} of {ranking.normal_frames} normal frames",
        ),
        KeyFigure(
            "Events detected",
            f"{sum(not d.missed for d in evaluation.delays)} / {len(evaluation.delays)}",
            "at least one frame flagged",
        ),
    ]
    rows = [
        {
            "Threshold": {"model": "the model's own", "thesis": "the thesis' fixed 200"}[p.name],
            "Value": f"{p.threshold:.4g}",
            "Accuracy": number_text(p.accuracy),
            "Precision": number_text(p.precision),
            "Recall": number_text(p.recall),
            "F1": number_text(p.f1),
            "False-alarm rate": number_text(p.false_alarm_rate),
            "Hits": str(p.true_positives),
            "False alarms": str(p.false_positives),
            "Passed": str(p.true_negatives),
            "Misses": str(p.false_negatives),
        }
        for p in evaluation.operating_points
    ]
    table = table_of(rows, "At the threshold (frames)")
    notes = []
    if ranking.bootstrap:
        notes.append(
            f"Brackets are 95 % bootstrap intervals: {ranking.bootstrap} resamples of blocks of up "
            f"to {ranking.block} consecutive frames, because neighbouring frames look alike and "
            "count for little more than one. They say how much the figure depends on the frames "
            "that happened to be recorded, not how it would change in another building."
        )
    if not ranking.pooled.frames or not ranking.normal_frames:
        missing = "anomalous" if ranking.normal_frames else "normal"
        notes.append(f"There is no {missing} frame, so no area under a curve is defined.")
    return Section("Summary", key_figures=keys, tables=[table], notes=notes)


def _curves(evaluation: Evaluation) -> Section | None:
    frames, ranking = evaluation.frames, evaluation.ranking
    normal = frames.labels == 0
    pooled = curves(frames.scores, ~normal)
    if pooled is None:
        return None
    roc: list[tuple[str, Curve]] = []
    pr: list[tuple[str, Curve]] = []
    # A single class is the pool itself.
    for item in ranking.classes if len(ranking.classes) > 1 else ():
        label = next(k for k, name in evaluation.class_names.items() if name == item.name)
        chosen = normal | (frames.labels == label)
        both = curves(frames.scores[chosen], frames.labels[chosen] == label)
        if both is not None:
            roc.append((f"{item.name} {item.roc_auc.value:.3f}", both[0]))
            pr.append((f"{item.name} {item.pr_auc.value:.3f}", both[1]))
    roc_picture = roc_figure((f"pooled {ranking.pooled.roc_auc.value:.3f}", pooled[0]), roc)
    pr_picture = pr_figure(
        (f"pooled {ranking.pooled.pr_auc.value:.3f}", pooled[1]), pr, _chance(evaluation)
    )
    return Section(
        "Curves",
        ["The legends give the area under each curve. A class is compared with all normal frames."],
        pictures=[
            figure_picture(roc_picture, f"ROC curve, pooled area {ranking.pooled.roc_auc}"),
            figure_picture(
                pr_picture, f"Precision-recall curve, pooled area {ranking.pooled.pr_auc}"
            ),
        ],
    )


def _scores(evaluation: Evaluation) -> Section:
    frames = evaluation.frames
    groups = [("normal", frames.scores[frames.labels == 0])]
    groups.append(("anomalous", frames.scores[frames.labels != 0]))
    thresholds = [
        ({"model": "threshold", "thesis": "thesis threshold"}[p.name], p.threshold)
        for p in evaluation.operating_points
    ]
    label = f"Anomaly score: {evaluation.metadata.score_units}"
    figure = histogram_figure(groups, thresholds, label)
    alt = "Histogram of the scores of normal and anomalous frames with the thresholds"
    return Section("Score histogram", pictures=[figure_picture(figure, alt, wide=True)])


def _timelines(evaluation: Evaluation) -> Section:
    pictures = []
    frames = evaluation.frames
    for number, (recording, rows) in enumerate(iterate_recordings(evaluation)):
        if number == _MAX_TIMELINES:
            break
        scores, stamps = frames.scores[rows], frames.stamps_ns[rows]
        seconds = _seconds(stamps)
        axis = np.arange(scores.size, dtype=np.float64) if seconds is None else seconds
        step = float(np.median(np.diff(axis))) if axis.size > 1 else 1.0
        events = [
            (
                float(axis[d.event.start - rows.start]),
                float(axis[d.event.stop - 1 - rows.start]) + step,
                d.event.name,
            )
            for d in evaluation.delays
            if d.event.recording == number
        ]
        figure = timeline_figure(
            axis,
            scores,
            evaluation.threshold,
            events,
            title=f"Recording {number}",
            x_label="Frame" if seconds is None else "Time since start (s)",
            score_label="Anomaly score",
        )
        names = ", ".join(sorted({name for _, _, name in events})) or "none"
        pictures.append(
            figure_picture(
                figure,
                f"Score over time of recording {number} with threshold and true hazards: {names}",
                recording.path,
                wide=True,
            )
        )
    text = ["Shaded: the true hazards. Orange dots: flagged frames."]
    left = len(evaluation.recordings) - len(pictures)
    if left > 0:
        text.append(f"{left} more recordings are in scores.csv only.")
    return Section("Score over time", text, pictures=pictures)


def _classes(evaluation: Evaluation) -> Section | None:
    ranking = evaluation.ranking
    if not ranking.classes:
        return None
    recalls = {evaluation.class_names[k]: v for k, v in evaluation.class_recall.items()}
    events: dict[str, list[EventDelay]] = {}
    for delay in evaluation.delays:
        events.setdefault(delay.event.name, []).append(delay)
    rows = []
    for item in (ranking.pooled, ranking.macro, *ranking.classes):
        own = list(evaluation.delays) if item is ranking.pooled else events.get(item.name, [])
        found = sum(not delay.missed for delay in own)
        recall = recalls.get(item.name, math.nan)
        if item is ranking.pooled:
            recall = evaluation.operating_points[0].recall
        elif item is ranking.macro:
            recall = float(np.mean(list(recalls.values())))
        rows.append(
            {
                "Class": item.name,
                "Frames": str(item.frames),
                "ROC-AUC": interval_text(item.roc_auc, item.narrow),
                "PR-AUC": interval_text(item.pr_auc, item.narrow),
                "Frames flagged": percent_text(recall),
                "Events detected": f"{found} / {len(own)}" if own else "",
            }
        )
    return Section(
        "Classes",
        [
            f"Each class against all {ranking.normal_frames} normal frames; macro is the mean over "
            "the classes. The chance level of PR-AUC is the share of anomalous frames, so PR-AUC "
            "of classes of different size cannot be compared with each other."
        ],
        tables=[table_of(rows)],
        notes=[
            "* Few independent frames, for example one event only: blocks were cut finer to give "
            "an interval at all, and it is too narrow."
        ]
        if any("*" in cell for row in rows for cell in row.values())
        else (),
    )


def _events(evaluation: Evaluation) -> Section | None:
    if not evaluation.delays:
        return None
    rows = []
    starts = [rows_.start for _, rows_ in iterate_recordings(evaluation)]
    for delay in evaluation.delays:
        event, missed = delay.event, delay.delay_frames is None
        rows.append(
            {
                "Class": event.name,
                "Recording": str(event.recording),
                "First frame": evaluation.frames.names[event.start],
                "Position": str(event.start - starts[event.recording]),
                "Frames": str(event.stop - event.start),
                "Flagged": str(delay.flagged_frames),
                "Delay (frames)": "missed" if missed else str(delay.delay_frames),
                "Delay (s)": "" if delay.delay_s is None else f"{delay.delay_s:.2f}",
            }
        )
    return Section(
        "Detection delay",
        [
            "An event is a run of consecutive frames of one class. Its delay counts from its first "
            "frame to its first flagged frame; 0 is at once. The robot can only be faster than a "
            "label that starts late, not than the camera."
        ],
        tables=[table_of(rows, text_columns=3)],
    )


def _gallery(
    evaluation: Evaluation, title: str, what: str, frames: Sequence[GalleryFrame]
) -> Section | None:
    if not frames:
        return None
    cards = []
    for frame in frames:
        lines = [f"{frame.class_name}, {flag_text(frame.score, evaluation.threshold)}"]
        if len(evaluation.recordings) > 1:
            lines.append(f"recording {frame.recording}")
        cards.append(frame_card(frame.name, lines, frame.image, frame.anomaly_map))
    text = (
        f"{what}, at most one of every 20 frames in a row. Left the 64x64 frame that the "
        "model saw, right its anomaly map, each on its own scale: dark where the evidence is at "
        f"most the median, bright where it is strongest. The threshold is "
        f"{evaluation.threshold:.4g}."
    )
    return Section(title, [text], gallery=cards)


def _data(evaluation: Evaluation) -> Section:
    rows = []
    for number, (recording, span) in enumerate(iterate_recordings(evaluation)):
        anomalous = int(np.count_nonzero(evaluation.frames.labels[span]))
        first = recording.unreadable[0] if recording.unreadable else None
        rows.append(
            {
                "Path": recording.path,
                "Recording": str(number),
                "Frames": str(recording.frames),
                "Anomalous": str(anomalous),
                "Unreadable": str(count_frames(recording.unreadable)),
                "First unreadable": "" if first is None else f"{first.name}: {first.reason}",
            }
        )
    return Section("Recordings", tables=[table_of(rows)])


def _chance(evaluation: Evaluation) -> float:
    total = len(evaluation.frames)
    return evaluation.ranking.pooled.frames / total if total else math.nan


def _seconds(stamps: Sequence[int | None]) -> NDArray[np.float64] | None:
    """Return seconds since the first frame; None unless all stamps are there and in order."""
    steady = SteadyTime()
    known = [steady.add(stamp) for stamp in stamps if stamp is not None]
    if len(known) != len(stamps):
        return None
    seconds = np.array(known)
    return seconds if np.all(np.diff(seconds) >= 0) and seconds[-1] > 0 else None

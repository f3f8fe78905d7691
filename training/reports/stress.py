"""The sections of a stress test's report."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from anomaly_detector.drawing.page import Card, KeyFigure, Page, Section
from training.evaluation.stress import StressExample, StressResult
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

_GOOD, _BAD, _LINE = "#0072B2", "#D55E00", "#667085"


def stress_report(result: StressResult, source: str) -> Page:
    """Arrange a stress test as a report of its own."""
    subtitle = (
        f"{result.frames} normal frames of {source}, each clean and with {len(result.faults)} "
        f"fault{'s' if len(result.faults) != 1 else ''}; seed {result.seed}"
    )
    sections = [*stress_sections(result), model_card_section(result.metadata, result.model)]
    return Page(f"Stress test of {result.metadata.name}", subtitle, sections, result.warning)


def stress_sections(result: StressResult) -> list[Section]:
    """Return the sections summary, figures per fault, gallery and parameters."""
    return [_summary(result), _table(result), _gallery(result), _parameters(result)]


def recall_comparison(old: StressResult, new: StressResult) -> Section:
    """Return a section with the recall of two models on the same frames and faults."""
    rows = [
        {
            "Fault": name,
            "Group": group,
            old.model: percent_text(before),
            f"{new.model} (new)": percent_text(now),
        }
        for name, group, before, now in [
            ("mean", "", old.mean_recall, new.mean_recall),
            *(
                (item.fault.name, item.fault.group, item.recall, other.recall)
                for item, other in zip(old.faults, new.faults, strict=True)
            ),
        ]
    ]
    return Section(
        "Injected faults",
        ["The share of the faulted frames that either model flags."],
        key_figures=[
            KeyFigure(
                f"Faults flagged, {which}",
                percent_text(result.mean_recall),
                f"{range_text(result.recall)}mean over faults",
            )
            for which, result in (("old model", old), ("new model", new))
        ],
        tables=[table_of(rows, text_columns=2)],
        notes=[
            f"{old.frames} normal frames, each with every fault; intervals are of blocks of up "
            f"to {old.block} consecutive frames."
        ],
    )


def _summary(result: StressResult) -> Section:
    worst = result.worst
    keys = []
    if worst is not None:
        area = result.mean_roc_auc
        keys = [
            KeyFigure(
                "ROC-AUC, mean",
                number_text(area.value),
                f"{range_text(area)}over {len(result.counted)} faults",
            ),
            KeyFigure("ROC-AUC, minimum", number_text(worst.roc_auc.value), worst.fault.name),
            KeyFigure(
                "Faults flagged",
                percent_text(result.mean_recall),
                f"{range_text(result.recall)}mean over faults",
            ),
        ]
    if not math.isnan(result.mean_pointing):
        note = "map's maximum in the changed region, mean"
        keys.append(KeyFigure("Pointing accuracy", percent_text(result.mean_pointing), note))
    note = f"of {result.frames} clean frames, at threshold {result.threshold:.4g}"
    keys.append(KeyFigure("False alarms", percent_text(result.false_alarms), note))
    return Section(
        "Summary",
        [
            "Every frame was scored as it is and once with each fault. A ROC-AUC of 0.5 means that "
            "the score cannot tell a fault; below 0.5, faulted frames look more normal to the "
            "model than clean ones, which no threshold can mend. The recall is the share of the "
            "faulted frames that this threshold flags, and only those can raise an alarm."
        ],
        key_figures=keys,
        pictures=[
            figure_picture(
                stress_figure(result),
                "ROC-AUC of every fault with its interval, and the recall at the threshold",
                wide=True,
            )
        ],
    )


def stress_figure(result: StressResult) -> Figure:
    """Draw every fault's ROC-AUC with its interval, and beside it the recall at the threshold."""
    count = len(result.faults)
    figure = Figure(figsize=(9.6, 1.2 + 0.24 * count), layout="constrained")
    ranking, flagged = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (5, 4)})
    for row, item in enumerate(result.faults):
        area = item.roc_auc
        color = _LINE if not item.counted else _BAD if area.value < 0.5 else _GOOD
        if not math.isnan(area.low):
            ranking.plot([area.low, area.high], [row, row], color=color, linewidth=2)
        ranking.plot([area.value], [row], "o", color=color, markersize=5)
        color = _LINE if not item.counted else _BAD if item.recall < 0.5 else _GOOD
        flagged.barh(row, 100 * item.recall, height=0.6, color=color)
        flagged.text(
            100 * item.recall + 1.5, row, f"{100 * item.recall:.0f}", color=color, fontsize=8,
            verticalalignment="center",
        )  # fmt: skip
    ranking.axvline(0.5, color=_LINE, linestyle="--", linewidth=1)
    flagged.axvline(100 * result.false_alarms, color=_LINE, linestyle="--", linewidth=1)
    ranking.set_yticks(range(count), [item.fault.name for item in result.faults], fontsize=8.5)
    ranking.set(xlim=(-0.02, 1.06), ylim=(count - 0.4, -0.6), xlabel="ROC-AUC (dashed: chance)")
    flagged.set(xlim=(0, 109), xlabel="Recall at the threshold, % (dashed: false alarms)")
    for axes in (ranking, flagged):
        axes.grid(axis="x", color="#e4e7ec")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def _table(result: StressResult) -> Section:
    rows = [
        {
            "Fault": item.fault.name + ("" if item.counted else " (not counted)"),
            "Group": item.fault.group,
            "ROC-AUC": interval_text(item.roc_auc, item.narrow),
            "Flagged": percent_text(item.recall, ""),
            "Raised": percent_text(item.raised, ""),
            "Pointing": percent_text(item.pointing, ""),
            "Median score": f"{item.median_score:.4g}",
            "Normalised": f"{item.median_normalized_score:.3f}",
        }
        for item in result.faults
    ]
    notes = [
        "Flagged: at or above the model's threshold. Raised: share of the faulted frames that "
        "score above the same frame without the fault. Pointing: share in which the maximum of "
        "the anomaly map lies in the changed region, widened by one pixel at 64x64. Normalised: "
        "the median score on the scale that all models share, 0.5 at the threshold.",
    ]
    if result.bootstrap:
        notes.append(
            f"Brackets are 95 % bootstrap intervals: {result.bootstrap} resamples of blocks of up "
            f"to {result.block} consecutive frames, drawn for clean and for faulted frames "
            "independently. That leaves the pairing out, so they are rather too wide."
        )
    if len(result.counted) < len(result.faults):
        notes.append(
            "Not counted: a fault of the sequence, which a detector of single frames cannot see. "
            "It is in neither mean nor minimum; its ROC-AUC is about 0.5 by construction."
        )
    if any("*" in row["ROC-AUC"] for row in rows):
        notes.append("* Few independent frames: the interval is too narrow.")
    return Section("Faults", tables=[table_of(rows, text_columns=2)], notes=notes)


def _gallery(result: StressResult) -> Section:
    clean = result.clean_example
    cards = [_card("clean", clean, result.threshold, [])]
    for item in result.faults:
        line = f"ROC-AUC {number_text(item.roc_auc.value)}, {percent_text(item.recall)} flagged"
        cards.append(_card(item.fault.name, item.example, result.threshold, [line]))
    return Section(
        "Examples",
        [
            f"Frame {clean.frame}, chosen by chance, with every fault. Left the 64x64 frame that "
            "the model saw, right its anomaly map, each on its own scale: dark where the evidence "
            "is at most the median, bright where it is strongest."
        ],
        gallery=cards,
    )


def _card(name: str, example: StressExample, threshold: float, lines: list[str]) -> Card:
    first = flag_text(example.score, threshold)
    return frame_card(name, [first, *lines], example.image, example.anomaly_map)


def _parameters(result: StressResult) -> Section:
    rows = [
        {
            "Fault": item.fault.name,
            "What": item.fault.description,
            "Stage": item.fault.stage,
            "Parameters": item.fault.parameter_text,
        }
        for item in result.faults
    ]
    return Section(
        "Parameters",
        [
            "Sizes are in units: pixels of the model's 64x64 input. A fault of the stage camera is "
            "put on the full-size frame, which is then resized; one of the stage input on the "
            "resized frame. A range is drawn from evenly, anew in every frame."
        ],
        tables=[table_of(rows, text_columns=4)],
    )

"""The page of a look at drives before training."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from anomaly_detector.drawing.page import Card, KeyFigure, Page, Section, Table, frame_picture
from anomaly_detector.drawing.timeline import (
    ANOMALY_COLOR,
    CLASS_COLORS,
    NORMAL_COLOR,
    STYLE,
    new_figure,
)
from training.data.check import DriveCheck, Finding, Stretch
from training.data.check.curve import PARTS
from training.data.check.stretches import STANDS_OUT
from training.data.frames import FrameSet
from training.data.past import spread
from training.reports.page import figure_picture

_MOST_FIGURES = 8
_MOST_CARDS = 12
_PAIRS = 6


def check_page(check: DriveCheck, frames: FrameSet) -> Page:
    """Make the page.

    Args:
        check: what was found.
        frames: the frames that were looked at.
    """
    names = ", ".join(look.name for look in check.looks)
    return Page(
        "A look before training",
        f"{names}: {', '.join(dict.fromkeys((f'{len(frames)} frames', check.length)))}",
        [
            _summary(check),
            _along(check),
            *(
                _stretches(check, frames, finding)
                for finding in check.findings
                if finding.stretches
            ),
            _route(check, frames),
            *_curve(check),
        ],
        None if check.is_good else check.verdict,
    )


def _summary(check: DriveCheck) -> Section:
    keys = [
        KeyFigure("Usable", check.usable, f"of {check.length}"),
        KeyFigure("Seen more than once", f"{check.route.share:.0%}", "of the route"),
    ]
    if check.curve is not None:
        keys.append(
            KeyFigure(
                "Flagged by a simple model",
                " to ".join(f"{share:.0%}" for share in check.curve.means[-2:]),
                "of what it has not seen, of half the drive and of all of it",
                check.curve.falls,
            )
        )
    rows = [(finding.name, finding.what, finding.advice) for finding in check.findings]
    return Section(
        "Verdict",
        [check.verdict] if check.is_good else [],
        key_figures=keys,
        tables=[
            Table(
                ("Finding", "What", "What to do"),
                rows,
                text_columns=3,
                bad_rows=[n for n, finding in enumerate(check.findings) if finding.counts],
            )
        ]
        if rows
        else [],
        notes=[
            "Marked findings are reasons to look before training; the others are to be known. What "
            "is not usable: standstill, blur, frozen pictures and what stands out."
        ],
    )


def _along(check: DriveCheck) -> Section:
    pictures = [
        figure_picture(figure, f"Figures along {check.looks[number].name}", wide=True)
        for number, figure in _figures(check)
    ]
    text = (
        "Brightness is the mean grey level, sharpness the detail of one pixel relative to that of "
        "two. Motion is how far the picture moves in half a second, in pixels at 64x64. "
        "Strangeness is how far a frame is from what the rest of the drive describes, in robust "
        "deviations."
    )
    left = len(check.looks) - len(pictures)
    notes = [f"The first {len(pictures)} recordings; {left} more are not drawn."] if left else []
    return Section("Along the drive", [text], pictures=pictures, notes=notes)


def _figures(check: DriveCheck) -> Iterator[tuple[int, Figure]]:
    stretches = [(finding.name, item) for finding in check.findings for item in finding.stretches]
    names = list(dict.fromkeys(name for name, _ in stretches))
    for number, look in enumerate(check.looks[:_MOST_FIGURES]):
        times = look.times[look.numbers]
        rows = (
            ("Brightness", look.grey.mean(axis=(1, 2))),
            ("Sharpness", look.sharpness),
            ("Motion", look.flow),
            ("Strangeness", check.strangeness[number]),
        )
        with matplotlib.rc_context(STYLE):
            figure = new_figure(11, 5.6)
            every = figure.subplots(len(rows), 1, sharex=True)
            for axes, (title, values) in zip(every, rows, strict=True):
                axes.plot(times, values, color=NORMAL_COLOR, linewidth=1)
                axes.set_ylabel(title)
                axes.margins(x=0.01)
                for name, item in stretches:
                    if item.recording == number:
                        color = CLASS_COLORS[names.index(name) % len(CLASS_COLORS)]
                        ends = times[item.first], times[item.last]
                        axes.axvspan(*ends, color=color, alpha=0.3, linewidth=0, zorder=1)
            every[-1].axhline(STANDS_OUT, color=ANOMALY_COLOR, linestyle="--", linewidth=1)
            every[-1].set_xlabel("Time (s)" if look.timed else "Frame")
            for name in names:
                color = CLASS_COLORS[names.index(name) % len(CLASS_COLORS)]
                every[0].fill_between([], [], [], color=color, alpha=0.4, label=name)
            if names:
                figure.legend(loc="outside upper right", ncols=len(names), fontsize=8.5)
            figure.suptitle(look.name, x=0.01, ha="left", fontsize=11, fontweight="bold")
        yield number, figure


def _stretches(check: DriveCheck, frames: FrameSet, finding: Finding) -> Section:
    items = finding.stretches
    shown = sorted(items, key=len, reverse=True)[:_MOST_CARDS]
    return Section(
        finding.name.capitalize(),
        [f"{finding.what}. What to do: {finding.advice}."],
        gallery=[
            _card(check, frames, item)
            for item in sorted(shown, key=lambda item: (item.recording, item.first))
        ],
        notes=[f"The {len(shown)} longest of {len(items)}."] if len(shown) < len(items) else [],
    )


def _card(check: DriveCheck, frames: FrameSet, item: Stretch) -> Card:
    look = check.looks[item.recording]
    first, last = look.numbers[[item.first, item.last]]
    name = f"{look.name}, " if len(check.looks) > 1 else ""
    span, numbers = look.span(item.first, item.last), f"frames {first} to {last}"
    return Card(
        f"{name}{span}",
        [item.note] if numbers == span else [item.note, numbers],
        [
            frame_picture(frames.parts[item.recording].images[frame], f"Frame {frame}")
            for frame in sorted({first, (first + last) // 2, last})
        ],
    )


def _route(check: DriveCheck, frames: FrameSet) -> Section:
    samples, route = check.samples, check.route

    def place(index: int) -> tuple[int, int, str]:
        recording, sample = int(samples.recordings[index]), int(samples.indices[index])
        look = check.looks[recording]
        frame = int(look.numbers[sample])
        when = f"{look.times[frame]:.1f} s" if look.timed else f"frame {frame}"
        return recording, frame, f"{look.name}, {when}" if len(check.looks) > 1 else when

    again = np.flatnonzero(route.seen_again)
    cards = []
    for index in again[spread(len(again), _PAIRS)].tolist():
        ends = [place(end) for end in (index, int(route.matches[index]))]
        pictures = [
            frame_picture(frames.parts[recording].images[frame], when)
            for recording, frame, when in ends
        ]
        cards.append(Card(" and ".join(when for *_, when in ends), [], pictures))
    once = np.flatnonzero(~route.seen_again)
    places = [place(index) for index in once[spread(len(once), _PAIRS)].tolist()]
    for start in range(0, len(places), 2):
        pair = places[start : start + 2]
        pictures = [frame_picture(frames.parts[n].images[frame], when) for n, frame, when in pair]
        cards.append(Card(f"Seen once: {', '.join(when for *_, when in pair)}", [], pictures))
    text = (
        f"{check.route_text}: a place is known again when the frames around it are like those of "
        "another time, in the same order. Driving the same way back shows other views."
    )
    return Section("Route", [text], gallery=cards)


def _curve(check: DriveCheck) -> Iterator[Section]:
    curve = check.curve
    if curve is None:
        return
    with matplotlib.rc_context(STYLE):
        figure = new_figure(11, 3.2)
        axes = figure.add_subplot()
        shares = [1 / parts for parts in PARTS]
        axes.plot(shares, 100 * curve.errors.T, color=NORMAL_COLOR, linewidth=0.8, alpha=0.3)
        axes.plot(shares, 100 * curve.means, "o-", color=ANOMALY_COLOR, linewidth=2)
        axes.set(xlabel="Part of the rest of the drive that is known", ylabel="Flagged (%)")
        axes.set_ylim(bottom=0)
        axes.set_xticks(shares, ["1/8", "1/4", "1/2", "1"])
    yield Section(
        "Learning curve",
        [
            f"{str(curve).capitalize()}. The model flags a frame that is farther from the frames "
            "it knows than 95 % of these are from each other. Each eighth of the drive is held out "
            "in turn; the thick line is the mean of these eighths."
        ],
        pictures=[
            figure_picture(figure, "Flagged frames by how much of the drive is known", wide=True)
        ],
    )

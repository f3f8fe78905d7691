"""The page that shows what has changed between today's drive and those before."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.drawing.page import Card, KeyFigure, Page, Section, Table, frame_picture
from training.adaptation.changes import LIMITS, Change, Changes
from training.data.past import spread

Images = NDArray[np.uint8]

_PAIRS = 6


def changes_page(
    changes: Changes,
    past: Images,
    today: Images,
    stretches: Sequence[tuple[int, int]],
    accepted: Collection[str] = (),
) -> Page:
    """Make the page of a comparison.

    Args:
        changes: from :func:`~training.adaptation.changes.compare`.
        past: the frames that were compared, uint8 RGB [K, H, W, 3].
        today: likewise, [N, H, W, 3].
        stretches: first and last frames of today that are left out.
        accepted: names of the changes that are let through.
    """
    refused = [change for change in changes.outside if change.name not in accepted]
    warning = None
    if refused:
        remedies = "; ".join(f"{change.name}: {LIMITS[change.name].remedy}" for change in refused)
        names = " ".join(change.name for change in refused)
        warning = f"Refused. {remedies}. If it is to stay so: --accept-change {names}"
    return Page(
        "Today's drive and the drives before",
        f"{len(today)} frames of today, {len(past)} known frames",
        [
            _summary(changes, refused, accepted),
            *_pairs(changes, past, today),
            _left_out(today, stretches),
        ],
        warning,
    )


def _verdict(change: Change, accepted: Collection[str]) -> str:
    if not change.is_refused:
        return "as before"
    return "accepted" if change.name in accepted else "refused"


def _summary(changes: Changes, refused: Sequence[Change], accepted: Collection[str]) -> Section:
    rows = [
        (
            change.name,
            LIMITS[change.name].what,
            f"{change.past:.3g}",
            f"{change.today:.3g}",
            change.limit_text,
            _verdict(change, accepted),
        )
        for change in changes.changes
    ]
    bad = [index for index, change in enumerate(changes.changes) if change in refused]
    place = next(change for change in changes.changes if change.name == "place")
    return Section(
        "What has changed",
        [
            "Each frame of today is compared with the known frames that look most like it. The "
            "figures are medians over the drive, so its route counts little."
        ],
        key_figures=[
            KeyFigure("Verdict", "refused" if refused else "may be learnt", bad=bool(refused)),
            KeyFigure("Frames of known places", f"{place.today:.1%}", bad=place in refused),
        ],
        tables=[
            Table(
                ("Change", "Figure", "Past", "Today", "Limits", "Verdict"),
                rows,
                text_columns=2,
                last_is_text=True,
                bad_rows=bad,
            )
        ],
    )


def _pairs(changes: Changes, past: Images, today: Images) -> list[Section]:
    along = spread(len(changes.frames), _PAIRS)
    worst = np.sort(np.argsort(changes.similarity, kind="stable")[:_PAIRS])
    text = "Left the frame of today, right the known one that looks most like it"
    return [
        Section(
            title, [f"{text}, {which}."], gallery=[_card(changes, past, today, n) for n in rows]
        )
        for title, which, rows in (
            ("Along the drive", "evenly over the drive", along),
            ("Least alike", "where the two are least alike", worst),
        )
    ]


def _card(changes: Changes, past: Images, today: Images, row: int) -> Card:
    frame, match = int(changes.frames[row]), int(changes.matches[row])
    return Card(
        f"Frame {frame}",
        [f"correlation {changes.similarity[row]:.2f}"],
        [
            frame_picture(today[frame], f"Frame {frame} of today"),
            frame_picture(past[match], f"Known frame {match}"),
        ],
    )


def _left_out(today: Images, stretches: Sequence[tuple[int, int]]) -> Section:
    if not stretches:
        return Section("Left out", ["No stretch of the drive stands out from the rest of it."])
    cards = []
    for first, last in stretches:
        frames = sorted({first, (first + last) // 2, last})
        pictures = [frame_picture(today[frame], f"Frame {frame} of today") for frame in frames]
        cards.append(Card(f"Frames {first} to {last}", [f"{last - first + 1} frames"], pictures))
    return Section(
        "Left out",
        [
            "These stretches stand out from the rest of the drive. The model does not learn them: "
            "if they are normal, drive there again and adapt to that, too."
        ],
        gallery=cards,
    )

"""The page of changes: figures, verdicts, frames of both days side by side, what is left out."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_changes import PAST, TODAY, blurred, covered

from anomaly_detector.drawing.page import render_page
from training.adaptation.changes import compare
from training.reports.changes import changes_page


def test_a_page_says_what_is_refused_what_is_accepted_and_what_is_left_out() -> None:
    today = covered(blurred(TODAY, 1))
    changes = compare(PAST, today)
    page = changes_page(changes, PAST, today, [(20, 24)], ["blur"])
    text = render_page(page)
    rows = {row[0]: row for table in page.sections[0].tables for row in table.rows}
    blur = next(change for change in changes.changes if change.name == "blur")
    assert rows["blur"][2:] == (
        *(f"{blur.past:.3g}", f"{blur.today:.3g}", blur.limit_text, "accepted"),
    )
    assert rows["cover"][-1] == "refused"
    assert rows["colour"][-1] == "as before"
    assert page.warning is not None
    assert "--accept-change" in page.warning
    assert "cover" in page.warning.split("--accept-change")[1]
    assert "blur" not in page.warning.split("--accept-change")[1]
    assert "Frames 20 to 24" in text
    assert len(re.findall("Known frame", text)) == 12


@pytest.mark.parametrize("accepted", [[], ["blur"]])
def test_a_page_of_a_drive_as_before_warns_of_nothing(accepted: list[str]) -> None:
    changes = compare(PAST, TODAY)
    page = changes_page(changes, PAST, TODAY, [], accepted)
    assert page.warning is None
    assert page.sections[0].key_figures[0].value == "may be learnt"
    assert {row[-1] for table in page.sections[0].tables for row in table.rows} == {"as before"}
    assert "No stretch" in render_page(page)
    assert (np.diff(changes.frames) > 0).all()

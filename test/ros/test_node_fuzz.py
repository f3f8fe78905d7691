"""A small run of the fuzz benchmark; ``python -m benchmarks.node_fuzz`` is the large one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import ros_harness

from benchmarks.node_fuzz import fuzz, miscounted


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_malformed_images_are_counted_and_good_ones_scored(transport: str, model: Path) -> None:
    assert ros_harness.DOMAIN_ID  # set for every process of this test
    result = fuzz(transport, bad=300, good=30, model=model, seed=1, progress=False)
    assert result.alive
    assert result.right == result.good == 30
    assert result.answered_bad == 0
    assert sum(result.failed.values()) == result.bad == 300
    assert result.miscounted == 0


def test_wrong_reasons_would_be_noticed() -> None:
    sent = Counter({frozenset({"step"}): 3, frozenset({"data", "size"}): 2})
    assert miscounted({"step": 3, "data": 1, "size": 1}, sent) == 0
    assert miscounted({"step": 2, "data": 3}, sent) == 2

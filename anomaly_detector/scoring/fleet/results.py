"""The output folder of a job: three files a recording, and what says that they are finished."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomaly_detector.files import atomic_path
from anomaly_detector.scoring.fleet.task import ScoreOutcome, ScoreTask

_FORMAT = 1

_MAX_NAMED = 3

_MOST_BYTES = 240
"""Of a recording's name: that of a file has 255 at most, its suffix with it."""


@dataclass(frozen=True)
class SourceResult:
    """One row of a job's summary.

    Attributes:
        name: of the result's files.
        source: path of the recording.
        status: ``scored`` or ``failed``.
        frames: frames scored.
        flagged: of these at or above the threshold.
        alarms: raised by the decision over time.
        unreadable: frames skipped.
        duration_s: see :class:`~anomaly_detector.scoring.tables.ScoreSummary`.
        peak_score: highest score; None when failed.
        error: why it failed.
        skipped: what of it could not be read, and why; the first of it.
        scene: where its scene as a whole is not that of the training; the first of it.
    """

    name: str
    source: str
    status: str
    frames: int = 0
    flagged: int = 0
    alarms: int = 0
    unreadable: int = 0
    duration_s: float | None = None
    peak_score: float | None = None
    error: str = ""
    skipped: str = ""
    scene: str = ""


class ResultFolder:
    """Writes and finds the results of recordings.

    A recording's ``NAME.result.json`` is written after its tables and names their hashes and that
    of all they depend on, so it is there only when they are whole and of this job.

    Args:
        path: the folder; made when the first result is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def scores(self, name: str) -> Path:
        """Return the path of a recording's table of scores."""
        return self.path / f"{name}.scores.csv"

    def events(self, name: str) -> Path:
        """Return the path of a recording's table of alarms."""
        return self.path / f"{name}.events.csv"

    def _record(self, name: str) -> Path:
        return self.path / f"{name}.result.json"

    def finished(self, task: ScoreTask, digest: str) -> SourceResult | None:
        """Return an earlier result, if it is whole and of the same recording, model and options."""
        record = self._read(task.name)
        try:
            if record["format"] != _FORMAT or record["depends_on"] != digest:
                return None
            tables = (self.scores(task.name), self.events(task.name))
            if task.events_folder is not None and not task.events_folder.is_dir():
                return None
            if record["tables"] != [_sha256(path.read_bytes()) for path in tables]:
                return None
            return SourceResult(**record["result"])
        except (OSError, KeyError, TypeError):
            return None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads(self._record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def write(self, task: ScoreTask, digest: str, outcome: ScoreOutcome) -> SourceResult:
        """Write the tables of a recording, then the record that makes them count.

        Raises:
            AnomalyDetectorError: the folder cannot be written to.
        """
        summary = outcome.summary
        result = SourceResult(
            task.name,
            task.source,
            "scored",
            summary.scored,
            summary.flagged,
            summary.alarms,
            summary.unreadable,
            summary.duration_s,
            summary.peak_score,
            skipped="; ".join(map(str, summary.skipped[:_MAX_NAMED])),
            scene="; ".join(stretch.text for stretch in summary.scene[:_MAX_NAMED]),
        )
        record = {
            "format": _FORMAT,
            "depends_on": digest,
            "tables": [_sha256(outcome.scores), _sha256(outcome.events)],
            "result": asdict(result),
            "threshold": outcome.threshold,
            "seconds": round(outcome.seconds, 3),
        }
        for path, data in (
            (self.scores(task.name), outcome.scores),
            (self.events(task.name), outcome.events),
            (self._record(task.name), json.dumps(record, indent=1).encode()),
        ):
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        return result

    def discard(self, name: str) -> None:
        """Remove the files of a recording."""
        for path in (self._record(name), self.scores(name), self.events(name)):
            path.unlink(missing_ok=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shortened(name: str) -> str:
    data = os.fsencode(name)
    if len(data) <= _MOST_BYTES:
        return name
    return f"{data[: _MOST_BYTES - 17].decode(errors='ignore')}_{_sha256(data)[:16]}"


def unique_names(sources: Sequence[str]) -> list[str]:
    """Return a name for each recording's files: that of its path, with folders where needed.

    Args:
        sources: paths, all different.
    """
    parts = [Path(os.path.realpath(source)).parts[1:] or ("root",) for source in sources]
    depths = [1] * len(parts)
    for _ in range(max(map(len, parts))):
        names = [
            _shortened("_".join(part[-depth:]).replace(" ", "_"))
            for part, depth in zip(parts, depths, strict=True)
        ]
        counts = Counter(names)
        depths = [depth + (counts[name] > 1) for depth, name in zip(depths, names, strict=True)]
    # Left are the odd cases, such as a/b and a_b.
    return [
        name if counts[name] == 1 else f"{name}_{names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]

"""Runs a job: skips what is finished, scores the rest, writes results as they come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anomaly_detector.drawing.page import import_jinja2
from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.files import check_output_file
from anomaly_detector.model.detector import Detector
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings.base import check_fps
from anomaly_detector.scoring.fleet.dask_cluster import run_on_dask
from anomaly_detector.scoring.fleet.processes import Finished, run_here, run_in_processes
from anomaly_detector.scoring.fleet.report import write_summaries
from anomaly_detector.scoring.fleet.results import ResultFolder, SourceResult, unique_names
from anomaly_detector.scoring.fleet.task import ScoreOptions, ScoreOutcome, ScoreTask, file_sha256


@dataclass(frozen=True)
class FleetOptions(ScoreOptions):
    """What to score and how.

    Attributes:
        sources: paths of the recordings, each once.
        model: the model file.
        output: folder for the results.
        workers: processor cores to use here; None for all. With ``scheduler``, threads of each
            recording, None for 1.
        scheduler: address of a Dask scheduler; None to work on this machine.
        retries: times that a recording is tried again after an error.
        progress: show a progress bar on stderr.
    """

    sources: Sequence[str]
    model: Path
    output: Path
    workers: int | None = None
    scheduler: str | None = None
    retries: int = 1
    progress: bool = True


@dataclass(frozen=True)
class FleetResult:
    """What a job gave.

    Attributes:
        results: one of each recording, in the order of the sources.
        kept: how many of them were finished by an earlier run.
        threshold: that was used.
    """

    results: Sequence[SourceResult]
    kept: int
    threshold: float

    @property
    def failed(self) -> Sequence[SourceResult]:
        """The recordings that could not be scored."""
        return [result for result in self.results if result.status == "failed"]


def score_fleet(options: FleetOptions) -> FleetResult:
    """Score recordings into a folder; go on where an earlier run of the same job stopped.

    A recording that cannot be scored is named in the summary and does not stop the others.

    Raises:
        AnomalyDetectorError: the model, an option, the output folder or the cluster is at fault, or
            jinja2 is missing.
    """
    _check(options)
    # Before any work: a wrong model or provider is the job's fault, not every recording's.
    detector = Detector(options.model, providers=options.providers, threshold=options.threshold)
    folder = ResultFolder(options.output)
    results: dict[str, SourceResult] = {}
    digests: dict[str, str] = {}
    todo: list[ScoreTask] = []
    tasks = _tasks(options)
    for task in tasks:
        try:
            digest = task.digest()
        except OSError as error:
            reason = f"{task.source} cannot be read ({error.strerror}): check the path"
            results[task.name] = SourceResult(task.name, task.source, "failed", error=reason)
            continue
        finished = folder.finished(task, digest)
        if finished is None:
            digests[task.name] = digest
            todo.append(task)
        else:
            results[task.name] = finished
    kept = sum(result.status == "scored" for result in results.values())
    for task, outcome in _with_progress(_run(options, todo), kept, len(tasks), options.progress):
        if isinstance(outcome, ScoreOutcome):
            results[task.name] = folder.write(task, digests[task.name], outcome)
        else:
            # What lies there is of another model, or of the recording before it changed.
            folder.discard(task.name)
            results[task.name] = SourceResult(task.name, task.source, "failed", error=str(outcome))
    ordered = [results[task.name] for task in tasks]
    write_summaries(folder, ordered, _facts(options, detector))
    return FleetResult(ordered, kept, detector.threshold)


def _check(options: FleetOptions) -> None:
    for name, value, least in (
        ("workers", options.workers, 1),
        ("batch size", options.batch_size, 1),
        ("retries", options.retries, 0),
    ):
        if value is not None and value < least:
            raise AnomalyDetectorError(f"{name} is {value}: give {least} or more")
    check_fps(options.fps)
    if not options.sources:
        raise SourceError("no recording given: name image folders, bags or videos")
    if options.output.exists() and not options.output.is_dir():
        raise AnomalyDetectorError(f"{options.output} is a file: name a folder for the results")
    check_output_file(options.output / "summary.csv")
    import_jinja2()


def _tasks(options: FleetOptions) -> list[ScoreTask]:
    model = options.model.resolve()
    sha256 = file_sha256(model)
    shared = {item.name: getattr(options, item.name) for item in fields(ScoreOptions)}
    return [
        ScoreTask(name, os.path.realpath(source), str(model), sha256, **shared)
        for source, name in zip(options.sources, unique_names(options.sources), strict=True)
    ]


def _run(options: FleetOptions, tasks: Sequence[ScoreTask]) -> Iterator[Finished]:
    if not tasks:
        return iter(())
    if options.scheduler is not None:
        threads = options.workers or 1
        spread = [replace(task, workers=threads) for task in tasks]
        return run_on_dask(spread, options.scheduler, options.retries)
    cores = options.workers or usable_cores()
    processes = min(cores, len(tasks))
    spread = [replace(task, workers=max(1, cores // processes)) for task in tasks]
    if processes == 1:
        return run_here(spread, options.retries)
    return run_in_processes(spread, processes, options.retries)


def _with_progress(
    finished: Iterator[Finished], kept: int, total: int, progress: bool
) -> Iterator[Finished]:
    frames = failed = 0
    with tqdm(
        total=total, initial=kept, desc="scoring", unit="recording", disable=not progress
    ) as bar:
        for task, outcome in finished:
            if isinstance(outcome, ScoreOutcome):
                frames += outcome.summary.scored
            else:
                failed += 1
            yield task, outcome
            bar.update()
            rate = frames / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{rate:.0f} frames/s" + (f", {failed} failed" if failed else ""))


def _facts(options: FleetOptions, detector: Detector) -> dict[str, Any]:
    return {
        "model": options.model.name,
        "model_sha256": file_sha256(options.model),
        "scorer": detector.metadata.scorer,
        "score_units": detector.metadata.score_units,
        "threshold": detector.threshold,
        "topic": options.topic,
        "fps": options.fps,
        "decision": options.decision.mode,
    }

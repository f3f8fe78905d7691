"""Scoring many recordings as one job: processes, a Dask cluster, breaks, and what is left then."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from conftest import make_drive, read_rows, write_bag, write_images
from model_files import write_grey_difference_model

from anomaly_detector.cli.main import main
from anomaly_detector.scoring.fleet import dask_cluster
from anomaly_detector.scoring.fleet.job import FleetOptions, score_fleet
from anomaly_detector.scoring.fleet.results import SourceResult, unique_names

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "grey.onnx", threshold=5000.0)


@pytest.fixture
def drives(tmp_path: Path) -> list[Path]:
    """Three bags and a folder of images, of 5 to 8 frames."""
    folder = tmp_path / "drives"
    folder.mkdir()
    bags = [
        write_bag(folder / f"bag_{index}", make_drive(5 + index, index), compressed=index == 1)
        for index in range(3)
    ]
    return [*bags, write_images(folder / "images", make_drive(8, 3))]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of results, which is not there yet."""
    return tmp_path / "out"


Run = Callable[..., int]


@pytest.fixture
def run(model: Path, drives: list[Path], out: Path) -> Run:
    """Run the command on the drives or on others, into ``out``."""
    return lambda *options, sources=drives: main(arguments(model, sources, out, *options))


def arguments(model: Path, sources: list[Path], output: Path, *options: str) -> list[str]:
    inputs = [str(source) for source in sources]
    return [
        *("score", "--model", str(model), "--input", *inputs, "--output-dir", str(output)),
        *("--fps", "20", *options),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a job wrote, without the time that it took."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {
        name: re.sub(rb'"seconds": [0-9.]+', b"", data) if name.endswith(".json") else data
        for name, data in found.items()
    }


def test_many_give_the_same_tables_as_each_alone(
    tmp_path: Path,
    model: Path,
    drives: list[Path],
    out: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--workers", "1", sources=[tmp_path / "drives" / "*"]) == 0
    printed = capsys.readouterr().out
    rows = read_rows(out / "summary.csv")
    assert [row["name"] for row in rows] == ["bag_0", "bag_1", "bag_2", "images"]
    assert {row["status"] for row in rows} == {"scored"}
    assert [row["duration_s"] for row in rows] == ["0.2", "0.25", "0.3", "0.35"]
    for drive, row in zip(drives, rows, strict=True):
        alone, events = tmp_path / "alone.csv", tmp_path / "alone_events.csv"
        single = ["score", "--model", str(model), "--input", str(drive), "--fps", "20"]
        assert main([*single, "--output", str(alone), "--events", str(events)]) == 0
        assert (out / f"{drive.name}.scores.csv").read_bytes() == alone.read_bytes()
        assert (out / f"{drive.name}.events.csv").read_bytes() == events.read_bytes()
        scored = read_rows(alone)
        assert int(row["frames"]) == len(scored)
        assert int(row["flagged"]) == sum(item["is_anomaly"] == "1" for item in scored)
        assert float(row["peak_score"]) == max(np.float32(item["score"]) for item in scored)
        assert drive.name in printed
    totals = json.loads((out / "summary.json").read_text())["totals"]
    assert totals["frames"] == sum(int(row["frames"]) for row in rows) == 26
    assert "4 recordings" in printed
    page = (out / "report.html").read_text()
    assert page.count("<polyline") == 4
    assert "src=" not in page
    links = [unquote(link) for link in re.findall(r'<a href="(\./[^"]*)"', page)]
    assert {f"./{row['name']}.scores.csv" for row in rows} < set(links)
    assert all((out / link).is_file() for link in links)


def test_processes_give_the_same_as_one(tmp_path: Path, model: Path, drives: list[Path]) -> None:
    outputs = [tmp_path / "one", tmp_path / "two"]
    for workers, out in zip(("1", "2"), outputs, strict=True):
        assert main(arguments(model, drives, out, "--workers", workers)) == 0
    assert contents(outputs[0]) == contents(outputs[1])


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.result.json")}


def test_only_what_changed_is_scored_again(
    model: Path, drives: list[Path], out: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--workers", "1") == 0
    first, tables = stamps(out), contents(out)
    assert run("--workers", "1") == 0
    assert stamps(out) == first
    assert contents(out) == tables
    assert "4 recordings kept" in capsys.readouterr().out

    (drives[3] / "frame_7.png").unlink()
    (out / "bag_1.scores.csv").write_text("cut off")
    assert run("--workers", "1") == 0
    second = stamps(out)
    changed = {name for name in first if second[name] != first[name]}
    assert changed == {"images.result.json", "bag_1.result.json"}
    assert (out / "bag_1.scores.csv").read_bytes() == tables["bag_1.scores.csv"]
    assert len(read_rows(out / "images.scores.csv")) == 7

    assert run("--workers", "1", "--threshold", "1") == 0
    third = stamps(out)
    assert all(third[name] != second[name] for name in first)
    write_grey_difference_model(model, threshold=1.0)
    assert run("--workers", "1") == 0
    assert all(stamps(out)[name] != third[name] for name in first)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bad_recording_stops_no_other_and_is_reported(
    workers: str,
    tmp_path: Path,
    drives: list[Path],
    out: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage = next(drives[1].glob("*.db3"))
    whole = storage.read_bytes()
    storage.write_bytes(b"no database" * 100)
    assert run("--workers", workers, sources=[tmp_path / "missing", *drives]) == 1
    captured = capsys.readouterr()
    (error,) = re.findall("^error: .*", captured.err, re.MULTILINE)
    assert "2 of 5 recordings could not be scored" in error
    assert "warning: bag_1 failed: bag " in captured.err
    rows = {row["name"]: row for row in read_rows(out / "summary.csv")}
    assert [row["status"] for row in rows.values()] == [
        "failed", "scored", "failed", "scored", "scored",
    ]  # fmt: skip
    assert "cannot be read: bag_1.db3" in rows["bag_1"]["error"]
    assert "missing cannot be read" in rows["missing"]["error"]
    assert not list(out.glob("bag_1.*"))

    storage.write_bytes(whole)
    before = stamps(out)
    assert run("--workers", workers) == 0
    after = stamps(out)
    assert {name for name in after if after[name] != before.get(name)} == {"bag_1.result.json"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--output", "{out}.csv"], "--output-dir DIR"),
        (["--output-dir", "{out}", "--events", "e.csv"], "--events e.csv goes with --output"),
        (["--output-dir", "{out}", "--retries", "-1"], "retries is -1"),
        (["--output-dir", "{out}", "--workers", "0"], "workers is 0"),
        (["--output-dir", "{out}", "--batch-size", "-1"], "batch size is -1"),
        (["--output-dir", "{out}", "--fps", "0"], "frame rate is 0"),
        (["--output-dir", "{out}", "--providers", "X"], "providers"),
        (["--output-dir", "{model}"], "is a file"),
    ],
)
def test_wrong_options_are_the_jobs_error(
    model: Path,
    drives: list[Path],
    options: list[str],
    reason: str,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [option.format(out=out, model=model) for option in options]
    inputs = [str(drive) for drive in drives]
    assert main(["score", "--model", str(model), "--input", *inputs, *options]) == 1
    assert reason in capsys.readouterr().err
    assert not list(out.parent.glob("out*"))


def test_the_page_names_the_columns_of_the_summary() -> None:
    page = (ROOT / "docs" / "fleet.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| `summary.csv`"))
    columns = [item.name for item in fields(SourceResult)]
    assert re.findall(r"`(\w+)`", line.split("--input`: ")[1]) == [
        *columns[:3], "scored", "failed", *columns[3:],
    ]  # fmt: skip


def test_names_of_results_are_unique() -> None:
    sources = ["/a/run/bag", "/b/run/bag", "/b/other", "/c_d", "/c/d", "/x/c/d"]
    names = unique_names(sources)
    assert len(set(names)) == len(sources)
    assert names[:3] == ["a_run_bag", "b_run_bag", "other"]
    long = unique_names([f"/x/{'ä' * 125}", f"/x/{'ä' * 126}", f"/x/{'y' * 240}"])
    assert [len(name.encode()) for name in long] == [239, 239, 240]
    assert len(set(long)) == 3


@dataclass(frozen=True)
class SlowJob:
    """Eight folders of large frames, so that a job lasts long enough to be hit midway.

    Attributes:
        model: model file.
        drives: the folders.
        expected: what one process writes.
    """

    model: Path
    drives: list[Path]
    expected: dict[str, bytes]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> SlowJob:
    root = tmp_path_factory.mktemp("slow")
    model = write_grey_difference_model(root / "grey.onnx", threshold=5000.0)
    enlarged = np.asarray(cv2.resize(make_drive(1)[0], (1280, 720)), np.uint8)
    frame = write_images(root / "frame", [enlarged]) / "frame_0.png"
    drives = []
    for index in range(8):
        folder = root / f"run_{index}"
        folder.mkdir()
        for number in range(8 + index):
            os.link(frame, folder / f"{number}.png")
        drives.append(folder)
    assert main(arguments(model, drives, root / "whole", "--workers", "1")) == 0
    return SlowJob(model, drives, contents(root / "whole"))


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition is true and return its value."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not happen in {DEADLINE_S:.0f} s")


HELD = "run_7.events.csv"


def hold(out: Path) -> None:
    """Have a job wait with the last recording's table: it cannot end before it is hit."""
    out.mkdir()
    os.mkfifo(out / HELD)


@contextmanager
def job_with_a_result(slow: SlowJob, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a job in two processes; enter the block when the first recording is finished."""
    hold(out)
    command = [sys.executable, "-m", "anomaly_detector"]
    command += arguments(slow.model, slow.drives, out, "--workers", "2")
    nothing = subprocess.DEVNULL
    job = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=nothing, stderr=nothing
    )
    try:
        wait_for(lambda: stamps(out), "the first result")
        yield job
    finally:
        job.kill()


def worker_processes(job: subprocess.Popen[bytes]) -> list[int]:
    # The kernel lists a child under the thread that started it.
    threads = Path(f"/proc/{job.pid}/task").glob("*/children")
    return [
        int(child)
        for children in threads
        for child in children.read_text().split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def group_is_gone(job: subprocess.Popen[bytes]) -> bool:
    try:
        os.killpg(job.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_killed_job_leaves_no_process_and_goes_on(out: Path, slow: SlowJob) -> None:
    with job_with_a_result(slow, out) as job:
        job.kill()
        job.wait(DEADLINE_S)
        wait_for(lambda: group_is_gone(job), "the end of the job's processes")
    finished = stamps(out)
    assert 0 < len(finished) < len(slow.drives)
    assert not (out / "summary.csv").exists()
    # And a file that was being written when the job was killed.
    for left_over in (out / HELD, *out.glob(".*")):
        left_over.unlink()
    assert main(arguments(slow.model, slow.drives, out, "--workers", "1")) == 0
    assert {name: stamp for name, stamp in stamps(out).items() if name in finished} == finished
    assert contents(out) == slow.expected


def test_ctrl_c_ends_all_processes_and_keeps_what_is_finished(out: Path, slow: SlowJob) -> None:
    with job_with_a_result(slow, out) as job:
        os.killpg(job.pid, signal.SIGINT)
        assert job.wait(DEADLINE_S) == 130
        wait_for(lambda: group_is_gone(job), "the end of the job's processes")
    assert 0 < len(stamps(out)) < len(slow.drives)
    assert not list(out.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux' /proc")
def test_a_killed_process_loses_nothing(out: Path, slow: SlowJob) -> None:
    with job_with_a_result(slow, out) as job:
        workers = worker_processes(job)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        held = (out / HELD).read_bytes()
        assert job.wait(DEADLINE_S) == 0
    (out / HELD).unlink()
    assert contents(out) | {HELD: held} == slow.expected


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=False
    ) as cluster:
        yield cluster


def test_dask_loses_a_worker_but_no_result(out: Path, slow: SlowJob, cluster: Any) -> None:
    from distributed import Client

    options = FleetOptions(
        [str(drive) for drive in slow.drives], slow.model, out, fps=20.0,
        scheduler=cluster.scheduler_address, progress=False,
    )  # fmt: skip
    with Client(cluster, set_as_default=False) as client:
        workers = list(client.run(os.getpid).values())
    assert len(workers) == 2
    hold(out)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(score_fleet, options)
        wait_for(lambda: job.done() or stamps(out), "the first result")
        os.kill(workers[0], signal.SIGKILL)
        assert not job.done()
        held = (out / HELD).read_bytes()
        result = job.result(DEADLINE_S)
    (out / HELD).unlink()
    assert [row.name for row in result.results] == [drive.name for drive in slow.drives]
    assert not result.failed
    assert contents(out) | {HELD: held} == slow.expected


def test_dask_reports_what_failed(drives: list[Path], out: Path, run: Run, cluster: Any) -> None:
    next(drives[1].glob("*.db3")).write_bytes(b"no database" * 100)
    assert run("--scheduler", cluster.scheduler_address) == 1
    rows = read_rows(out / "summary.csv")
    assert [row["status"] for row in rows] == ["scored", "failed", "scored", "scored"]
    assert "cannot be read: bag_1.db3" in rows[1]["error"]


def test_a_scheduler_that_is_not_there_is_an_error(
    out: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_cluster, "_CONNECT_S", 0.5)
    assert run("--scheduler", "tcp://127.0.0.1:9") == 1
    assert "scheduler tcp://127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("address", ["nonsense", "tcp://10.0.0.5", "ftp://a:1"])
def test_an_address_that_is_none_is_reported_at_once(
    model: Path, drives: list[Path], out: Path, address: str
) -> None:
    pytest.importorskip("distributed")
    command = [sys.executable, "-m", "anomaly_detector"]
    command += arguments(model, drives, out, "--scheduler", address)
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.returncode == 1
    assert f"error: scheduler {address} cannot be reached" in result.stderr
    # Nor anything after the error, when the process ends.
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_a_scheduler_without_workers_is_an_error(
    out: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(dask_cluster, "_WORKERS_S", 0.5)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        assert run("--scheduler", empty.scheduler_address) == 1
    assert "has no worker: start 'dask worker" in capsys.readouterr().err
    assert not out.exists()

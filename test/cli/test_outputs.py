"""What every command does with an output that is no plain new file: devices, links, full disks."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_drive, skip_without_keras, write_images
from disks import leave_free, null_device, small_disk

from anomaly_detector.cli import main as cli
from anomaly_detector.errors import OutputError
from anomaly_detector.model.file import read_metadata
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import cache_frames
from training.cli import main as training_cli

ROOT = Path(__file__).parents[2]
SCORE = [sys.executable, "-m", "anomaly_detector", "score"]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("outputs") / "drive", make_drive(12))


@pytest.fixture
def score(drive: Path, model: Path) -> list[str]:
    """A command as a user types it, without its outputs."""
    return [*SCORE, "--model", str(model), "--input", str(drive)]


@pytest.fixture
def table(score: list[str], tmp_path: Path) -> bytes:
    """What it writes into a plain file."""
    (tmp_path / "plain").mkdir()
    file = tmp_path / "plain" / "scores.csv"
    assert cli.main([*score[3:], "--output", str(file)]) == 0
    return file.read_bytes()


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, cwd=ROOT, timeout=TIMEOUT_S, **{"capture_output": True} | options
    )


def errors(text: str) -> list[str]:
    """Return the lines of an error; a progress bar ends without a line break."""
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    return re.findall("error: .*", text.replace("\r", "\n"))


Fails = Callable[..., str]


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]) -> Fails:
    """Run a command line that fails; return its one line of error."""

    def run_failing(command: list[str], main: Callable[[list[str]], int] = cli.main) -> str:
        assert main(command) == 1
        (error,) = errors(capfd.readouterr().err)
        return error.removeprefix("error: ")

    return run_failing


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_the_table_and_nothing_else(
    name: str, score: list[str], table: bytes
) -> None:
    result = run([*score, "--output", name])
    assert (result.returncode, result.stdout) == (0, table)
    assert b"12 frames scored" in result.stderr


def test_redirected_standard_output_is_appended_to(
    score: list[str], table: bytes, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"what was there\n")
    with log.open("ab") as file:
        command = [*score, "--output", "/dev/stdout"]
        result = run(command, capture_output=False, stdout=file, stderr=subprocess.PIPE)
    assert result.returncode == 0
    assert log.read_bytes() == b"what was there\n" + table


def test_open_file_of_the_caller_is_written_into(
    score: list[str], table: bytes, tmp_path: Path
) -> None:
    """As in ``--output >(gzip > scores.gz)``."""
    reading, writing = os.pipe()
    with open(reading, "rb") as reader:
        result = run([*score, "--output", f"/dev/fd/{writing}"], pass_fds=[writing])
        os.close(writing)
        assert reader.read() == table
    assert b"12 frames scored" in result.stdout


@pytest.mark.parametrize("option", ["--output", "--events"])
@pytest.mark.parametrize("name", ["/dev/fd/77", "/dev/fd/0"])
def test_open_file_that_cannot_be_written_is_refused_before_the_work(
    name: str, option: str, score: list[str], tmp_path: Path
) -> None:
    outputs = {"--output": str(tmp_path / "scores.csv"), option: name}
    command = [*score, *(text for item in outputs.items() for text in item)]
    with open(os.devnull, "rb") as nothing:
        result = run(command, stdin=nothing)
    assert result.returncode == 1
    assert (
        result.stderr.decode() == f"error: {name} is not open to be written: choose another place\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--output", "--events"])
def test_devices_stay_devices(option: str, score: list[str], tmp_path: Path) -> None:
    device = null_device(tmp_path / "null")
    outputs = {"--output": str(tmp_path / "scores.csv"), option: str(device)}
    assert cli.main([*score[3:], *(text for item in outputs.items() for text in item)]) == 0
    state = device.lstat()
    assert (stat.S_ISCHR(state.st_mode), state.st_rdev) == (True, os.makedev(1, 3))


def test_closed_standard_streams_cost_nothing(
    score: list[str], table: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "scores.csv"
    result = run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *score, "--output", str(file)])
    assert (result.returncode, file.read_bytes()) == (0, table)


def test_reader_that_goes_away_ends_it_quietly(score: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for more in (["--output", "/dev/stdout"], ["--output", "/dev/null"]):
        result = run([*score, *more], capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        assert result.returncode == 1
        assert errors(result.stderr.decode()) == []
    os.close(writing)


@pytest.mark.parametrize(("unbuffered", "where"), [("", "standard output: "), ("1", "")])
def test_full_standard_output_is_one_line(
    unbuffered: str, where: str, score: list[str], tmp_path: Path
) -> None:
    with open("/dev/full", "wb") as full:
        command = [*score, "--output", str(tmp_path / "scores.csv")]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        result = run(
            command, capture_output=False, stdout=full, stderr=subprocess.PIPE, env=environment
        )
    assert result.returncode == 1
    assert errors(result.stderr.decode()) == [
        f"error: {where}No space left on device: make room where the output goes"
    ]


FOLDER = "is a folder: name a file"
TAKEN = "is there and not empty: give a new folder or remove it"

Commands = dict[str, tuple[Callable[[list[str]], int], list[str], str]]


def commands(drive: Path, model: Path) -> Commands:
    """Return every verb that writes: its command line, all but its output."""
    normal, shipped = ["--normal", str(drive)], ["--model", "corridor"]
    scored = ["score", "--model", str(model), "--input", str(drive)]
    small = ["--width", "96", "--height", "72", "--workers", "1"]
    lines = [
        (cli, [*scored, "--output"], "scores.csv"),
        (cli, [*scored, "--output", os.devnull, "--events"], "events.csv"),
        (cli, [*scored, "--workers", "1", "--output-dir"], "fleet"),
        (cli, ["calibrate", "--model", str(model), "--data", str(drive), "--output"], "new.onnx"),
        (cli, ["benchmark", *shipped, "--frames", "2", "--seconds", "0.1", "--json"], "b.json"),
        (training_cli, ["corridor", "--frames", "3", *small, "--out"], "drive"),
        (training_cli, ["stress", "--model", str(model), *normal, "--out"], "stress"),
        (training_cli, ["evaluate", "--model", str(model), *normal, "--out"], "evaluation"),
    ]
    return {name: (module.main, arguments, name) for module, arguments, name in lines}


NAMES = list(commands(Path(), Path()))


@pytest.mark.parametrize("name", NAMES)
def test_full_disk(name: str, drive: Path, model: Path, tmp_path: Path, fails: Fails) -> None:
    main, arguments, output = commands(drive, model)[name]
    with small_disk(tmp_path / "disk", "4m") as disk:
        leave_free(disk, 0)
        error = fails([*arguments, str(disk / output)], main)
        assert error.startswith(str(disk / output)), error
        assert "(No space left on device): make room in " + str(disk) in error
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("name", NAMES)
def test_taken_place_is_reported_before_the_work(
    name: str, drive: Path, model: Path, tmp_path: Path, fails: Fails
) -> None:
    main, arguments, output = commands(drive, model)[name]
    is_file = "." in output
    taken = tmp_path / output
    if is_file:
        taken.mkdir()
    else:
        taken.write_text("mine")
    folder = "is a file: name a folder for the results" if name == "fleet" else TAKEN
    error = fails([*arguments, str(taken)], main)
    assert error == f"{taken} {FOLDER if is_file else folder}"
    assert [path.name for path in tmp_path.iterdir()] == [output]


def test_taken_place_of_the_history_is_reported_before_the_training(
    drive: Path, tmp_path: Path, fails: Fails
) -> None:
    (tmp_path / "model.history.csv").mkdir()
    command = ["train", "--data", str(drive), "--out", str(tmp_path / "model.onnx")]
    error = fails([*command, "--cache", str(tmp_path / "cache")], training_cli.main)
    assert error == f"{tmp_path / 'model.history.csv'} {FOLDER}"
    assert [path.name for path in tmp_path.iterdir()] == ["model.history.csv"]


def test_limit_on_the_size_of_files(score: list[str], tmp_path: Path) -> None:
    """As a full disk, and it needs no permission."""
    limit = "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    output = tmp_path / "scores.csv"
    result = run([sys.executable, "-c", limit, *score, "--output", str(output)])
    assert result.returncode == 1
    assert errors(result.stderr.decode()) == [
        f"error: {output} cannot be written (File too large): choose another place"
    ]
    assert list(tmp_path.iterdir()) == []


def test_read_only_disk_is_reported_before_the_work(
    score: list[str], tmp_path: Path, fails: Fails
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        run(["mount", "-o", "remount,ro", str(disk)], check=True)
        output = disk / "scores.csv"
        error = fails([*score[3:], "--output", str(output)])
        assert error == f"folder {disk} is not writable: choose another place for {output}"


def test_input_that_cannot_be_read_is_one_line(
    drive: Path, model: Path, tmp_path: Path, fails: Fails
) -> None:
    command = ["evaluate", "--model", str(model), "--data", str(drive), "--labels", str(tmp_path)]
    error = fails([*command, "--out", str(tmp_path / "out")], training_cli.main)
    assert str(tmp_path) in error


def test_full_disk_gives_no_lone_table_of_alarms(
    score: list[str], tmp_path: Path, fails: Fails
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        leave_free(disk, os.statvfs(disk).f_frsize)
        outputs = ["--output", str(disk / "scores.csv"), "--events", str(disk / "events.csv")]
        error = fails([*score[3:], *outputs])
        assert error.startswith(f"{disk / 'events.csv'} cannot be written (No space left")
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_full_disk_leaves_the_drive_and_no_part_of_its_bag(
    storage: str, tmp_path: Path, fails: Fails
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        options = ["--frames", "8", "--width", "320", "--height", "240", "--workers", "1"]
        options += ["--bag", "--bag-storage", storage, "--out", str(disk / "drive")]
        error = fails(["corridor", *options], training_cli.main)
        assert error.startswith(f"{disk / 'drive' / 'bag'} cannot be written (")
        assert error.endswith(f"make room in {disk / 'drive'} or choose another place")
        names = [path.name for path in (disk / "drive").iterdir()]
        assert sorted(names) == [*(f"{i:06d}.jpg" for i in range(8)), "labels.csv", "masks"]


def test_full_cache_is_named_by_its_folder(drive: Path, tmp_path: Path) -> None:
    source = open_source(drive)
    with small_disk(tmp_path / "disk", "1m") as disk:
        leave_free(disk, 40_000)  # three of the twelve frames
        message = rf"\(No space left on device\): make room in {disk / 'cache'} or choose another"
        with pytest.raises(OutputError, match=message):
            cache_frames(source, disk / "cache", progress=False)
        assert [path.name for path in disk.iterdir()] == ["filler"]


MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("free", "name", "left"),
    [
        (0, "run.json", []),
        (20 * MEGABYTE, "autoencoder.checkpoint.npz", ["run.json"]),
        (40 * MEGABYTE, "autoencoder.weights.h5", ["autoencoder.checkpoint.npz", "run.json"]),
    ],
)
def test_full_disk_in_training_keeps_what_it_can_go_on_from(
    free: int, name: str, left: list[str], normal_drive: Path, tmp_path: Path, fails: Fails
) -> None:
    skip_without_keras()
    with small_disk(tmp_path / "disk", "200m") as disk:
        leave_free(disk, free)
        command = ["train", "--data", str(normal_drive), "--scorer", "reconstruction"]
        command += ["--cache", str(tmp_path / "cache"), "--out", str(disk / "model.onnx")]
        folder = disk / "model.training"
        assert fails([*command, "--epochs", "1"], training_cli.main) == (
            f"{folder / name} cannot be written (No space left on device): "
            f"make room in {folder} or choose another place"
        )
        files = sorted(path.name for path in disk.rglob("*") if path.is_file())
        assert files == sorted(["filler", *left])
        if free == 40 * MEGABYTE:
            (disk / "filler").unlink()
            assert training_cli.main([*command, "--epochs", "1", "--resume"]) == 0
            assert read_metadata(disk / "model.onnx").provenance["autoencoder"]["epochs"] == 1


def test_full_disk_under_tensorboard(normal_drive: Path, tmp_path: Path, fails: Fails) -> None:
    skip_without_keras()
    with small_disk(tmp_path / "disk", "1m") as disk:
        leave_free(disk, 0)
        command = ["train", "--data", str(normal_drive), "--scorer", "reconstruction"]
        command += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "model.onnx")]
        command += ["--epochs", "1", "--tensorboard", str(disk / "log")]
        error = fails(command, training_cli.main)
        assert error.startswith(f"TensorBoard log {disk / 'log' / 'autoencoder'} cannot be")
        assert "No space left on device): make room" in error
    assert not (tmp_path / "model.onnx").exists()

"""Several workers that train one model together: real processes, real TensorFlow connections."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import make_drive, read_rows, write_images

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.config.options import TrainOptions
from training.fitting.cluster.cluster import Membership, read_membership
from training.train import train

ROOT = Path(__file__).parents[3]
DEADLINE_S = 120.0


def free_addresses(count: int) -> list[str]:
    """Return addresses below those that the system gives away: other tests take none of them."""
    found = []
    for port in random.sample(range(16_000, 32_000), 100):
        with socket.socket() as free, suppress(OSError):
            free.bind(("localhost", port))
            found.append(f"localhost:{port}")
    return found[:count]


@contextmanager
def workers(*commands: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """One training process for each list of options; none is left behind."""
    addresses = free_addresses(len(commands))
    with ExitStack() as stack:
        processes = []
        for index, options in enumerate(commands):
            command = [sys.executable, "-m", "training", "train", *options]
            command += ["--cluster", *addresses, "--worker", str(index)]
            process = stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
            )
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def losses(model: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in read_rows(model.with_suffix(".history.csv")):
        found.setdefault(row["quantity"], []).append(float(row["value"]))
    return found


def train_options(drive: Path, out: Path, epochs: int) -> list[str]:
    return [
        *("--data", str(drive), "--out", str(out), "--cache", str(out.parent / "cache")),
        *("--scorer", "reconstruction", "--epochs", str(epochs), "--early-stopping-patience", "0"),
    ]


def test_worker_that_dies_ends_the_others_and_all_go_on_to_the_model_that_one_would_train(
    normal_drive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "chief" / "model.onnx"
    outs = [out, tmp_path / "other" / "model.onnx"]
    checkpoint = out.with_suffix(".training") / "autoencoder.checkpoint.npz"
    with workers(*(train_options(normal_drive, out, 10_000) for out in outs)) as (chief, other):
        deadline = time.monotonic() + DEADLINE_S
        while not checkpoint.is_file() and time.monotonic() < deadline:
            assert chief.poll() is None, chief.communicate()
            time.sleep(0.05)
        other.kill()
        _, told = chief.communicate(timeout=DEADLINE_S)
    assert chief.returncode == 1
    (line,) = [line for line in told.splitlines() if line.startswith("error:")]
    assert "the cluster broke off" in line
    assert "--resume" in line
    assert "Traceback" not in told
    assert not out.exists()

    with np.load(checkpoint) as file:
        epochs = json.loads(str(file["values"]))["values"]["epochs"] + 1
    resumed = ([*train_options(normal_drive, out, epochs), "--resume"] for out in outs)
    with workers(*resumed) as processes:
        both = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], both
    assert not checkpoint.exists()
    assert "worker 0 writes the model" in both[1][0]
    assert not outs[1].exists()

    one = tmp_path / "one" / "model.onnx"
    assert main(["train", *train_options(normal_drive, one, epochs)]) == 0
    alone, together = losses(one), losses(out)
    assert together.keys() == alone.keys()
    for name, values in alone.items():
        assert len(values) == epochs
        np.testing.assert_allclose(together[name], values, rtol=1e-3)
    frames = np.stack([frame[:64, :64] for frame in make_drive(8)])
    scores, expected = (Detector(model).score_batch(frames)[0] for model in (out, one))
    np.testing.assert_allclose(scores, expected, rtol=0.01)


def test_workers_with_other_recordings_are_refused(
    normal_drive: Path, anomalous_drive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    drives = (normal_drive, anomalous_drive)
    with workers(*(train_options(drive, out, 1) for drive in drives)) as processes:
        told = [process.communicate(timeout=DEADLINE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert all("error: worker 1 has other recordings than worker 0" in text for text in told)
    assert not out.exists()


def test_membership_from_the_environment() -> None:
    config = {
        "cluster": {"chief": ["localhost:1"], "worker": ["localhost:2", "localhost:3"]},
        "task": {"type": "worker", "index": 1},
    }
    environment = {"TF_CONFIG": json.dumps(config)}
    membership = read_membership(["TF_CONFIG"], None, environment)
    assert membership == Membership(("localhost:1", "localhost:2", "localhost:3"), 2)
    assert not membership.is_chief
    config["task"] = {"type": "chief", "index": 0}
    assert read_membership(["TF_CONFIG"], None, {"TF_CONFIG": json.dumps(config)}).is_chief


TWO = ["localhost:1234", "localhost:1235"]


@pytest.mark.parametrize(
    ("addresses", "index", "told"),
    [
        (TWO, None, "needs --worker"),
        (TWO, 2, "is none of the 2 workers"),
        (TWO, -1, "is none of the 2 workers"),
        (TWO[:1], 0, "is one worker"),
        ([TWO[0], TWO[0]], 0, "names an address twice"),
        ([*TWO, "localhost"], 0, "localhost is no HOST:PORT"),
        ([*TWO, "localhost:70000"], 0, "is no HOST:PORT"),
        ([*TWO, "robot.invalid:1"], 0, "no host of that name"),
        (["TF_CONFIG"], 0, "leave --worker out"),
        (["TF_CONFIG"], None, "names no workers"),
    ],
)
def test_bad_membership(addresses: list[str], index: int | None, told: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=told):
        read_membership(addresses, index, {"TF_CONFIG": '{"cluster": {}}'})


def test_worker_without_a_cluster(tmp_path: Path) -> None:
    drive = write_images(tmp_path / "drive", make_drive(4))
    with pytest.raises(AnomalyDetectorError, match="--worker 1 is for training on several"):
        train(TrainOptions([str(drive)], tmp_path / "model.onnx", worker=1))


def test_port_that_is_taken(
    normal_drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = train_options(normal_drive, tmp_path / "model.onnx", 1)
        options += ["--cluster", f"localhost:{port}", "localhost:1", "--worker", "0"]
        assert main(["train", *options]) == 1
    assert f"port {port} of --cluster" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()

"""Ctrl-C and SIGTERM at any moment from the first line of a program on."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from model_files import write_grey_difference_model
from ros_harness import DEADLINE_S, Process, running, running_node

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="needs Linux' /proc"
)

PYTHON = [sys.executable, "-m"]
NODE = [*PYTHON, "anomaly_detector.ros.detector_node"]
SIGNALS = [signal.SIGINT, signal.SIGTERM]
DELAYS = (0.0, 0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
"""Seconds from a program's first line on: imports, ROS, the node, its model."""


def wait_for_first_line(process: Process) -> None:
    """Wait until the process has taken SIGTERM over, or has ended already.

    What comes before is Python's own start.
    """
    deadline = time.monotonic() + DEADLINE_S
    while process.is_running:
        assert time.monotonic() < deadline
        status = Path(f"/proc/{process.pid}/status").read_text()
        masks = re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", status, re.MULTILINE)
        if any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks):
            return
        time.sleep(0.001)


def interrupt(process: Process, number: signal.Signals, delay: float) -> int:
    """Send a signal some time after the first line; return the exit code."""
    wait_for_first_line(process)
    threading.Event().wait(delay)
    process.send_signal(number)
    return process.wait()


def check_quiet(process: Process) -> None:
    """Check that nothing is said but what the node says in full health."""
    for line in process.lines:
        assert line.startswith("[INFO]") or "no image" in line, process.output


@pytest.mark.parametrize("number", SIGNALS)
def test_node_ends_quietly_whenever_a_signal_comes(model: Path, number: signal.Signals) -> None:
    for delay in DELAYS:
        with running_node(model=model) as node:
            assert interrupt(node, number, delay) == 0, (delay, node.output)
            check_quiet(node)


@pytest.mark.parametrize("number", SIGNALS)
def test_so_does_its_console_script(number: signal.Signals) -> None:
    script = Path(sys.executable).parent / "detector_node"
    if not script.is_file():
        pytest.skip("the package is not installed with its script")
    for delay in (0.0, 0.2):
        with running([str(script)]) as node:
            assert interrupt(node, number, delay) == 0, (delay, node.output)
            check_quiet(node)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("command", "done"),
    [
        (["anomaly_detector", "info", "models/corridor.onnx"], '"threshold"'),
        (["training", "train", "--help"], "--data"),
    ],
)
def test_verbs_end_quietly_while_they_import(
    command: list[str], done: str, number: signal.Signals
) -> None:
    def code_after(delay: float) -> int:
        with running([*PYTHON, *command]) as process:
            code = interrupt(process, number, delay)
            assert code == 128 + number or (code == 0 and done in process.output)
            assert "Traceback" not in process.output
            assert "Exception" not in process.output
            return code

    # On a busy machine the signal may come when all is done, but not each time.
    assert 128 + number in (code_after(0.0) for _ in range(5))
    for delay in (0.05, 0.15, 0.3):
        code_after(delay)


HOLDING_VERB = """
import threading
def add_arguments(parser):
    pass
def run(arguments):
    try:
        print("running", flush=True)
        threading.Event().wait()
    finally:
        print("cleaned up", flush=True)
"""

PROGRAM = """
import sys
from anomaly_detector.cli.verbs import run_verbs
def main():
    return run_verbs("program", "Hold.", {"hold": ("holding_verb", "hold")}, ["hold"])
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_verb_that_runs_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "holding_verb.py").write_text(HOLDING_VERB)
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    code = "import sys; from anomaly_detector.signals import run_program; "
    code += "sys.exit(run_program('program'))"
    with running([sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}) as process:
        process.wait_for_line("running")
        process.send_signal(number)
        assert process.wait() == 128 + number
    lines = ["running", "cleaned up"]
    assert process.lines == lines + ["interrupted"] * (number == signal.SIGINT)


@pytest.mark.parametrize("last", ["return 0", "raise SystemExit(0)"])
def test_a_signal_after_the_last_line_changes_nothing(tmp_path: Path, last: str) -> None:
    (tmp_path / "program.py").write_text(f"def main():\n    {last}\n")
    code = f"""
import signal, sys
sys.path.insert(0, {str(tmp_path)!r})
from anomaly_detector.signals import run_program
try:
    run_program("program")
except SystemExit:
    pass
print([signal.getsignal(number).name for number in (signal.SIGINT, signal.SIGTERM)])
"""
    with running([sys.executable, "-c", code]) as process:
        assert process.wait() == 0
    assert process.lines == ["['SIG_IGN', 'SIG_IGN']"]


def loads_onnx_runtime(process: Process) -> bool:
    return "onnxruntime" in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("number", SIGNALS)
def test_node_does_not_wait_for_a_model_that_is_being_loaded(
    tmp_path: Path, number: signal.Signals
) -> None:
    # More than the deadline, in which the process has to end.
    model = write_grey_difference_model(tmp_path / "slow.onnx", slow_steps=1000)
    others = set(Path("/dev/shm").iterdir())
    with running_node(model=model) as node:
        deadline = time.monotonic() + DEADLINE_S
        while not loads_onnx_runtime(node):
            assert time.monotonic() < deadline
        segments = node.wait_for_shared_memory(others)
        threading.Event().wait(0.5)
        node.send_signal(number)
        assert node.wait() == 0
        assert node.lines == []
    assert not [path for path in segments if path.exists()]

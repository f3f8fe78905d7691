"""Whether tests hold on a busy machine: runs them again and again beside burning processors.

Run with ``python -m benchmarks.repeat_tests [--rounds N] [--burners N] [TEST ...]``; without TEST,
all that start ROS processes. Prints a line a round, then each test that failed, how often and why;
pytest's own output goes to stderr.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_HARNESS = re.compile(r"^(?:from|import) (?:ros|launch)_harness\b", re.MULTILINE)


def ros_tests() -> list[str]:
    """Return the files of tests that start ROS processes: those that import a harness for it."""
    files = sorted((ROOT / "test").rglob("test_*.py"))
    return [str(file) for file in files if _HARNESS.search(file.read_text(encoding="utf-8"))]


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep this many processors busy, as far as they are not, for the time of the block."""
    # In a group of their own and with a pipe: they end with this process, however it ends.
    burners = [
        subprocess.Popen(
            [sys.executable, "-c", "import threading, sys\n"
             "end = threading.Thread(target=sys.stdin.read)\nend.start()\n"
             "while end.is_alive(): pass"],
            stdin=subprocess.PIPE,
        )
        for _ in range(count)
    ]  # fmt: skip
    try:
        yield
    finally:
        for burner in burners:
            burner.communicate()


def run_round(tests: list[str], junit: Path) -> tuple[int, dict[str, str]]:
    """Run the tests once.

    Args:
        tests: files, or what else pytest takes.
        junit: file for pytest's report.

    Returns:
        How many were run, and the failed ones with the first line of the reason.
    """
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", *tests]
    code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode
    if not junit.is_file():
        raise SystemExit(f"pytest ended with exit code {code} and no report")
    cases = list(ElementTree.parse(junit).iter("testcase"))
    failed = {}
    for case in cases:
        for problem in (*case.findall("failure"), *case.findall("error")):
            name = f"{case.get('classname')}::{case.get('name')}"
            failed[name] = (problem.get("message") or "").split("\n")[0]
    return sum(case.find("skipped") is None for case in cases), failed


def main() -> int:
    """Run the command line and return the exit code, 1 when a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", metavar="TEST", help="as pytest takes it")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--burners", type=int, default=2, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    tests = arguments.tests or ros_tests()
    failures: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    print("round  run  failed  seconds   load", flush=True)
    with tempfile.TemporaryDirectory() as folder, burning(arguments.burners):
        for number in range(1, arguments.rounds + 1):
            start = time.monotonic()
            count, failed = run_round(tests, Path(folder, f"{number}.xml"))
            failures.update(failed.keys())
            reasons |= failed
            print(
                f"{number:5} {count:4} {len(failed):7} {time.monotonic() - start:8.0f} "
                f"{os.getloadavg()[0]:6.1f}",
                flush=True,
            )
    for name, times in failures.most_common():
        print(f"{name}: failed in {times} of {arguments.rounds} rounds, {reasons[name]}")
    if not failures:
        print(f"no failure in {arguments.rounds} rounds beside {arguments.burners} burners")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

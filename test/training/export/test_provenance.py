"""What a model says about the code that trained it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from training.export.provenance import commit

ROOT = Path(__file__).parents[3]


def test_commit_of_a_checkout_and_of_a_copy(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        assert commit() == {}
        return
    for package in ("anomaly_detector", "training"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    module = tmp_path / "training" / "export" / "provenance.py"

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, text=True, capture_output=True
        ).stdout.strip()

    def told() -> str:
        code = "from training.export.provenance import commit; print(commit().get('commit'))"
        return subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd=tmp_path, check=True, text=True, capture_output=True,
        ).stdout.strip()  # fmt: skip

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "somebody else's repository")
    assert told() == "None"
    git("add", ".")
    git("commit", "--quiet", "--message", "the package")
    assert told() == git("rev-parse", "HEAD")[:12]
    module.write_text(module.read_text() + "# changed\n")
    assert re.fullmatch(r"[0-9a-f]{12}-dirty", told())

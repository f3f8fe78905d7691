"""Fail when the tests cover less of a folder than its floor; ``--write`` sets the floors anew.

Reads ``build/coverage.json``, which ``make cov`` writes. A folder is a package directly below a
top one; modules of the top package itself count under its name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ROOT / ".ci" / "coverage_floors.json"

# Floors are set this many percent points below what was measured.
_MARGIN = 2


def folder_of(file: str) -> str:
    """Return the folder under which a module counts."""
    parts = Path(file).parts
    return "/".join(parts[: min(2, len(parts) - 1)])


def measured(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> dict[str, float]:
    """Return the share of covered lines of each folder, percent."""
    covered: dict[str, int] = defaultdict(int)
    lines: dict[str, int] = defaultdict(int)
    for file, values in report["files"].items():
        folder = folder_of(file)
        covered[folder] += values["summary"]["covered_lines"]
        lines[folder] += values["summary"]["num_statements"]
    return {name: 100 * covered[name] / lines[name] for name in sorted(lines) if lines[name]}


def main() -> int:
    """Compare; return 1 when a folder is below its floor or has none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="set the floors to what is measured")
    write = parser.parse_args().write
    shares = measured(json.loads((ROOT / "build" / "coverage.json").read_text(encoding="utf-8")))
    if write:
        floors = {name: max(0, int(share) - _MARGIN) for name, share in shares.items()}
        FLOORS.write_text(json.dumps(floors, indent=2) + "\n", encoding="utf-8")
    floors = json.loads(FLOORS.read_text(encoding="utf-8"))
    failed = False
    for name, share in shares.items():
        floor = floors.get(name)
        is_low = floor is None or share < floor
        failed |= is_low
        mark = "TOO LOW" if is_low else ""
        print(f"{name:40} {share:5.1f} %  floor {'none' if floor is None else floor} {mark}")
    for name in sorted(set(floors) - set(shares)):
        print(f"{name}: has a floor and no module: run with --write")
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Entry point of ``python -m anomaly_detector``, and of the console scripts."""

import sys
from pathlib import Path

from anomaly_detector.signals import run_program


def main() -> int:
    """Run the robot side's command line; return the exit code."""
    return run_program("anomaly_detector.cli.main")


def train() -> int:
    """Run the offline command line, as ``python -m training`` does; return the exit code.

    A copy of the robot side alone lacks it.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "training" / "__main__.py").is_file():
        print(
            f"error: {root} has no folder training: clone the repository on a workstation and run "
            "pip install -e '.[cpu,training]' in it",
            file=sys.stderr,
        )
        return 1
    sys.path.insert(0, str(root))
    return run_program("training.cli.main")


if __name__ == "__main__":
    sys.exit(main())

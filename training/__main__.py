"""Entry point of ``python -m training``."""

import sys

from anomaly_detector.signals import run_program

sys.exit(run_program("training.cli.main"))

"""Entry point of ``python -m anomaly_detector``."""

import sys

from anomaly_detector.signals import run_program

sys.exit(run_program("anomaly_detector.cli"))

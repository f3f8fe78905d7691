"""Entry point of ``python -m anomaly_detector``."""

import sys

from anomaly_detector.cli import main

sys.exit(main())

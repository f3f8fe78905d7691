"""The machine that a figure was measured on, and what a process takes of it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import cv2
import onnxruntime

from anomaly_detector.errors import AnomalyDetectorError


def machine() -> dict[str, Any]:
    """Say what a figure was measured on, and what else the machine had to do."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def process_usage(pid: int) -> tuple[float, float]:
    """Return the processor time (s) and resident memory (10^6 bytes) of a process.

    Raises:
        AnomalyDetectorError: it has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError as error:
        raise AnomalyDetectorError(f"process {pid} has ended") from error
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6

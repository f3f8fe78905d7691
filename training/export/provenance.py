"""What a model file says about its making: options, data, versions and the course of training."""

from __future__ import annotations

import csv
import datetime
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import anomaly_detector
from anomaly_detector.files import atomic_path, printable
from anomaly_detector.recordings import count_frames
from anomaly_detector.recordings.cache import CachedFrames
from training.config.options import FALSE_ALARM_RATE, TrainOptions
from training.data.frames import frame_period
from training.fitting.run import TrainingRun
from training.scorers.options import fixed_threshold, used_options

_INPUTS = ("data", "exclude", "anomalies", "events", "topic", "mask")
_RUN_ONLY = (
    *("out", "cache", "progress", "resume", "tensorboard", "device", "cluster", "worker"),
    "replaces",
)
_NO_RECIPE = (*_INPUTS, *_RUN_ONLY)

_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy")


def resolved_recipe(options: TrainOptions) -> dict[str, Any]:
    """Return the options that the training uses, defaults included, as a recipe would."""
    used = used_options(options) - set(_NO_RECIPE)
    recipe = {item.name: getattr(options, item.name) for item in fields(options)}
    fixed = fixed_threshold(options)
    if fixed is None:
        recipe["false_alarm_rate"] = options.false_alarm_rate or FALSE_ALARM_RATE
    else:
        recipe["threshold"] = fixed
    used -= {"threshold" if fixed is None else "false_alarm_rate"}
    return {name: value for name, value in recipe.items() if name in used}


def inputs(options: TrainOptions) -> dict[str, Any]:
    """Return what was trained on, by name."""
    # Where a recording lay on the training machine is nobody's business; its name is.
    events = [printable(Path(source).name) for source in options.events]
    return {
        "data": [printable(Path(source).name) for source in options.data],
        "anomalies": [printable(Path(source).name) for source in options.anomalies],
        "topic": options.topic,
        **({"events": events} if events else {}),
        **({"exclude": list(options.exclude)} if options.exclude else {}),
        **({"mask": printable(options.mask.name)} if options.mask is not None else {}),
    }


def provenance(run: TrainingRun) -> dict[str, Any]:
    """Return the entry of the metadata, as JSON knows it."""
    options, split, parts = run.options, run.split, run.frames.parts
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "options": inputs(options),
        "recipe": resolved_recipe(options),
        "frames": {
            "recorded": len(run.frames),
            "unreadable": sum(count_frames(part.unreadable) for part in parts),
            "train": len(np.unique(split.train)),
            "validation": len(split.validation),
            "calibration": len(split.calibration),
            "anomalies": len(run.anomalies or ()),
        },
        **({"events": dict(run.events)} if run.events else {}),
        "gaps": [_gap(part, frames) for part, frames in zip(parts, split.gaps, strict=True)],
        "versions": {
            "anomaly_detector": anomaly_detector.__version__,
            **commit(),
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
    }


def _gap(part: CachedFrames, frames: int) -> dict[str, Any]:
    """Say how many frames were left out beside the held-out blocks of a recording."""
    period = frame_period(part)
    basis = "autocorrelation" if period is None else "stamps"
    seconds = None if period is None else round(frames * period, 3)
    return {"frames": frames, "seconds": seconds, "basis": basis}


def commit() -> dict[str, str]:
    """Return the commit of the checkout that trains; nothing for an installed copy."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here.parent, text=True, capture_output=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # not a copy inside of another repository
        return {"commit": git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")}
    except (OSError, subprocess.CalledProcessError):
        return {}


def write_history(path: Path, histories: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Write the losses of every epoch as CSV: network, epoch, quantity, value."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "epoch", "quantity", "value"])
        for network, history in histories.items():
            for quantity, values in history.items():
                for epoch, value in enumerate(values, start=1):
                    writer.writerow([network, epoch, quantity, f"{value:.9g}"])

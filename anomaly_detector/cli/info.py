"""``python -m anomaly_detector info``: what a model file says about itself."""

from __future__ import annotations

import argparse
import json
from typing import Any

from anomaly_detector.model.file import read_metadata

_MOST_LETTERS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("model", help="model file, or name of a shipped model")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    metadata = read_metadata(arguments.model)
    told = json.loads(metadata.to_json())
    if metadata.input_mask is not None:
        told["mask"] = f"{metadata.input_mask.ignored.mean():.1%} of what the model sees"
    print(json.dumps(_shortened(told), indent=2))
    return 0


def _shortened(value: Any) -> Any:
    """Return JSON with the arrays of a camera reference cut off."""
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, str) and len(value) > _MOST_LETTERS:
        return f"{value[:20]}... ({len(value)} letters)"
    return value

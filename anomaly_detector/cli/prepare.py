"""``python -m anomaly_detector prepare``: have everything ready before the robot needs it.

Loads a model as the node would and scores a frame. On TensorRT that builds the engine, or finds it
built; elsewhere there is nothing to build, and the command says whether the model works here.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from anomaly_detector.cli.arguments import add_shared
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.providers import TENSORRT, short_name
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.model.tensorrt import BuildEvent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add_shared(parser, "--model", "--providers")
    parser.add_argument(
        "--fp16", action="store_true", help="let TensorRT compute in half precision (experimental)"
    )
    parser.add_argument(
        "--require-gpu", action="store_true", help="fail when the model would not run on a GPU"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    path = resolve_model(arguments.model)
    events: list[BuildEvent] = []

    def report_build(event: BuildEvent) -> None:
        events.append(event)
        if event.state == "started":
            print(f"{path.name}: building a TensorRT engine, minutes are usual", flush=True)

    start = time.monotonic()
    with Detector(
        path,
        providers=arguments.providers,
        require_gpu=arguments.require_gpu,
        fp16=arguments.fp16,
        on_build=report_build,
    ) as detector:
        loaded = time.monotonic() - start
        black = np.zeros((detector.view.size, detector.view.size, 3), np.uint8)
        detection = detector.detect(Image(black, "rgb", region=detector.view.region))
    report = detector.provider_report
    if report.warning:
        print(f"warning: {report.warning}", file=sys.stderr)
    if TENSORRT not in report.got:
        prepared = "nothing has to be prepared"
    elif events and events[-1].folder is None:
        prepared = (
            f"engine built in {events[-1].seconds:.1f} s but not kept, the cache folder cannot be "
            "written: set XDG_CACHE_HOME to one that can"
        )
    elif events:
        prepared = f"engine built in {events[-1].seconds:.1f} s, kept in {events[-1].folder}"
    else:
        prepared = "its engine was there already"
    print(
        f"{path.name}: loaded on {short_name(report.got[0])} in {loaded:.2f} s, {prepared}; "
        f"a black frame scores {detection.score:.6g} in {detection.inference_ms:.2f} ms"
    )
    return 0

"""The robot side's command line: ``python -m anomaly_detector VERB``."""

from __future__ import annotations

from collections.abc import Sequence

from anomaly_detector.cli.verbs import run_verbs

_VERBS = {
    "score": ("anomaly_detector.cli.score", "score a recording with a model into a CSV file"),
    "calibrate": (
        "anomaly_detector.cli.calibrate",
        "give a model a new threshold from a normal drive, without training",
    ),
    # Of the offline side, which is in the same package; it needs no TensorFlow.
    "adapt": ("training.cli.adapt", "adapt a trained model to a normal drive of today"),
    "prepare": (
        "anomaly_detector.cli.prepare",
        "load a model, score a frame, and build what the GPU needs, ahead of the first start",
    ),
    "benchmark": (
        "anomaly_detector.cli.benchmark",
        "measure what a frame costs on this machine, step by step, beside the floor",
    ),
    "review": (
        "anomaly_detector.cli.review",
        "serve a web page to look at recorded events and say what they were",
    ),
    "compare-models": (
        "anomaly_detector.cli.compare_models",
        "say whether a new model may replace an old one, by judged events and normal drives",
    ),
    "play": (
        "anomaly_detector.ros.tools.player",
        "play a bag's camera topic over ROS 2, for hosts without 'ros2 bag play'",
    ),
    "replay": (
        "anomaly_detector.ros.replay.command",
        "play a bag to the real node, record what it says, and write timeline and report",
    ),
    "watch": (
        "anomaly_detector.ros.tools.watch",
        "show a running detector node in the terminal: score, state, rates, provider",
    ),
    "notify": (
        "anomaly_detector.ros.tools.notify",
        "tell people of alarms and of a robot that cannot see: post JSON, or run a command",
    ),
    "info": ("anomaly_detector.cli.info", "print what a model file says about itself, as JSON"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_verbs(
        "python -m anomaly_detector",
        "Visual anomaly detection on the robot; needs no ROS graph except for 'play', 'replay', "
        "'watch', 'notify' and 'benchmark --ros'.",
        _VERBS,
        argv,
    )

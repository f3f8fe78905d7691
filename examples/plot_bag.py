"""Plot the anomaly scores of a recording: ``python examples/plot_bag.py RECORDING PICTURE``."""

import argparse
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

import anomaly_detector as ad


def plot(recording: Path, picture: Path, model: str = "corridor", topic: str | None = None) -> int:
    """Plot score, threshold and alarms over time; return the number of frames."""
    alarms = ad.AlarmFilter()
    seconds, scores, on = [], [], []
    with ad.Detector(model) as detector:
        # An image folder has no times: 20 frames a second are assumed.
        for frame, result in detector.stream(recording, topic, fps=20.0):
            seconds.append((frame.time_ns or 0) / 1e9)
            scores.append(result.score)
            on.append(alarms.update(result, stamp_ns=frame.time_ns).is_alarm)
        threshold, unit = detector.threshold, detector.metadata.score_units
    times = [second - seconds[0] for second in seconds]
    figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    axes.plot(times, scores, color="#0072b2", linewidth=1.2, label="score")
    axes.axhline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axes.fill_between(
        times, 0, 1, where=on, transform=axes.get_xaxis_transform(), color="#d55e00", alpha=0.25,
        linewidth=0, label="alarm",
    )  # fmt: skip
    axes.set(xlabel="time (s)", ylabel="anomaly score\n" + textwrap.fill(f"({unit})", 30))
    axes.set_title(recording.name, loc="left")
    axes.margins(x=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncol=3, frameon=False)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
    return len(scores)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, help="bag, image folder or video")
    parser.add_argument("picture", type=Path, help="file to write, such as scores.png")
    parser.add_argument("--model", default="corridor", help="file or name (default: %(default)s)")
    parser.add_argument("--topic", help="image topic, for a bag with more than one")
    arguments = parser.parse_args()
    try:
        count = plot(arguments.recording, arguments.picture, arguments.model, arguments.topic)
    except (ad.AnomalyDetectorError, OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"{arguments.picture}: {count} frames")

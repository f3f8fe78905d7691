"""A new threshold for a model from a normal drive, without training.

Another camera, building or season moves the scores of normal frames. The network stays; the
threshold, the scale of the normalised score and the metadata's calibration are replaced, and a mask
may be added. That needs
the package ``onnx``, but neither TensorFlow nor the training data.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import anomaly_detector
from anomaly_detector.alarms.calibration import calibrate_threshold, check_false_alarm_rate
from anomaly_detector.camera_health.reference import ReferenceBuilder
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.mask import NO_MASK, Mask, MaskSource
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.fingerprint import find_trained, trained_warning
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.normalization import import_onnx
from anomaly_detector.model.shipped import check_model_output
from anomaly_detector.recordings import (
    FrameSource,
    count_frames,
    frame_size,
    open_source,
    warn_unreadable,
)


def recalibrate(
    model: Path,
    data: Sequence[str],
    output: Path,
    *,
    topic: str | None = None,
    view: View = WHOLE_FRAME,
    mask: MaskSource = NO_MASK,
    false_alarm_rate: float = 0.01,
    exclude: Sequence[tuple[int, int]] = (),
    force: bool = False,
    progress: bool = True,
) -> ModelMetadata:
    """Recalibrate a model and write it to a new file.

    Args:
        model: the model file to start from.
        data: recordings of normal frames that the model was not trained on.
        output: the model file to write.
        topic: image topic of bags with several.
        view: overrides the model's, in the new file too.
        mask: what the new model does not look at, beside what the model's own mask covers.
        false_alarm_rate: wanted share of normal frames at or above the threshold.
        exclude: first and last frame of stretches to leave out, counted from 0 over the readable
            frames of the one recording.
        force: the output may be the model itself.
        progress: show progress bars.

    Returns:
        The metadata of the new file.

    Raises:
        AnomalyDetectorError: a recording, an option or the model is at fault; nothing is written.
    """
    check_model_output(output, "--output")
    if not force and output.resolve() == model.resolve():
        raise AnomalyDetectorError(
            f"--output {output} is the model itself: name another file, or give --force "
            "to replace it"
        )
    check_false_alarm_rate(false_alarm_rate)
    if exclude and len(data) > 1:
        raise AnomalyDetectorError(
            f"--exclude counts the frames of one recording, --data gives {len(data)}: "
            "calibrate with one"
        )
    import_onnx()  # said before an hour of scoring
    sources = [open_source(path, topic) for path in data]
    detector = Detector(model, view=view)
    old = detector.metadata.with_view(detector.view)
    if mask:
        ignored = mask.ignored(*frame_size(sources[0], detector.view), detector.view)
        own = old.input_mask
        old = old.with_mask(Mask(ignored if own is None else ignored | own.ignored))
    trained_on = find_trained(sources, old)
    warning = trained_warning(
        trained_on,
        "a threshold from trained frames is too low and gives more false alarms than asked for: "
        "calibrate on another normal drive",
    )
    if warning and progress:
        print(warning, flush=True)
    camera = ReferenceBuilder()
    with tempfile.TemporaryDirectory() as folder:
        if mask:
            masked = Path(folder, model.name)
            write_with_metadata(model, old, masked)
            detector = Detector(masked, view=view)
        parts = [_scores(detector, source, exclude, camera, progress) for source in sources]
    for source in sources:
        warn_unreadable(source.path, source.unreadable)
    scores = np.concatenate(parts)
    used = _without(scores, exclude, data[0])
    threshold, calibration = calibrate_threshold(used, false_alarm_rate)
    entry: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        # Where a recording lay is nobody's business; its name is.
        "data": [Path(path).name for path in data],
        "frames": {
            "recorded": len(scores),
            "unreadable": sum(count_frames(source.unreadable) for source in sources),
            "calibration": len(used),
        },
        "trained_on": [item.trained_as for item in trained_on],
        "exclude": [list(stretch) for stretch in exclude],
        "previous_name": old.name,
        "previous_threshold": old.threshold,
        "version": anomaly_detector.__version__,
    }
    history = [*old.provenance.get("recalibrated", []), entry]
    new = replace(
        old.with_threshold(threshold, calibration),
        name=output.stem,
        camera_reference=camera.build(),
        provenance={**old.provenance, "recalibrated": history},
    )
    write_with_metadata(model, new, output)
    return new


def _scores(
    detector: Detector,
    source: FrameSource,
    exclude: Sequence[tuple[int, int]],
    camera: ReferenceBuilder,
    progress: bool,
) -> NDArray[np.float32]:
    """Return the scores of a drive, and show its normal frames to ``camera``."""
    source.view = detector.view
    images = tqdm(
        source.mapped(detector.prepare, reduced=True),
        f"scoring {source.path.name}",
        len(source),
        unit="frame",
        disable=not progress,
    )
    scores = []
    for number, image in enumerate(images):
        scores.append(detector.detect(image).score)
        if not any(first <= number <= last for first, last in exclude):
            camera.add(image.array)
    camera.end_drive()
    return np.array(scores, np.float32)


def _without(
    scores: NDArray[np.float32], exclude: Sequence[tuple[int, int]], recording: str
) -> NDArray[np.float32]:
    kept = np.ones(len(scores), bool)
    for first, last in exclude:
        if last >= len(scores):
            raise AnomalyDetectorError(
                f"--exclude {first}-{last}: {recording} has the frames 0 to {len(scores) - 1}"
            )
        kept[first : last + 1] = False
    if not kept.any():
        raise AnomalyDetectorError(
            f"--exclude leaves no frame of {recording}: keep some to calibrate with"
        )
    return scores[kept]

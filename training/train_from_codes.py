"""The codes that a classifier or a flow learns from: out of frames, or out of a file (thesis 5.16).

With a file no autoencoder is trained: the encoder comes out of the model that made the codes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.resources import resolve_model
from training.architectures import CODE_SIZE, Autoencoder
from training.codes import CodeModel, TrainingCodes, training_codes
from training.datasets import FrameSet
from training.job import Job, Trained
from training.options import AUTO_ARCHITECTURE, SCORERS, TrainOptions
from training.scorers import reconstruction_scorer

__all__ = ["job_codes", "read_codes", "restored_base"]

_BATCH = 256


def read_codes(options: TrainOptions) -> tuple[TrainOptions, TrainingCodes]:
    """Read the files of ``--codes`` and ``--anomaly-codes``.

    Args:
        options: checked.

    Returns:
        The options with the encoder's architecture, and the codes.

    Raises:
        AnomalyDetectorError: a file is at fault or of another encoder, ``--architecture`` is
            another one than the encoder's, or the scorer learns from anomalies and there are none.
    """
    assert options.codes is not None
    assert options.encoder is not None  # check_options has seen to it
    model = CodeModel(resolve_model(options.encoder))
    architecture = model.model["architecture"]
    if options.architecture not in (AUTO_ARCHITECTURE, architecture):
        raise AnomalyDetectorError(
            f"encoder {model.path} is of architecture {architecture}, not {options.architecture}: "
            "leave --architecture out"
        )
    codes = training_codes(options.codes, options.anomaly_codes, model=model)
    if SCORERS[options.scorer].needs_anomalies and not len(codes.anomalous):
        raise AnomalyDetectorError(
            f"scorer {options.scorer} learns from anomalies and the codes have none: "
            "give --anomaly-codes FILE"
        )
    return replace(options, architecture=architecture), codes


def restored_base(job: Job) -> Trained:
    """Give the encoder that made a job's codes, in the place of a newly trained autoencoder.

    Its decoder is untrained (:func:`training.restore.restore_encoder`), so there is nothing to
    measure yet.

    Raises:
        ModelError: the model file is at fault.
    """
    # Not at the top: it imports Keras, and files are to be checked before.
    from training.restore import restore_encoder

    assert job.codes is not None
    assert job.options.encoder is not None
    autoencoder = restore_encoder(resolve_model(job.options.encoder))
    return Trained(
        autoencoder,
        reconstruction_scorer(autoencoder),
        networks={"autoencoder": autoencoder.model},
        metrics={},
        histories={},
        provenance={"encoder": dict(job.codes.model)},
    )


def job_codes(job: Job, autoencoder: Autoencoder) -> TrainingCodes:
    """Give the codes of a job, which are those of its frames where it has no file of codes."""
    if job.codes is not None:
        return job.codes
    anomalies = job.anomalies
    return TrainingCodes(
        _encode(autoencoder, job.frames),
        job.frames.lengths,
        np.empty((0, CODE_SIZE), np.float32)
        if anomalies is None
        else _encode(autoencoder, anomalies),
        [] if anomalies is None else anomalies.lengths,
    )


def _encode(autoencoder: Autoencoder, frames: FrameSet) -> NDArray[np.float32]:
    """Give the codes of all frames, float32 [N, 128]."""
    codes = [
        np.asarray(autoencoder.encoder(frames.take(batch).astype(np.float32), training=False))
        for batch in np.array_split(np.arange(len(frames)), -(-len(frames) // _BATCH))
    ]
    return np.concatenate(codes)

"""A detector: one ONNX file, checked at load, and the scores it gives.

The file's contract: input ``image`` uint8 [N, H, W, 3] RGB, 64x64 pixels or what its
metadata says; outputs ``score`` float32 [N],
``normalized_score`` float32 [N] and ``anomaly_map`` float32 [N, H, W]; scaling, network and scoring
are inside the graph; one metadata entry (:mod:`anomaly_detector.model.metadata`) says the rest.
``docs/model-format.md`` describes it all, :mod:`anomaly_detector.model.file` checks it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.images.image import ColorOrder, Image, RegionOfInterest, crop
from anomaly_detector.images.message import FrameLike, as_image
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View, preprocessed
from anomaly_detector.model.file import read_model_file
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.normalization import (
    check_threshold,
    float32_threshold,
    normalization_scale,
    normalize_scores,
)
from anomaly_detector.model.session import BatchScores, Session
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.model.tensorrt import BuildEvent
from anomaly_detector.recordings import Frame, FrameSource, open_source
from anomaly_detector.recordings.base import check_fps, stamp_and_time


@dataclass(frozen=True)
class Detection:
    """The result for one frame: what the core hands to the node.

    Example:
        >>> result = Detector("corridor").detect(np.zeros((480, 640), np.uint8))
        >>> result.is_anomaly == (result.score >= result.threshold)
        True

    Attributes:
        score: anomaly score, in the model's units; higher is more anomalous.
        normalized_score: the score in [0, 1], 0.5 at the threshold, the same scale for every model
            (:mod:`anomaly_detector.model.normalization`).
        threshold: the threshold it was compared with.
        is_anomaly: ``score >= threshold``.
        anomaly_map: float32 [H, W], where in the frame the evidence lies; not smoothed.
        inference_ms: time in the network for this frame, milliseconds.
        view: what the model saw of the frame.
        order: channel order of the frame, for drawing on it.
        map_scale: which values of the map are shown as heat.
        extent: the part of the camera's frame that the map covers, in its pixels.
        ignored: bool [S, S], the pixels of the model's input that its mask covers; None for none.
    """

    score: float
    normalized_score: float
    threshold: float
    is_anomaly: bool
    anomaly_map: NDArray[np.float32]
    inference_ms: float
    view: View = WHOLE_FRAME
    order: ColorOrder = "rgb"
    map_scale: MapScale = MapScale(0.0, None)  # noqa: RUF009
    extent: RegionOfInterest = RegionOfInterest()  # noqa: RUF009
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class _Limit:
    """A threshold and what follows from it; replaced as a whole, so that no frame mixes two.

    Attributes:
        threshold: in the model's units.
        float32: the same, for the normalised score.
        scale: of the normalised score.
        in_graph: the graph's own normalised score is for this threshold.
        map_scale: of the anomaly map.
    """

    threshold: float
    float32: np.float32
    scale: np.float32
    in_graph: bool
    map_scale: MapScale


class Detector:
    """Scores frames with one model.

    Example:
        >>> detector = Detector("corridor")
        >>> result = detector.detect(np.zeros((480, 640, 3), np.uint8), order="bgr")
        >>> result.is_anomaly
        True

    One thread at a time may call :meth:`detect`, :meth:`stream`, :meth:`prepare` and
    :meth:`close`; :meth:`score_batch` may run in several threads on the CPU;
    :meth:`set_threshold` and :meth:`set_view` may be called from any thread.

    Args:
        name_or_path: the ONNX file, or the name of a shipped model.
        providers: ONNX Runtime execution providers in order of preference, by full name or by
            short ones such as ``cuda``; None for TensorRT, CUDA and CPU, as far as they are there.
            Those that do not work are passed over as long as one does: :attr:`provider_report`
            says which and why.
        intra_op_threads: threads inside one operator. More than one makes these small networks
            slower and keeps the robot's cores busy.
        threshold: overrides the model's own threshold, for the normalised score too.
        view: overrides what the model sees of a frame; its whole frame and its None leave the
            model's own.
        require_gpu: a detector that does not run on a GPU is an error.
        fp16: use FP16 in TensorRT; other providers ignore it.
        cuda_graph: record the GPU's work for one frame and replay it (CUDA, TensorRT). It needs a
            model of which every operator runs on the GPU.
        on_build: called when TensorRT starts to build an engine, which may take minutes, and when
            it has ended; from the calling thread.

    Attributes:
        path: the ONNX file.
        metadata: what the model says about itself.
        provider_report: providers wanted and got, and why they differ.
        providers: those that were got.

    Raises:
        ModelError: the file is missing, damaged, more than data, or no detector of this format.
        AnomalyDetectorError: a provider that ONNX Runtime does not know, none that works, no GPU
            where one is required, or a threshold that is not finite.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        providers: Sequence[str] | None = None,
        intra_op_threads: int = 1,
        threshold: float | None = None,
        view: View = WHOLE_FRAME,
        require_gpu: bool = False,
        fp16: bool = False,
        cuda_graph: bool = False,
        on_build: Callable[[BuildEvent], None] | None = None,
    ) -> None:
        self.path = resolve_model(name_or_path)
        file = read_model_file(self.path)
        self.metadata = file.metadata
        self._limit = self._limit_of(threshold)
        self.set_view(view)
        self._ignored = file.metadata.input_mask.ignored if file.metadata.input_mask else None
        self._session = Session(
            file,
            providers,
            intra_op_threads,
            require_gpu=require_gpu,
            fp16=fp16,
            cuda_graph=cuda_graph,
            on_build=on_build or (lambda _: None),
        )
        self.provider_report = self._session.report
        self.providers: list[str] = list(self.provider_report.got)

    @property
    def threshold(self) -> float:
        """A frame is anomalous when its score is at or above this, in the model's units."""
        return self._limit.threshold

    def set_threshold(self, threshold: float | None) -> None:
        """Set another threshold, for the normalised score too; frames from now on heed it.

        Args:
            threshold: in the model's units; None for the model's own.

        Raises:
            AnomalyDetectorError: it is not finite; the old one stays.
        """
        self._limit = self._limit_of(threshold)

    @property
    def view(self) -> View:
        """What is seen of a frame: the model's view, and what overrides it."""
        return self._view

    def set_view(self, view: View) -> None:
        """Override the model's view; frames from now on are seen so.

        Args:
            view: its whole frame and its None leave the model's own.
        """
        self._view = view.over(self.metadata.view)

    @property
    def camera_reference(self) -> CameraReference | None:
        """How the camera was in training; None where that is not known, or of another view."""
        return self.metadata.camera_reference if self._view == self.metadata.view else None

    @property
    def map_scale(self) -> MapScale:
        """Which values of the anomaly map are shown as heat, at the detector's threshold."""
        return self._limit.map_scale

    def _limit_of(self, threshold: float | None) -> _Limit:
        check_threshold(threshold)
        own = self.metadata.threshold
        value = float(own if threshold is None else threshold)
        # The graph normalises with the file's threshold only.
        return _Limit(
            value,
            float32_threshold(value),
            normalization_scale(self.metadata, value),
            in_graph=value == own,
            map_scale=self.metadata.map_scale.at(value, own),
        )

    def close(self) -> None:
        """Free the session and its memory; the detector cannot score afterwards."""
        self._session.close()

    def __enter__(self) -> Detector:
        """Return the detector itself, to be closed at the end of a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the detector."""
        self.close()

    def score_batch(self, images: NDArray[np.uint8]) -> BatchScores:
        """Score frames that have the size of the model's input.

        Args:
            images: uint8 [N, H, W, 3] RGB, as large as ``view.size``, from
                :func:`~anomaly_detector.images.preprocessing.preprocess`.

        Raises:
            ModelError: the model fails, or gives NaN or infinite scores.
        """
        return self._score(images, self._limit)

    def _score(self, images: NDArray[np.uint8], limit: _Limit) -> BatchScores:
        result = self._session.run(images)
        # Half precision could put it on the other side of 0.5 than the score says.
        if limit.in_graph and not self._session.is_half_precision:
            return result
        normalized = normalize_scores(result.score, limit.float32, limit.scale)
        return result._replace(normalized_score=normalized)

    def prepare(self, frame: FrameLike, order: ColorOrder | None = None) -> Image:
        """Return the model's input, RGB; arguments and errors as for :meth:`detect`.

        What has been prepared stays as it is, and can be given to :meth:`detect`.
        """
        view = self._view
        return _prepared(_image_of(frame, order, view), view)

    def detect(self, frame: FrameLike, order: ColorOrder | None = None) -> Detection:
        """Score one camera frame; the model's region of it is looked at.

        Args:
            frame: an array [H, W] or [H, W, C], an :class:`~anomaly_detector.images.image.Image`,
                a frame of a recording, or a message of ``sensor_msgs``; of any size.
            order: the channel order of an array, ``"bgr"`` for those of OpenCV; grey ones need
                none.

        Raises:
            ImageError: the frame is damaged, its order is not known, or the model's region does
                not lie inside it.
            ModelError: the model fails, or gives NaN or infinite scores.
        """
        view, limit = self._view, self._limit
        image = _image_of(frame, order, view)
        prepared = _prepared(image, view)
        start = time.perf_counter()
        result = self._score(prepared.array[np.newaxis], limit)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        score = float(result.score[0])
        return Detection(
            score=score,
            normalized_score=float(result.normalized_score[0]),
            threshold=limit.threshold,
            is_anomaly=score >= limit.threshold,
            anomaly_map=result.anomaly_map[0],
            inference_ms=elapsed_ms,
            view=view,
            order=image.order,
            map_scale=limit.map_scale,
            extent=prepared.extent,
            ignored=self._ignored,
        )

    def stream(
        self,
        recording: str | Path | FrameSource,
        topic: str | None = None,
        *,
        fps: float | None = None,
    ) -> Iterator[tuple[Frame, Detection]]:
        """Score a recording frame by frame, as the node does.

        Where only scores are wanted, :func:`anomaly_detector.scoring.stream.score_recording` gives
        the same ones faster (with a batch size of 1 to the last bit).

        Args:
            recording: an image folder, a bag, a video, or one that is open already.
            topic: the image topic of a bag that has more than one.
            fps: frames a second of a recording without stamps: its readable frames get stamps from
                0 on; None leaves them without.

        Yields:
            Each readable frame, its picture cut to the model's region, and its result. ``time_ns``
            of a frame is its stamp, or what stands in for a missing one. Large JPEG pictures are
            decoded at reduced scale, as the node does.

        Raises:
            SourceError: no such recording, or no frame in it is readable.
            ModelError: the model fails.
            AnomalyDetectorError: ``fps`` is not positive.
        """
        check_fps(fps)
        source = recording if isinstance(recording, FrameSource) else open_source(recording, topic)
        return self._streamed(source, fps)

    def _streamed(
        self, source: FrameSource, fps: float | None
    ) -> Iterator[tuple[Frame, Detection]]:
        source.view = self._view
        for index, frame in enumerate(source.mapped(lambda frame: frame, reduced=True)):
            stamp_ns, time_ns = stamp_and_time(frame, index, fps)
            yield replace(frame, stamp_ns=stamp_ns, time_ns=time_ns), self.detect(frame)


def _image_of(frame: FrameLike, order: ColorOrder | None, view: View) -> Image:
    # A region's edges may lie between the pixels of a reduced picture.
    return as_image(frame, order, scaling=view.scaling, reduced=view.region.is_whole_frame)


def _prepared(image: Image, view: View) -> Image:
    return preprocessed(crop(image, view.region), view.size)

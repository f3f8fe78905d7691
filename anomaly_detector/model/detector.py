"""A detector: one ONNX file, checked at load, and the scores it gives.

The file's contract: input ``image`` uint8 [N, 64, 64, 3] RGB; outputs ``score`` float32 [N],
``normalized_score`` float32 [N] and ``anomaly_map`` float32 [N, H, W]; scaling, network and scoring
are inside the graph; one metadata entry (:mod:`anomaly_detector.model.metadata`) says the rest.
``docs/model-format.md`` describes it all, :mod:`anomaly_detector.model.file` checks it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.images.image import ColorOrder, Image, crop
from anomaly_detector.images.message import FrameLike, as_image
from anomaly_detector.images.preprocessing import INPUT_SIZE, WHOLE_FRAME, View, shrink
from anomaly_detector.model.file import ModelFile, read_model_file
from anomaly_detector.model.io_binding import BoundRun
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.normalization import (
    NORMALIZED_OUTPUT,
    float32_threshold,
    normalization_scale,
    normalize_for,
    normalize_scores,
)
from anomaly_detector.model.providers import (
    CUDA,
    GPU_PROVIDERS,
    GPU_REMEDY,
    TENSORRT,
    ProviderReport,
    choose_providers,
    default_providers,
    one_line,
    open_session,
    session_options,
)
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.model.tensorrt import (
    MAX_BATCH,
    BuildEvent,
    engine_cache,
    gpu_device,
    tensorrt_options,
    tensorrt_version,
)
from anomaly_detector.recordings import Frame, FrameSource, open_source
from anomaly_detector.recordings.base import check_fps, stamp_and_time

_FRAME_SHAPE = (INPUT_SIZE, INPUT_SIZE, 3)
_OUTPUTS = ("score", NORMALIZED_OUTPUT, "anomaly_map")

# Far more than execution providers differ in an output between 0 and 1; half precision has three
# digits.
_NORMALIZED_TOLERANCE = 1e-4
_FP16_TOLERANCE = 1e-2


class BatchScores(NamedTuple):
    """The result for N shrunk frames.

    Attributes:
        score: float32 [N], in the model's units.
        normalized_score: float32 [N], in [0, 1], 0.5 at the detector's threshold.
        anomaly_map: float32 [N, H, W].
    """

    score: NDArray[np.float32]
    normalized_score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]


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
            short ones such as ``cuda``; None for :func:`default_providers`. Those that do not work
            are passed over as long as one does: :attr:`provider_report` says which and why.
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
        self._tolerance = _NORMALIZED_TOLERANCE
        self._session: Any = None
        self._bound: BoundRun | None = None
        self._plain_run_options: Any = None
        self._max_batch: int | None = None
        self.provider_report = self._open(
            file,
            providers,
            intra_op_threads,
            require_gpu=require_gpu,
            fp16=fp16,
            cuda_graph=cuda_graph,
            on_build=on_build or (lambda _: None),
        )
        self.providers: list[str] = list(self.provider_report.got)

    def _open(
        self,
        file: ModelFile,
        requested: Sequence[str] | None,
        intra_op_threads: int,
        *,
        require_gpu: bool,
        fp16: bool,
        cuda_graph: bool,
        on_build: Callable[[BuildEvent], None],
    ) -> ProviderReport:
        choice = choose_providers(
            default_providers() if requested is None else requested,
            onnxruntime.get_available_providers(),
            onnxruntime.get_all_providers(),
        )
        if require_gpu and not GPU_PROVIDERS & set(choice.usable):
            raise AnomalyDetectorError(_no_gpu("; ".join(choice.reasons.values())))
        options = {CUDA: {"enable_cuda_graph": "1"} if cuda_graph else {}}
        announced, started, folder = False, time.monotonic(), None
        if TENSORRT in choice.usable and tensorrt_version() is not None:
            cache = engine_cache(file.digest, gpu_device(), fp16=fp16)
            kept = cache.prepare()
            folder = cache.folder if kept else None
            options[TENSORRT] = tensorrt_options(
                cache if kept else None,
                fp16=fp16,
                cuda_graph=cuda_graph,
                input_shape=f"image:{'x'.join(map(str, _FRAME_SHAPE))}",
            )
            announced = not (kept and cache.has_engine())
            if announced:
                on_build(BuildEvent("started", 0.0, folder))

        def first_run(session: Any) -> None:
            # The first run allocates and, on a GPU, compiles: not on a frame's time. It also
            # proves that the graph really yields what its signature and metadata promise.
            provider = session.get_providers()[0]
            on_tensorrt = provider == TENSORRT
            self._max_batch = MAX_BATCH if on_tensorrt else None
            self._tolerance = _FP16_TOLERANCE if on_tensorrt and fp16 else _NORMALIZED_TOLERANCE
            self._session, self._bound, self._plain_run_options = session, None, None
            graphs = cuda_graph and provider in (CUDA, TENSORRT)
            if graphs:
                # -1: this run is not recorded, its arrays lie elsewhere each time.
                self._plain_run_options = onnxruntime.RunOptions()
                self._plain_run_options.add_run_config_entry("gpu_graph_id", "-1")
            frame = np.zeros((1, *_FRAME_SHAPE), np.uint8)
            result = self._check_normalization(frame)
            if graphs:
                shapes = {name: getattr(result, name).shape for name in _OUTPUTS}
                self._bound = BoundRun(session, "image", frame.shape, shapes, "cuda")
                self._check_normalization(frame)

        report = None
        try:
            report = open_session(
                file.data,
                choice,
                session_options(intra_op_threads),
                provider_options=options,
                first_run=first_run,
            ).report
        except AnomalyDetectorError:
            raise
        except Exception as error:  # onnxruntime's error types have no public common base
            raise ModelError(
                f"model {self.path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: "
                f"export it again with 'python -m training train' ({one_line(error)})"
            ) from error
        finally:
            if report is None:
                self.close()
            if announced:
                done = report is not None and TENSORRT in report.got
                seconds = time.monotonic() - started
                on_build(BuildEvent("ended" if done else "failed", seconds, folder))
        if require_gpu and not report.has_gpu:
            self.close()
            raise AnomalyDetectorError(_no_gpu(report.fallback_reason))
        return report

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
    def map_scale(self) -> MapScale:
        """Which values of the anomaly map are shown as heat, at the detector's threshold."""
        return self._limit.map_scale

    def _limit_of(self, threshold: float | None) -> _Limit:
        if threshold is not None and not np.isfinite(threshold):
            raise AnomalyDetectorError(f"threshold is {threshold}: give a finite number")
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
        self._session = self._bound = self._plain_run_options = None

    def __enter__(self) -> Detector:
        """Return the detector itself, to be closed at the end of a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the detector."""
        self.close()

    def score_batch(self, images: NDArray[np.uint8]) -> BatchScores:
        """Score frames that have the size of the model's input.

        Args:
            images: uint8 [N, 64, 64, 3] RGB, from
            :func:`anomaly_detector.images.preprocessing.shrink`.

        Raises:
            ModelError: the model fails, or gives NaN or infinite scores.
        """
        return self._run(images, self._limit)

    def _run(self, images: NDArray[np.uint8], limit: _Limit) -> BatchScores:
        if self._max_batch is not None and len(images) > self._max_batch:
            starts = range(0, len(images), self._max_batch)
            parts = [self._run_graph(images[i : i + self._max_batch]) for i in starts]
            result = BatchScores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        else:
            result = self._run_graph(images)
        # Half precision could put it on the other side of 0.5 than the score says.
        if limit.in_graph and self._tolerance == _NORMALIZED_TOLERANCE:
            return result
        normalized = normalize_scores(result.score, limit.float32, limit.scale)
        return result._replace(normalized_score=normalized)

    def _run_graph(self, images: NDArray[np.uint8]) -> BatchScores:
        session = self._session
        if session is None:
            raise AnomalyDetectorError(f"the detector of {self.path} is closed: make a new one")
        try:
            if self._bound is not None and len(images) == 1:
                result = BatchScores(*self._bound(images))
            else:
                feed = {"image": images}
                result = BatchScores(*session.run(_OUTPUTS, feed, self._plain_run_options))
        except Exception as error:  # onnxruntime's error types have no public common base
            raise ModelError(
                f"model {self.path} fails on input of shape {images.shape} {images.dtype}: "
                f"{one_line(error)}"
            ) from error
        shapes = [output.shape for output in result]
        if shapes[:2] != [(len(images),)] * 2 or shapes[2][:1] != (len(images),):
            raise ModelError(
                f"model {self.path} gives outputs of shapes {shapes} for {len(images)} frames: "
                "export it again with 'python -m training train'"
            )
        if not (np.isfinite(result.score).all() and np.isfinite(result.normalized_score).all()):
            raise ModelError(
                f"model {self.path} gives a score that is not finite: its weights are damaged, "
                "train it again"
            )
        return result

    def _check_normalization(self, images: NDArray[np.uint8]) -> BatchScores:
        """Refuse a file whose graph normalises with other numbers than its metadata give."""
        result = self._run_graph(images)
        wanted = normalize_for(self.metadata, result.score)
        difference = float(np.abs(result.normalized_score - wanted).max())
        if difference > self._tolerance:
            raise ModelError(
                f"model {self.path}: its normalized_score differs by {difference:.2g} from what "
                f"its metadata's threshold {self.metadata.threshold:.6g} gives: set a threshold "
                "with 'python -m anomaly_detector calibrate', not by editing the file"
            )
        return result

    def is_anomaly(self, score: float) -> bool:
        """Return whether a score is at or above the threshold."""
        return score >= self.threshold

    def prepare(self, frame: FrameLike, order: ColorOrder | None = None) -> Image:
        """Return the model's input, 64x64 RGB; arguments and errors as for :meth:`detect`.

        What has been prepared stays as it is, and can be given to :meth:`detect`.
        """
        view = self._view
        return _prepared(_image_of(frame, order, view), view)

    def detect(self, frame: FrameLike, order: ColorOrder | None = None) -> Detection:
        """Score one camera frame; the model's region of it is looked at.

        Args:
            frame: an array [H, W] or [H, W, C], an :class:`~anomaly_detector.images.message.Image`,
            a frame
                of a recording, or a message of ``sensor_msgs``; of any size.
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
        result = self._run(prepared.array[np.newaxis], limit)
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
        for index, frame in enumerate(source.mapped(_itself, reduced=True)):
            stamp_ns, time_ns = stamp_and_time(frame, index, fps)
            yield replace(frame, stamp_ns=stamp_ns, time_ns=time_ns), self.detect(frame)


def _image_of(frame: FrameLike, order: ColorOrder | None, view: View) -> Image:
    # A region's edges may lie between the pixels of a reduced picture.
    return as_image(frame, order, scaling=view.scaling, reduced=view.region.is_whole_frame)


def _prepared(image: Image, view: View) -> Image:
    return Image(shrink(crop(image, view.region)), "rgb", region=view.region)


def _itself(frame: Frame) -> Frame:
    return frame


def _no_gpu(reason: str | None) -> str:
    available = set(onnxruntime.get_available_providers())
    if not reason and available & GPU_PROVIDERS:
        reason = f"none of the providers runs on one: add {CUDA}"
    elif not reason:
        reason = f"the installed onnxruntime has no provider for one: {GPU_REMEDY}"
    return f"a GPU is required (require_gpu), but {reason}"

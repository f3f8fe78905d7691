"""A model's graph, ready to run: ONNX Runtime's session on the first wanted provider that works.

:mod:`anomaly_detector.model.providers` says which are tried, and why one is left out. The first run
happens when the session is made: it allocates and, on a GPU, compiles, which is not to be on a
frame's time. It also proves that the graph yields what its signature and metadata promise.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.model.normalization import NORMALIZED_OUTPUT, normalize_for
from anomaly_detector.model.providers import (
    CPU,
    CUDA,
    GPU_PROVIDERS,
    TENSORRT,
    ProviderChoice,
    ProviderReport,
    choose_providers,
    explain_error,
    explain_missing,
    no_gpu,
    one_line,
)
from anomaly_detector.model.tensorrt import (
    MAX_BATCH,
    BuildEvent,
    engine_cache,
    gpu_device,
    tensorrt_options,
    tensorrt_version,
)

if TYPE_CHECKING:  # which opens a session to check a file
    from anomaly_detector.model.file import ModelFile

_OUTPUTS = ("score", NORMALIZED_OUTPUT, "anomaly_map")

# Far more than execution providers differ in an output between 0 and 1; half precision has three
# digits.
_NORMALIZED_TOLERANCE = 1e-4
_FP16_TOLERANCE = 1e-2

_FATAL_ONLY = 4


class BatchScores(NamedTuple):
    """The result for N preprocessed frames.

    Attributes:
        score: float32 [N], in the model's units.
        normalized_score: float32 [N], in [0, 1], 0.5 at the detector's threshold.
        anomaly_map: float32 [N, H, W].
    """

    score: NDArray[np.float32]
    normalized_score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]


class Session:
    """Runs a model's graph; arguments and errors are those of the detector.

    Attributes:
        report: providers wanted and got.
        is_half_precision: scores may differ from those of other providers in the third digit.
    """

    def __init__(
        self,
        file: ModelFile,
        providers: Sequence[str] | None,
        intra_op_threads: int,
        *,
        require_gpu: bool,
        fp16: bool,
        cuda_graph: bool,
        on_build: Callable[[BuildEvent], None],
    ) -> None:
        self._path = file.path
        self._session: Any = None
        choice = choose_providers(providers)
        if require_gpu and not GPU_PROVIDERS & set(choice.usable):
            raise no_gpu("; ".join(choice.reasons.values()))
        provider_options = {CUDA: {"enable_cuda_graph": "1"} if cuda_graph else {}}
        is_built, start, folder = False, time.monotonic(), None
        if TENSORRT in choice.usable and tensorrt_version() is not None:
            cache = engine_cache(file.digest, gpu_device(), fp16=fp16)
            folder = cache.folder if cache.prepare() else None
            provider_options[TENSORRT] = tensorrt_options(
                folder, file.metadata.input_size, fp16=fp16, cuda_graph=cuda_graph
            )
            is_built = folder is None or not cache.has_engine()
            if is_built:
                on_build(BuildEvent("started", 0.0, folder))
        report = None
        try:
            report = self.report = open_session(
                file.data,
                choice,
                session_options(intra_op_threads),
                provider_options,
                lambda session: self._try_out(session, file, fp16=fp16, cuda_graph=cuda_graph),
            )
        except AnomalyDetectorError:
            raise
        except Exception as error:  # onnxruntime's error types have no public common base
            raise ModelError(
                f"model {file.path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: "
                f"export it again with 'python -m training train' ({one_line(error)})"
            ) from error
        finally:
            if report is None:
                self.close()
            if is_built:
                is_done = report is not None and TENSORRT in report.got
                seconds = time.monotonic() - start
                on_build(BuildEvent("ended" if is_done else "failed", seconds, folder))
        if require_gpu and not report.has_gpu:
            self.close()
            raise no_gpu(report.fallback_reason)

    def _try_out(self, session: Any, file: ModelFile, *, fp16: bool, cuda_graph: bool) -> None:
        provider = session.get_providers()[0]
        self.is_half_precision = fp16 and provider == TENSORRT
        self._max_batch = MAX_BATCH if provider == TENSORRT else math.inf
        self._session, self._binding, self._run_options = session, None, None
        size = file.metadata.input_size
        black = np.zeros((1, size, size, 3), np.uint8)
        if cuda_graph and provider in (CUDA, TENSORRT):
            # -1: this run is not recorded, its arrays lie elsewhere each time.
            self._run_options = onnxruntime.RunOptions()
            self._run_options.add_run_config_entry("gpu_graph_id", "-1")
            shapes = {
                name: values.shape for name, values in zip(_OUTPUTS, self.run(black), strict=True)
            }
            self._binding = IoBinding(session, black.shape, shapes, "cuda")
        # A graph that normalises with other numbers than its metadata give was edited.
        result = self.run(black)
        wanted = normalize_for(file.metadata, result.score)
        difference = float(np.abs(result.normalized_score - wanted).max())
        if difference > (_FP16_TOLERANCE if self.is_half_precision else _NORMALIZED_TOLERANCE):
            raise ModelError(
                f"model {file.path}: its normalized_score differs by {difference:.2g} from what "
                f"its metadata's threshold {file.metadata.threshold:.6g} gives: set a threshold "
                "with 'python -m anomaly_detector calibrate', not by editing the file"
            )

    def run(self, images: NDArray[np.uint8]) -> BatchScores:
        """Return what the graph gives for frames, uint8 [N, H, W, 3], at the model's threshold.

        Raises:
            ModelError: the graph fails, or gives NaN or infinite scores.
            AnomalyDetectorError: the session is closed.
        """
        session = self._session
        if session is None:
            raise AnomalyDetectorError(f"the detector of {self._path} is closed: make a new one")
        if len(images) > self._max_batch:
            starts = range(0, len(images), MAX_BATCH)
            parts = [self.run(images[start : start + MAX_BATCH]) for start in starts]
            return BatchScores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        try:
            if self._binding is not None and len(images) == 1:
                result = BatchScores(*self._binding.run(images))
            else:
                result = BatchScores(*session.run(_OUTPUTS, {"image": images}, self._run_options))
        except Exception as error:  # onnxruntime's error types have no public common base
            raise ModelError(
                f"model {self._path} fails on input of shape {images.shape} {images.dtype}: "
                f"{one_line(error)}"
            ) from error
        shapes = [output.shape for output in result]
        if shapes[:2] != [(len(images),)] * 2 or shapes[2][:1] != (len(images),):
            raise ModelError(
                f"model {self._path} gives outputs of shapes {shapes} for {len(images)} frames: "
                "export it again with 'python -m training train'"
            )
        if not (np.isfinite(result.score).all() and np.isfinite(result.normalized_score).all()):
            raise ModelError(
                f"model {self._path} gives a score that is not finite: its weights are damaged, "
                "train it again"
            )
        return result

    def close(self) -> None:
        """Free the session and its memory."""
        self._session = self._binding = self._run_options = None


class IoBinding:
    """Runs a session on frames of one shape, with input and outputs at fixed places in memory.

    CUDA graphs need it: the recorded launches read and write the same addresses each time.
    Elsewhere the plain ``session.run`` is as fast (``benchmarks/inference.py``), and is used.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        shape: of the input ``image``, uint8, batch dimension included.
        outputs: names and shapes of the outputs, float32.
        device: ``cpu`` or ``cuda``, whose first device is taken.
    """

    def __init__(
        self,
        session: Any,
        shape: Sequence[int],
        outputs: Mapping[str, Sequence[int]],
        device: str = "cpu",
    ) -> None:
        self._session = session
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.uint8), device, 0)
        self._outputs = [
            onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(size), np.float32, device, 0)
            for size in outputs.values()
        ]
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("image", self._input)
        for name, value in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run once; the outputs are copies, in the order in which they were named."""
        self._input.update_inplace(np.ascontiguousarray(images))
        self._session.run_with_iobinding(self._binding)
        # On the CPU numpy() is a view of memory that the next run writes to.
        return [np.array(value.numpy()) for value in self._outputs]


def session_options(intra_op_threads: int = 1, *, spinning: bool = False) -> Any:
    """Return the ``onnxruntime.SessionOptions`` of a detector.

    Args:
        intra_op_threads: threads inside one operator, 1 or more.
        spinning: let idle threads wait in a busy loop; lower latency with several threads, paid
            with their cores (``benchmarks/inference.py`` measures both).

    Raises:
        AnomalyDetectorError: fewer than one thread.
    """
    if intra_op_threads < 1:
        raise AnomalyDetectorError(f"intra_op_threads is {intra_op_threads}: give 1 or more")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "01"[spinning])
    options.add_session_config_entry("session.inter_op.allow_spinning", "01"[spinning])
    # Bytes that say they are of another format are not believed.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def open_session(
    data: bytes,
    choice: ProviderChoice,
    options: Any,
    provider_options: Mapping[str, Mapping[str, str]],
    first_run: Callable[[Any], object],
) -> ProviderReport:
    """Make a session on the first wanted provider that works.

    ``first_run`` gets the session; a provider with which it raises does not work.

    Raises:
        AnomalyDetectorError: ONNX Runtime gives none of the wanted providers.
        Exception: what ONNX Runtime or ``first_run`` raises without any provider to blame.
    """
    reasons = dict(choice.reasons)
    remaining = list(choice.usable)

    def none_works() -> AnomalyDetectorError:
        return AnomalyDetectorError(
            f"providers {', '.join(choice.wanted)}: {'; '.join(reasons.values())}; "
            f"or add {CPU} to the providers"
        )

    if CUDA in remaining or TENSORRT in remaining:
        _load_cuda_libraries()
    while True:
        try:
            session = onnxruntime.InferenceSession(
                data,
                options,
                providers=[(name, dict(provider_options.get(name, {}))) for name in remaining],
                # It would fall back by itself, and print the reason to stdout.
                enable_fallback=0,
            )
            first_run(session)
            break
        except Exception as error:
            blamed = next((name for name in remaining if name != CPU), None)
            if blamed is None:
                raise
            reasons[blamed] = explain_error(blamed, error, data)
            remaining.remove(blamed)
            if not remaining:  # nothing to fall back to, but the model may be to blame
                raise none_works() from error
    got = tuple(session.get_providers())
    for name in choice.usable:
        if name not in got and name not in reasons:
            reasons[name] = explain_missing(name, data)
    if not set(choice.wanted) & set(got):
        raise none_works()
    reason = "; ".join(reasons[name] for name in choice.wanted if name in reasons)
    return ProviderReport(choice.wanted, got, reason or None)


def _load_cuda_libraries() -> None:
    """Make the CUDA libraries that pip installed findable, where ONNX Runtime knows how to."""
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        # It prints what is missing; the session will say what of that matters.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            preload()

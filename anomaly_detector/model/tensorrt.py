"""TensorRT's engines: where they are kept, and when one has to be built.

TensorRT compiles a network for one kind of GPU, which takes from seconds to minutes. The engine is
kept in the user's cache folder; its key holds everything that makes another engine necessary, so
that neither an update nor a second robot on the same home folder ever meets a foreign one. An
engine is code that the GPU runs: its folder is the user's alone.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from anomaly_detector.files import user_cache_folder

MAX_BATCH = 64
"""Frames of one run on TensorRT: an engine is built for a range of batch sizes."""

_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


@dataclass(frozen=True)
class BuildEvent:
    """An engine is being built, or was.

    Attributes:
        state: ``started``, ``ended`` or ``failed``.
        seconds: since it started; 0.0 for ``started``.
        folder: where the engine is kept; None where it cannot be, so that every start builds it.
    """

    state: str
    seconds: float
    folder: Path | None


@dataclass(frozen=True)
class GpuDevice:
    """A GPU as the driver names it.

    Attributes:
        name: such as ``Orin``.
        compute_capability: such as ``8.7``.
        driver: version of CUDA that the driver supports, such as ``12.6``.
    """

    name: str
    compute_capability: str
    driver: str


@dataclass(frozen=True)
class EngineCache:
    """The folder of one model's engines on one machine; it need not exist."""

    folder: Path

    def has_engine(self) -> bool:
        """Return whether an engine is there."""
        return any(self.folder.glob("*.engine"))

    def prepare(self) -> bool:
        """Make the folder, for the user alone; tells whether engines can be kept there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK)


def engine_cache(
    digest: str,
    device: GpuDevice | None,
    *,
    fp16: bool,
    versions: Mapping[str, str] | None = None,
) -> EngineCache:
    """Return the cache of one model, by the digest of its bytes, on one machine.

    ``device`` is None where the driver does not tell, ``versions`` (of onnxruntime and tensorrt)
    for those here.
    """
    if versions is None:
        versions = {
            "onnxruntime": onnxruntime.__version__,
            "tensorrt": tensorrt_version() or "unknown",
        }
    gpu = device or GpuDevice("unknown", "unknown", "unknown")
    parts = [digest, gpu.name, gpu.compute_capability, gpu.driver, f"fp16={fp16}"]
    parts += [f"{name}={versions[name]}" for name in sorted(versions)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    # Two names that a person who looks for what fills the disk can read.
    readable = re.sub(r"[^A-Za-z0-9]+", "-", gpu.name).strip("-").lower()[:40]
    return EngineCache(user_cache_folder("tensorrt") / f"{readable}-{digest[:8]}-{key}")


def tensorrt_options(
    folder: Path | None, size: int, *, fp16: bool, cuda_graph: bool
) -> dict[str, str]:
    """Return the options of ONNX Runtime's TensorRT provider.

    Engines and timings are kept in ``folder``, or not at all; frames are ``size`` pixels wide and
    high.
    """
    frames = f"x{size}x{size}x3"
    options = {
        "trt_fp16_enable": str(fp16),
        "trt_cuda_graph_enable": str(cuda_graph),
        # One engine for all batch sizes, fastest for single frames; without it each new size
        # would build another one.
        "trt_profile_min_shapes": f"image:1{frames}",
        "trt_profile_opt_shapes": f"image:1{frames}",
        "trt_profile_max_shapes": f"image:{MAX_BATCH}{frames}",
    }
    if folder is not None:
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder),
        }
    return options


@functools.cache
def tensorrt_version() -> str | None:
    """Return the version of TensorRT's library as ONNX Runtime would load it; None without one."""
    for library in _LIBRARIES:
        try:
            number = int(ctypes.CDLL(library).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        # 8.6.1 is 8601, 10.3.0 is 100300.
        large = 10_000 if number >= 10_000 else 1_000
        return f"{number // large}.{number % large // 100}.{number % 100}"
    return None


def gpu_device() -> GpuDevice | None:
    """Ask the NVIDIA driver for its first GPU; None without driver or GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, device = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    capability = (ctypes.c_int(), ctypes.c_int())
    # Attributes 75 and 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    if (
        driver.cuInit(0)
        or driver.cuDriverGetVersion(ctypes.byref(version))
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(capability[0]), 75, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(capability[1]), 76, device)
    ):
        return None
    return GpuDevice(
        name.value.decode(errors="replace"),
        f"{capability[0].value}.{capability[1].value}",
        f"{version.value // 1000}.{version.value % 1000 // 10}",
    )

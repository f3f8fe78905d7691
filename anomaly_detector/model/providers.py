"""Execution providers: which are asked for, which ONNX Runtime really gives, and why not.

ONNX Runtime falls back to the CPU without an error: a library of CUDA that it cannot load is a
line on stderr, and the session works, only slowly. Here what was wanted is compared with what the
session has, and the difference has a reason (:class:`ProviderReport`).

The reason is ONNX Runtime's own. An exception while the session is made or first run is one. When a
provider is left out silently, a second process asks for it alone, and what ONNX Runtime prints
there is read (:func:`explain_missing`); that costs about a second, and only where something is
wrong.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnxruntime

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.model.tensorrt import tensorrt_version

TENSORRT: Final = "TensorrtExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
OPENVINO: Final = "OpenVINOExecutionProvider"
CPU: Final = "CPUExecutionProvider"

DEFAULT_PROVIDERS: Final = (TENSORRT, CUDA, CPU)
"""Execution providers in order of preference; those that are not installed are left out."""

GPU_PROVIDERS: Final = frozenset(
    {
        TENSORRT,
        CUDA,
        "NvTensorRTRTXExecutionProvider",
        "MIGraphXExecutionProvider",
        "ROCMExecutionProvider",
        "DmlExecutionProvider",
        "WebGpuExecutionProvider",
    }
)
"""What satisfies ``require_gpu``. OpenVINO and others may run on a CPU and do not."""

_SUFFIX = "ExecutionProvider"
_PROBE_TIMEOUT_S = 60.0

_GPU_REMEDY = (
    "pip install onnxruntime-gpu in place of onnxruntime (on a Jetson from NVIDIA's wheel index), "
    "next to the NVIDIA driver"
)

_REMEDIES: Mapping[str, str] = {
    CUDA: _GPU_REMEDY,
    TENSORRT: _GPU_REMEDY,
    OPENVINO: "pip install onnxruntime-openvino in place of onnxruntime",
}

# What ONNX Runtime says, and what to do about it.
_CAUSES: Sequence[tuple[str, str]] = (
    (r"libcuda\.so|no CUDA-capable device|CUDA driver version|CUDA failure 35|CUDA failure 100",
     "install the NVIDIA driver, or start the container with its GPU (--gpus all)"),
    (r"libnvinfer|TensorRT", "install the TensorRT that this onnxruntime was built for"),
    (r"libcu|libcublas|libcudnn|libcudart|CUDA|cuDNN",
     "install the CUDA and cuDNN that this onnxruntime was built for"),
)  # fmt: skip


@dataclass(frozen=True)
class ProviderReport:
    """What was wanted and what was got.

    Attributes:
        wanted: providers in order of preference.
        got: providers of the session, in order; ONNX Runtime adds the CPU's as the last.
        fallback_reason: why a wanted one is missing, with what to do about it; None when none is.
    """

    wanted: tuple[str, ...]
    got: tuple[str, ...]
    fallback_reason: str | None = None

    @property
    def has_gpu(self) -> bool:
        """Whether the provider of first choice that was got runs on a GPU."""
        return bool(self.got) and self.got[0] in GPU_PROVIDERS

    @property
    def warning(self) -> str | None:
        """One line for the log, or None when all is as wanted."""
        if self.fallback_reason is None:
            return None
        return (
            f"running on {short_name(self.got[0])}, wanted "
            f"{', '.join(short_name(name) for name in self.wanted)}: {self.fallback_reason}"
        )


@dataclass(frozen=True)
class ProviderChoice:
    """Providers to try.

    Attributes:
        wanted: full names in order of preference.
        usable: those of them that the installed ONNX Runtime has.
        reasons: for each of the others, why not.
    """

    wanted: tuple[str, ...]
    usable: tuple[str, ...]
    reasons: Mapping[str, str]


def short_name(provider: str) -> str:
    """Return ``CUDA`` for ``CUDAExecutionProvider``."""
    return provider.removesuffix(_SUFFIX)


def default_providers() -> list[str]:
    """Return the providers of :data:`DEFAULT_PROVIDERS` that are there.

    Every GPU wheel of ONNX Runtime lists TensorRT, whose library is a separate installation: it
    counts as there when that library can be loaded.
    """
    available = onnxruntime.get_available_providers()
    return [
        name
        for name in DEFAULT_PROVIDERS
        if name in available and (name != TENSORRT or tensorrt_version() is not None)
    ]


def choose_providers(
    requested: Sequence[str] | None,
    available: Sequence[str] | None = None,
    known: Sequence[str] | None = None,
) -> ProviderChoice:
    """Sort out what was asked for.

    A provider that the installed ONNX Runtime lacks is passed over with a reason, as long as one of
    the others is there; a name that ONNX Runtime does not know is an error, since it is a mistake.

    Args:
        requested: a name, or names in order of preference, such as ``CUDAExecutionProvider`` or, in
            any case of letters, ``cuda``; None for :func:`default_providers`, of which one
            always is there.
        available: full names that the installed ONNX Runtime has; None to ask it.
        known: full names that any build of it has; None to ask it.

    Raises:
        AnomalyDetectorError: no name, an unknown or repeated one, or none that is available.
    """
    requested = default_providers() if requested is None else requested
    requested = [requested] if isinstance(requested, str) else requested
    available = onnxruntime.get_available_providers() if available is None else available
    known = onnxruntime.get_all_providers() if known is None else known
    full = {_folded(name): name for name in (*known, *available)}
    installed = f"the installed ONNX Runtime has {', '.join(available)}"
    wanted = []
    for name in requested:
        match = full.get(_folded(name))
        if match is None:
            raise AnomalyDetectorError(
                f"providers {list(requested)}: {name} not available, it is none of ONNX Runtime's; "
                f"{installed}"
            )
        if match in wanted:
            raise AnomalyDetectorError(
                f"providers {list(requested)}: {name} is there twice, name each once"
            )
        wanted.append(match)
    if not wanted:
        raise AnomalyDetectorError(f"providers: none given, {installed}")
    usable = [name for name in wanted if name in available]
    reasons = {
        name: f"the installed onnxruntime is built without {short_name(name)}"
        + (f": {remedy}" if (remedy := _REMEDIES.get(name)) else "")
        for name in wanted
        if name not in available
    }
    if not usable:
        raise AnomalyDetectorError(
            f"providers {list(requested)}: {', '.join(wanted)} not available "
            f"({'; '.join(reasons.values())}); {installed}"
        )
    return ProviderChoice(tuple(wanted), tuple(usable), reasons)


def _folded(name: str) -> str:
    """Return a provider's name, full or short, in any case of letters, as a key."""
    return name.lower().removesuffix(_SUFFIX.lower())


_PROBE = """
import contextlib, io, sys
import onnxruntime
onnxruntime.set_default_logger_severity(2)
preload = getattr(onnxruntime, "preload_dlls", None)
if preload and sys.argv[1].startswith(("CUDA", "Tensorrt")):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        preload()
data = sys.stdin.buffer.read()
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.load_model_format", "ONNX")
session = onnxruntime.InferenceSession(data, options, providers=[sys.argv[1]], enable_fallback=0)
print("GOT", *session.get_providers())
"""


def explain_missing(provider: str, data: bytes) -> str:
    """Return why ONNX Runtime leaves a provider out: ask for it in a process of its own.

    The answer is ONNX Runtime's words and, where known, the remedy.
    """
    name = short_name(provider)
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, provider],
            input=data,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"ONNX Runtime leaves {name} out, and asking for it takes over a minute"
    except OSError as error:
        return f"ONNX Runtime leaves {name} out; its messages on stderr say why ({error.strerror})"
    output = probe.stderr.decode(errors="replace")
    if provider in probe.stdout.decode(errors="replace").split():
        return f"{name} works in another process but not in this one: restart it"
    return _with_remedy(f"{name} fails: {explain_output(output, probe.returncode)}")


def explain_error(provider: str, error: Exception, data: bytes) -> str:
    """Return why a provider fails that raised an error, as :func:`explain_missing` does."""
    text = one_line(error)
    if "Please install" in text:  # it means to say: see above, on stderr
        return explain_missing(provider, data)
    return _with_remedy(f"{short_name(provider)} fails: {text}")


def explain_output(output: str, return_code: int) -> str:
    """Return the reason in what ONNX Runtime printed on stderr."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    # "2026-01-01 10:00:00.0 [E:onnxruntime:Default, file.cc:1 Function] The reason"
    logged = re.findall(r"\[([EW]):onnxruntime:[^\]]*\]\s*(.+)", plain)
    lines = [one_line(text) for level, text in logged if level == "E"]
    # "Require cuDNN 9.* and CUDA 12.*": the versions that are wanted, in a warning.
    lines += [match[1] for _, text in logged if (match := re.search(r"(Require .*?\*)\. ", text))]
    lines = lines or [one_line(text) for _, text in logged]
    if not lines and return_code:
        lines = [one_line(line) for line in plain.splitlines() if line.strip()][-1:]
    return "; ".join(dict.fromkeys(lines)) or "ONNX Runtime gives no reason"


def _with_remedy(reason: str) -> str:
    for pattern, remedy in _CAUSES:
        if re.search(pattern, reason):
            return f"{reason}: {remedy}"
    return reason


def one_line(error: object) -> str:
    """Return an ONNX Runtime error on one line, without its source code's places, at most 300 long.

    Libraries are named without their folders, which say nothing and hide the rest.
    """
    text = as_one_line(error)
    text = re.sub(r"/\S+\.(?:cc|cpp|cu|h):\d+ [^()]*\([^()]*\) ", "", text)
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"/\S+/(lib\S+\.so)", r"\1", text)
    # Names out of a file may hold codes that a terminal obeys.
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def no_gpu(reason: str | None) -> AnomalyDetectorError:
    """Return the error for a GPU that is required and not there; ``reason`` where one is known."""
    if not reason and GPU_PROVIDERS & set(onnxruntime.get_available_providers()):
        reason = f"none of the providers runs on one: add {CUDA}"
    elif not reason:
        reason = f"the installed onnxruntime has no provider for one: {_GPU_REMEDY}"
    return AnomalyDetectorError(f"a GPU is required (require_gpu), but {reason}")

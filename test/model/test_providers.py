"""Which execution provider is wanted, which is got, and that the difference has a reason."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from model_files import write_grey_difference_model

from anomaly_detector.cli.main import main
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.providers import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    ProviderReport,
    choose_providers,
    default_providers,
    explain_missing,
    explain_output,
)
from anomaly_detector.model.session import open_session, session_options
from anomaly_detector.model.tensorrt import (
    BuildEvent,
    EngineCache,
    GpuDevice,
    engine_cache,
    gpu_device,
    tensorrt_options,
    tensorrt_version,
)

AZURE = "AzureExecutionProvider"
KNOWN = (TENSORRT, CUDA, OPENVINO, AZURE, CPU)
GPU_WHEEL = (TENSORRT, CUDA, CPU)
ORIN = GpuDevice("Orin (nvgpu)", "8.7", "12.6")
OLD_DRIVER = GpuDevice("Orin (nvgpu)", "8.7", "12.2")
VERSIONS = {"onnxruntime": "1.23.2", "tensorrt": "10.3.0"}

needs_cpu_wheel = pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "grey.onnx")


def run_with_telemetry(code: str, setting: str | None, home: Path, *arguments: str) -> str:
    """Run Python code in a home of its own; return what it prints at the end."""
    home.mkdir()
    variables = ("HOME", "TMPDIR", *(f"XDG_{name}_HOME" for name in ("CACHE", "DATA", "STATE")))
    environment = os.environ | dict.fromkeys(variables, str(home))
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    environment |= {"ORT_DISABLE_TELEMETRY": setting} if setting else {}
    code = f"import os, sys; {code}; print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "from anomaly_detector.model.detector import Detector; Detector(sys.argv[1])",
        "import training.train, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])",
    ],
)
def test_telemetry_is_off(grey: Path, tmp_path: Path, code: str) -> None:
    assert run_with_telemetry(code, None, tmp_path / "home", str(grey)) == "1"
    # Else deviceid and onnxruntime.db are in the cache, .ses in the temporary folder.
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_telemetry_stays_as_the_user_set_it(tmp_path: Path) -> None:
    assert run_with_telemetry("import anomaly_detector", "0", tmp_path / "home") == "0"


def test_choice_keeps_the_order_and_takes_short_names() -> None:
    choice = choose_providers(["CUDA", "cpu"], GPU_WHEEL, KNOWN)
    assert (choice.wanted, choice.usable, choice.reasons) == ((CUDA, CPU), (CUDA, CPU), {})
    choice = choose_providers(["CPUExecutionProvider", "tensorrt"], GPU_WHEEL, KNOWN)
    assert choice.usable == (CPU, TENSORRT)
    choice = choose_providers(["openvinoexecutionprovider", CPU], (OPENVINO, CPU), KNOWN)
    assert choice.usable == (OPENVINO, CPU)
    assert choose_providers("cpu", GPU_WHEEL, KNOWN).usable == (CPU,)


def test_choice_passes_over_what_is_not_installed_with_a_reason() -> None:
    choice = choose_providers(["tensorrt", "cuda", "openvino", "cpu"], (AZURE, CPU), KNOWN)
    assert choice.wanted == (TENSORRT, CUDA, OPENVINO, CPU)
    assert choice.usable == (CPU,)
    assert "built without CUDA: pip install onnxruntime-gpu" in choice.reasons[CUDA]
    assert "onnxruntime-gpu" in choice.reasons[TENSORRT]
    assert "onnxruntime-openvino" in choice.reasons[OPENVINO]


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        ([], "none given, the installed ONNX Runtime has AzureExecutionProvider"),
        (["cdua", "cpu"], "cdua not available, it is none of ONNX Runtime's"),
        (["cpu", CPU], "CPUExecutionProvider is there twice"),
        (["cuda"], "CUDAExecutionProvider not available .*onnxruntime-gpu"),
    ],
)
def test_choice_that_leaves_nothing_is_an_error(requested: list[str], reason: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=reason):
        choose_providers(requested, (AZURE, CPU), KNOWN)


def test_report_in_words() -> None:
    assert ProviderReport((CUDA, CPU), (CUDA, CPU)).warning is None
    report = ProviderReport((CUDA, CPU), (CPU,), "CUDA fails: no driver")
    assert not report.has_gpu
    assert report.warning == "running on CPU, wanted CUDA, CPU: CUDA fails: no driver"
    assert ProviderReport((TENSORRT, CUDA), (TENSORRT, CUDA, CPU)).has_gpu
    # Registered behind the CPU it never gets a node.
    assert not ProviderReport((CPU, CUDA), (CPU, CUDA)).has_gpu


def test_default_is_what_is_there(grey: Path) -> None:
    available = onnxruntime.get_available_providers()
    assert default_providers()[-1] == CPU
    assert set(default_providers()) <= set(available)
    assert (TENSORRT in default_providers()) <= (tensorrt_version() is not None)
    assert Detector(grey).provider_report.wanted == tuple(default_providers())


@needs_cpu_wheel
def test_missing_cuda_falls_back_with_a_reason(grey: Path) -> None:
    detector = Detector(grey, providers=["cuda", "cpu"])
    report = detector.provider_report
    assert (report.wanted, report.got) == ((CUDA, CPU), (CPU,))
    assert report.warning is not None
    assert "built without CUDA: pip install onnxruntime-gpu" in report.warning
    assert detector.providers == [CPU]
    with pytest.raises(AnomalyDetectorError, match="onnxruntime-gpu"):
        Detector(grey, providers=["cuda"])


@needs_cpu_wheel
def test_required_gpu_that_is_not_there_is_an_error(grey: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"\(require_gpu\), but .*onnxruntime-gpu"):
        Detector(grey, require_gpu=True)
    with pytest.raises(AnomalyDetectorError, match=r"built without CUDA: pip .*NVIDIA driver"):
        Detector(grey, providers=["cuda", "cpu"], require_gpu=True)


def test_real_second_provider(grey: Path) -> None:
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no second provider")
    detector = Detector(grey, providers=["azure", "cpu"])
    assert detector.provider_report == ProviderReport((AZURE, CPU), (AZURE, CPU))
    assert not detector.provider_report.has_gpu


def fails_on(provider: str) -> Callable[[Any], None]:
    """Return a first run that fails while a provider is there, as for want of memory."""

    def first_run(session: Any) -> None:
        if provider in session.get_providers():
            raise RuntimeError(f"{provider} out of memory\nat line 1")

    return first_run


def test_provider_that_fails_in_its_first_run_is_passed_over(grey: Path) -> None:
    available = onnxruntime.get_available_providers()
    if AZURE not in available:
        pytest.skip("this ONNX Runtime has no second provider")
    data, options = grey.read_bytes(), session_options()
    choice = choose_providers([AZURE, CPU], available, KNOWN)
    report = open_session(data, choice, options, {}, fails_on(AZURE))
    assert report.got == (CPU,)
    assert report.fallback_reason == "Azure fails: AzureExecutionProvider out of memory at line 1"
    azure = choose_providers([AZURE], available, KNOWN)
    with pytest.raises(AnomalyDetectorError, match=r"Azure fails: .*or add CPUExecutionP"):
        open_session(data, azure, options, {}, fails_on(AZURE))
    with pytest.raises(RuntimeError, match="out of memory"):  # the CPU is not to blame
        open_session(data, choice, options, {}, fails_on(CPU))


def test_asking_in_another_process_tells_onnx_runtimes_reason(grey: Path) -> None:
    data = grey.read_bytes()
    assert (
        explain_missing(CPU, data) == "CPU works in another process but not in this one: restart it"
    )
    reason = explain_missing(CPU, b"no model")
    assert reason.startswith("CPU fails: ")
    assert "INVALID_PROTOBUF" in reason or "protobuf" in reason.lower()
    assert "\n" not in reason


# As a GPU wheel prints it on a machine without CUDA's libraries.
PRINTED = (
    "\x1b[1;31m2026-11-24 07:12:05.429699864 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 "
    "operator()] /onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 "
    "onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : "
    "Failed to load library /opt/venv/lib/onnxruntime/capi/libonnxruntime_providers_cuda.so with "
    "error: libcublasLt.so.13: cannot open shared object file: No such file or directory\n\x1b[m\n"
    "\x1b[0;93m2026-11-24 07:12:05.430659024 [W:onnxruntime:Default, "
    "onnxruntime_pybind_state.cc:1295 CreateExecutionProviderFactoryInstance] Failed to create "
    "CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. Please install all dependencies as "
    "mentioned in the GPU requirements page\x1b[m\n"
)


def test_reason_is_picked_out_of_the_output() -> None:
    assert explain_output(PRINTED, 0) == (
        "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: "
        "cannot open shared object file: No such file or directory; Require cuDNN 9.* and CUDA 13.*"
    )
    assert explain_output("Traceback\nValueError: bad\n", 1) == "ValueError: bad"
    assert explain_output("", 0) == "ONNX Runtime gives no reason"


def test_engine_cache_has_another_key_for_everything_that_needs_another_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    same = engine_cache("ab" * 32, ORIN, fp16=False, versions=VERSIONS)
    assert same == engine_cache("ab" * 32, ORIN, fp16=False, versions=dict(VERSIONS))
    others = [
        engine_cache("cd" * 32, ORIN, fp16=False, versions=VERSIONS),
        engine_cache("ab" * 32, ORIN, fp16=True, versions=VERSIONS),
        engine_cache("ab" * 32, None, fp16=False, versions=VERSIONS),
        engine_cache("ab" * 32, OLD_DRIVER, fp16=False, versions=VERSIONS),
        engine_cache("ab" * 32, GpuDevice("Xavier", "8.7", "12.6"), fp16=False, versions=VERSIONS),
        engine_cache("ab" * 32, ORIN, fp16=False, versions=VERSIONS | {"tensorrt": "10.4.0"}),
        engine_cache("ab" * 32, ORIN, fp16=False, versions=VERSIONS | {"onnxruntime": "1.24.0"}),
    ]  # fmt: skip
    folders = {cache.folder for cache in (same, *others)}
    assert len(folders) == 8
    assert {folder.parent for folder in folders} == {
        tmp_path / "cache" / "anomaly_detector" / "tensorrt"
    }
    assert same.folder.name.startswith("orin-nvgpu-abababab-")


def test_engine_cache_folder_is_the_users_alone(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "a" / "b")
    assert not cache.has_engine()
    assert cache.prepare()
    assert stat.S_IMODE(os.stat(cache.folder).st_mode) == 0o700
    (cache.folder / "timing.timing").touch()
    assert not cache.has_engine()
    (cache.folder / "x_sm87.engine").touch()
    assert cache.has_engine()
    (tmp_path / "file").touch()
    assert not EngineCache(tmp_path / "file" / "b").prepare()


def test_tensorrt_options(tmp_path: Path) -> None:
    options = tensorrt_options(tmp_path, 64, fp16=True, cuda_graph=False)
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert options["trt_fp16_enable"] == "True"
    assert options["trt_cuda_graph_enable"] == "False"
    assert options["trt_profile_min_shapes"] == "image:1x64x64x3"
    assert options["trt_profile_max_shapes"] == "image:64x64x64x3"
    unkept = tensorrt_options(None, 128, fp16=False, cuda_graph=True)
    assert unkept["trt_cuda_graph_enable"] == "True"
    assert unkept["trt_profile_opt_shapes"] == "image:1x128x128x3"
    assert not [name for name in unkept if "cache" in name]


def test_what_the_driver_says() -> None:
    """Whatever is here: a GPU with a name and a capability, or none."""
    device = gpu_device()
    if device is not None:
        assert device.name
        assert float(device.compute_capability) >= 3.0
    elif Path("/proc/driver/nvidia/version").exists():
        pytest.fail("there is an NVIDIA driver but no device")


def test_wrong_number_of_threads_is_refused(grey: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match="intra_op_threads is 0"):
        Detector(grey, intra_op_threads=0)


@needs_cpu_wheel
def test_nothing_is_built_on_a_cpu(grey: Path) -> None:
    events: list[BuildEvent] = []
    Detector(grey, fp16=True, cuda_graph=True, on_build=events.append)
    assert events == []


@needs_cpu_wheel
def test_prepare_says_that_there_is_nothing_to_prepare(
    grey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--model", str(grey)]) == 0
    output = capsys.readouterr()
    assert "grey.onnx: loaded on CPU in " in output.out
    assert "nothing has to be prepared; a black frame scores 16384 in" in output.out
    assert output.err == ""
    assert main(["prepare", "--model", str(grey), "--providers", "cuda", "cpu"]) == 0
    assert "warning: running on CPU, wanted CUDA, CPU: the installed" in capsys.readouterr().err
    assert main(["prepare", "--model", str(grey), "--require-gpu"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "a GPU is required (require_gpu)" in output.err


def test_prepare_refuses_a_model_that_cannot_be_used(
    grey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey.write_bytes(grey.read_bytes()[:-9])
    assert main(["prepare", "--model", str(grey)]) == 1
    output = capsys.readouterr()
    assert (output.out, "grey.onnx cannot be loaded by ONNX Runtime" in output.err) == ("", True)


def test_onnx_runtime_prints_nothing_of_its_own(grey: Path) -> None:
    """A fallback is told by the report alone: stdout and stderr stay clean."""
    code = (
        "import sys; from anomaly_detector.model.detector import Detector; "
        "print(Detector(sys.argv[1], providers=['cpu']).provider_report.warning)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(grey)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("None\n", "")

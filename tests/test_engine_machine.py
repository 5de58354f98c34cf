"""What is known of this machine, and what can be used on it; GPUs are fakes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BackendError
from engine.inference.backends import BACKENDS, libraries, onnxruntime, openvino
from engine.inference.machine import Machine, describe_cpu, this_cpu
from engine.inference.target import PRECISIONS
from tests.helpers.fakes_tensorrt import DRIVER, GPU, FakeCuda, FakeTensorRt, fake_nvml

ONNXRUNTIME, OPENVINO, TENSORRT, RTX = BACKENDS.values()
X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu avx2 avx512f amx_bf16 sse\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU part\t: 0xd40\n"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", fake_nvml())
    return cuda


def test_cpus() -> None:
    assert describe_cpu(X86) == "Some CPU @ 2.00GHz (avx2 avx512f amx_bf16)"
    assert describe_cpu(ARM).endswith("0xd40 (bf16 sve)")
    assert describe_cpu("") == describe_cpu("nothing of use") == ""


def test_this_cpu() -> None:
    here = this_cpu()
    assert here.cpu and here == Machine(cpu=here.cpu) == OPENVINO.machine()


def test_a_gpu_engine_does_not_depend_on_the_cpu(gpu: FakeCuda) -> None:
    for backend in (TENSORRT, RTX):
        assert backend.machine() == Machine("", GPU, "9.0", "13.1", DRIVER)


def test_onnxruntime_depends_on_what_it_uses(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "distribution_version", lambda name: "1.31.1" if name == "onnxruntime" else "")
    assert ONNXRUNTIME.machine().cpu and not ONNXRUNTIME.machine().gpu
    monkeypatch.setattr(onnxruntime, "distribution_version", lambda name: "1.31.0")
    assert ONNXRUNTIME.machine().gpu == GPU and not ONNXRUNTIME.machine().cpu
    gpu.n_gpus = 0
    assert ONNXRUNTIME.machine().cpu and not ONNXRUNTIME.machine().gpu


@pytest.mark.parametrize("broken", [None, FakeCuda(n_gpus=0)])
def test_nothing_is_raised_without_a_gpu(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", broken)
    assert TENSORRT.machine() == RTX.machine() == Machine()


def test_what_is_missing_is_said_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    for backend in BACKENDS.values():
        line = f"{backend.name} is not installed: pip install 'tango-rt[{backend.extra}]'"
        assert backend.why_not_runnable() == backend.why_not_buildable() == line
        with pytest.raises(BackendError, match="is not installed: pip install"):
            backend.version()


def test_rtx_builds_without_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: FakeCuda) -> None:
    for name in ("tensorrt", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, FakeTensorRt(gpu, {}, rtx=name != "tensorrt"))
    for backend in (TENSORRT, RTX):
        assert backend.why_not_runnable() is backend.why_not_buildable() is None
    assert (TENSORRT.version(), RTX.version()) == ("10.13.2.6", "1.7.1.116")
    gpu.n_gpus = 0
    assert RTX.why_not_buildable() is None
    for reason in (RTX.why_not_runnable(), TENSORRT.why_not_runnable(), TENSORRT.why_not_buildable()):
        assert reason is not None and "needs an NVIDIA GPU" in reason and "\n" not in reason


def test_precisions_of_gpus(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 came with Ampere; where there is no GPU to be asked, engines may be built for another machine."""
    for capability, has_bf16 in (((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True), (None, True)):
        gpu.capability, gpu.n_gpus = capability or (7, 5), int(capability is not None)
        for backend in (TENSORRT, RTX):
            assert backend.why_no_precision("fp16") is backend.why_no_precision("fp32") is None
            reason = backend.why_no_precision("bf16")
            assert (reason is None) == has_bf16 and (has_bf16 or "compute capability 7.5" in str(reason))
    monkeypatch.setattr(onnxruntime, "distribution_version", lambda _: "1.31.0")
    gpu.n_gpus = 1
    assert ONNXRUNTIME.why_no_precision("fp16") is None
    assert "never in bf16" in str(ONNXRUNTIME.why_no_precision("bf16"))


def test_precisions_of_this_cpu_are_what_its_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    says = libraries.shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in PRECISIONS:
        assert (OPENVINO.why_no_precision(precision) is None) == (precision.upper() in says or precision == "fp32")

    class Core:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8", "BF16", "EXPORT_IMPORT"]

    monkeypatch.setattr(openvino, "shared_core", Core)
    assert openvino.cpu_precisions() == {"fp32", "bf16"}
    assert OPENVINO.why_no_precision("bf16") is None
    assert str(OPENVINO.why_no_precision("fp16")).startswith("openvino does not compute in fp16 on this CPU")


@pytest.mark.parametrize("backend", [ONNXRUNTIME, OPENVINO])
def test_versions(backend: Any) -> None:
    library = pytest.importorskip(backend.name)
    assert backend.why_not_runnable() is backend.why_not_buildable() is None
    # a build of OpenVINO is told as 2026.4.1-22982-... by itself
    assert library.__version__.startswith(backend.version())


def test_asking_opens_no_library_of_a_cpu() -> None:
    code = (
        "import sys\nfrom engine.inference.backends import BACKENDS\n"
        "for backend in (BACKENDS['onnxruntime'], BACKENDS['openvino']):\n"
        "    backend.machine()\n    if backend.why_not_runnable() is None: backend.version()\n"
        "assert not {'onnxruntime', 'openvino', 'torch', 'tensorrt_rtx_bindings', 'numpy'} & set(sys.modules)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

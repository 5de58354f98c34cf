"""What this machine is to a compiled engine, and which back ends can be used on it. Nothing here runs a network."""

import functools
import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BackendError
from engine.inference.backends.cuda import find_gpu
from engine.inference.backends.libraries import import_library
from engine.inference.backends.tensorrt_library import load, version
from engine.inference.target import Backend, Precision

__all__ = [
    "Machine",
    "backend_version",
    "can_build",
    "installed",
    "machine_for",
    "missing_precision",
    "onnxruntime_uses_gpu",
]

# instructions that a compiler of networks chooses by; "bf16", "sve" and "i8mm" are ARM's
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "bf16", "sve", "i8mm")
_ONNXRUNTIME_GPU = "onnxruntime-gpu"
_LEAST_FOR_BF16 = 8  # compute capability: GPUs before Ampere have none


@dataclass(frozen=True)
class Machine:
    """The parts that an engine depends on; "" where it does not depend on one or there is none."""

    cpu: str = ""  # as "AMD EPYC 9554 (avx2 avx512f avx512_vnni avx512_bf16)"
    gpu: str = ""  # as "NVIDIA A10G"
    compute_capability: str = ""  # as "8.6"
    cuda: str = ""  # the newest CUDA that the driver knows, as "13.0"
    driver: str = ""  # as "580.65.06"


def machine_for(backend: Backend) -> Machine:
    """This machine as a back end sees it: its CPU, or its GPU where it runs on that. Never raises."""
    if backend in ("tensorrt", "tensorrt-rtx") or (backend == "onnxruntime" and onnxruntime_uses_gpu()):
        try:
            gpu = find_gpu(backend)
        except BackendError:
            return Machine()
        return Machine("", gpu.name, gpu.compute_capability, gpu.cuda, gpu.driver)
    return Machine(cpu=_cpu())


def backend_version(backend: Backend) -> str:
    """Version of the library. Raises BackendError where it is not installed."""
    if backend in ("tensorrt", "tensorrt-rtx"):
        return version(backend)
    if not _is_there(backend):
        raise BackendError(_missing(backend))
    for distribution in (_ONNXRUNTIME_GPU, backend) if backend == "onnxruntime" else (backend,):
        if found := _distribution(distribution):
            return found
    return str(import_library(backend).__version__)  # one that was built from source


def installed(backend: Backend) -> str | None:
    """None where networks can be run with it here; else one line that says why not, with what to install."""
    if (reason := can_build(backend)) is not None:
        return reason
    if backend == "tensorrt-rtx":
        return _no_gpu(backend)
    return None


def can_build(backend: Backend) -> str | None:
    """None where engines can be compiled with it here; else one line that says why not.

    TensorRT-RTX compiles without a GPU, TensorRT tries its kernels on one.
    """
    if backend not in ("tensorrt", "tensorrt-rtx"):
        return None if _is_there(backend) else _missing(backend)
    try:
        load(backend)
    except BackendError as error:
        return str(error)
    return _no_gpu(backend) if backend == "tensorrt" else None


def missing_precision(backend: Backend, precision: Precision) -> str | None:
    """None where a back end computes in `precision` on this machine; else one line that says why not.

    Raises BackendError where the library that is to be asked is not installed.
    """
    if precision == "fp32":
        return None
    if backend == "openvino":
        from engine.inference.backends.openvino import cpu_precisions

        if precision in cpu_precisions():
            return None
        return f"openvino does not compute in {precision} on this CPU, which has no instructions for it: take fp32"
    if backend == "onnxruntime":
        if precision == "bf16":
            return "onnxruntime computes in fp32, on a GPU in fp16, never in bf16: take another back end or fp32"
        if onnxruntime_uses_gpu():
            return None
        return (
            "onnxruntime computes fp16 on a GPU alone, on a CPU it is slower than fp32: pip install "
            "'tango-rt[onnxruntime-gpu]' where there is a GPU, or take fp32"
        )
    capability = machine_for(backend).compute_capability
    if precision == "bf16" and capability and int(capability.partition(".")[0]) < _LEAST_FOR_BF16:
        return f"{backend} does not compute in bf16 on this GPU, of compute capability {capability}: take fp16"
    return None


def onnxruntime_uses_gpu() -> bool:
    """Whether ONNX Runtime computes on a GPU here: it is the package for GPUs and there is one."""
    return bool(_distribution(_ONNXRUNTIME_GPU)) and _no_gpu("onnxruntime") is None


def _no_gpu(backend: str) -> str | None:
    try:
        find_gpu(backend)
    except BackendError as error:
        return str(error)
    return None


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it was taken out of sys.modules on purpose
        return False


def _missing(backend: Backend) -> str:
    return f"{backend} is not installed: pip install 'tango-rt[{backend}]'"


def _distribution(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    return describe_cpu(text) or platform.processor() or platform.machine()


def describe_cpu(cpuinfo: str) -> str:
    """Model and instructions of the first CPU in Linux's /proc/cpuinfo; "" where it says nothing."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    # ARM has no model name there
    model = fields.get("model name") or f"{platform.machine()} {fields.get('CPU part', '')}".strip()
    has = set(fields.get("flags", fields.get("Features", "")).split())
    instructions = " ".join(name for name in _INSTRUCTIONS if name in has)
    return f"{model} ({instructions})" if fields.keys() & {"flags", "Features"} else ""

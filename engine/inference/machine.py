"""The parts of this machine that matter to compiled networks: CPU and GPU. Knows no back ends and runs no networks."""

import functools
import importlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import BackendError
from engine.extras import install_line

__all__ = ["Machine", "cuda_reason", "cuda_runtime", "describe_cpu", "find_gpu", "this_cpu"]

# instruction sets that network compilers select code by; "bf16", "sve" and "i8mm" are ARM's
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "bf16", "sve", "i8mm")


@dataclass(frozen=True)
class Machine:
    """The parts that an engine depends on; "" if it does not depend on one, or there is none."""

    cpu: str = ""  # for example "AMD EPYC 9554 (avx2 avx512f avx512_vnni avx512_bf16)"
    gpu: str = ""  # for example "NVIDIA A10G"
    compute_capability: str = ""  # for example "8.6"
    cuda: str = ""  # the newest CUDA that the driver supports, for example "13.0"
    driver: str = ""  # for example "580.65.06"


@functools.cache
def this_cpu() -> Machine:
    """Only the CPU, with the instruction sets that matter. Never raises."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    return Machine(cpu=describe_cpu(text) or platform.processor() or platform.machine())


def find_gpu(extra: str) -> Machine:
    """Only the GPU: the first visible one (CUDA_VISIBLE_DEVICES). extra: the pip extra needed to use it.

    Raises BackendError if there is no GPU or cuda-bindings are missing.
    """
    runtime = cuda_runtime(extra)
    status, properties = runtime.cudaGetDeviceProperties(0)
    if status != runtime.cudaError_t.cudaSuccess:
        raise BackendError(f"CUDA could not describe the GPU: {cuda_reason(runtime, status)}")
    _, known = runtime.cudaDriverGetVersion()
    cuda = f"{known // 1000}.{known % 1000 // 10}"
    return Machine(
        gpu=properties.name.decode(errors="replace").strip("\0 "),
        compute_capability=f"{properties.major}.{properties.minor}",
        cuda=cuda,
        driver=_driver() or f"of CUDA {cuda}",
    )


def cuda_runtime(extra: str) -> Any:
    """The module cuda.bindings.runtime. Raises BackendError if it or a GPU is missing."""
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise BackendError(f"cuda-bindings are not installed: {install_line(extra)}") from error
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"cuda-bindings are broken ({reason}): {install_line(extra)}") from error
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess or not count:
        reason = cuda_reason(runtime, status) if status != runtime.cudaError_t.cudaSuccess else "none is visible"
        raise BackendError(f"{extra} needs an NVIDIA GPU with its driver, CUDA finds none here ({reason})")
    return runtime


def cuda_reason(runtime: Any, status: Any) -> str:
    """CUDA's text and name for one of its errors."""
    _, text = runtime.cudaGetErrorString(status)
    _, name = runtime.cudaGetErrorName(status)
    return f"{text.decode(errors='replace')}, {name.decode(errors='replace')}"


def describe_cpu(cpuinfo: str) -> str:
    """Model and instruction sets of the first CPU in Linux's /proc/cpuinfo; "" if they are not given."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    # ARM has no model name there
    model = fields.get("model name") or f"{platform.machine()} {fields.get('CPU part', '')}".strip()
    has = set(fields.get("flags", fields.get("Features", "")).split())
    instructions = " ".join(name for name in _INSTRUCTIONS if name in has)
    return f"{model} ({instructions})" if fields.keys() & {"flags", "Features"} else ""


def _driver() -> str:
    """Version of the driver; "" if NVIDIA's management library does not say."""
    try:
        nvml = importlib.import_module("cuda.bindings.nvml")
        nvml.init_v2()
        try:
            return str(nvml.system_get_driver_version())
        finally:
            nvml.shutdown()
    # its errors have no common base, and none should be fatal: the version is only recorded
    except Exception:
        return ""

"""What a machine has to run networks with: GPU, driver, libraries, and why what is missing cannot be used."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.cores import usable_cores
from engine.errors import TangoError
from engine.extras import install_line

__all__ = ["buildable_backends", "describe_machine", "torch_on", "usable_backends"]

PACKAGES = (
    *("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx-cu13-libs", "cuda-bindings", "polygraphy", "numpy"),
)


def describe_machine(device: str) -> dict[str, Any]:
    """CPU, GPU, driver, versions and, by library, None where it can be used here or why not."""
    return {
        "device": device,
        "cpu": _cpu(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gpu": _nvidia_smi(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": torch_on(device),
        "left_out": {**usable_backends(device), "torch": torch_on(device)["left_out"]},
        "only_built": buildable_backends(device),
    }


def usable_backends(device: str) -> dict[str, str | None]:
    """By back end: None where networks can run in it on this device, else why not."""
    found: dict[str, str | None] = {}
    from engine.inference.backends import BACKENDS

    for backend in BACKENDS:
        try:
            found[backend] = _why_not(backend, device)
        except ImportError as error:  # packages that a bare machine lacks
            found[backend] = f"{error}"
    return found


def buildable_backends(device: str) -> list[str]:
    """Back ends that compile here what they cannot run here."""
    from engine.inference.backends import BACKENDS

    unusable = [backend for backend, reason in usable_backends(device).items() if reason is not None]
    return [
        backend
        for backend in unusable
        if backend.startswith("tensorrt") and BACKENDS[backend].why_not_buildable() is None
    ]


def torch_on(device: str) -> dict[str, Any]:
    """Version and settings of torch; left_out says why it cannot be used, where it cannot."""
    try:
        import torch
    except ImportError as error:
        return {"left_out": f"torch cannot be imported: {error}"}
    if device == "cuda" and not torch.cuda.is_available():
        return {"version": torch.__version__, "left_out": "torch finds no GPU, or was built without CUDA"}
    found: dict[str, Any] = {"version": torch.__version__, "left_out": None}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "capability": f"{properties.major}.{properties.minor}"}
        found |= {"gpu_gib": round(properties.total_memory / (1 << 30), 1), "cuda": torch.version.cuda}
        found["tf32"] = {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32}
    return found


def _why_not(backend: str, device: str) -> str | None:
    from engine.inference.backends import BACKENDS

    if (device == "cpu") != bool(BACKENDS[backend].onnx_precisions) and backend != "onnxruntime":
        return "it runs on a GPU" if device == "cpu" else "it runs on a CPU"
    try:
        reason = BACKENDS[backend].why_not_runnable()
    except TangoError as error:
        return str(error)
    if reason is None and backend == "onnxruntime" and device == "cuda":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no CUDA: {install_line('onnxruntime-gpu')}"
    return reason


def _nvidia_smi() -> dict[str, str] | None:
    if shutil.which("nvidia-smi") is None:
        return None
    fields = ("name", "driver_version", "memory.total", "compute_cap", "power.limit", "clocks.max.sm")
    asked = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {"answer": done.stdout[:200]}


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    rows = file.read_text().splitlines() if file.is_file() else []
    return next((row.split(":")[1].strip() for row in rows if row.startswith("model name")), platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

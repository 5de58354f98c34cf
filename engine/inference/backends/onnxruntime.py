"""ONNX Runtime: in float32 on the CPU, in the types of the graph on a GPU."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.errors import BackendError
from engine.extras import install_line
from engine.inference.backends.libraries import (
    distribution_version,
    import_onnxruntime,
    installed_version,
    why_not_installed,
)
from engine.inference.machine import Machine, find_gpu, this_cpu
from engine.inference.target import Precision

if TYPE_CHECKING:
    from engine.inference.manifest import GraphSpec
    from engine.inference.session import RunOptions, Session

__all__ = ["OnnxRuntime"]

_FOR_GPUS = "onnxruntime-gpu"  # another distribution of the same module


class OnnxRuntime:
    """Implements engine.inference.backends.backend.Backend."""

    name = extra = "onnxruntime"
    onnx_precisions: tuple[Precision, ...] = ("fp32",)
    build_options: Mapping[str, str | int | bool] = MappingProxyType({"graph_optimization": "all"})

    def version(self) -> str:
        found = installed_version(self.name, _FOR_GPUS, self.name)
        return found or str(import_onnxruntime().__version__)  # built from source

    def machine(self) -> Machine:
        return _gpu() or this_cpu()

    def why_not_runnable(self) -> str | None:
        return why_not_installed(self.name)

    def why_not_buildable(self) -> str | None:
        return why_not_installed(self.name)

    def why_no_precision(self, precision: Precision) -> str | None:
        if precision == "fp32":
            return None
        if precision == "bf16":
            return "onnxruntime computes in fp32, on a GPU also in fp16, never in bf16: use another back end or fp32"
        if _gpu() is not None:
            return None
        return (
            "onnxruntime computes in fp16 only on a GPU, on a CPU that is slower than fp32: "
            f"{install_line(_FOR_GPUS)} if there is a GPU, or use fp32"
        )

    def open(self, file: Path, spec: "GraphSpec", options: "RunOptions") -> "Session":
        from engine.inference.backends.onnxruntime_session import OnnxRuntimeSession

        return OnnxRuntimeSession(file, spec, options, on_gpu=_gpu() is not None)


def _gpu() -> Machine | None:
    """The GPU that it runs on; None unless the GPU package is installed and there is a GPU."""
    if not distribution_version(_FOR_GPUS):
        return None
    try:
        return find_gpu("onnxruntime")
    except BackendError:
        return None

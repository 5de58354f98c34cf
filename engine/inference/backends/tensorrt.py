"""TensorRT 10.x and 11.x and TensorRT-RTX, which run only engines that they compiled for a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.errors import BackendError
from engine.inference.backends.tensorrt_library import load, version
from engine.inference.machine import Machine, find_gpu
from engine.inference.target import Precision

if TYPE_CHECKING:
    from engine.inference.manifest import GraphSpec
    from engine.inference.session import RunOptions, Session

__all__ = ["TENSORRT", "TENSORRT_RTX", "TensorRt"]

MIN_MAJOR_FOR_BF16 = 8  # of the compute capability: GPUs before Ampere have no bf16


@dataclass(frozen=True)
class TensorRt:
    """One of the two libraries; implements engine.inference.backends.backend.Backend."""

    name: str
    build_options: Mapping[str, str | int | bool]
    tries_kernels: bool  # its compiler times kernels, so it needs the GPU
    onnx_precisions: tuple[Precision, ...] = ()

    @property
    def extra(self) -> str:
        return self.name

    def version(self) -> str:
        return version(self.name)

    def machine(self) -> Machine:
        try:
            return find_gpu(self.extra)
        except BackendError:
            return Machine()

    def why_not_runnable(self) -> str | None:
        return self._why_not(needs_gpu=True)

    def why_not_buildable(self) -> str | None:
        return self._why_not(needs_gpu=self.tries_kernels)

    def why_no_precision(self, precision: Precision) -> str | None:
        """None without a GPU: engines may be built for another machine."""
        if precision != "bf16":
            return None
        capability = self.machine().compute_capability
        if capability and int(capability.partition(".")[0]) < MIN_MAJOR_FOR_BF16:
            return f"{self.name} does not compute in bf16 on this GPU of compute capability {capability}: use fp16"
        return None

    def open(self, file: Path, spec: "GraphSpec", options: "RunOptions") -> "Session":
        from engine.inference.backends.tensorrt_session import TensorRtSession

        return TensorRtSession(file, spec, options, self.name)

    def _why_not(self, needs_gpu: bool) -> str | None:
        try:
            load(self.name)
            if needs_gpu:
                find_gpu(self.extra)
        except BackendError as error:
            return str(error)
        return None


# TF32 has 10 bits of mantissa, too few for float32 parity of 1e-4
TENSORRT = TensorRt(
    "tensorrt", MappingProxyType({"strongly_typed": True, "tf32": False, "optimization_level": 3}), tries_kernels=True
)
TENSORRT_RTX = TensorRt("tensorrt-rtx", MappingProxyType({"strongly_typed": True, "tf32": False}), tries_kernels=False)

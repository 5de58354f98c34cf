"""OpenVINO on the CPU: in float32, or internally in a low precision that the CPU supports."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.errors import BackendError
from engine.inference.backends.libraries import import_openvino, installed_version, shared_core, why_not_installed
from engine.inference.machine import Machine, this_cpu
from engine.inference.target import PRECISIONS, Precision

if TYPE_CHECKING:
    from engine.inference.manifest import GraphSpec
    from engine.inference.session import RunOptions, Session

__all__ = ["OpenVino", "cpu_precisions"]


class OpenVino:
    """Implements engine.inference.backends.backend.Backend."""

    name = extra = "openvino"
    onnx_precisions: tuple[Precision, ...] = ("fp32", "bf16")
    build_options: Mapping[str, str | int | bool] = MappingProxyType({"performance_hint": "LATENCY"})

    def version(self) -> str:
        found = installed_version(self.name, self.name)
        return found or str(import_openvino().__version__)  # built from source

    def machine(self) -> Machine:
        return this_cpu()

    def why_not_runnable(self) -> str | None:
        return why_not_installed(self.name)

    def why_not_buildable(self) -> str | None:
        return why_not_installed(self.name)

    def why_no_precision(self, precision: Precision) -> str | None:
        if precision == "fp32" or precision in cpu_precisions():
            return None
        return f"openvino does not compute in {precision} on this CPU, which has no instructions for it: use fp32"

    def open(self, file: Path, spec: "GraphSpec", options: "RunOptions") -> "Session":
        from engine.inference.backends.openvino_session import OpenVinoSession

        if (reason := self.why_no_precision(options.precision)) is not None:
            raise BackendError(reason)
        return OpenVinoSession(file, spec, options)


def cpu_precisions() -> frozenset[str]:
    """Precisions of this CPU according to the library, which silently uses fp32 in place of any other."""
    found = {str(name).lower() for name in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    return frozenset(found & set(PRECISIONS))

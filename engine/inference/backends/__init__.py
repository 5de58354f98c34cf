"""What runs a network: one object a library, in a file of its own; libraries are imported only when asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.inference.backends.backend import Backend
from engine.inference.backends.onnxruntime import OnnxRuntime
from engine.inference.backends.openvino import OpenVino
from engine.inference.backends.tensorrt import TENSORRT, TENSORRT_RTX

if TYPE_CHECKING:
    from engine.inference.manifest import GraphSpec
    from engine.inference.session import RunOptions, Session

__all__ = ["BACKENDS", "REFERENCE", "Backend", "find_backend", "open_graph"]

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (OnnxRuntime(), OpenVino(), TENSORRT, TENSORRT_RTX)
}
"""By name; of those that run ONNX files the first that can is preferred."""

REFERENCE = "onnxruntime"
"""In fp32 from ONNX it is what bundles are compared with torch in, and what engines are compared with."""


def find_backend(name: str) -> Backend:
    """Raises InputError where there is none of this name."""
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is unknown: choose from {', '.join(BACKENDS)}")
    return BACKENDS[name]


def open_graph(file: Path, spec: "GraphSpec", backend: str, options: "RunOptions | None" = None) -> "Session":
    """Open one network from its file; engine.inference.networks opens those of a bundle and sees to what may be run.

    Raises InputError for an unknown back end, else as Backend.open.
    """
    from engine.inference.session import RunOptions

    return find_backend(backend).open(file, spec, options or RunOptions())

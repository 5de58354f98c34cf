"""The libraries that run networks: one object per library, each in its own file; libraries are imported on demand."""

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
"""By name; of those that run ONNX files, the first that is runnable is preferred."""

REFERENCE = "onnxruntime"
"""Its fp32 results from ONNX are compared with torch when a bundle is made, and engines are compared with them."""


def find_backend(name: str) -> Backend:
    """The back end of this name. Raises InputError if there is none."""
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is unknown: choose from {', '.join(BACKENDS)}")
    return BACKENDS[name]


def open_graph(file: Path, spec: "GraphSpec", backend: str, options: "RunOptions | None" = None) -> "Session":
    """Open one network from its file, without checking whether it may be run; engine.inference.networks does that.

    Raises InputError for an unknown back end, otherwise like Backend.open.
    """
    from engine.inference.session import RunOptions

    return find_backend(backend).open(file, spec, options or RunOptions())

"""The one choice of the class that runs a network; libraries are imported only where they are asked for."""

from pathlib import Path

from engine.errors import InputError
from engine.inference.manifest import GraphSpec
from engine.inference.session import RunOptions, Session
from engine.inference.target import BACKENDS, Backend

__all__ = ["open_graph"]


def open_graph(file: Path, spec: GraphSpec, backend: Backend, options: RunOptions | None = None) -> Session:
    """Open one network from its file; engine.inference.networks opens those of a bundle and sees to what may be run.

    Raises BackendError where the library is not installed or cannot do what is asked, ArtifactError where the file is
    damaged or made for another machine.
    """
    options = options or RunOptions()
    if backend == "onnxruntime":
        from engine.inference.backends.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(file, spec, options)
    if backend == "openvino":
        from engine.inference.backends.openvino import OpenVinoSession

        return OpenVinoSession(file, spec, options)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from engine.inference.backends.tensorrt import TensorRtSession

        return TensorRtSession(file, spec, options, backend)
    raise InputError(f"backend {backend!r} is unknown: choose from {', '.join(BACKENDS)}")

"""What turns one network of a bundle into what a back end runs: one file a library, which is imported only to build."""

from collections.abc import Callable
from pathlib import Path

from engine.errors import BackendError
from engine.inference.backends import find_backend
from export.compilers.job import CompileJob
from export.compilers.onnxruntime import compile_onnxruntime
from export.compilers.openvino import compile_openvino
from export.compilers.tensorrt import compile_tensorrt

__all__ = ["COMPILERS", "CompileJob", "compile_network"]

COMPILERS: dict[str, Callable[[CompileJob], dict[str, Path]]] = {
    "onnxruntime": compile_onnxruntime,
    "openvino": compile_openvino,
    "tensorrt": compile_tensorrt,
    "tensorrt-rtx": compile_tensorrt,
}
"""By back end; each raises as compile_network."""


def compile_network(job: CompileJob) -> dict[str, Path]:
    """Build; gives the files of the engine, name -> place, GRAPH.engine among them.

    Raises BackendError where the library is not installed or has no compiler, lacks an operator or the precision, or
    the memory is too small, ArtifactError where `source` is no sane network.
    """
    backend = job.key.backend
    if backend not in COMPILERS:
        raise BackendError(f"{backend} has no compiler: it runs the networks of a bundle as they are")
    if (reason := find_backend(backend).why_no_precision(job.key.precision)) is not None:
        raise BackendError(reason)
    return COMPILERS[backend](job)

"""Compilers, which turn a network of a bundle into an engine: one file per library, imported only to build."""

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
"""By back end; each raises like compile_network."""


def compile_network(job: CompileJob) -> dict[str, Path]:
    """Build; returns the files of the engine, name -> path, including GRAPH.engine.

    Raises BackendError if the library is not installed or has no compiler, an operator or the precision is not
    supported, or memory runs out; ArtifactError if `source` is not a valid network.
    """
    backend = job.key.backend
    if backend not in COMPILERS:
        raise BackendError(f"{backend} has no compiler: it runs the networks of a bundle directly")
    if (reason := find_backend(backend).why_no_precision(job.key.precision)) is not None:
        raise BackendError(reason)
    return COMPILERS[backend](job)

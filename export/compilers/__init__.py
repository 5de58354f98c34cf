"""What turns one network of a bundle into what a back end runs: one file per library, imported only to build."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BackendError
from engine.inference.engines import EngineKey
from engine.inference.manifest import GraphSpec

__all__ = ["CompileJob", "compile_network", "out_of_memory"]


@dataclass(frozen=True)
class CompileJob:
    """One network to be compiled: from `source`, its ONNX file in float32, as `key` wants it, into `folder`.

    timing_cache: what the builder remembers of the speed of kernels, None for nothing. tell: is told of progress.
    """

    source: Path
    spec: GraphSpec
    key: EngineKey
    folder: Path
    timing_cache: Path | None
    tell: Callable[[str], None]


def compile_network(job: CompileJob) -> dict[str, Path]:
    """Build; gives the files of the engine, name -> place, GRAPH.engine among them.

    Raises BackendError where the library is not installed, lacks an operator, or the memory is too small,
    ArtifactError where `source` is no sane network.
    """
    if job.key.backend == "onnxruntime":
        from export.compilers.onnxruntime import compile_onnxruntime

        return compile_onnxruntime(job)
    if job.key.backend == "openvino":
        from export.compilers.openvino import compile_openvino

        return compile_openvino(job)
    from export.compilers.tensorrt import compile_tensorrt

    return compile_tensorrt(job)


def out_of_memory(job: CompileJob) -> BackendError:
    """What to say where a build ran out of memory."""
    shapes = ", ".join(f"{symbol} {most}" for symbol, (_, _, most) in job.key.shapes.items())
    return BackendError(
        f"network {job.spec.name}: out of memory while {job.key.backend} built it for {shapes or 'any shape'}: free "
        "some, or take a smaller profile"
    )

"""The input of a compiler, and an error common to all."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BackendError
from engine.inference.engines import EngineKey
from engine.inference.manifest import GraphSpec

__all__ = ["CompileJob", "out_of_memory"]


@dataclass(frozen=True)
class CompileJob:
    """One network to be compiled: from `source`, its ONNX file in float32, as `key` wants it, into `folder`.

    timing_cache: the builder's cache of kernel timings, or None. tell: called with progress messages.
    """

    source: Path
    spec: GraphSpec
    key: EngineKey
    folder: Path
    timing_cache: Path | None
    tell: Callable[[str], None]


def out_of_memory(job: CompileJob) -> BackendError:
    """The error for a build that ran out of memory."""
    shapes = ", ".join(f"{symbol} {most}" for symbol, (_, _, most) in job.key.shapes.items())
    return BackendError(
        f"network {job.spec.name}: out of memory while {job.key.backend} built it for {shapes or 'any shape'}: free "
        "some, or use a smaller profile"
    )

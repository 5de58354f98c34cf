"""The one seam to the hardware: named arrays in, named arrays out, whatever runs the network."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, get_args

import numpy as np

from engine.errors import ArtifactError, BackendError, InputError
from engine.manifest import Bundle, GraphSpec

__all__ = [
    "Backend",
    "Precision",
    "Session",
    "check_inputs",
    "check_names",
    "failed_run",
    "missing_package",
    "one_line",
    "open_graph",
    "open_session",
]

Backend = Literal["onnxruntime", "openvino"]
Precision = Literal["float32", "bf16"]


class Session(Protocol):
    """An opened network. Opening is slow, running is fast; `run` may be called from several threads."""

    @property
    def spec(self) -> GraphSpec:
        """What it takes and gives."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all outputs; they are copies and stay valid.

        Raises InputError, before anything is run, for inputs that do not fit `spec`.
        """

    def close(self) -> None:
        """Free what the network holds; `run` then raises ValueError."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(
    bundle: Bundle,
    graph: str,
    backend: Backend = "onnxruntime",
    precision: Precision = "float32",
    n_threads: int | None = None,
) -> Session:
    """Open a network of a bundle. `n_threads`: one a core where None.

    bf16 computes inside in bfloat16, with float32 in and out. Raises BackendError where the library is not installed or
    cannot do what is asked, ArtifactError where the network is damaged or the bundle has none of this name.
    """
    spec = bundle.graph(graph)
    return open_graph(bundle.file(spec.file), spec, backend, precision, n_threads)


def open_graph(
    model: Path,
    spec: GraphSpec,
    backend: Backend = "onnxruntime",
    precision: Precision = "float32",
    n_threads: int | None = None,
) -> Session:
    """Open an ONNX file that is not, or not yet, part of a bundle; else as `open_session`."""
    if precision not in get_args(Precision):
        raise InputError(f"precision {precision!r} is unknown: choose from {', '.join(get_args(Precision))}")
    n_threads = (os.cpu_count() or 1) if n_threads is None else n_threads
    if n_threads < 1:
        raise InputError(f"{n_threads} threads cannot run a network: want 1 or more")
    if backend == "onnxruntime":
        from engine.backends.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(model, spec, precision, n_threads)
    if backend == "openvino":
        from engine.backends.openvino import OpenVinoSession

        return OpenVinoSession(model, spec, precision, n_threads)
    raise InputError(f"backend {backend!r} is unknown: choose from {', '.join(get_args(Backend))}")


def missing_package(package: str, error: ModuleNotFoundError) -> BackendError:
    """What to say where a library is not installed; a broken one, which lacks something itself, is told apart."""
    if error.name == package:
        return BackendError(f"{package} is not installed: pip install 'tango-rt[{package}]'")
    return BackendError(f"{package} is installed but broken (it lacks {error.name}): install it again")


def one_line(error: Exception) -> str:
    """What a library says over many lines, as a part of one line."""
    return " ".join(str(error).split())[:300]


def failed_run(spec: GraphSpec, inputs: Mapping[str, np.ndarray], error: Exception) -> BackendError:
    """What to say where a library fails on inputs that fit `spec`."""
    shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
    return BackendError(f"network {spec.name} failed on {shapes}: {one_line(error)}")


def check_inputs(spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> None:
    """Raises InputError where inputs are missing or unknown or have another dtype, rank, fixed size or no elements."""
    wanted = {tensor.name for tensor in spec.inputs}
    if inputs.keys() != wanted:
        raise InputError(f"network {spec.name} takes the inputs {_list(wanted)}, got {_list(inputs.keys())}")
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        array = inputs[tensor.name]
        found = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        shape = ", ".join(map(str, tensor.shape))
        refusal = InputError(f"input {tensor.name} of network {spec.name} is {found}, want {tensor.dtype}[{shape}]")
        if not isinstance(array, np.ndarray) or array.dtype != tensor.dtype or array.ndim != len(tensor.shape):
            raise refusal
        for got, size in zip(array.shape, tensor.shape, strict=True):
            # one symbol is one size, over all inputs
            if got == 0 or got != (size if isinstance(size, int) else sizes.setdefault(size, got)):
                raise refusal


def check_names(model: Path, spec: GraphSpec, found: Iterable[str]) -> None:
    """Raises ArtifactError where the inputs and outputs of a network are not the ones that `spec` describes."""
    wanted = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    if set(found) != wanted:
        raise ArtifactError(f"{model} has the inputs and outputs {_list(found)}, want {_list(wanted)}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"

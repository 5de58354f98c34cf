"""The one interface to the hardware: named arrays in, named arrays out, whatever runs the network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.manifest import GraphSpec, Profile
from engine.inference.target import PRECISIONS, Precision

__all__ = [
    "RunOptions",
    "Session",
    "check_inputs",
    "check_names",
    "failed_run",
    "one_line",
]


@dataclass(frozen=True)
class RunOptions:
    """How a back end runs a network."""

    precision: Precision = "fp32"  # of computation; inputs and outputs always have the types of the GraphSpec
    n_threads: int = 1  # of a CPU
    profile: Profile | None = None  # sizes outside it are refused; None: any are accepted
    compiled: bool = False  # the file is the output of the back end's compiler, not ONNX
    cuda_graphs: bool = True  # record the launches on a GPU once, then replay them

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r} is unknown: choose from {', '.join(PRECISIONS)}")
        if self.n_threads < 1:
            raise InputError(f"{self.n_threads} threads cannot run a network: use 1 or more")


class Session(Protocol):
    """An open network. Opening is slow, running is fast; `run` may be called from several threads."""

    @property
    def spec(self) -> GraphSpec:
        """Its inputs and outputs."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all outputs; they are copies and stay valid.

        An input that is the same read-only array object as in the previous call may be taken as unchanged, and is then
        not copied to the GPU again.

        Raises InputError, before anything is run, for inputs that do not fit `spec`.
        """

    def close(self) -> None:
        """Free the network's resources; `run` then raises ValueError."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def one_line(error: Exception) -> str:
    """A library's message of several lines, shortened to part of one line."""
    return " ".join(str(error).split())[:300]


def failed_run(spec: GraphSpec, inputs: Mapping[str, np.ndarray], error: Exception) -> BackendError:
    """The error to raise if a library fails on inputs that fit `spec`."""
    shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
    return BackendError(f"network {spec.name} failed on {shapes}: {one_line(error)}")


def check_inputs(spec: GraphSpec, inputs: Mapping[str, np.ndarray], profile: Profile | None = None) -> None:
    """Raises InputError if inputs are missing, unknown or empty, or have the wrong dtype, rank or fixed size.

    With a profile, also if a size is outside it.
    """
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
            # a symbol has the same size in all inputs
            if got == 0 or got != (size if isinstance(size, int) else sizes.setdefault(size, got)):
                raise refusal
    for symbol, (least, _, most) in (profile or {}).items():
        if not least <= sizes[symbol] <= most:
            raise InputError(
                f"network {spec.name} was compiled for {symbol} {least}..{most}, got {sizes[symbol]}: "
                "outside the profile, compile it with a wider one"
            )


def check_names(model: Path, spec: GraphSpec, found: Iterable[str]) -> None:
    """Raises ArtifactError if the inputs and outputs of a network are not those of `spec`."""
    wanted = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    if set(found) != wanted:
        raise ArtifactError(f"{model} has the inputs and outputs {_list(found)}, want {_list(wanted)}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"

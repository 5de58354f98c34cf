"""Reading a compiled engine of TensorRT or TensorRT-RTX, and checking that it is the expected network."""

import mmap
from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, BackendError
from engine.inference.backends.cuda import Cuda
from engine.inference.backends.tensorrt_library import error_log, load
from engine.inference.machine import find_gpu
from engine.inference.manifest import GraphSpec, Profile
from engine.inference.session import check_names

__all__ = ["check_engine", "compile_command", "read_engine"]

_DTYPES = {"FLOAT": "float32", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}


def read_engine(file: Path, backend: str, cuda: Cuda) -> Any:
    """An ICudaEngine. Raises ArtifactError for a file of another version or GPU, BackendError if it does not fit."""
    library = load(backend)
    errors = error_log(library)
    errors.take()
    try:
        # mapped, so that an engine of a few GB is not in memory twice
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            engine = library.Runtime(errors).deserialize_cuda_engine(content)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ArtifactError(f"{file} cannot be read ({error}): run {compile_command(backend)}") from error
    if engine is None:
        reason = errors.take()
        if "memory" in reason.lower():
            raise BackendError(f"no room on the GPU for {file.name} ({cuda.free_memory()}): {reason}")
        raise ArtifactError(
            f"{file} is not an engine for {backend} {library.__version__} on {find_gpu(backend).gpu} "
            f"({reason or 'no reason given'}): run {compile_command(backend)}"
        )
    return engine


def check_engine(engine: Any, file: Path, spec: GraphSpec, wanted: Profile | None, backend: str) -> Profile:
    """The sizes that the engine will be used with: `wanted`, or all that it was compiled for.

    Raises ArtifactError if it is another network or was compiled for other sizes.
    """
    check_names(file, spec, [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)])
    _check_tensors(engine, file, spec, backend)
    compiled = _compiled_profile(engine, spec)
    for symbol, (least, _, most) in (wanted or {}).items():
        first, _, last = compiled[symbol]
        if least < first or most > last:
            raise ArtifactError(
                f"{file} was compiled for {symbol} {first}..{last}, the profile wants {least}..{most}: "
                f"run {compile_command(backend)}"
            )
    return wanted or compiled


def compile_command(backend: str) -> str:
    """The command that compiles engines for this machine."""
    return f"'tango-export compile --backend {backend}'"


def _check_tensors(engine: Any, file: Path, spec: GraphSpec, backend: str) -> None:
    on_gpu = load(backend).TensorLocation.DEVICE
    for tensor in (*spec.inputs, *spec.outputs):
        dtype = engine.get_tensor_dtype(tensor.name).name
        shape = tuple(engine.get_tensor_shape(tensor.name))
        fits = len(shape) == len(tensor.shape) and all(
            isinstance(size, str) or found in (-1, size) for found, size in zip(shape, tensor.shape, strict=True)
        )
        # an input in host memory would hold a size or shape: none of our networks has one
        if not fits or _DTYPES.get(dtype) != tensor.dtype or engine.get_tensor_location(tensor.name) != on_gpu:
            raise ArtifactError(
                f"{file} has {tensor.name} as {dtype}{list(shape)}, want {tensor.dtype}{list(tensor.shape)}: "
                f"run {compile_command(backend)}"
            )


def _compiled_profile(engine: Any, spec: GraphSpec) -> Profile:
    profile: dict[str, tuple[int, int, int]] = {}
    for tensor in spec.inputs:
        shape = tuple(engine.get_tensor_shape(tensor.name))
        # a fixed shape has no profile
        bounds = engine.get_tensor_profile_shape(tensor.name, 0) if -1 in shape else (shape, shape, shape)
        for symbol, *sizes in zip(tensor.shape, *(tuple(bound) for bound in bounds), strict=True):
            if isinstance(symbol, str):
                least, usual, most = profile.get(symbol, sizes)
                profile[symbol] = max(least, sizes[0]), usual, min(most, sizes[2])
    return profile

"""The arrays of a pack: their names and shapes, and how they are read from untrusted files."""

import hashlib
import io
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.character.info import PackInfo
from engine.features.appearance import N_CELLS
from engine.files import open_plain
from engine.skeleton import N_JOINTS
from engine.timebase import frame_start

__all__ = [
    "ARRAYS",
    "MAX_FEATURE_WIDTH",
    "OPTIONAL",
    "RESIDENT",
    "array_bytes",
    "array_names",
    "read_array",
    "read_npy",
    "stored_shape",
]

# name -> dtype, shape; F frames, N nodes, S samples, C clips, E edges, D any width
ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "packet_start": ("int64", ("F+1",)),
    "node_sha256": ("uint8", ("N", 32)),
    "clip_start": ("int64", ("C+1",)),
    "audio": ("int16", ("S",)),
    "joints": ("float32", ("F", N_JOINTS, 3)),
    "confidence": ("float32", ("F", N_JOINTS)),
    "valid": ("bool", ("F",)),
    "hands_found": ("bool", ("F", 2)),
    "hand_boxes": ("float32", ("F", 2, 4)),
    "surface": ("uint64", ("F", 96)),
    "appearance": ("uint8", ("F", N_CELLS, 3)),
    "mouth": ("float32", ("F", 2)),
    "motion": ("float32", ("F", "D", 15)),
    "graph_indptr": ("int64", ("N+1",)),
    "graph_indices": ("int32", ("E",)),
    "graph_distance": ("float32", ("E",)),
    "graph_kind": ("uint8", ("E",)),
    "graph_kept": ("bool", ("N",)),
    "graph_hand_gap": ("float32", ("E",)),
    "motion_level": ("float32", ("N",)),
    "rest": ("float32", ("N",)),
}
RESIDENT = (
    *("packet_start", "node_sha256", "clip_start", "motion_level", "rest"),
    *("graph_indptr", "graph_indices", "graph_distance", "graph_kind", "graph_kept"),
)
"""Arrays that every performance needs and that its kernels trust: read and checked when a pack is opened."""

OPTIONAL = ("graph_hand_gap",)
"""Arrays that older packs lack; those there are belong to the resident ones."""

MAX_FEATURE_WIDTH = 4096
MAX_EDGES_PER_NODE = 4096
_MAGIC = b"\x93NUMPY"
_HEAD_BYTES = 512  # numpy writes 128; a larger header could keep its parser busy


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype
    shape: tuple[int, ...]
    n_bytes: int  # of the header

    @property
    def file_bytes(self) -> int:
        return self.n_bytes + math.prod(self.shape) * self.dtype.itemsize


def array_names(info: PackInfo) -> list[str]:
    """The names of ARRAYS that a pack has, in their order."""
    return [name for name in ARRAYS if name not in OPTIONAL or name in info.sha256]


def array_bytes(name: str, array: np.ndarray) -> bytes:
    """The .npy file of an array of ARRAYS."""
    return npy_bytes(array.astype(ARRAYS[name][0], copy=False))


def npy_bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return content.getvalue()


def stored_shape(folder: Path, name: str, info: PackInfo) -> tuple[int, ...]:
    """Shape of an array of ARRAYS, from its header alone. Raises OSError, or ValueError if it does not fit `info`."""
    descriptor = open_plain(folder / f"{name}.npy", follow_links=False)
    try:
        return _checked(_header(descriptor, name), name, info).shape
    finally:
        os.close(descriptor)


def read_array(folder: Path, name: str, info: PackInfo) -> np.ndarray:
    """An array of ARRAYS, read-only. Raises OSError, or ValueError if it is not the one that pack.json describes."""
    descriptor = open_plain(folder / f"{name}.npy", follow_links=False)
    try:
        header = _checked(_header(descriptor, name), name, info)
        return _content(descriptor, header, info.sha256.get(name, ""), name)
    finally:
        os.close(descriptor)


def read_npy(path: Path, dtype: str, n_rows: int, most_columns: int, sha256: str) -> np.ndarray:
    """A matrix (n_rows, at most most_columns) of finite numbers, read-only. Raises OSError or ValueError."""
    descriptor = open_plain(path, follow_links=False)
    try:
        header = _header(descriptor, path.stem)
        rows, columns = header.shape if len(header.shape) == 2 else (-1, -1)
        if header.dtype != np.dtype(dtype) or rows != n_rows or not 0 <= columns <= most_columns:
            raise ValueError(
                f"{path.stem} is {header.dtype}{header.shape}, expected {dtype}({n_rows}, at most {most_columns})"
            )
        return _content(descriptor, header, sha256, path.stem)
    finally:
        os.close(descriptor)


def _header(descriptor: int, name: str) -> _Header:
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if head[: len(_MAGIC)] != _MAGIC:
        raise ValueError(f"{name} is not an array")
    content = io.BytesIO(head)
    try:
        if np.lib.format.read_magic(content) != (1, 0):
            raise ValueError("another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(content, max_header_size=_HEAD_BYTES)
    except Exception as error:  # it is parsed as Python, which fails in many ways
        raise ValueError(f"{name} has a damaged header") from error
    if fortran or dtype.hasobject or any(size < 0 for size in shape):
        raise ValueError(f"{name} has an unsupported array layout")
    header = _Header(dtype, shape, content.tell())
    if (size := os.fstat(descriptor).st_size) != header.file_bytes:
        raise ValueError(f"{name} has {size} bytes, expected {header.file_bytes}")
    return header


def _checked(header: _Header, name: str, info: PackInfo) -> _Header:
    dtype, shape = ARRAYS[name]
    fits = header.dtype == np.dtype(dtype) and len(header.shape) == len(shape)
    if not fits or not all(_fits(got, wanted, info) for got, wanted in zip(header.shape, shape, strict=True)):
        raise ValueError(f"{name} is {header.dtype}{header.shape}, expected {dtype}{shape}")
    return header


def _fits(got: int, wanted: int | str, info: PackInfo) -> bool:
    if isinstance(wanted, int):
        return got == wanted
    if wanted == "D":
        return 0 < got <= MAX_FEATURE_WIDTH
    if wanted == "E":
        return got <= MAX_EDGES_PER_NODE * info.n_nodes
    symbol, _, plus = re.fullmatch(r"(\w)(\+(\d))?", wanted).groups("0")  # type: ignore[union-attr]
    sizes = {"F": info.n_frames, "N": info.n_nodes, "C": len(info.clips), "S": frame_start(info.n_frames)}
    return got == sizes[symbol] + int(plus)


def _content(descriptor: int, header: _Header, sha256: str, name: str) -> np.ndarray:
    content = bytearray(header.file_bytes)
    with open(descriptor, "rb", closefd=False) as file:
        file.readinto(content)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{name} was changed: its sha256 differs")
    array = np.frombuffer(content, header.dtype, offset=header.n_bytes).reshape(header.shape)
    if array.dtype == bool and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError(f"{name} contains values other than true and false")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    array.flags.writeable = False
    return array

"""Weights outside the ONNX files, deduplicated: networks of a bundle share equal tensors.

A protobuf file is limited to 2 GiB; ONNX can keep tensors in other files of the same folder, at an offset.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import onnx_ir as ir

from export.onnx_weights import ALIGNMENT_BYTES, MIN_BESIDE_BYTES

__all__ = ["SharedWeights"]


@dataclass(frozen=True)
class _Place:
    file: str
    offset: int
    length: int


class SharedWeights:
    """The weight files of one folder; each added network writes one file with what the others do not have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, _Place] = {}  # by content

    def move_out(self, model: ir.Model) -> tuple[str, ...]:
        """Write the larger initialisers of a model -> names of all files that now contain them, sorted.

        The model then refers to the files. Equal models in equal order give equal files, with equal names.
        """
        with _WeightFile(self._folder) as file:
            found = [
                (value, self._added(value.const_value, file))
                for value in model.graph.initializers.values()
                if value.const_value is not None and value.const_value.nbytes >= MIN_BESIDE_BYTES
            ]
        for content, place in file.places.items():
            self._places[content] = _Place(file.name, place.offset, place.length)
        for value, content in found:
            place, tensor = self._places[content], value.const_value
            assert tensor is not None
            value.const_value = ir.ExternalTensor(
                place.file,
                place.offset,
                place.length,
                tensor.dtype,
                shape=ir.Shape(tensor.numpy().shape),
                name=value.name or "",
                base_dir=self._folder,
            )
        return tuple(sorted({self._places[content].file for _, content in found}))

    def _added(self, tensor: ir.TensorProtocol | None, file: "_WeightFile") -> str:
        assert tensor is not None
        array = np.ascontiguousarray(tensor.numpy())
        content = hashlib.sha256(f"{tensor.dtype}{array.shape}".encode())
        content.update(array.reshape(-1).view(np.uint8).data)
        digest = content.hexdigest()
        if digest not in self._places and digest not in file.places:
            file.write(digest, array)
        return digest


class _WeightFile:
    """One file, named by its content when complete; none if nothing was written."""

    def __init__(self, folder: Path) -> None:
        self.name = ""
        self.places: dict[str, _Place] = {}
        self._path = folder / ".weights"
        self._file: IO[bytes] | None = None

    def write(self, digest: str, array: np.ndarray) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT_BYTES))
        self.places[digest] = _Place("", self._file.tell(), array.nbytes)
        self._file.write(array.reshape(-1).view(np.uint8).data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._file.close()
        if error is not None:
            self._path.unlink()
            return
        # hash the tensors' hashes, not gigabytes of content again
        self.name = f"weights-{hashlib.sha256(''.join(self.places).encode()).hexdigest()[:16]}.bin"
        self._path.rename(self._path.with_name(self.name))

"""Which other files an ONNX file reads its tensors from, found before any library opens it.

Such a reference may name any file on the machine, and what happens then depends on the library and its version. So the
file, a protobuf message, is scanned here once, following the fields that can lead to a tensor; the data of tensors,
possibly gigabytes, is skipped unread. Ambiguous protobuf is refused, so that no library can find references that this
scan missed.
"""

import os
from pathlib import Path
from typing import BinaryIO

from engine.files import open_plain
from engine.records import expect

__all__ = ["external_files"]

MAX_DEPTH = 100  # of nested messages, the limit of protobuf's own readers
MAX_FIELDS = 4_000_000  # a few seconds; our largest networks have a tenth of that
MAX_TEXT_BYTES = 4096
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_KEY, _VALUE = 1, 2
_LOCATION = b"location"

# message -> field number in onnx.proto -> type of the nested message; all other fields lead to no tensor
_MESSAGES = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "External"},
    "External": {_KEY: "Text", _VALUE: "Text"},
}


def external_files(path: Path) -> frozenset[str]:
    """The files that hold tensors of an ONNX file, as it names them.

    Raises ValueError if it is not an ONNX file, OSError if it cannot be read.
    """
    with open(open_plain(path, follow_links=False), "rb") as file:
        walk = _Walk(file)
        walk.message("Model", os.fstat(file.fileno()).st_size, MAX_DEPTH)
    return frozenset(walk.found)


class _Walk:
    """One pass through a file. found: the locations met so far."""

    def __init__(self, file: BinaryIO) -> None:
        self.found: set[str] = set()
        self._file = file
        self._at = 0
        self._n_fields = 0

    def message(self, kind: str, end: int, depth: int) -> None:
        """Read on to `end`, where a message ends."""
        expect(depth > 0, f"its messages are nested more than {MAX_DEPTH} deep")
        texts: dict[int, bytes] = {}
        while self._at < end:
            number, length = self._field(end)
            inner = _MESSAGES[kind].get(number)
            if inner is None or length is None:
                self._skip(length or 0)
            elif inner == "Text":
                expect(number not in texts and length <= MAX_TEXT_BYTES, "a tensor's location is invalid")
                texts[number] = self._file.read(length)
                self._at += length
            else:
                self.message(inner, self._at + length, depth - 1)
        if texts.get(_KEY) == _LOCATION:
            self.found.add(texts.get(_VALUE, b"").decode("utf-8"))

    def _field(self, end: int) -> tuple[int, int | None]:
        """Number of the next field, and its length if it may hold a message; other fields are skipped."""
        self._n_fields += 1
        expect(self._n_fields <= MAX_FIELDS, f"it has over {MAX_FIELDS} fields")
        tag = self._varint()
        number, wire = tag >> 3, tag & 7
        expect(number and wire in (_VARINT, _FIXED64, _BYTES, _FIXED32), "it is not ONNX")
        length = self._varint() if wire in (_VARINT, _BYTES) else _FIXED_BYTES[wire]
        if wire == _VARINT:
            length = 0
        expect(self._at + length <= end, "it is truncated")
        if wire == _BYTES:
            return number, length
        self._skip(length)
        return number, None

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            expect(byte, "it is truncated")
            self._at += 1
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise ValueError("it is not ONNX")

    def _skip(self, n_bytes: int) -> None:
        if n_bytes:
            self._at += n_bytes
            self._file.seek(self._at)

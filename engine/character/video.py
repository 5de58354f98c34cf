"""The stored pictures of a character: read by node from one open file, and checked whenever they are read."""

import hashlib
import os
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np

from engine.errors import ArtifactError
from engine.files import open_plain
from engine.timebase import FRAMES_PER_NODE

__all__ = ["StoredVideo", "node_digest"]

_START_CODES = (b"\x00\x00\x00\x01", b"\x00\x00\x01")
_IDR_SLICE, _NAL_TYPE = 5, 0x1F


class StoredVideo:
    """An open video.h264; any thread may read. The descriptor is closed with the last reference to it.

    Not memory-mapped: if another process truncated the file, reading the map would kill this one.
    """

    def __init__(
        self,
        path: Path,
        packet_start: np.ndarray,
        node_sha256: np.ndarray,
        group: str = "node",
        remedy: str = "build the character again, and replace packs with 'tango-rt character install'",
    ) -> None:
        """packet_start int64 (F + 1,), node_sha256 uint8 (N, 32). group, remedy: for messages, what 4 pictures are
        called, and what to do about damage. Raises OSError, ValueError for another size."""
        self.path = path
        self._group = group
        self._remedy = remedy
        self._packet_start = packet_start
        self._node_sha256 = node_sha256
        self._descriptor = open_plain(path, follow_links=False)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        if (size := os.fstat(self._descriptor).st_size) != packet_start[-1]:
            self.close()
            raise ValueError(f"{path.name} has {size} bytes, expected {packet_start[-1]}")

    def packets(self, node: int) -> list[bytes]:
        """The 4 encoded pictures of a node, Annex B, the first an IDR picture. Raises ArtifactError if they are damaged
        or were overwritten, for example by another pack's."""
        first = node * FRAMES_PER_NODE
        starts = self._packet_start[first : first + FRAMES_PER_NODE + 1].tolist()
        try:
            data = os.pread(self._descriptor, starts[-1] - starts[0], starts[0])
        except OSError as error:
            raise ArtifactError(f"{self.path}: cannot be read ({error.strerror})") from error
        packets = [data[a - starts[0] : b - starts[0]] for a, b in pairwise(starts)]
        if hashlib.sha256(data).digest() != self._node_sha256[node].tobytes():
            raise ArtifactError(
                f"{self.path}: the pictures of {self._group} {node} are damaged or were overwritten: {self._remedy}"
            )
        if not is_closed_group(packets):
            raise ArtifactError(f"{self.path}: the pictures of {self._group} {node} are not a closed group of H.264")
        return packets


def node_digest(packets: list[bytes]) -> bytes:
    """The entry of node_sha256 for the 4 pictures of a node."""
    return hashlib.sha256(b"".join(packets)).digest()


def is_closed_group(packets: list[bytes]) -> bool:
    """Whether packets are Annex B, one picture each, and the first is an IDR picture; nothing else is checked."""
    kinds = [_first_kind(packet) for packet in packets]
    return None not in kinds and kinds[0] == _IDR_SLICE


def _first_kind(packet: bytes) -> int | None:
    """The type of the first NAL unit of a picture; None if there is none."""
    code = next((code for code in _START_CODES if packet.startswith(code)), None)
    if code is None or len(packet) <= len(code) + 1:
        return None
    return packet[len(code)] & _NAL_TYPE

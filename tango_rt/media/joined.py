"""Files joined by `cat`: where one ends and the next begins, in formats for which FFmpeg misses or misreads it."""

import os
import re
from pathlib import Path
from typing import Self

from engine.files import open_plain

__all__ = ["find_appended", "find_end"]

# The first bytes of files of these formats.
_HEADS = {
    "matroska": rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82.{1,8}?(?:matroska|webm)",
    "mov": rb"\0\0\0.ftyp",
    "wav": rb"(?:RIFF|RIFX|RF64).{4}WAVE",
    "avi": rb"RIFF.{4}AVI ",
    "flv": rb"FLV\x01[\x00-\x05]\0\0\0\x09",
    "aiff": rb"FORM.{4}AIF[FC]",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "flac": rb"fLaC[\0\x80]\0\0\x22",
    "ogg": rb"OggS\0\x02\0{8}.{4}\0{4}",
}
_LONGEST_HEAD = 128  # bytes, rounded up
_SEARCHED_BYTES = 64 << 20
_LONGEST_BYTES = 16 << 30  # search limit for the end of one file; 4 hours of sound are less in any of these formats
_MAX_PARTS = 4096  # parts of a long AVI file, tracks of an Ogg file
_BLOCK_BYTES = 4 << 20
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # of a WAV file that was written to a pipe


def find_appended(path: Path, format_name: str, after: int) -> int | None:
    """Byte at which the next file begins after the last packet of one; None if there is none."""
    head = _HEADS.get(format_name.split(",")[0])
    if head is None or after >= path.stat().st_size:
        return None
    with _Content(path) as content:
        return content.found(head, after, after + _SEARCHED_BYTES)


def find_end(path: Path, start: int) -> int | None:
    """Where the file that begins at byte `start` ends, if FFmpeg would read on into what follows it; else None."""
    with _Content(path) as content:
        head = content.read(start, 12)
        if head[:4] == b"RIFF":
            return _avi_end(content, start) if head[8:] == b"AVI " else _wav_end(content, start)
        if head[:4] == b"OggS":
            return _ogg_end(content, start)
        if head[:4] == b"fLaC":
            return content.found(_HEADS["flac"], start + 4, start + _LONGEST_BYTES)
        return None


class _Content:
    """The bytes of a file, read on demand. Not a memory map: if the file is truncated meanwhile, that would kill the
    process."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(open_plain(path), "rb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, n_bytes: int) -> bytes:
        """Up to n_bytes, fewer at the end of the file."""
        self._file.seek(start)
        return self._file.read(n_bytes)

    def found(self, head: bytes, start: int, stop: int) -> int | None:
        """Offset of the first match of a head that begins before `stop`."""
        pattern = re.compile(head, re.DOTALL)
        for at in range(start, stop, _BLOCK_BYTES):
            block = self.read(at, _BLOCK_BYTES + _LONGEST_HEAD)
            match = pattern.search(block)
            if match is not None and at + match.start() < stop:
                return at + match.start()
            if len(block) <= _BLOCK_BYTES:
                return None
        return None


def _avi_end(content: _Content, start: int) -> int | None:
    """Long files have several parts; only the first has the type AVI."""
    end = start
    for _ in range(_MAX_PARTS):
        head = content.read(end, 8)
        if head[:4] != b"RIFF":
            return None
        size = int.from_bytes(head[4:], "little")
        end += 8 + size + size % 2
        if content.read(end + 8, 4) == b"AVI ":
            return end
    return None


def _wav_end(content: _Content, start: int) -> int | None:
    if int.from_bytes(content.read(start + 4, 4), "little") not in _UNKNOWN_SIZES:
        return None
    return content.found(_HEADS["wav"] + b"fmt ", start + 12, start + _LONGEST_BYTES)


def _ogg_end(content: _Content, start: int) -> int | None:
    """Search after the first pages of all its tracks: another first page there begins the next link of the chain."""
    end = start
    for _ in range(_MAX_PARTS):
        page = content.read(end, 27 + 255)
        if page[:4] != b"OggS" or len(page) < 27 or not page[5] & 2:
            break
        n_lacings = page[26]
        end += 27 + n_lacings + sum(page[27 : 27 + n_lacings])
    return content.found(_HEADS["ogg"], end, start + _LONGEST_BYTES) if end > start else None

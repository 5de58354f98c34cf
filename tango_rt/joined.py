"""Files joined by `cat`: where one ends and the next begins, in formats where FFmpeg does not see it or misreads it."""

import mmap
import re
from pathlib import Path

__all__ = ["appended_at", "end_within"]

# How files of these formats begin.
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
_SEARCHED_BYTES = 64 << 20
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # of a WAV file that was written into a pipe


def appended_at(path: Path, format_name: str, after: int) -> int | None:
    """Byte at which the next file begins behind the last packet of one; None if there is none."""
    head = _HEADS.get(format_name.split(",")[0])
    if head is None or after >= path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _found(head, content, after, min(len(content), after + _SEARCHED_BYTES))


def end_within(path: Path, start: int) -> int | None:
    """Where the file that begins at a byte ends, if FFmpeg would take what comes behind it for a part of it."""
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"OggS", b"fLaC"):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if head[:4] == b"RIFF":
                return _avi_end(content, start) if head[8:] == b"AVI " else _wav_end(content, start)
            if head[:4] == b"OggS":
                return _ogg_end(content, start)
            return _found(_HEADS["flac"], content, start + 4, len(content))


def _avi_end(content: mmap.mmap, start: int) -> int | None:
    """Long files have several parts, of which only the first is called AVI."""
    end = start
    while content[end : end + 4] == b"RIFF":
        size = int.from_bytes(content[end + 4 : end + 8], "little")
        end += 8 + size + size % 2
        if content[end + 8 : end + 12] == b"AVI ":
            return end
    return None


def _wav_end(content: mmap.mmap, start: int) -> int | None:
    if int.from_bytes(content[start + 4 : start + 8], "little") not in _UNKNOWN_SIZES:
        return None
    return _found(_HEADS["wav"] + b"fmt ", content, start + 12, len(content))


def _ogg_end(content: mmap.mmap, start: int) -> int | None:
    """Behind the first pages of all its tracks: there, another first page begins the next link of the chain."""
    end = start
    while content[end : end + 4] == b"OggS" and content[end + 5] & 2:
        n_lacings = content[end + 26]
        end += 27 + n_lacings + sum(content[end + 27 : end + 27 + n_lacings])
    return _found(_HEADS["ogg"], content, end, len(content)) if end > start else None


def _found(head: bytes, content: mmap.mmap, start: int, stop: int) -> int | None:
    found = re.compile(head, re.DOTALL).search(content, start, stop)
    return None if found is None else found.start()

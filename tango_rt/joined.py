"""Files joined by `cat`: where one ends and the next begins, in formats where FFmpeg does not see it."""

import mmap
import re
import struct
from pathlib import Path

__all__ = ["appended_at", "end_within"]

# How files of these formats begin. FFmpeg reads the first one alone.
_HEADS = {
    "matroska": rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82.{1,8}?(?:matroska|webm)",
    "mov": rb"\0\0\0.ftyp",
    "wav": rb"(?:RIFF|RIFX|RF64).{4}WAVE",
    "avi": rb"RIFF.{4}AVI ",
    "flv": rb"FLV\x01[\x00-\x05]\0\0\0\x09",
    "aiff": rb"FORM.{4}AIF[FC]",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
}
_SEARCHED_BYTES = 64 << 20
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # of a WAV file that was written into a pipe


def appended_at(path: Path, format_name: str, after: int) -> int | None:
    """Byte at which the next file begins behind the last packet of one; None if there is none."""
    head = _HEADS.get(format_name.split(",")[0])
    if head is None or after >= path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.compile(head, re.DOTALL).search(content, after, min(len(content), after + _SEARCHED_BYTES))
        return None if found is None else found.start()


def end_within(path: Path, start: int) -> int | None:
    """Where the AVI or WAV file that begins at a byte ends, if FFmpeg would take the next one for a part of it."""
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(12)
        if head[:4] != b"RIFF" or len(head) < 12:
            return None
        if head[8:] == b"AVI ":
            while head[:4] == b"RIFF" and len(head) == 12:
                start += 8 + (size := struct.unpack("<I", head[4:8])[0]) + size % 2
                file.seek(start)
                head = file.read(12)
                if head[8:] == b"AVI " and head[:4] == b"RIFF":
                    return start
        elif head[8:] == b"WAVE" and struct.unpack("<I", head[4:8])[0] in _UNKNOWN_SIZES:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = content.find(b"WAVEfmt ", start + 12)
                return found - 8 if found > 0 else None
    return None

"""Word timings from a file."""

from pathlib import Path

from engine.errors import InputError

__all__ = ["read_words"]

MAX_BYTES = 16 << 20


def read_words(path: Path) -> str:
    """Text of a file with word timings, for engine.words.parse_words. Raises InputError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, word timings have at most {MAX_BYTES}")
        text = path.read_text("utf-8-sig")  # recognisers on Windows write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as word timings ({error})") from error
    if not text.strip():
        raise InputError(f"{path}: is empty, wanted word timings")
    return text

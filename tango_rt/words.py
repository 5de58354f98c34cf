"""Word timings from a file."""

from pathlib import Path

from engine.errors import InputError
from engine.files import read_plain

__all__ = ["read_words"]

MAX_BYTES = 16 << 20


def read_words(path: Path) -> str:
    """The text of a file with word timings, for engine.motion_graph.words.parse_words. Raises InputError."""
    try:
        text = read_plain(path, MAX_BYTES).decode("utf-8-sig")  # speech recognisers on Windows write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot read word timings ({reason})") from error
    if not text.strip():
        raise InputError(f"{path}: empty file, wanted word timings")
    return text

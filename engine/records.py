"""Fields of untrusted JSON: each is checked before it is used.

Bad values raise ValueError with what was found and wanted. The checks do not know which file the fields come from:
`engine.files.reading` turns the error into an ArtifactError that names the file and says what to do.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from engine.files import plain_size, read_plain
from engine.names import shown

__all__ = [
    "MAX_TEXT",
    "as_number",
    "as_object",
    "as_record",
    "as_text",
    "as_texts",
    "check_printable",
    "expect",
    "is_sha256",
    "is_text",
    "is_whole",
    "read_object",
]

MAX_TEXT = 4096  # characters
_MAX_WHOLE_FLOAT = 1 << 53  # above this, float64 skips whole numbers
_HEX = frozenset("0123456789abcdef")

T = TypeVar("T")


def expect(fits: object, otherwise: str) -> None:
    """Raises ValueError(otherwise) if `fits` is false."""
    if not fits:
        raise ValueError(otherwise)


def is_text(value: Any, least: int = 0, most: int = MAX_TEXT) -> bool:
    """Whether it is a string of `least` to `most` characters."""
    return isinstance(value, str) and least <= len(value) <= most


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether it is an integer from `least` to `most`; booleans do not count."""
    return type(value) is int and least <= value <= most


def is_sha256(value: Any) -> bool:
    """Whether it is a SHA-256 hash in lower-case hex."""
    return isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value)


def as_text(value: Any, most: int = MAX_TEXT) -> str:
    """Text of at most `most` characters."""
    expect(is_text(value, 0, most), f"{repr(value)[:40]} is not a string of at most {most} characters")
    return str(value)


def as_texts(content: Mapping[str, Any], most: int = MAX_TEXT) -> dict[str, str]:
    """A JSON object whose values are all strings."""
    return {as_text(name, most): as_text(text, most) for name, text in content.items()}


def as_number(value: Any) -> float:
    """A float, which JSON may hold as an integer."""
    fits = type(value) is float or is_whole(value, -_MAX_WHOLE_FLOAT, _MAX_WHOLE_FLOAT)
    expect(fits, f"{repr(value)[:40]} is not a number")
    return float(value)


def as_record(kind: type[T], content: Any) -> T:
    """A dataclass from these fields: all without a default must be there, no unknown ones, each of its declared type.

    The contents of dicts and lists are not checked.
    """
    expect(isinstance(content, Mapping), f"{content!r:.100}, expected the fields of a {kind.__name__}")
    hints = get_type_hints(kind)
    values = {}
    for name, value in content.items():
        expect(name in hints, f"{name!a:.100} is not a field of a {kind.__name__}")
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        kinds = tuple(get_origin(one) or one for one in kinds)
        wanted = " or ".join(one.__name__ for one in kinds)
        number = float in kinds and type(value) is int
        expect(number or type(value) in kinds, f"{name} is {value!r:.100}, expected {wanted}")
        values[name] = as_number(value) if number else value
    try:
        return kind(**values)
    except TypeError as error:  # a field is missing
        raise ValueError(str(error)) from error


def as_object(content: bytes | str, name: str) -> dict[str, Any]:
    """Parse JSON text, which must be an object. Raises ValueError, or RecursionError if it is nested too deeply."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    expect(isinstance(found, dict), f"{name} is not a JSON object")
    return dict(found)


def read_object(path: Path, most_bytes: int) -> dict[str, Any]:
    """A JSON object from a regular file of bounded size; raises OSError, ValueError or RecursionError."""
    expect(plain_size(path) <= most_bytes, f"{path.name} has over {most_bytes} bytes")
    return as_object(read_plain(path, most_bytes, follow_links=False).decode("utf-8"), path.name)


def check_printable(value: Any) -> None:
    """Raises ValueError for unprintable text and for NaN and infinity, at any depth."""
    if isinstance(value, str):
        expect(len(value) <= MAX_TEXT, f"text of {len(value)} characters, at most {MAX_TEXT} are allowed")
        if shown(value) != value:
            raise ValueError(f"text with control characters: {value!a:.100}")
    elif isinstance(value, float):
        expect(math.isfinite(value), "a number that is not finite")
    elif isinstance(value, list):
        for one in value:
            check_printable(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            check_printable(name)
            check_printable(one)

"""Fields of JSON that a stranger may have written: each is looked at before it is used.

What does not fit raises ValueError with what was found and wanted. The checks do not know which file the fields come
from: `engine.files.reading` makes an ArtifactError of it that names the file and says what to do.
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
_MAX_WHOLE_FLOAT = 1 << 53  # beyond, float64 has gaps between whole numbers
_HEX = frozenset("0123456789abcdef")

T = TypeVar("T")


def expect(fits: object, otherwise: str) -> None:
    """Raises ValueError(otherwise) for anything false."""
    if not fits:
        raise ValueError(otherwise)


def is_text(value: Any, least: int = 0, most: int = MAX_TEXT) -> bool:
    """Whether it is text of so many characters."""
    return isinstance(value, str) and least <= len(value) <= most


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether it is an integer from `least` to `most`; true and false are none."""
    return type(value) is int and least <= value <= most


def is_sha256(value: Any) -> bool:
    """Whether it is a SHA-256 in lower-case hex."""
    return isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value)


def as_text(value: Any, most: int = MAX_TEXT) -> str:
    """Text of at most `most` characters."""
    expect(is_text(value, 0, most), f"{repr(value)[:40]} is no text of at most {most} characters")
    return str(value)


def as_texts(content: Mapping[str, Any], most: int = MAX_TEXT) -> dict[str, str]:
    """An object of text by name."""
    return {as_text(name, most): as_text(text, most) for name, text in content.items()}


def as_number(value: Any) -> float:
    """A number, which JSON may have written without a point."""
    fits = type(value) is float or is_whole(value, -_MAX_WHOLE_FLOAT, _MAX_WHOLE_FLOAT)
    expect(fits, f"{repr(value)[:40]} is no number")
    return float(value)


def as_record(kind: type[T], content: Any) -> T:
    """A dataclass of these fields: all that have no default, no others, each of the type that it is declared with.

    A dict or list is not looked into.
    """
    expect(isinstance(content, Mapping), f"{content!r:.100} where fields of a {kind.__name__} are expected")
    hints = get_type_hints(kind)
    values = {}
    for name, value in content.items():
        expect(name in hints, f"{name!a:.100} is no field of a {kind.__name__}")
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        kinds = tuple(get_origin(one) or one for one in kinds)
        wanted = " or ".join(one.__name__ for one in kinds)
        number = float in kinds and type(value) is int
        expect(number or type(value) in kinds, f"{name} is {value!r:.100}, expected {wanted}")
        values[name] = as_number(value) if number else value
    try:
        return kind(**values)
    except TypeError as error:  # one that is missing
        raise ValueError(str(error)) from error


def as_object(content: bytes | str, name: str) -> dict[str, Any]:
    """What a JSON text holds, which must be an object. Raises RecursionError too, for one of too many layers."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    expect(isinstance(found, dict), f"{name} is no object")
    return dict(found)


def read_object(path: Path, most_bytes: int) -> dict[str, Any]:
    """A JSON object from a plain file of bounded size; raises OSError, ValueError or RecursionError."""
    expect(plain_size(path) <= most_bytes, f"{path.name} has over {most_bytes} bytes")
    return as_object(read_plain(path, most_bytes, follow_links=False).decode("utf-8"), path.name)


def check_printable(value: Any) -> None:
    """Raises ValueError for text that cannot be shown to people and for numbers that are none, however deep inside."""
    if isinstance(value, str):
        expect(len(value) <= MAX_TEXT, f"text of {len(value)} characters, at most {MAX_TEXT} are read")
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

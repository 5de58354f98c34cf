"""Fields of an options dataclass that carry their help and a reader for values from text or TOML."""

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, field
from pathlib import Path
from typing import Any

from engine.errors import InputError

__all__ = ["addresses", "choice", "mode", "number", "path", "read_option", "seconds", "switch", "text", "whole"]

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_MODE = re.compile(r"0?[0-7]{3}")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def read_option(option: Field[Any], value: Any, origin: str) -> Any:
    """The value of an option, read and checked. Raises InputError that names its origin."""
    if value is None and option.default is None:
        return None
    try:
        return option.metadata["read"](value)
    except ValueError as error:
        found = "" if option.metadata["secret"] else f" is {value!r}"
        raise InputError(f"{origin}{found}: expected {error}") from None


def whole(default: int, least: int, most: int, about: str) -> Any:
    def read(value: Any) -> int:
        number = int(value) if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value
        if type(number) is not int or not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return _option(default, "N", about, read)


def seconds(default: float | None, least: float, most: float, about: str) -> Any:
    return _measured(default, least, most, about, "S", "seconds")


def number(default: float | None, least: float, most: float, about: str) -> Any:
    return _measured(default, least, most, about, "X", "a number")


def _measured(default: float | None, least: float, most: float, about: str, metavar: str, kind: str) -> Any:
    def read(value: Any) -> float:
        try:
            found = math.nan if isinstance(value, bool) else float(value)
        except (ValueError, TypeError, OverflowError):
            found = math.nan
        if not least <= found <= most:
            raise ValueError(f"{kind} from {least:g} to {most:g}")
        return found

    return _option(None if default is None else float(default), metavar, about, read)


def mode(default: str, about: str) -> Any:
    """Permissions of a file, in octal digits as for chmod."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not _MODE.fullmatch(value.strip()):
            raise ValueError("permissions in octal digits, such as '0600'")
        return value.strip()

    return _option(default, "MODE", about, read)


def switch(default: bool, about: str) -> Any:
    def read(value: Any) -> bool:
        word = str(value).strip().lower()
        if word not in (*_TRUE, *_FALSE):
            raise ValueError("true or false")
        return word in _TRUE

    return _option(default, None, about, read)


def choice(default: str | None, allowed: tuple[str, ...], about: str) -> Any:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(" or ".join(allowed))
        return str(value)

    return _option(default, "|".join(allowed), about, read)


def text(metavar: str, about: str, secret: bool = False) -> Any:
    """secret: the value is never shown, not even if it is invalid."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("some text")
        return value.strip()

    return _option(None, metavar, about, read, secret)


def path(metavar: str, about: str, required: bool = False) -> Any:
    def read(value: Any) -> Path:
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise ValueError("a path")
        return Path(value)

    return _option(MISSING if required else None, metavar, about, read)


def addresses(default: tuple[str, ...], about: str) -> Any:
    """Several addresses: a list in TOML, separated by commas in the environment."""

    def read(value: Any) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) and part.strip() for part in parts):
            raise ValueError("HOST:PORT or unix:PATH, or several of them")
        if not parts:
            raise ValueError("at least one address")
        return tuple(part.strip() for part in parts)

    return _option(default, "ADDRESS", about, read)


def _option(default: Any, metavar: str | None, about: str, read: Callable[[Any], Any], secret: bool = False) -> Any:
    return field(default=default, metadata={"metavar": metavar, "about": about, "read": read, "secret": secret})

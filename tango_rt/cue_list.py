"""Cues with their times in a speech, from a file: [{"name": "wave", "at": 3.2, "within": 1.0}, ...]."""

import json
from pathlib import Path
from typing import Any

from engine.character.cues import MAX_CUES, TimedCue, why_no_cue_name
from engine.errors import InputError
from engine.files import read_plain
from engine.names import canonical
from tango_rt.options import DEFAULT_WITHIN_S, MAX_WITHIN_S

__all__ = ["read_cue_list"]

_MAX_BYTES = 1 << 20
_MAX_TIME_S = 24 * 3600.0
_WANTED = 'wanted a list of {"name": text, "at": seconds, "within": seconds}'


def read_cue_list(path: Path) -> tuple[TimedCue, ...]:
    """The cues of a file, by their times. Raises InputError."""
    try:
        content = json.loads(read_plain(path, _MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read as cues ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({str(error)[:100]}); {_WANTED}") from error
    if not isinstance(content, list) or len(content) > MAX_CUES:
        raise InputError(f"{path}: {_WANTED}, at most {MAX_CUES} of them")
    cues = (_cue(entry, f"{path}: cue {number}") for number, entry in enumerate(content, 1))
    return tuple(sorted(cues, key=lambda cue: cue.at_s))


def _cue(entry: Any, what: str) -> TimedCue:
    if not isinstance(entry, dict) or not {"name", "at"} <= set(entry) <= {"name", "at", "within"}:
        raise InputError(f"{what} is {str(entry)[:60]!a}; {_WANTED}")
    name = entry["name"]
    if not isinstance(name, str) or (reason := why_no_cue_name(name)) is not None:
        raise InputError(f"{what} has a name that {reason if isinstance(name, str) else 'is no text'}")
    at_s = _seconds(entry["at"], _MAX_TIME_S, f"{what} is at")
    within_s = _seconds(entry.get("within", DEFAULT_WITHIN_S), MAX_WITHIN_S, f"{what} is within")
    return TimedCue(canonical(name), at_s, within_s)


def _seconds(value: Any, most: float, what: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:  # an integer may be too large for a float: compared first
        raise InputError(f"{what} {str(value)[:40]}: wanted 0 to {most:g} s")
    return float(value)

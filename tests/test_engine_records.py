"""Checks of what strangers wrote: what fits comes back as it is, all else is refused with what was found and wanted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ArtifactError
from engine.files import reading
from engine.records import (
    as_number,
    as_object,
    as_record,
    as_text,
    as_texts,
    check_printable,
    is_sha256,
    is_whole,
    read_object,
)


@dataclass(frozen=True)
class Shoe:
    name: str
    size: float
    n_holes: int = 0
    sole_mm: float | None = None
    tags: dict[str, str] = field(default_factory=dict)


def test_a_record_is_made_of_fields_that_fit() -> None:
    assert as_record(Shoe, {"name": "left", "size": 42}) == Shoe("left", 42.0)
    full = {"name": "right", "size": 42.5, "n_holes": 12, "sole_mm": 9, "tags": {"made": "here"}}
    assert as_record(Shoe, full) == Shoe("right", 42.5, 12, 9.0, {"made": "here"})
    assert as_record(Shoe, {**full, "sole_mm": None}).sole_mm is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], r"\[\], expected the fields of a Shoe"),
        ({"name": "left"}, "size"),
        ({"name": "left", "size": 42, "lace": 1}, "'lace' is not a field of a Shoe"),
        ({"name": 3, "size": 42}, "name is 3, expected str"),
        ({"name": "left", "size": True}, "size is True, expected float"),
        ({"name": "left", "size": None}, "size is None, expected float"),
        ({"name": "left", "size": 10**400}, "is not a number"),
        ({"name": "left", "size": 42, "n_holes": 1.0}, "n_holes is 1.0, expected int"),
        ({"name": "left", "size": 42, "sole_mm": "9"}, "sole_mm is '9', expected float or NoneType"),
        ({"name": "left", "size": 42, "tags": []}, r"tags is \[\], expected dict"),
    ],
)
def test_a_record_of_anything_else_is_refused(content: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        as_record(Shoe, content)


def test_single_values() -> None:
    assert as_texts({"a": "b"}) == {"a": "b"} and as_number(3) == 3.0 and type(as_number(3)) is float
    assert is_whole(3, 0, 3) and not is_whole(4, 0, 3) and not is_whole(True, 0, 3) and not is_whole(3.0, 0, 3)
    assert is_sha256("0a" * 32) and not is_sha256("0A" * 32) and not is_sha256("0a" * 31) and not is_sha256(None)
    for refused in (
        lambda: as_text("abc", most=2),
        lambda: as_text(b"ab"),  # type: ignore[arg-type]
        lambda: as_texts({"a": 1}),
        lambda: as_number("3"),
        lambda: as_number(True),
    ):
        with pytest.raises(ValueError, match=r"is not a (string of at most|number)"):
            refused()


@pytest.mark.parametrize("value", ["\x1b[2J", {"a\n": 1}, [[float("nan")]], {"a": [float("inf")]}, "x" * 5000])
def test_what_cannot_be_shown_is_refused(value: Any) -> None:
    check_printable({"a": ["b", 1, 2.5, None, True]})
    with pytest.raises(ValueError):
        check_printable(value)


def refusals() -> dict[str, tuple[Callable[[Path], object], str]]:
    return {
        "a list": (lambda f: f.write_text("[]"), "shoe.json is not a JSON object"),
        "text": (lambda f: f.write_text("{"), "shoe.json is not JSON"),
        "deep": (lambda f: f.write_text("[" * 100_000), "recursion"),
        "long": (lambda f: f.write_text(" " * 101), "shoe.json has over 100 bytes"),
        "nothing": (lambda f: None, "shoe.json is missing"),
        "a folder": (lambda f: f.mkdir(), "shoe.json is not a regular file"),
        "a link": (lambda f: f.symlink_to("/etc/passwd"), "shoe.json is a link"),
    }


@pytest.mark.parametrize("name", refusals())
def test_files_that_hold_no_object_are_refused_by_name(name: str, tmp_path: Path) -> None:
    make, why = refusals()[name]
    file = tmp_path / "shoe.json"
    make(file)
    most_bytes = 1 << 20 if name == "deep" else 100
    told = rf"shoe.json is damaged \(.*{why}.*\): mend it"
    with pytest.raises(ArtifactError, match=told), reading(file, "is damaged", "mend it"):
        read_object(file, most_bytes)
    assert as_object('{"a": 1}', "it") == {"a": 1}

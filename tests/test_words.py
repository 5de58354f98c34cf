"""Words that a native reader stumbles over, and names that the project has agreed to spell otherwise, stay out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("engine", "export", "tango_rt", "protos", "docs", "examples", "integrations", "benchmarks", "tests")
SUFFIXES = {".py", ".md", ".proto", ".sh", ".toml"}
BANNED = {
    r"\banew\b": "again",
    r"\b[Bb]eside\b": "next to; in addition to; apart from",
    r"\b(to|can|could) be had\b": "available; can be obtained",
    r"\bwhosoever\b|\bthereof\b|\bhereby\b": "plain words",
    r"\b_?(MOST|LEAST)_[A-Z]": "MAX_, MIN_",
}
"""Pattern -> what to write instead."""


def stumbles(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in BANNED.items():
            if found := re.search(pattern, line):
                yield f"line {number}: {found[0]!r}, write: {instead}"


def files() -> list[Path]:
    """All text of the project but this file, the changelog and what is generated."""
    found = [*ROOT.glob("*.md"), *(file for room in ROOMS for file in (ROOT / room).rglob("*"))]
    return sorted(
        file
        for file in found
        if file.suffix in SUFFIXES
        and file.name not in ("CHANGELOG.md", Path(__file__).name)
        and ROOT / "tango_rt" / "v1" not in file.parents
        and "node_modules" not in file.parts
    )


def test_nobody_stumbles() -> None:
    found = [f"{file.relative_to(ROOT)}: {one}" for file in files() for one in stumbles(file.read_text("utf-8"))]
    assert len(files()) > 300
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["made anew", "the file beside it", "not to be had", "_MOST_BYTES = 3"])
def test_it_is_noticed(text: str) -> None:
    assert len(list(stumbles(f"first line\n{text}\n"))) == 1


@pytest.mark.parametrize("text", ["besides", "a new one", "at MOST", "the utmost"])
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert not list(stumbles(text))

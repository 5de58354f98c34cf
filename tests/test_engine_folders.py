"""Folders are whole or absent, whenever the writing ends."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from engine.folders import whole_folder


def write(path: Path, text: str) -> None:
    with whole_folder(path, "mark", "a thing") as folder:
        (folder / "mark").write_text(text)


def test_new_then_replaced(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "thing"
    for text in ("first", "second"):
        write(place, text)
        assert (place / "mark").read_text() == text
        assert [entry.name for entry in place.parent.iterdir()] == ["thing"]


def test_as_readable_as_any_folder_of_the_user(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write(tmp_path / "thing", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "thing").stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_left_by_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "thing", "old")
    with pytest.raises(error), whole_folder(tmp_path / "thing", "mark", "a thing") as folder:
        (folder / "mark").write_text("half")
        raise error
    assert (tmp_path / "thing" / "mark").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing"]


@pytest.mark.parametrize("which", [1, 2])
def test_interrupted_between_the_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    write(tmp_path / "thing", "old")
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Any) -> Path:
        calls.append(path)
        if len(calls) == which:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "thing", "new")
    assert (tmp_path / "thing" / "mark").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing"]


def test_what_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("text")
    for name in ("photos", "file"):
        with pytest.raises(InputError, match=f"{name} exists and is not a thing"):
            write(tmp_path / name, "")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "thing", "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "photos"]

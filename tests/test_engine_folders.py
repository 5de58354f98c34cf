"""Folders are whole or absent, whenever the writing ends."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from engine.folders import atomic_folder, cache_folder, cache_places, private_folder
from tests.helpers.surroundings import unset_cache


def write(path: Path, text: str) -> None:
    with atomic_folder(path, "mark", "a thing") as folder:
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
    with pytest.raises(error), atomic_folder(tmp_path / "thing", "mark", "a thing") as folder:
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


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unset_cache(monkeypatch, tmp_path, tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "tango-rt" and mode(tmp_path / ".cache" / "tango-rt") == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tango-rt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "tango-rt"
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "given" / "deep"))
    assert cache_folder() == tmp_path / "given" / "deep" and mode(tmp_path / "given" / "deep") == 0o700
    assert cache_places() == [tmp_path / "given" / "deep"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "file"))
    assert cache_folder() is None, "what the user names and cannot be written is replaced by nothing"


@pytest.mark.parametrize("home", ["unknown", "absent", "a file"])
def test_without_a_home_the_cache_is_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "a file").touch()
    unset_cache(monkeypatch, None if home == "unknown" else tmp_path / home, tmp_path)
    own = tmp_path / f"tango-rt-{os.geteuid()}"
    assert cache_folder() == own and mode(own) == 0o700
    assert not (tmp_path / "absent").exists()
    unset_cache(monkeypatch, None if home == "unknown" else tmp_path / home, None)
    assert cache_folder() is None


def test_an_older_cache_becomes_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unset_cache(monkeypatch, tmp_path, None)
    place = tmp_path / ".cache" / "tango-rt"
    place.mkdir(parents=True)
    place.chmod(0o775)
    assert cache_folder() == place and mode(place) == 0o700


def test_code_is_kept_only_where_nobody_else_writes(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert not private_folder(tmp_path / "open")
    (tmp_path / "readable").mkdir(mode=0o755)
    assert private_folder(tmp_path / "readable") and mode(tmp_path / "readable") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of others")
def test_folders_of_others_are_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = 12345
    for name in ("foreign", "foreign-home/.cache", "mine"):
        (tmp_path / name).mkdir(parents=True)
    os.chown(tmp_path / "foreign", stranger, stranger)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.chown(tmp_path / "link", stranger, stranger, follow_symlinks=False)
    assert private_folder(tmp_path / "mine") and not private_folder(tmp_path / "link")
    assert not private_folder(tmp_path / "foreign") and not private_folder(tmp_path / "foreign" / "in-it")
    for folder in ("foreign-home", "foreign-home/.cache"):
        os.chown(tmp_path / folder, stranger, stranger)
    unset_cache(monkeypatch, tmp_path / "foreign-home", tmp_path)  # as of sudo, which may leave HOME as it was
    assert cache_folder() == tmp_path / "tango-rt-0"
    assert list((tmp_path / "foreign-home" / ".cache").iterdir()) == []

"""The characters of a folder, opened when they are asked for. Packs come and go while the server runs.

The id of a character is the name of its pack, in Unicode's NFC whatever the file system has; asked for in any spelling.
Only where two packs have one name in two spellings is each of them found by its own alone.

A pack counts as changed when one of the files that decide a performance does; the cache of transitions is none of them.
Sessions keep the character they hold: its files are mapped, and stay readable after they are replaced or deleted.
"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ArtifactError, InputError, TangoError
from engine.names import canonical, unfit
from engine.pack_embeddings import FOLDER as EMBEDDINGS
from tango_rt.pipeline.character import Character, open_character

__all__ = ["CharacterStore", "UnknownCharacter"]

_SUFFIX = ".tango"
_TRIALS, _REPLACING_S = 4, 0.02
_MOST_LISTED = 10
_MOST_EMBEDDINGS = 16

Files = tuple[tuple[str, int, int, int], ...]


class UnknownCharacter(InputError):
    """No character has this id."""


@dataclass(frozen=True)
class _Entry:
    """What a pack was when it was opened: the character, or why there is none."""

    files: Files
    character: Character | None
    problem: str


class CharacterStore:
    """Raises InputError where the folder is absent or cannot be read. Safe in any thread; get may take seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[str, _Entry] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise InputError(f"{folder}: no folder of characters ({error.strerror})") from error

    def ids(self) -> list[str]:
        """Ids of all packs but those known to be unusable, sorted."""
        names = self._names()
        return sorted(_id_of(name, names) for name in names if not self._known_problem(name))

    def problems(self) -> dict[str, str]:
        """Id -> one line, for every pack that was found unusable as it is now."""
        found = {_shown(name): self._known_problem(name) for name in self._names()}
        return {name: problem for name, problem in found.items() if problem}

    def get(self, character_id: str) -> Character:
        """Raises UnknownCharacter, or ArtifactError and InputError for a pack that cannot be used."""
        name = self._named(character_id)
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:
            entry = self._current(name, self.folder / f"{name}{_SUFFIX}")
        if entry is None:
            self._forget(name)
            raise self._unknown(character_id)
        if entry.character is None:
            raise ArtifactError(entry.problem)
        return entry.character

    def _current(self, name: str, path: Path) -> _Entry | None:
        """What the pack is now. While it is being replaced there is none for a moment, or parts of two."""
        for _ in range(_TRIALS):
            files = _files(path)
            if files is not None:
                entry = self._entries.get(name)
                if entry is None or entry.files != files:
                    entry = _open(path, files)
                    self._entries[name] = entry
                if _files(path) == files:
                    return entry
            time.sleep(_REPLACING_S)
        return None if files is None else entry

    def _named(self, character_id: str) -> str:
        """The name of a pack as the file system has it. Raises UnknownCharacter."""
        if "/" in character_id or unfit(character_id):  # nothing in it can lead out of the folder
            raise self._unknown(character_id)
        # what was opened may be absent for a moment, while it is replaced
        if character_id in self._entries or (self.folder / f"{character_id}{_SUFFIX}").is_dir():
            return character_id
        wanted, opened = canonical(character_id), set(self._entries)
        found = [name for name in opened.union(self._names()) if canonical(name) == wanted]
        if len(found) == 1:
            return found[0]
        raise self._unknown(character_id)

    def _names(self) -> list[str]:
        names: list[str] = []
        with suppress(OSError), os.scandir(self.folder) as found:  # the folder may be taken away, too
            names = [
                entry.name.removesuffix(_SUFFIX)
                for entry in found
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".") and entry.is_dir()
            ]
        with self._lock:
            gone = set(self._entries) - set(names)
        for name in gone:
            self._forget(name)
        return sorted(names)

    def _known_problem(self, name: str) -> str:
        if (reason := unfit(name)) is not None:
            return f"the name {name!a} {reason}: rename the pack"
        entry = self._entries.get(name)
        if entry is None or entry.character is not None or entry.files != _files(self.folder / f"{name}{_SUFFIX}"):
            return ""
        return entry.problem

    def _forget(self, name: str) -> None:
        with self._lock:
            self._entries.pop(name, None)
            self._opening.pop(name, None)

    def _unknown(self, character_id: str) -> UnknownCharacter:
        known = self.ids()
        there = ", ".join(known[:_MOST_LISTED]) + (", ..." if len(known) > _MOST_LISTED else "")
        return UnknownCharacter(f"no character {character_id[:100]!r}: there is {there or 'none'}")


def _id_of(name: str, names: list[str]) -> str:
    """What a pack is asked for by: its name in one form for all spellings, unless that is another's, too."""
    wanted = canonical(name)
    return name if sum(canonical(other) == wanted for other in names) > 1 else wanted


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _open(path: Path, files: Files) -> _Entry:
    try:
        return _Entry(files, open_character(path), "")
    except TangoError as error:
        return _Entry(files, None, str(error))


def _files(path: Path) -> Files | None:
    """Path, number, size and time of every file that decides a performance; None where there is no folder."""
    if not path.is_dir():
        return None
    found: list[tuple[str, int, int, int]] = []
    folders = [path, path / EMBEDDINGS]
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # being written
                    continue
                if entry.is_file():
                    about = entry.stat()
                    found.append((entry.path, about.st_ino, about.st_size, about.st_mtime_ns))
                elif folder.name == EMBEDDINGS and len(folders) < _MOST_EMBEDDINGS:
                    folders.append(Path(entry.path))
    return tuple(sorted(found))

"""The characters in a folder, opened on demand. Packs come and go while the server runs.

The id of a character is the name of its pack in Unicode NFC, whatever the file system uses; any normal form finds it.
Only if two packs differ in nothing but the normal form is each found by its exact name alone.

A pack counts as changed when one of the files that determine a performance changes; the transition cache is not one.
Sessions keep the character they hold, even if it is replaced or deleted. Only the most recently used stay open: an open
character takes a file descriptor and some megabytes. Listings come from the last scan of the folder, so that a request
never causes another.
"""

import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.character.drawn import FOLDER as DRAWN
from engine.character.embeddings import FOLDER as EMBEDDINGS
from engine.errors import ArtifactError, BackendError, InputError, TangoError
from engine.names import canonical, printable, why_unfit
from tango_rt.pipeline.character import Character, open_character
from tango_rt.pipeline.summary import CharacterSummary, summarize

__all__ = ["MAX_OPEN", "CharacterStore", "UnknownCharacter"]

_log = logging.getLogger(__name__)

MAX_OPEN = 256
_SUFFIX = ".tango"
_TRIALS, _REPLACING_S = 4, 0.02
_MAX_NAMED = 10
_MAX_EMBEDDINGS = 16

Files = tuple[tuple[str, int, int, int], ...]


class UnknownCharacter(InputError):
    """No character has this id."""


@dataclass(frozen=True)
class _Entry:
    """The state of a pack when it was opened: its listing, or why it is unusable."""

    files: Files
    listed: CharacterSummary | None = None
    problem: str = ""


@dataclass(frozen=True)
class _Look:
    """The result of a scan."""

    listed: Mapping[str, CharacterSummary] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of packs, by NFC id; several if they clash


class CharacterStore:
    """Raises InputError if the folder is missing or unreadable. Safe in any thread; get may take seconds."""

    def __init__(self, folder: Path, max_open: int = MAX_OPEN) -> None:
        self.folder = folder
        self.max_open = max_open
        self._entries: dict[str, _Entry] = {}
        self._open: OrderedDict[str, tuple[Files, Character]] = OrderedDict()  # most recently used last
        self._opening: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._look: _Look | None = None
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise InputError(f"{folder}: not a folder of characters ({error.strerror})") from error

    @property
    def listed(self) -> Mapping[str, CharacterSummary]:
        """The characters that were usable at the last scan, by id, in order."""
        return self._last_look().listed

    @property
    def problems(self) -> Mapping[str, str]:
        """Id -> one line, for every pack that was unusable at the last scan."""
        return self._last_look().problems

    def look(self, opened: Callable[[Character], None] = lambda _: None, ending: threading.Event | None = None) -> None:
        """Scan the folder: open new and changed packs, calling `opened`; forget those gone. `ending` stops it early."""
        names = _names(self.folder)
        for gone in set(self._entries) - set(names):
            self._forget(gone)
        ids, found, problems = _ids(names), {}, {}
        for name in names:
            if ending is not None and ending.is_set():
                return
            entry = self._seen(name, opened)
            if entry is not None and entry.listed is not None:
                found[ids[name]] = entry.listed.named(ids[name])
            elif entry is not None:
                problems[printable(name)] = entry.problem
        spellings: dict[str, tuple[str, ...]] = {}
        for name in names:
            spellings[canonical(name)] = (*spellings.get(canonical(name), ()), name)
        self._look = _Look(dict(sorted(found.items())), problems, spellings)

    def get(self, character_id: str) -> Character:
        """Raises UnknownCharacter, ArtifactError and InputError for an unusable pack, BackendError if this process can
        open no more files."""
        name = self._named(character_id)
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:
            found = self._current(name, self.folder / f"{name}{_SUFFIX}")
        if found is None:
            self._forget(name)
            raise self._unknown(character_id)
        entry, character = found
        if character is None:
            raise ArtifactError(entry.problem)
        return character

    def verify(self, character_id: str) -> None:
        """Read the whole pack; if anything in it is damaged, it counts as unusable from then on."""
        name = self._named(character_id)
        character = self.get(character_id)
        try:
            character.pack.verify()
        except ArtifactError as error:
            with self._lock:
                files, known = self._open.pop(name, ((), None))
                if known is character:
                    self._entries[name] = _Entry(files, problem=str(error))
            raise

    def _seen(self, name: str, opened: Callable[[Character], None]) -> _Entry | None:
        """The state of a pack at this scan, None if it is gone again; errors in it do not affect other packs."""
        if (reason := why_unfit(name)) is not None:
            return _Entry((), problem=f"the name {name!a} {reason}: rename the pack")
        files, entry = _files(self.folder / f"{name}{_SUFFIX}"), self._entries.get(name)
        if entry is not None and entry.files == files:
            return entry
        try:
            opened(self.get(name))
        except BackendError as error:  # may pass
            return _Entry((), problem=str(error))
        except TangoError:  # recorded in its entry, or the pack is gone
            pass
        return self._entries.get(name)

    def _current(self, name: str, path: Path) -> tuple[_Entry, Character | None] | None:
        """The current state of a pack. While it is being replaced there may be none, or parts of two, for a moment."""
        for _ in range(_TRIALS):
            files = _files(path)
            if files is not None:
                found = self._known(name, files) or self._opened(name, path, files)
                if _files(path) == files:
                    return found
            time.sleep(_REPLACING_S)
        return None if files is None else found

    def _known(self, name: str, files: Files) -> tuple[_Entry, Character | None] | None:
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry.files != files:
                return None
            open_files, character = self._open.get(name, ((), None))
            if open_files == files:
                self._open.move_to_end(name)
                return entry, character
            return (entry, None) if entry.problem else None

    def _opened(self, name: str, path: Path, files: Files) -> tuple[_Entry, Character | None]:
        character: Character | None = None
        try:
            character = self._open_one(path)
            entry = _Entry(files, summarize(character))
        except BackendError:  # the machine's fault, not to be remembered
            raise
        except TangoError as error:
            entry = _Entry(files, problem=str(error))
        except Exception as error:  # our own fault; one pack must not affect the others
            _log.exception("character cannot be opened", extra={"character": name})
            entry = _Entry(files, problem=f"{path}: cannot be opened ({type(error).__name__})")
        with self._lock:
            self._entries[name] = entry
            self._open.pop(name, None)
            if character is not None and entry.listed is not None:
                self._open[name] = files, character
            self._close_but(self.max_open)
        return entry, character

    def _open_one(self, path: Path) -> Character:
        try:
            return open_character(path)
        except BackendError:
            with self._lock:
                self._close_but(len(self._open) // 2)
            return open_character(path)

    def _close_but(self, n: int) -> None:
        while len(self._open) > n:
            self._open.popitem(last=False)

    def _named(self, character_id: str) -> str:
        """The name of a pack in the file system. Raises UnknownCharacter."""
        if "/" in character_id or why_unfit(character_id):  # nothing may lead out of the folder
            raise self._unknown(character_id)
        # an open pack may be missing for a moment while it is replaced
        if character_id in self._entries or (self.folder / f"{character_id}{_SUFFIX}").is_dir():
            return character_id
        found = self._last_look().names.get(canonical(character_id), ())
        if len(found) == 1:
            return found[0]
        raise self._unknown(character_id)

    def _last_look(self) -> _Look:
        if self._look is None:
            self.look()
        return self._look or _Look()

    def _forget(self, name: str) -> None:
        with self._lock:
            for known in (self._entries, self._open, self._opening):
                known.pop(name, None)

    def _unknown(self, character_id: str) -> UnknownCharacter:
        known = [name for name in self._last_look().listed if name != character_id]
        there = ", ".join(known[:_MAX_NAMED]) + (", ..." if len(known) > _MAX_NAMED else "")
        return UnknownCharacter(f"no character {character_id[:100]!r}; available: {there or 'none'}")


def _names(folder: Path) -> list[str]:
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as found:  # the folder may be taken away, too
        for entry in found:
            if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".") and entry.is_dir():
                names.append(entry.name.removesuffix(_SUFFIX))
    return sorted(names)


def _ids(names: list[str]) -> dict[str, str]:
    """The id of each pack: its name in NFC, unless that is another's, too."""
    forms = Counter(map(canonical, names))
    return {name: name if forms[canonical(name)] > 1 else canonical(name) for name in names}


def _files(path: Path) -> Files | None:
    """Path, inode, size and time of every file that determines a performance; None if there is no folder."""
    if not path.is_dir():
        return None
    found: list[tuple[str, int, int, int]] = []
    folders = [path, path / DRAWN, path / EMBEDDINGS]
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # being written
                    continue
                if entry.is_file():
                    about = entry.stat()
                    found.append((entry.path, about.st_ino, about.st_size, about.st_mtime_ns))
                elif folder.name == EMBEDDINGS and len(folders) < _MAX_EMBEDDINGS:
                    folders.append(Path(entry.path))
    return tuple(sorted(found))

"""Where files go: the folder for caches; and folders that are whole or absent, renamed to their place when done."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import InputError
from engine.leftovers import held

__all__ = [
    "HELPER",
    "cache_folder",
    "cache_places",
    "file_beside",
    "folder_beside",
    "private_folder",
    "replace_folder",
    "state_place",
    "temporary_places",
    "temporary_root",
    "whole_folder",
    "why_no_cache",
]

_NAME = "tango-rt"
_VARIABLE = "TANGO_RT_CACHE"
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # the last is left to containers whose disk is read-only
HELPER = ".tango-"
"""How names of what is not whole yet begin; short, because a name of the user may be as long as names can be."""

_holds: dict[Path, int] = {}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path | None:
    """The folder in which this user keeps what is slow to make; None where there is no place for one.

    It exists and can be written to. TANGO_RT_CACHE names it; else it is $XDG_CACHE_HOME/tango-rt, ~/.cache/tango-rt or,
    without a home that can be written to, tango-rt-UID in the folder for temporary files. What is made here is for its
    owner alone (mode 0700). Writing may fail all the same, on a full disk for example: a cache that cannot be kept is
    no error.
    """
    if given := os.environ.get(_VARIABLE):
        return Path(given) if _is_writable(Path(given)) else None
    return next((place for place in cache_places() if private_folder(place, once_shared=True)), None)


def cache_places() -> list[Path]:
    """Folders in which to look for what is cached, whoever filled them; they need not exist.

    For files whose content is checked before it is believed: an administrator may have put them where this user can
    only read.
    """
    if given := os.environ.get(_VARIABLE):
        return [Path(given)]
    return [*_home_place("XDG_CACHE_HOME", ".cache"), *temporary_places()]


def state_place() -> Path | None:
    """The folder for what this user must not lose and nobody else may see; None without a home. It need not exist.

    $XDG_STATE_HOME/tango-rt or ~/.local/state/tango-rt; never among temporary files, which go when they like.
    """
    return next(_home_place("XDG_STATE_HOME", ".local/state"), None)


def why_no_cache() -> str:
    """What to say where there is no folder for caches."""
    if given := os.environ.get(_VARIABLE):
        return f"{given}, which TANGO_RT_CACHE names, cannot be written"
    return "no folder for caches can be written, TANGO_RT_CACHE may name one"


def private_folder(place: Path, once_shared: bool = False) -> bool:
    """Make sure that `place` is a folder of this user that nobody else can change. False where it cannot be one.

    Code may be loaded from it: one that another owns, or that another may have put there, is never taken. once_shared:
    take a folder of this user that others could write to until now, for what is checked before it is believed.
    """
    user = os.geteuid()
    try:
        # who owns the folder above may exchange this one; and nothing of ours is left in another's home, as by sudo
        above = next(folder for folder in place.absolute().parents if folder.exists())
        if above.stat().st_uid not in (user, 0) or not _is_writable(place):
            return False
        about = place.stat()
        if {about.st_uid, place.lstat().st_uid} != {user}:  # a link is its owner's choice, too
            return False
        if about.st_mode & _OTHERS_WRITE and not once_shared:
            return False
        if about.st_mode & _OTHERS:
            place.chmod(0o700)
    except OSError:
        return False
    return True


def _home_place(variable: str, below_home: str) -> Iterator[Path]:
    given = os.environ.get(variable, "")
    if os.path.isabs(given):  # any other is to be ignored, says its specification
        yield Path(given) / _NAME
        return
    with suppress(RuntimeError):  # no HOME, and the system does not know this user
        home = Path.home()
        if home.is_absolute() and os.path.isdir(home):  # isdir, because HOME may be what this user cannot look into
            yield home / below_home / _NAME


def temporary_places() -> Iterator[Path]:
    """The folder by this user's number among temporary files, where there is a place for those; it need not exist."""
    if (root := temporary_root()) is not None:
        yield root / f"{_NAME}-{os.geteuid()}"


def temporary_root() -> Path | None:
    """The folder for temporary files of all: TMPDIR or the system's; None where none can be written to."""
    places = (os.environ.get("TMPDIR", ""), *TEMPORARY)
    usable = (place for place in places if os.path.isabs(place) and os.access(place, os.W_OK | os.X_OK))
    return next(map(Path, usable), None)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)


@contextmanager
def whole_folder(path: Path, marker: str, kind: str) -> Iterator[Path]:
    """Give a new folder to fill; it becomes `path` when the block ends, or vanishes when the block is left by an error.

    An older folder of the same kind, told by its file `marker`, is replaced only then. Raises InputError where
    something else is at `path` or the place cannot be written; `kind` is what to call it, "a bundle" for example.
    """
    if path.exists() and not (path / marker).is_file():
        raise InputError(f"{path} exists and is not {kind}: choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = folder_beside(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield folder
        try:
            replace_folder(path, folder)
        except OSError as error:
            raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(path: Path, folder: Path) -> None:
    """Rename `folder`, made by folder_beside, to `path`; what was there before goes when the new one is in place."""
    if not path.exists():
        folder.rename(path)
        return
    aside = folder_beside(path)
    try:
        path.rename(aside / "old")
        folder.rename(path)
    except BaseException:
        if not path.exists():  # between the two there is none: the old one comes back
            (aside / "old").rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def folder_beside(path: Path) -> Path:
    """A new folder on the same disk as `path`, hidden, as readable as any other of the user. Raises OSError."""
    _check_name(path)
    folder = Path(tempfile.mkdtemp(prefix=HELPER, dir=path.parent))
    folder.chmod(0o777 & ~_umask())  # mkdtemp makes a private one
    _hold(folder)
    return folder


def _hold(folder: Path) -> None:
    """Until it is renamed or removed, or this process ends, nobody takes it for a left-over."""
    for known in [known for known in list(_holds) if not known.exists()]:
        with suppress(KeyError):
            os.close(_holds.pop(known))
    if (lock := held(folder)) is not None:
        _holds[folder] = lock


def file_beside(path: Path) -> Path:
    """A new empty file on the same disk as `path`, hidden, as readable as any other of the user. Raises OSError."""
    _check_name(path)
    handle, name = tempfile.mkstemp(prefix=HELPER, suffix=".partial", dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())  # mkstemp makes a private one
    return Path(name)


def _check_name(path: Path) -> None:
    """Raises OSError for a name that is too long: here, and not when all is written."""
    with suppress(FileNotFoundError):
        path.lstat()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or 'is the disk full?'})")

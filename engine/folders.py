"""Where files go: the cache folder, and folders that appear complete or not at all, renamed into place when done."""

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
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # the last is all that containers with a read-only disk have
HELPER = ".tango-"
"""Prefix of unfinished files and folders; short, because a user's name may be as long as the file system allows."""

_holds: dict[Path, int] = {}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path | None:
    """This user's cache folder, for results that are slow to compute; None if there is no place for one.

    It exists and is writable. TANGO_RT_CACHE names it; else it is $XDG_CACHE_HOME/tango-rt, ~/.cache/tango-rt or,
    without a writable home, tango-rt-UID in the folder for temporary files. Folders made here are private to their
    owner (mode 0700). Writing may still fail, for example on a full disk: failing to cache is not an error.
    """
    if given := os.environ.get(_VARIABLE):
        return Path(given) if _is_writable(Path(given)) else None
    return next((place for place in cache_places() if private_folder(place, once_shared=True)), None)


def cache_places() -> list[Path]:
    """Folders to search for cached files, whoever filled them; they need not exist.

    Only for files whose content is checked before use: an administrator may have put them where this user can only
    read.
    """
    if given := os.environ.get(_VARIABLE):
        return [Path(given)]
    return [*_home_place("XDG_CACHE_HOME", ".cache"), *temporary_places()]


def state_place() -> Path | None:
    """The folder for files that this user must not lose and others must not see; None without a home. May not exist.

    $XDG_STATE_HOME/tango-rt or ~/.local/state/tango-rt; never a temporary folder, whose files may vanish at any time.
    """
    return next(_home_place("XDG_STATE_HOME", ".local/state"), None)


def why_no_cache() -> str:
    """Why there is no cache folder, for a message."""
    if given := os.environ.get(_VARIABLE):
        return f"{given}, named by TANGO_RT_CACHE, is not writable"
    return "there is no writable cache folder, set TANGO_RT_CACHE to one"


def private_folder(place: Path, once_shared: bool = False) -> bool:
    """Make sure that `place` is a folder of this user that nobody else can change. Returns False if that fails.

    Code may be loaded from it, so a folder that another user owns or may have put there is never accepted. once_shared:
    accept a folder of this user that others could write to until now, for files that are checked before use.
    """
    user = os.geteuid()
    try:
        # the owner of the parent folder could replace this one; and sudo must not leave our files in another's home
        above = next(folder for folder in place.absolute().parents if folder.exists())
        if above.stat().st_uid not in (user, 0) or not _is_writable(place):
            return False
        about = place.stat()
        if {about.st_uid, place.lstat().st_uid} != {user}:  # a link must be this user's too
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
    if os.path.isabs(given):  # the XDG specification says to ignore relative paths
        yield Path(given) / _NAME
        return
    with suppress(RuntimeError):  # no HOME, and the system does not know this user
        home = Path.home()
        if home.is_absolute() and os.path.isdir(home):  # isdir, because this user may not be allowed to read HOME
            yield home / below_home / _NAME


def temporary_places() -> Iterator[Path]:
    """This user's folder (named by uid) for temporary files, if there is a place for it; it need not exist."""
    if (root := temporary_root()) is not None:
        yield root / f"{_NAME}-{os.geteuid()}"


def temporary_root() -> Path | None:
    """The shared folder for temporary files: TMPDIR or the system's; None if none is writable."""
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
    """Yield a new folder to fill; it becomes `path` when the block ends, or is removed if the block raises.

    An older folder of the same kind, recognised by its file `marker`, is replaced only then. Raises InputError if
    something else is at `path` or the place is not writable; `kind` is what messages call it, for example "a bundle".
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
    """Rename `folder`, made by folder_beside, to `path`; an older folder there is removed once the new is in place."""
    if not path.exists():
        folder.rename(path)
        return
    aside = folder_beside(path)
    try:
        path.rename(aside / "old")
        folder.rename(path)
    except BaseException:
        if not path.exists():  # failed between the two renames: put the old one back
            (aside / "old").rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def folder_beside(path: Path) -> Path:
    """A new hidden folder on the same disk as `path`, with the user's default permissions. Raises OSError."""
    _check_name(path)
    folder = Path(tempfile.mkdtemp(prefix=HELPER, dir=path.parent))
    folder.chmod(0o777 & ~_umask())  # mkdtemp makes a private one
    _hold(folder)
    return folder


def _hold(folder: Path) -> None:
    """Keep others from sweeping the folder until it is renamed or removed, or this process ends."""
    for known in [known for known in list(_holds) if not known.exists()]:
        with suppress(KeyError):
            os.close(_holds.pop(known))
    if (lock := held(folder)) is not None:
        _holds[folder] = lock


def file_beside(path: Path) -> Path:
    """A new empty hidden file on the same disk as `path`, with the user's default permissions. Raises OSError."""
    _check_name(path)
    handle, name = tempfile.mkstemp(prefix=HELPER, suffix=".partial", dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())  # mkstemp makes a private one
    return Path(name)


def _check_name(path: Path) -> None:
    """Raises OSError for a name that is too long: at the start, not after everything is written."""
    with suppress(FileNotFoundError):
        path.lstat()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or 'is the disk full?'})")

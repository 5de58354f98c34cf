"""Folders that a process which was killed has left behind. A lock, which dies with its process, tells them from those
that somebody is filling: in another container, too, where numbers of processes mean nothing."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["held", "scratch_folder", "sweep"]

_OLD_S = (
    24 * 3600.0
)  # younger ones may be about to be locked, or be filled by an older version of this, which does not lock
_MAX_SWEPT = 1000

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing swept
    fcntl = None  # type: ignore[assignment]


def held(folder: Path) -> int | None:
    """A descriptor that keeps a folder from being swept for as long as it is open; None where that cannot be said."""
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


@contextmanager
def scratch_folder(prefix: str, root: Path | None) -> Iterator[Path]:
    """A folder for a moment. Raises OSError where there is no place for one."""
    with TemporaryDirectory(prefix=prefix, dir=root) as name:
        lock = held(Path(name))
        try:
            yield Path(name)
        finally:
            if lock is not None:
                os.close(lock)


def sweep(root: Path, prefix: str) -> list[Path]:
    """Remove the folders of this user in `root` whose names begin so, which are old and which nobody holds."""
    removed: list[Path] = []
    with suppress(OSError), os.scandir(root) as entries:
        for entry in islice((found for found in entries if found.name.startswith(prefix)), _MAX_SWEPT):
            with suppress(OSError):
                if _is_old(entry) and _remove(Path(entry.path)):
                    removed.append(Path(entry.path))
    return removed


def _is_old(entry: "os.DirEntry[str]") -> bool:
    about = entry.stat(follow_symlinks=False)
    mine = entry.is_dir(follow_symlinks=False) and about.st_uid == os.geteuid()
    return mine and time.time() - about.st_mtime > _OLD_S


def _remove(folder: Path) -> bool:
    lock = held(folder)
    if lock is None:
        return False
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
    return True

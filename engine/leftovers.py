"""Folders left over by killed processes. A lock, which ends with its process, tells them from folders in use, also
across containers, where process ids mean nothing."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["held", "scratch_folder", "sweep"]

# younger folders may be about to be locked, or in use by an older version of this project, which does not lock
_OLD_S = 24 * 3600.0
_MAX_SWEPT = 1000

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing is swept
    fcntl = None  # type: ignore[assignment]


def held(folder: Path) -> int | None:
    """A descriptor that keeps a folder from being swept while it is open; None if the folder cannot be locked."""
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
    """A temporary folder. Raises OSError if there is no place for one."""
    with TemporaryDirectory(prefix=prefix, dir=root) as name:
        lock = held(Path(name))
        try:
            yield Path(name)
        finally:
            if lock is not None:
                os.close(lock)


def sweep(root: Path, prefix: str) -> list[Path]:
    """Remove this user's folders in `root` with this prefix that are old and not locked; returns them."""
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

"""Folders that are whole or absent: written under another name beside their place, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InputError

__all__ = ["folder_beside", "replace_folder", "whole_folder"]


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
    """A new folder on the same disk as `path`, hidden, as readable as any other of the user."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)  # mkdtemp makes a private one
    return folder


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or 'is the disk full?'})")

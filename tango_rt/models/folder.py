"""Where the networks are kept on this machine, whether they are intact, and fetching them on first use."""

import atexit
import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

from engine.errors import BackendError
from engine.files import read_plain
from engine.folders import cache_folder, cache_places
from tango_rt.models.fetch import MAX_NETWORK_BYTES, FetchOptions, fetch
from tango_rt.models.published import HOLISTIC, ModelSet

__all__ = ["MODELS_VARIABLE", "FileState", "ensure_models", "file_states", "models_folder"]

MODELS_VARIABLE = "TANGO_RT_MODELS"

FileState = Literal["ok", "absent", "damaged"]


def models_folder(models: ModelSet = HOLISTIC) -> Path | None:
    """The folder of these networks: TANGO_RT_MODELS, else a cache that has them all, else a writable cache.

    None if no cache is writable. An administrator may have filled a cache that this user can only read.
    """
    if given := os.environ.get(MODELS_VARIABLE):
        return Path(given)
    for place in cache_places():
        folder = place / "models" / models.release
        if set(file_states(folder, models).values()) == {"ok"}:
            return folder
    writable = cache_folder()
    return None if writable is None else writable / "models" / models.release


def file_states(folder: Path, models: ModelSet = HOLISTIC) -> dict[str, FileState]:
    """Name of every network -> whether its file is present and has the right content."""
    return {file.name: _state(folder / file.name, file.sha256) for file in models.files}


def ensure_models(models: ModelSet = HOLISTIC) -> Path:
    """The folder with all networks, checked. Missing or damaged ones are fetched, with a note on standard error.

    If no cache is writable, they are fetched into a temporary folder that is removed when the process exits. Raises
    BackendError if they cannot be fetched.
    """
    folder = models_folder(models) or _folder_of_this_process()
    if set(file_states(folder, models).values()) != {"ok"}:
        fetch(models, folder, FetchOptions())
    return folder


def _state(file: Path, sha256: str) -> FileState:
    try:
        content = read_plain(file, MAX_NETWORK_BYTES)
    except OSError:
        return "damaged" if os.path.exists(file) else "absent"
    return "ok" if hashlib.sha256(content).hexdigest() == sha256 else "damaged"


@cache
def _folder_of_this_process() -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="tango-rt-models-"))
    except OSError as error:
        raise BackendError(f"no folder is writable to keep the networks in: set {MODELS_VARIABLE} or TMPDIR") from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

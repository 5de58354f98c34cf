"""Numba's compiler with a cache of its own: kernels are compiled once, and a disk error is never fatal.

Numba itself would cache code next to the sources or in the home folder, and refuses to work if it can write to neither.
Cached code is loaded and run unchecked, so here it is kept in a folder private to this user: in NUMBA_CACHE_DIR if that
is set, else in the cache folder, else in a temporary folder. Without any of these, every process compiles everything
again.
"""

import functools
import hashlib
import importlib.metadata
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from engine.folders import cache_folder, private_folder, temporary_places, why_no_cache
from engine.warn import warn_once

__all__ = ["FASTMATH", "kernel_folder", "njit"]

# All relaxations that keep NaN and infinity correct: path search uses inf for "unreachable".
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

_PACKAGE = Path(__file__).resolve().parent
_DECISIVE = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_INTEL_SVML", "DEBUGINFO_DEFAULT")

_log = logging.getLogger(__name__)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit(**options), with a cache that affects nothing but time."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        # with NUMBA_DISABLE_JIT, numba.njit returns the function itself
        if kernel_folder() is not None and hasattr(dispatcher, "enable_caching"):
            try:
                dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
            except (OSError, RuntimeError) as error:  # RuntimeError: NUMBA_CACHE_LOCATOR_CLASSES has found no place
                _warn_not_kept(str(error))
        return dispatcher

    return compiled


@functools.cache
def kernel_folder() -> Path | None:
    """Where this process keeps compiled kernels; None if there is no safe place."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    found = next((place for place in _places(given) if private_folder(place)), None)
    if found is None:
        _warn_not_kept(why_no_cache())
    elif given and Path(given) != found.parent:
        _warn(f"NUMBA_CACHE_DIR {given} is another user's or cannot be written: compiled kernels are kept in {found}")
    return found


def _places(given: str | None) -> Iterator[Path]:
    own = f"kernels-{os.geteuid()}"
    if given:
        yield Path(given) / own
    if (folder := cache_folder()) is not None:
        yield folder / own
    yield from (place / own for place in temporary_places() if private_folder(place))


class _Place:
    """Numba's cache locator for one function."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._py_file = function.__code__.co_filename
        self._module = function.__module__
        self._path = folder / hashlib.sha256(os.fsencode(_PACKAGE) + _settings().encode()).hexdigest()[:16]

    @classmethod
    def from_function(cls, function: Callable[..., Any], _: str) -> "_Place | None":
        folder = kernel_folder()
        return None if folder is None else cls(function, folder)

    def ensure_cache_path(self) -> None:
        self._path.mkdir(mode=0o700, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> str:
        return _sources_digest() + hashlib.sha256(Path(self._py_file).read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return self._module


class _Kept(CompileResultCacheImpl):
    _locator_classes = [_Place]  # noqa: RUF012


class _Cache(FunctionCache):
    """Compiles what cannot be read; what cannot be written is compiled again next time."""

    _impl_class = _Kept

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # damaged in some way: unpickling can raise anything
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]  # else it would stay damaged
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except Exception as error:  # a full disk, for example
            _warn_not_kept(f"{self.cache_path} cannot be written ({getattr(error, 'strerror', '') or error})")


def _settings() -> str:
    """Numba's settings that change the code; its own index would mix code with and without bounds checks."""
    return repr([(name, getattr(numba.config, name, None)) for name in _DECISIVE])


@functools.cache
def _sources_digest() -> str:
    """Of all kernels: compiled code includes the functions it calls in other files, which Numba does not check."""
    try:
        release = importlib.metadata.version("tango-rt")  # constants may come from anywhere in the package
    except importlib.metadata.PackageNotFoundError:
        release = ""
    digest = hashlib.sha256(release.encode())
    for file in sorted(_PACKAGE.rglob("kernels/*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _warn(text: str) -> None:
    if multiprocessing.parent_process() is None:  # once, not in every worker
        warn_once(_log, text)


def _warn_not_kept(reason: str) -> None:
    _warn(f"compiled kernels are not cached, every start takes half a minute longer: {reason}")

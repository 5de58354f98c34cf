"""Numba's compiler, and where what it has compiled is kept: nobody waits for it twice, and it never fails for a disk.

Numba itself would keep code beside the sources or in the home, and refuses to work where it can write to neither. Here
it is kept in a folder of this user alone, because it is loaded as it lies there and then run: in NUMBA_CACHE_DIR where
that is set, else in the folder for caches, else among temporary files. Without any of them all is compiled anew in
every process.
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

__all__ = ["FASTMATH", "kernel_folder", "njit"]

# Every relaxation that leaves NaN and infinity honest: path search uses inf for "unreachable".
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

_PACKAGE = Path(__file__).resolve().parent
_DECISIVE = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_INTEL_SVML", "DEBUGINFO_DEFAULT")

_log = logging.getLogger(__name__)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit(**options), with a cache that is of no consequence but for time."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        # NUMBA_DISABLE_JIT gives the function back as it is
        if kernel_folder() is not None and hasattr(dispatcher, "enable_caching"):
            try:
                dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
            except (OSError, RuntimeError) as error:  # RuntimeError: NUMBA_CACHE_LOCATOR_CLASSES has found no place
                _say_not_kept(str(error))
        return dispatcher

    return compiled


@functools.cache
def kernel_folder() -> Path | None:
    """Where this process keeps compiled kernels; None where there is no place that is safe."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    found = next((place for place in _places(given) if private_folder(place)), None)
    if found is None:
        _say_not_kept(why_no_cache())
    elif given and Path(given) != found.parent:
        _say(f"NUMBA_CACHE_DIR {given} is another user's or cannot be written: compiled kernels are kept in {found}")
    return found


def _places(given: str | None) -> Iterator[Path]:
    own = f"kernels-{os.geteuid()}"
    if given:
        yield Path(given) / own
    if (folder := cache_folder()) is not None:
        yield folder / own
    yield from (place / own for place in temporary_places() if private_folder(place))


class _Place:
    """What Numba asks of a cache locator, of one function."""

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
    """Whatever cannot be read is compiled, whatever cannot be written is compiled next time, too."""

    _impl_class = _Kept

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # damaged in any way: what is unpickled can raise anything
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]  # else it would stay so
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except Exception as error:  # a full disk, for example
            _say_not_kept(f"{self.cache_path} cannot be written ({getattr(error, 'strerror', '') or error})")


def _settings() -> str:
    """What of Numba's environment decides the code: its own index would give checked code for unchecked, and back."""
    return repr([(name, getattr(numba.config, name, None)) for name in _DECISIVE])


@functools.cache
def _sources_digest() -> str:
    """Of all kernels here: what was compiled holds what it calls in other files, which Numba does not look at."""
    try:
        release = importlib.metadata.version("tango-rt")  # constants come from all of the package
    except importlib.metadata.PackageNotFoundError:
        release = ""
    digest = hashlib.sha256(release.encode())
    for file in sorted(_PACKAGE.rglob("kernels/*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _say(text: str) -> None:
    if multiprocessing.parent_process() is None:  # said once, not by every worker
        _log.warning(text)


def _say_not_kept(reason: str) -> None:
    _say(f"compiled kernels are not kept, every start takes half a minute longer: {reason}")

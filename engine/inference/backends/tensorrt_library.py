"""TensorRT and TensorRT-RTX as Python modules: two names for one API, loaded quietly, with one error log each."""

import contextlib
import importlib
import io
import sys
import threading
import warnings
from collections import deque
from types import ModuleType
from typing import Any, Protocol

from engine.errors import BackendError
from engine.extras import install_line, not_installed

__all__ = ["ErrorLog", "error_log", "load", "version"]

# NVIDIA's own installer calls the module tensorrt_rtx, the PyPI packages call it tensorrt_rtx_bindings
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx")}
_LIBRARIES = {"tensorrt_rtx_bindings": "tensorrt_rtx_libs"}
_MAX_ERRORS = 8

_loading = threading.Lock()
_logs: dict[ModuleType, Any] = {}


class ErrorLog(Protocol):
    """A logger for every object of the library; nothing reaches the terminal."""

    def take(self) -> str:
        """Errors since the last call, in one line; "" if the library gave no reason."""


def load(backend: str) -> Any:
    """The module of "tensorrt" (10.x, 11.x) or "tensorrt-rtx"; no GPU is needed. Raises BackendError without it."""
    if backend not in _MODULES:
        raise ValueError(f"{backend!r} is not one of {', '.join(_MODULES)}")
    with _loading:
        for name in _MODULES[backend]:
            if (module := _import(backend, name)) is not None:
                return module
    raise not_installed(backend, backend)


def version(backend: str) -> str:
    """Version of the library, for example "10.13.2.6". Raises BackendError if it is missing."""
    return str(load(backend).__version__)


def error_log(library: Any) -> Any:
    """The ErrorLog of a loaded module, one per process.

    The library keeps using the first logger that it is given, so every object must be given this one.
    """
    with _loading:
        if library not in _logs:
            _logs[library] = _make_log(library)
        return _logs[library]


def _import(backend: str, name: str) -> Any:
    if sys.modules.get(name) is not None:
        return sys.modules[name]
    try:
        # the modules warn about old CUDA versions and print where they found their libraries
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            if name in _LIBRARIES:
                with contextlib.suppress(ModuleNotFoundError):  # the system may have them instead
                    importlib.import_module(_LIBRARIES[name])
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise _broken(backend, f"it lacks {error.name}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise _broken(backend, " ".join(str(error).split())[:200]) from error


def _broken(backend: str, reason: str) -> BackendError:
    return BackendError(f"{backend} is installed but broken ({reason}): {install_line(backend)}")


def _make_log(library: Any) -> Any:
    severity = library.ILogger.Severity
    failures = (severity.INTERNAL_ERROR, severity.ERROR)

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_MAX_ERRORS)

        def log(self, severity: Any, msg: str) -> None:
            if severity in failures:
                self._errors.append(" ".join(msg.split()))

        def take(self) -> str:
            errors = list(dict.fromkeys(self._errors))
            self._errors.clear()
            return "; ".join(errors)[:300]

    return Log()

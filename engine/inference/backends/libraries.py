"""The libraries that run networks on a CPU as modules: each is imported here alone, and reports to nobody."""

import importlib
import os
import sys
from types import ModuleType

from engine.errors import BackendError

__all__ = ["import_library", "import_onnxruntime", "import_openvino"]

_OPENVINO_REPORTS = "openvino_telemetry"


def import_onnxruntime() -> ModuleType:
    """The module onnxruntime. Raises BackendError where it is not installed or broken.

    From its first session on it would keep a database in the home of the user and send what it notes there to its
    maker. ORT_DISABLE_TELEMETRY, if it is set to anything, is left as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return _imported("onnxruntime")


def import_openvino() -> ModuleType:
    """The module openvino. Raises BackendError where it is not installed or broken.

    Its import would send a note to its maker and keep a number of this user in the home. Without the package that does
    so it takes a stub of its own, for good; who imports that package afterwards gets it. A program that has imported
    openvino before is left as it is.
    """
    before = sys.modules.get(_OPENVINO_REPORTS)
    sys.modules[_OPENVINO_REPORTS] = None  # type: ignore[assignment]  # what the import system takes for "not there"
    try:
        return _imported("openvino")
    finally:
        del sys.modules[_OPENVINO_REPORTS]
        if before is not None:
            sys.modules[_OPENVINO_REPORTS] = before


def import_library(backend: str) -> ModuleType:
    """That of onnxruntime or openvino. Raises BackendError where it is not installed or broken."""
    return import_onnxruntime() if backend == "onnxruntime" else import_openvino()


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise BackendError(f"{name} is not installed: pip install 'tango-rt[{name}]'") from error
        raise BackendError(f"{name} is installed but broken (it lacks {error.name}): install it again") from error
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"{name} is installed but broken ({reason}): install it again") from error

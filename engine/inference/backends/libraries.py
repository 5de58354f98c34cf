"""The libraries that run networks on a CPU as modules: each is imported here alone, and reports to nobody."""

import functools
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from engine.errors import BackendError
from engine.extras import not_installed

__all__ = [
    "distribution_version",
    "import_onnxruntime",
    "import_openvino",
    "installed_version",
    "shared_core",
    "why_not_installed",
]

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


@functools.cache
def shared_core() -> Any:
    """The one openvino.Core of this process.

    Where the CPU has AMX, each Core sets a stack for signals and puts the one before it back when it is freed. Of two
    that are freed in the order of their making the second puts back memory that is gone: the next signal, Ctrl-C for
    example, would kill the process.
    """
    return import_openvino().Core()


def why_not_installed(name: str) -> str | None:
    """None where there is a module of this name, which is not imported; else one line with what to install."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ValueError:  # it was taken out of sys.modules on purpose
        found = False
    return None if found else str(not_installed(name, name))


def installed_version(name: str, *distributions: str) -> str:
    """Version of the first distribution that is there, "" where pip did not install any.

    Raises BackendError where the module that they bring is missing.
    """
    if why_not_installed(name) is not None:
        raise not_installed(name, name)
    return next(filter(None, map(distribution_version, distributions)), "")


def distribution_version(name: str) -> str:
    """Version of what pip installed by this name; "" where it did not."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise not_installed(name, name) from error
        raise BackendError(f"{name} is installed but broken (it lacks {error.name}): install it again") from error
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"{name} is installed but broken ({reason}): install it again") from error

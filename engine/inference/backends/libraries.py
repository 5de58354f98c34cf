"""The libraries that run networks on a CPU: imported only here, with their telemetry off."""

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

_OPENVINO_TELEMETRY = "openvino_telemetry"


def import_onnxruntime() -> ModuleType:
    """The module onnxruntime. Raises BackendError if it is not installed or broken.

    By default, from its first session on, it keeps a database of telemetry in the user's home and sends it to its
    maker. If ORT_DISABLE_TELEMETRY is set to anything, it is left unchanged.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return _import("onnxruntime")


def import_openvino() -> ModuleType:
    """The module openvino. Raises BackendError if it is not installed or broken.

    By default its import reports to its maker and stores a user id in the home folder. If the telemetry package is
    missing during the import, openvino permanently uses a stub instead; other code can still import the package later.
    Has no effect if the program has imported openvino already.
    """
    before = sys.modules.get(_OPENVINO_TELEMETRY)
    sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # the import system takes None for missing
    try:
        return _import("openvino")
    finally:
        del sys.modules[_OPENVINO_TELEMETRY]
        if before is not None:
            sys.modules[_OPENVINO_TELEMETRY] = before


@functools.cache
def shared_core() -> Any:
    """The one openvino.Core of this process.

    On CPUs with AMX, each Core installs a signal stack and restores the previous one when it is freed. If two Cores are
    freed in the order of creation, the second restores memory that is already freed, and the next signal, for example
    Ctrl-C, kills the process.
    """
    return import_openvino().Core()


def why_not_installed(name: str) -> str | None:
    """One line with what to install if there is no module of this name, else None. The module is not imported."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ValueError:  # it was removed from sys.modules on purpose
        found = False
    return None if found else str(not_installed(name, name))


def installed_version(name: str, *distributions: str) -> str:
    """Version of the first of the distributions that is installed, "" if pip installed none.

    Raises BackendError if their module is missing.
    """
    if why_not_installed(name) is not None:
        raise not_installed(name, name)
    return next(filter(None, map(distribution_version, distributions)), "")


def distribution_version(name: str) -> str:
    """Version of the distribution that pip installed under this name; "" if there is none."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise not_installed(name, name) from error
        raise BackendError(f"{name} is installed but broken (it lacks {error.name}): install it again") from error
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"{name} is installed but broken ({reason}): install it again") from error

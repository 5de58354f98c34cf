"""Errors for installations without the extra `export`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import BackendError
from engine.extras import not_installed
from engine.folders import temporary_root

__all__ = ["export_extra", "stay_offline"]

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "diffusers", "polygraphy")
_SILENT = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def stay_offline() -> None:
    """Call before transformers or diffusers are imported: they then use local folders only, never the network."""
    for name in _OFFLINE:
        os.environ.setdefault(name, "1")


@contextmanager
def export_extra(torch: bool = True, downloads: bool = False) -> Iterator[None]:
    """Wraps commands that need the extra `export`: an error names what is missing and how to install it.

    torch: it is used, and needs a folder for temporary files; without one its errors are misleading.
    downloads: they may be requested. Telemetry is always off; the user's own settings are kept.
    """
    for name in _SILENT:
        os.environ.setdefault(name, "1")
    if not downloads:
        stay_offline()
    root = temporary_root()
    if root is not None:
        os.environ["TMPDIR"] = str(root)
    elif torch:
        raise BackendError("torch needs a folder for temporary files, and none is writable: set TMPDIR")
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in _PACKAGES:
            raise not_installed(error.name, "export") from error
        raise

"""What to say where only the run time is installed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import BackendError
from engine.folders import temporary_root

__all__ = ["export_extra"]

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "diffusers", "polygraphy")


@contextmanager
def export_extra(torch: bool = True) -> Iterator[None]:
    """Around commands that need the extra `export`: what is missing is named with how to install it.

    torch: it is used, and wants a folder for temporary files; without one its errors are about something else.
    """
    root = temporary_root()
    if root is not None:
        os.environ["TMPDIR"] = str(root)
    elif torch:
        raise BackendError("torch needs a folder for temporary files, and none can be written: name one by TMPDIR")
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in _PACKAGES:
            raise BackendError(f"{error.name} is not installed: pip install 'tango-rt[export]'") from error
        raise

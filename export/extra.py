"""What to say where only the run time is installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import BackendError

__all__ = ["export_extra"]

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "diffusers", "polygraphy")


@contextmanager
def export_extra() -> Iterator[None]:
    """Around commands that need the extra `export`: what is missing is named with how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in _PACKAGES:
            raise BackendError(f"{error.name} is not installed: pip install 'tango-rt[export]'") from error
        raise

"""Imports that run no external programs, which a library would otherwise look up in PATH."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_programs"]


@contextmanager
def without_programs() -> Iterator[None]:
    """Wraps the import of matplotlib, which would run fc-list to find system fonts; here it needs only its own.

    If it cannot find the program, it carries on without.
    """
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.devnull  # an empty PATH would mean the current folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before

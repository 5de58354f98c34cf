"""Imports that run no programs: what a library would find in the PATH is nobody's choice but the user's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_programs"]


@contextmanager
def without_programs() -> Iterator[None]:
    """Around an import of matplotlib: it would ask fc-list for fonts of the system, and draws with its own here.

    It takes a program that cannot be found for a system without one.
    """
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.devnull  # an empty one would mean the current folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before

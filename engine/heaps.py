"""How many heaps the C library keeps: memory freed in one cannot be used by threads of another.

glibc gives threads heaps of their own, up to eight per core. A process whose threads take turns allocating pictures and
messages then holds many times the memory it uses, and returns little of it.
"""

import ctypes
import os
import sys

__all__ = ["bound_heaps"]

_M_ARENA_MAX = -8  # malloc.h


def bound_heaps(n_heaps: int) -> None:
    """Make all threads share `n_heaps`. Does nothing if MALLOC_ARENA_MAX is set, or if the C library is not glibc."""
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, n_heaps)

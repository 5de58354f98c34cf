"""How many heaps the C library keeps: what one has freed, no thread of another can use.

glibc gives threads heaps of their own, up to eight a core. A process whose threads allocate pictures and messages by
turns then holds many times what it uses, and gives little of it back.
"""

import ctypes
import os
import sys

__all__ = ["bound_heaps"]

_M_ARENA_MAX = -8  # malloc.h


def bound_heaps(n_heaps: int) -> None:
    """From now on threads share `n_heaps`; MALLOC_ARENA_MAX, if it is set, is left as it is. Other C libraries than
    glibc know nothing of it and are left alone, too.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, n_heaps)

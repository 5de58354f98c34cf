"""Small files for a connection. The user may name a pipe or a device by mistake, which never ends."""

import os
import stat
from pathlib import Path

__all__ = ["read_small"]

_MAX_BYTES = 1 << 20
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_small(path: Path) -> bytes:
    """A regular file of at most 1 MiB. Raises OSError for anything else, without waiting."""
    with os.fdopen(os.open(path, _READING), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file", str(path))
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(0, f"more than {_MAX_BYTES} bytes", str(path))
    return content

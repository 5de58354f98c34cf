"""Speech through a pipe (`-`, /dev/stdin, <(...), a FIFO) can be read only once, so it is saved to a temporary file."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from engine.errors import InputError

__all__ = ["MAX_PIPED_BYTES", "is_pipe", "make_rereadable"]

MAX_PIPED_BYTES = 4 << 30
"""Limit of the temporary file. 4 hours of 16-bit stereo at 48 kHz take 2.8 GB."""

_BLOCK_BYTES = 1 << 20


def is_pipe(path: Path) -> bool:
    """Whether a path can be read only once."""
    if str(path) == "-":
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


@contextmanager
def make_rereadable(path: Path) -> Iterator[Path]:
    """The path itself, or for a pipe a temporary file with its content; errors still name the pipe.

    Raises InputError: nothing is connected, more than 4 GiB, or no space for the temporary file.
    """
    if not is_pipe(path):
        yield path
        return
    with ExitStack() as stack:
        try:
            file = Path(stack.enter_context(TemporaryDirectory(prefix="tango-rt-")), "piped")
            _save(path, file)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{_name(path)}: the input cannot be read or stored ({reason})") from error
        try:
            yield file
        except InputError as error:
            raise InputError(str(error).replace(str(file), _name(path))) from error


def _save(pipe: Path, file: Path) -> None:
    left = MAX_PIPED_BYTES
    with _opened(pipe) as source, file.open("wb") as target:
        while block := source.read(_BLOCK_BYTES):
            left -= len(block)
            if left < 0:
                raise InputError(f"{_name(pipe)}: more than {MAX_PIPED_BYTES >> 30} GiB of input: use a file")
            target.write(block)


def _name(pipe: Path) -> str:
    return "standard input" if str(pipe) == "-" else str(pipe)


def _opened(pipe: Path) -> IO[bytes]:
    """Open a pipe; descriptors are used directly, because a socket cannot be opened by its name."""
    named = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", str(pipe))
    descriptor = 0 if str(pipe) in ("-", "/dev/stdin") else int(named[1]) if named else None
    source = pipe.open("rb", buffering=0) if descriptor is None else os.fdopen(os.dup(descriptor), "rb", buffering=0)
    if source.isatty() or stat.S_ISCHR(os.fstat(source.fileno()).st_mode):
        source.close()
        raise InputError(f"{_name(pipe)}: is a terminal or a device, wanted a video or audio file or a pipe")
    return source

"""Speech through a pipe (`-`, /dev/stdin, <(...), a FIFO) can be read once; what is needed is a file to read again."""

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
"""Of the temporary file. 4 hours of 16-bit stereo at 48 kHz take 2.8 GB."""

_BLOCK_BYTES = 1 << 20


def is_pipe(path: Path) -> bool:
    """Whether what a path names can be read only once."""
    if str(path) == "-":
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


@contextmanager
def make_rereadable(path: Path) -> Iterator[Path]:
    """The path itself, or for a pipe a temporary file with what came through it; errors name the pipe all the same.

    Raises InputError: nothing is connected, more than 4 GiB, no room for the temporary file.
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
            raise InputError(f"{_name(path)}: what comes through cannot be read or kept ({reason})") from error
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
                raise InputError(f"{_name(pipe)}: more than {MAX_PIPED_BYTES >> 30} GiB came through: use a file")
            target.write(block)


def _name(pipe: Path) -> str:
    return "standard input" if str(pipe) == "-" else str(pipe)


def _opened(pipe: Path) -> IO[bytes]:
    """A descriptor is read as it is: one that is a socket cannot be opened by its name."""
    named = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", str(pipe))
    descriptor = 0 if str(pipe) in ("-", "/dev/stdin") else int(named[1]) if named else None
    source = pipe.open("rb", buffering=0) if descriptor is None else os.fdopen(os.dup(descriptor), "rb", buffering=0)
    if source.isatty() or stat.S_ISCHR(os.fstat(source.fileno()).st_mode):
        source.close()
        raise InputError(f"{_name(pipe)}: is a terminal or a device, wanted a video or audio file or a pipe")
    return source

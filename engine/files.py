"""Reading untrusted files: only regular files of bounded size, and without ever blocking.

Opening a FIFO in a pack would block for ever, reading a device or a sparse file would fill the memory, and a link could
lead anywhere.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ArtifactError, BackendError, TangoError
from engine.names import shown

__all__ = ["open_plain", "plain_size", "read_plain", "reading"]

_LACKING = {
    errno.EMFILE: "this process has too many files open, see 'ulimit -n'",
    errno.ENFILE: "this machine has too many files open",
    errno.ENOMEM: "there is not enough memory",
}

# without O_NONBLOCK, opening a FIFO blocks until there is a writer
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_PIECE_BYTES = 1 << 20
_MAX_REASON = 200  # characters


def open_plain(path: Path, follow_links: bool = True) -> int:
    """A read-only descriptor of a regular file; the caller closes it. Raises OSError for anything else.

    follow_links: whether the file itself may be a link. Its parent folders may always be links.
    """
    if not follow_links and path.is_symlink():  # for systems without O_NOFOLLOW, and for a better message
        raise OSError(errno.ELOOP, "a link, expected a regular file", str(path))
    descriptor = os.open(path, _READING | (0 if follow_links else _NO_LINK))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def read_plain(path: Path, most_bytes: int, follow_links: bool = True) -> bytes:
    """The content of a regular file. Raises OSError, also if it has more than `most_bytes`, which are never read."""
    descriptor = open_plain(path, follow_links)
    try:
        size = os.fstat(descriptor).st_size
        pieces: list[bytes] = []
        n_read = 0
        while size <= most_bytes and n_read <= most_bytes:
            piece = os.read(descriptor, min(_PIECE_BYTES, most_bytes + 1 - n_read))
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            n_read += len(piece)
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, f"{max(size, n_read)} bytes, at most {most_bytes} are allowed", str(path))


def plain_size(path: Path) -> int:
    """Size in bytes of a regular file; raises ValueError for links, devices and missing files."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    if not path.exists():
        raise ValueError(f"{path.name} is missing")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    return status.st_size


@contextmanager
def reading(path: Path | str, damaged: str, remedy: str) -> Iterator[None]:
    """Read an untrusted file: any exception in the block becomes ArtifactError, "PATH DAMAGED (why): REMEDY".

    No list of exceptions would be complete: one changed byte in the header of a .npy file raises six kinds. Only a lack
    of memory or descriptors is not the file's fault, and becomes BackendError.
    """
    try:
        yield
    except TangoError:
        raise
    except OSError as error:
        if error.errno in _LACKING:
            raise BackendError(f"{path} cannot be read now: {_LACKING[error.errno]}") from error
        raise ArtifactError(f"{path} {damaged} ({_os_reason(error)}): {remedy}") from error
    except MemoryError as error:
        raise BackendError(f"{path} cannot be read now: {_LACKING[errno.ENOMEM]}") from error
    except Exception as error:
        raise ArtifactError(f"{path} {damaged} ({_brief(error)}): {remedy}") from error


def _brief(error: Exception) -> str:
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    text = shown(text)  # some messages quote everything that could not be read
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]} ..."


def _os_reason(error: OSError) -> str:
    what = error.strerror or str(error)
    return what if error.filename is None else f"{Path(os.fsdecode(error.filename)).name}: {what}"

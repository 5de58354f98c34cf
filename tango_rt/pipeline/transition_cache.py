"""The cache of a pack's transitions: a folder of bounded size, shared by any number of processes.

    transitions/KEY/I-J.gops    a BLAKE2 hash (32 bytes), 8 sizes (uint32, little endian), then the 8 encoded pictures

The hash is keyed by the pack and covers the cut: pictures of another pack or another cut, and damaged ones, count as
missing. So does everything that is not a plain file of a few megabytes. The least recently used go first, by the
modification time, which reading updates. Everything here can be recomputed; what cannot be written (a full disk, a
read-only pack) is kept in memory.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np

from engine.character.pack import CharacterPack
from engine.character.video import is_closed_group
from engine.files import read_plain
from engine.motion_graph.graph import Cut
from engine.timebase import FRAMES_PER_NODE

__all__ = ["CACHE_LIMIT_BYTES", "FOLDER", "TransitionCache"]

CACHE_LIMIT_BYTES = 2 << 30
"""Per pack: about 14,000 transitions of 1280x720."""

FOLDER = "transitions"
_N_PICTURES = 2 * FRAMES_PER_NODE
_HEADER = np.dtype("<u4")
_DIGEST_BYTES = 32
_HEAD_BYTES = _N_PICTURES * _HEADER.itemsize
_MAX_BYTES = 64 << 20  # per transition; one of 1280x720 has 0.15 MB
# never opens an existing file: a link or a FIFO of this name may have come with the pack
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_TO_KEEP = 0.9  # of the limit, once it was reached: so that not every new file causes a scan
_LOOK_EVERY = 256  # files written between scans, because other processes write, too
_PARTIAL_S = 3600.0  # a partial file this old will not be finished


class TransitionCache:
    """The transitions of one pack under one key. Threads may share it."""

    def __init__(
        self, pack: CharacterPack, key: str, limit_bytes: int = CACHE_LIMIT_BYTES, memory_bytes: int = 32 << 20
    ) -> None:
        """limit_bytes: on disk, of all of the pack; memory_bytes: of what cannot be written."""
        self._root = pack.path / FOLDER
        self._secret = bytes.fromhex(pack.sha256)
        self._folder = self._root / key
        self._limit_bytes = limit_bytes
        self._memory_bytes = memory_bytes
        self._unsaved: OrderedDict[Cut, list[bytes]] = OrderedDict()
        self._unsaved_bytes = 0
        self._known_bytes: int | None = None  # total size of the pack's cache
        self._n_written = 0
        self._lock = threading.Lock()  # guards what is in memory
        self._writing = threading.Lock()  # separate, so that no reader waits for a slow disk

    def __contains__(self, cut: Cut) -> bool:
        return self.read(cut) is not None

    def read(self, cut: Cut) -> list[bytes] | None:
        """The 8 pictures, None if they are not cached."""
        with self._lock:
            if cut in self._unsaved:
                self._unsaved.move_to_end(cut)
                return self._unsaved[cut]
        file = self._file(cut)
        try:
            if self._leads_away(file):
                return None
            data = read_plain(file, _MAX_BYTES, follow_links=False)
        except OSError:
            return None
        pictures = _pictures(data[_DIGEST_BYTES:]) if data[:_DIGEST_BYTES] == self._digest(cut, data) else None
        if pictures is None:
            return None
        with suppress(OSError):
            os.utime(file)
        return pictures

    def keep(self, cut: Cut, pictures: list[bytes]) -> None:
        """Store pictures on disk, else in memory."""
        data = np.array([len(picture) for picture in pictures], _HEADER).tobytes() + b"".join(pictures)
        data = self._digest(cut, bytes(_DIGEST_BYTES) + data) + data
        with self._writing:
            written = len(data) <= self._limit_bytes and self._write(self._file(cut), data)
            if written:
                self._make_room(len(data))
        if not written:
            with self._lock:
                self._keep_in_memory(cut, pictures)

    def discard(self, cuts: Collection[Cut]) -> None:
        """Forget these cuts."""
        with self._lock:
            for cut in cuts:
                self._forget(cut)
        if not self._leads_away(self._folder):
            for cut in cuts:
                with suppress(OSError):
                    self._file(cut).unlink()

    def _digest(self, cut: Cut, data: bytes) -> bytes:
        """Hash of everything after the hash in the file of a cut."""
        digest = hashlib.blake2b(f"{cut[0]}-{cut[1]}".encode(), digest_size=_DIGEST_BYTES, key=self._secret)
        digest.update(memoryview(data)[_DIGEST_BYTES:])
        return digest.digest()

    def _file(self, cut: Cut) -> Path:
        return self._folder / f"{cut[0]}-{cut[1]}.gops"

    def _leads_away(self, path: Path) -> bool:
        """Whether a link leads a path of the cache out of the pack, which is untrusted."""
        return any(part.is_symlink() for part in (path, self._folder, self._root))

    def _write(self, file: Path, data: bytes) -> bool:
        if self._leads_away(self._folder):
            return False
        partial = file.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
        try:
            self._root.mkdir(exist_ok=True)  # never with its parents: the pack may have been deleted
            self._folder.mkdir(exist_ok=True)
            with os.fdopen(os.open(partial, _NEW_FILE, 0o666), "wb") as opened:
                opened.write(data)
            partial.replace(file)
        except OSError:
            return False
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return True

    def _keep_in_memory(self, cut: Cut, pictures: list[bytes]) -> None:
        self._forget(cut)
        self._unsaved[cut] = pictures
        self._unsaved_bytes += sum(map(len, pictures))
        while self._unsaved_bytes > self._memory_bytes and len(self._unsaved) > 1:
            self._forget(next(iter(self._unsaved)))

    def _forget(self, cut: Cut) -> None:
        self._unsaved_bytes -= sum(map(len, self._unsaved.pop(cut, ())))

    def _make_room(self, n_bytes: int) -> None:
        self._n_written += 1
        if self._known_bytes is not None and self._n_written % _LOOK_EVERY:
            self._known_bytes += n_bytes
            if self._known_bytes <= self._limit_bytes:
                return
        files = sorted(_files(self._root))
        self._known_bytes = sum(size for _, size, _ in files)
        if self._known_bytes <= self._limit_bytes:
            return
        for _, size, path in files:
            with suppress(OSError):  # another process was faster
                os.unlink(path)
            self._known_bytes -= size
            if self._known_bytes <= _TO_KEEP * self._limit_bytes:
                return


def _pictures(data: bytes) -> list[bytes] | None:
    """The 8 pictures that follow their sizes; None if they are not two H.264 groups."""
    sizes = np.frombuffer(data[:_HEAD_BYTES].ljust(_HEAD_BYTES, b"\0"), _HEADER)
    ends = (_HEAD_BYTES + np.cumsum(sizes, dtype=np.int64)).tolist()
    if ends[-1] != len(data):
        return None
    pictures = [data[a:b] for a, b in pairwise([_HEAD_BYTES, *ends])]
    groups = pictures[:FRAMES_PER_NODE], pictures[FRAMES_PER_NODE:]
    return pictures if all(map(is_closed_group, groups)) else None


def _files(root: Path) -> list[tuple[float, int, str]]:
    """Time of last use, size and path of every file of a cache; abandoned partial files are removed."""
    found = []
    with suppress(OSError):
        for folder in [folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()]:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        state = entry.stat(follow_symlinks=False)
                        if entry.name.endswith(".partial") and time.time() - state.st_mtime > _PARTIAL_S:
                            os.unlink(entry.path)
                        elif entry.name.endswith(".gops") and entry.is_file(follow_symlinks=False):
                            found.append((state.st_mtime, state.st_size, entry.path))
    return found

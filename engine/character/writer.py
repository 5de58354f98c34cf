"""Writing a pack: completely or not at all, with the hashes that identify it."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from engine.character.arrays import array_bytes
from engine.character.info import PackInfo, legible
from engine.character.pack import SUFFIX, CharacterPack
from engine.character.video import node_digest
from engine.errors import InputError
from engine.folders import folder_beside, replace_folder
from engine.names import canonical, unfit
from engine.timebase import FRAMES_PER_NODE

__all__ = ["PackWriter", "check_name"]


class PackWriter:
    """Writes a pack into a temporary `folder` next to `path`; `commit` renames it. Without commit nothing remains."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix != SUFFIX:
            raise InputError(f"{self.path} must end in {SUFFIX}, for example anna{SUFFIX}")
        check_name(self.path)
        with self._writing():
            if self.path.exists() and not (self.path / "pack.json").is_file():
                raise InputError(f"{self.path} exists and is not a character pack: choose another name")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.folder = folder_beside(self.path)
        self._video = (self.folder / "video.h264").open("wb")
        self._packet_start = [0]
        self._node_sha256: list[bytes] = []
        self._node: list[bytes] = []  # pictures of the incomplete node

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # buffered data may not fit on a full disk
            self._video.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def n_frames(self) -> int:
        return len(self._packet_start) - 1

    def add_packets(self, packets: Iterable[bytes]) -> None:
        """Append encoded pictures, in order."""
        with self._writing():
            for packet in packets:
                self._video.write(packet)
                self._packet_start.append(self._packet_start[-1] + len(packet))
                self._node.append(packet)
                if len(self._node) == FRAMES_PER_NODE:
                    self._node_sha256.append(node_digest(self._node))
                    self._node.clear()

    def commit(self, info: PackInfo, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays (all of ARRAYS but those of the pictures) and pack.json, then rename the folder into place.

        Raises InputError if they cannot be written.
        """
        arrays = {**arrays, "packet_start": np.array(self._packet_start), "node_sha256": self._digests()}
        hashes: dict[str, str] = {}
        with self._writing():
            self._video.close()
            for name, array in arrays.items():
                content = array_bytes(name, array)
                (self.folder / f"{name}.npy").write_bytes(content)
                hashes[name] = hashlib.sha256(content).hexdigest()
            written = replace(legible(info), sha256=hashes)
            (self.folder / "pack.json").write_text(written.to_json(), "utf-8")
            CharacterPack.open(self.folder)  # make sure it can be read: a bad pack must never replace a good one
            replace_folder(self.path, self.folder)

    def _digests(self) -> np.ndarray:
        return np.frombuffer(b"".join(self._node_sha256), np.uint8).reshape(-1, 32)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or 'is the disk full?'})") from error


def check_name(path: Path) -> None:
    """Raises InputError for a name that clients could not request, or that differs from another pack's only in
    spelling.
    """
    if (reason := unfit(path.stem)) is not None:
        raise InputError(f"{path}: a character cannot be called {path.stem!a}, which {reason}: choose another name")
    with suppress(OSError):
        for other in path.parent.iterdir():
            if other.name != path.name and canonical(other.name) == canonical(path.name):
                raise InputError(
                    f"{path} and {other} are the same name in two spellings ({path.name!a}, {other.name!a}): use the "
                    "second to replace it, or choose another name"
                )

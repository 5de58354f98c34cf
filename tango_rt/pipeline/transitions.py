"""Transition frames of a pack: computed once for a cut and a blender, kept as the encoded pictures that they replace.

The frames of a cut depend on (node, node, blender) alone, so a file of the pack holds them for ever:

    transitions/BLENDER-KEY/I-J.gops    8 sizes (uint32, little endian), then the 8 encoded pictures
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import numpy as np

from engine.errors import ArtifactError, BackendError
from engine.pack import CharacterPack
from engine.timebase import FRAMES_PER_NODE
from engine.transitions import BlendOptions, Take, blend_gap, blend_sync
from tango_rt.interrupts import interrupts_held
from tango_rt.video.gop import GopDecoder, GopEncoder

__all__ = ["TransitionMaker", "TransitionStore"]

BLENDER_VERSION = 1
"""Counts changes of what the blenders draw: transitions cached under another number are made anew."""

N_FRAMES = 2 * FRAMES_PER_NODE
_HEADER = np.dtype("<u4")
_START_CODE_BYTES = 4

Cut = tuple[int, int]


class TransitionMaker:
    """Decodes both sides of a cut, blends them and encodes the result. One process, one maker."""

    def __init__(self, pack: CharacterPack, options: BlendOptions) -> None:
        self._pack = pack
        self._options = options
        info = pack.info
        self._decoder = GopDecoder(info.extradata, info.width, info.height)
        self._encoder = GopEncoder(info.width, info.height, expected_extradata=info.extradata)

    def make(self, cut: Cut) -> list[bytes]:
        """The 8 encoded pictures that replace nodes i and j of the cut i -> j."""
        frames = self.blend(cut)
        return [
            packet
            for half in (frames[:FRAMES_PER_NODE], frames[FRAMES_PER_NODE:])
            for packet in self._encoder.encode(half)
        ]

    def blend(self, cut: Cut) -> np.ndarray:
        """The 8 generated frames, uint8 (8, height, width, 3) RGB.

        Sync wherever both takes run on beyond the cut; gap at the ends of clips, where one of them has no such frames.
        """
        i, j = cut
        graph = self._pack.graph
        if graph.has_sync(i, j):
            return blend_sync(self._take(i, i + 1), self._take(j - 1, j), self._options)
        clip_of = np.searchsorted(graph.clip_start, [i - 1, i, j, j + 1], side="right")
        if clip_of[0] == clip_of[1] and clip_of[2] == clip_of[3]:
            return blend_gap(self._take(i - 1), self._take(j + 1), self._options)
        return np.concatenate([self._take(i).frames, self._take(j).frames])

    def _take(self, *nodes: int) -> Take:
        pack = self._pack
        frames = slice(nodes[0] * FRAMES_PER_NODE, (nodes[-1] + 1) * FRAMES_PER_NODE)
        joints = np.asarray(pack["joints"][frames, :, :2])
        if not np.isfinite(joints).all():  # too many to be looked at when the pack is opened
            raise ArtifactError(f"{pack.path} is damaged (joints that are not finite): rebuild it")
        return Take(
            frames=self._decoder.decode([packet for node in nodes for packet in pack.packets(node)]),
            joints=joints,
            confidence=np.asarray(pack["confidence"][frames]),
            hands_found=np.asarray(pack["hands_found"][frames]),
            surface=np.asarray(pack["surface"][frames]),
        )


class TransitionStore:
    """The transitions of one pack for one blender: from the cache, or made and cached.

    A pack on a read-only disk still works: what cannot be cached is kept for as long as the store lives.
    """

    def __init__(self, pack: CharacterPack, options: BlendOptions) -> None:
        self._pack = pack
        self._options = options
        self._folder = pack.path / "transitions" / _cache_key(pack, options)
        self._unsaved: dict[Cut, list[bytes]] = {}
        self._maker: TransitionMaker | None = None

    def cached(self, cut: Cut) -> bool:
        """Whether the transition can be had without computing."""
        return cut in self._unsaved or self._read(cut) is not None

    def packets(self, cut: Cut) -> list[bytes]:
        """The 8 encoded pictures of a cut, computed here and now if they have to be."""
        known = self._unsaved.get(cut) or self._read(cut)
        if known is not None:
            return known
        if self._maker is None:
            self._maker = TransitionMaker(self._pack, self._options)
        made = self._maker.make(cut)
        self._keep(cut, made)
        return made

    def prepare(self, cuts: Iterable[Cut], n_workers: int) -> Generator[Cut, None, None]:
        """Compute and cache the cuts in worker processes; yields each as it is done."""
        missing = [cut for cut in dict.fromkeys(cuts) if not self.cached(cut)]
        n_workers = min(n_workers, len(missing) // 2)  # the start of a process takes as long as a few transitions
        if n_workers < 2:
            for cut in missing:
                self.packets(cut)
                yield cut
            return
        executor = ProcessPoolExecutor(n_workers, get_context("spawn"), _start_worker, (self._pack.path, self._options))
        others = set(active_children())
        try:
            with interrupts_held():
                # not map: it cancels what is left behind the executor's back, which then trips over it
                made = deque(executor.submit(_work, cut) for cut in missing)
            for cut in missing:
                self._keep(cut, made.popleft().result())
                yield cut
        except BrokenProcessPool as error:
            raise BackendError(
                "a process that draws transitions ended unexpectedly: free some memory, or try --jobs 1"
            ) from error
        except BaseException:
            # what they are at is of no use any more, and nobody wants to wait for it
            for worker in set(active_children()) - others:
                worker.kill()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _file(self, cut: Cut) -> Path:
        return self._folder / f"{cut[0]}-{cut[1]}.gops"

    def _read(self, cut: Cut) -> list[bytes] | None:
        """The cached pictures; a file that is damaged or of a stranger's making counts as absent."""
        file = self._file(cut)
        try:
            if self._leads_away(file):
                return None
            data = file.read_bytes()
        except OSError:
            return None
        head = N_FRAMES * _HEADER.itemsize
        if len(data) <= head:
            return None
        sizes = np.frombuffer(data[:head], _HEADER)
        ends = head + np.cumsum(sizes, dtype=np.int64)
        if ends[-1] != len(data) or sizes.min() <= _START_CODE_BYTES:
            return None
        return [data[a:b] for a, b in zip([head, *ends[:-1]], ends, strict=True)]

    def _leads_away(self, path: Path) -> bool:
        """Whether a link takes a path of the cache out of the pack, which may come from a stranger."""
        return any(part.is_symlink() for part in (path, self._folder, self._folder.parent))

    def _keep(self, cut: Cut, packets: list[bytes]) -> None:
        sizes = np.array([len(packet) for packet in packets], _HEADER)
        if self._leads_away(self._folder):
            self._unsaved[cut] = packets
            return
        file = self._file(cut)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(sizes.tobytes() + b"".join(packets))
            partial.replace(file)
        except OSError:
            self._unsaved[cut] = packets
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _cache_key(pack: CharacterPack, options: BlendOptions) -> str:
    """Names the blender and everything else that decides the pixels and their encoding."""
    decisive = repr((BLENDER_VERSION, options)).encode() + pack.info.extradata
    return f"{options.blender}-{hashlib.sha256(decisive).hexdigest()[:12]}"


_worker_maker: TransitionMaker | None = None


def _start_worker(path: Path, options: BlendOptions) -> None:
    import cv2

    threading.Thread(target=_leave_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the processes share the cores already
    global _worker_maker
    _worker_maker = TransitionMaker(CharacterPack.open(path), options)


def _leave_with_parent() -> None:
    # the queue of an executor never tells its workers that the parent was killed
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(cut: Cut) -> list[bytes]:
    assert _worker_maker is not None
    return _worker_maker.make(cut)

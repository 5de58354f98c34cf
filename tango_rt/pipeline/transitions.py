"""Transition frames of a pack: computed once for a cut and a blender, kept as the encoded pictures that they replace.

The frames of a cut depend on (node, node, blender) alone, so they are kept in the pack (transition_cache).
"""

import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import cv2
import numpy as np

from engine.blending.morph import TRANSITION_FRAMES, BlendOptions, Take, blend_gap, blend_sync
from engine.character.pack import CharacterPack
from engine.errors import BackendError
from engine.motion_graph.graph import Cut
from engine.timebase import FRAMES_PER_NODE
from tango_rt.interrupts import interrupts_held
from tango_rt.pipeline.transition_cache import TransitionCache
from tango_rt.video.gop import GopDecoder, GopEncoder, GopOptions

__all__ = ["TransitionMaker", "TransitionStore", "cache_key"]

_log = logging.getLogger(__name__)

BLENDER_VERSIONS = {"flow": 1, "crossfade": 2, "cut": 2}
"""Count changes of what the blenders draw: transitions cached under another number are made anew."""

# Mixed pictures are dear to encode: 35 ms for 4 of 720p instead of 59, half a decibel less.
_FADE_ENCODING = GopOptions(preset="superfast")


class TransitionMaker:
    """Decodes both sides of a cut, blends them and encodes the result. One process, one maker."""

    def __init__(self, pack: CharacterPack, options: BlendOptions) -> None:
        self._pack = pack
        self._options = options
        info = pack.info
        name = f"the video of {pack.path}"
        self._decoder = GopDecoder(info.extradata, info.width, info.height, name)
        self._encoder = GopEncoder(info.width, info.height, GopOptions(), info.extradata, name)
        self._fade_encoder = GopEncoder(info.width, info.height, _FADE_ENCODING, info.extradata, name)

    def make(self, cut: Cut) -> list[bytes]:
        """The 8 encoded pictures that replace nodes i and j of the cut i -> j."""
        if self._options.blender == "cut":
            return [packet for node in cut for packet in self._pack.packets(node)]
        if self._options.blender == "crossfade":
            return [packet for half in (0, 1) for packet in self.crossfade(cut, half)]
        frames = self.blend(cut)
        return [
            packet
            for half in (frames[:FRAMES_PER_NODE], frames[FRAMES_PER_NODE:])
            for packet in self._encoder.encode(half)
        ]

    def crossfade(self, cut: Cut, half: int) -> list[bytes]:
        """4 of the 8 pictures of a crossfade, half 0 or 1, at half the cost of both."""
        weights = np.arange(1, TRANSITION_FRAMES + 1).reshape(2, FRAMES_PER_NODE)[half] / (TRANSITION_FRAMES + 1)
        i, j = cut
        if self._pack.graph.has_sync(i, j):
            return self._mixed(self._planes(i + half), self._planes(j - 1 + half), weights)
        if not self._has_gap(cut):
            return self._pack.packets(cut[half])
        before, after = self._planes(i - 1)[-1], self._planes(j + 1)[0]
        return self._mixed([before] * FRAMES_PER_NODE, [after] * FRAMES_PER_NODE, weights)

    def late_crossfade(self, cut: Cut) -> list[bytes]:
        """4 pictures that lead from node i, shown as it is, into node j: for the second half when the first is over."""
        i, j = cut
        goes_on = self._pack.graph.has_sync(i, j)
        before = list(self._planes(i + 1)) if goes_on else [self._planes(i)[-1]] * FRAMES_PER_NODE
        weights = np.arange(1, FRAMES_PER_NODE + 1) / (FRAMES_PER_NODE + 1)
        return self._mixed(before, self._planes(j), weights)

    def _mixed(self, a: Iterable[np.ndarray], b: Iterable[np.ndarray], weights: np.ndarray) -> list[bytes]:
        """Mixing planes is mixing colours, and saves four conversions."""
        mixed = [cv2.addWeighted(one, 1 - w, other, w, 0) for one, other, w in zip(a, b, weights.tolist(), strict=True)]
        return self._fade_encoder.encode_i420(np.stack(mixed))

    def _planes(self, node: int) -> np.ndarray:
        return self._decoder.decode_i420(self._pack.packets(node))

    def _has_gap(self, cut: Cut) -> bool:
        """Whether both clips have a node on the far side of the cut."""
        i, j = cut
        clip_of = np.searchsorted(self._pack.graph.clip_start, [i - 1, i, j, j + 1], side="right")
        return bool(clip_of[0] == clip_of[1] and clip_of[2] == clip_of[3])

    def blend(self, cut: Cut) -> np.ndarray:
        """The 8 generated frames, uint8 (8, height, width, 3) RGB.

        Sync wherever both takes run on beyond the cut; gap at the ends of clips, where one of them has no such frames.
        """
        i, j = cut
        if self._pack.graph.has_sync(i, j):
            return blend_sync(self._take(i, i + 1), self._take(j - 1, j), self._options)
        if self._has_gap(cut):
            return blend_gap(self._take(i - 1), self._take(j + 1), self._options)
        return np.concatenate([self._take(i).frames, self._take(j).frames])

    def _take(self, *nodes: int) -> Take:
        pack = self._pack
        frames = slice(nodes[0] * FRAMES_PER_NODE, (nodes[-1] + 1) * FRAMES_PER_NODE)
        return Take(
            frames=self._decoder.decode([packet for node in nodes for packet in pack.packets(node)]),
            joints=np.asarray(pack["joints"][frames, :, :2]),
            confidence=np.asarray(pack["confidence"][frames]),
            hands_found=np.asarray(pack["hands_found"][frames]),
            surface=np.asarray(pack["surface"][frames]),
        )


class TransitionStore:
    """The transitions of one pack for one blender: from the cache, or made and cached.

    cached, known and keep may be called by any thread, the others by one at a time.
    """

    def __init__(self, pack: CharacterPack, options: BlendOptions, cache: TransitionCache | None = None) -> None:
        """cache: one that is shared, of the same pack and key."""
        self.pack = pack
        self.options = options
        self.key = cache_key(pack, options)
        self._cache = cache or TransitionCache(pack, self.key)
        self._maker: TransitionMaker | None = None

    def cached(self, cut: Cut) -> bool:
        """Whether the transition can be had without computing."""
        return cut in self._cache

    def known(self, cut: Cut) -> list[bytes] | None:
        """The 8 encoded pictures of a cut, if they need not be computed."""
        return self._cache.read(cut)

    def keep(self, cut: Cut, packets: list[bytes]) -> None:
        """Put into the cache what was made elsewhere."""
        self._cache.keep(cut, packets)

    def packets(self, cut: Cut) -> list[bytes]:
        """The 8 encoded pictures of a cut, computed here and now if they have to be."""
        known = self.known(cut)
        if known is not None:
            return known
        if self._maker is None:
            self._maker = TransitionMaker(self.pack, self.options)
        made = self._maker.make(cut)
        self.keep(cut, made)
        return made

    def prepare(self, cuts: Iterable[Cut], n_workers: int) -> Generator[Cut, None, None]:
        """Compute and cache the cuts in worker processes; yields each as it is done."""
        missing = [cut for cut in dict.fromkeys(cuts) if not self.cached(cut)]
        n_workers = min(n_workers, len(missing) // 2)  # the start of a process takes as long as a few transitions
        executor = self._executor(n_workers) if n_workers > 1 else None
        if executor is None:
            for cut in missing:
                self.packets(cut)
                yield cut
            return
        others = set(active_children())
        try:
            with interrupts_held():
                # not map: it cancels what is left behind the executor's back, which then trips over it
                made = deque(executor.submit(_work, cut) for cut in missing)
            for cut in missing:
                self.keep(cut, made.popleft().result())
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

    def _executor(self, n_workers: int) -> ProcessPoolExecutor | None:
        """Worker processes; None where there can be none, as without a /dev/shm that can be written to."""
        try:
            return ProcessPoolExecutor(n_workers, get_context("spawn"), _start_worker, (self.pack.path, self.options))
        except OSError as error:
            _log.warning("transitions are drawn by one process: others cannot be started (%s)", error.strerror or error)
            return None


def cache_key(pack: CharacterPack, options: BlendOptions) -> str:
    """Names the blender and everything else that decides the pixels and their encoding, the whole pack among it: who
    still performs a pack that was built anew meanwhile must not write into the cache of its successor."""
    decisive = repr((BLENDER_VERSIONS[options.blender], options, pack.sha256))
    return f"{options.blender}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"


_worker_maker: TransitionMaker | None = None


def _start_worker(path: Path, options: BlendOptions) -> None:
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

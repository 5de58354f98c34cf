"""Transition frames of a pack: computed once per cut and blender, kept encoded like the pictures they replace.

The frames of a cut depend on (node, node, blender) alone, so they are kept in the pack (transition_cache).
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from engine.blending.blender import CUT, Blender, Take
from engine.blending.fades import FADE_WEIGHTS, Pictures, fade, half_of
from engine.character.drawn import DrawnSet
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import Cut
from engine.timebase import FRAMES_PER_NODE
from tango_rt.pipeline.transition_cache import TransitionCache
from tango_rt.video.gop import DRAWN, GopDecoder, GopEncoder

__all__ = ["TransitionMaker", "TransitionStore", "cache_key"]


class TransitionMaker:
    """Decodes both sides of a cut, blends them and encodes the result. Not for use in several threads."""

    def __init__(self, pack: CharacterPack, blender: Blender) -> None:
        self._pack = pack
        self._blender = blender
        info = pack.info
        name = f"the video of {pack.path}"
        self._decoder = GopDecoder(info.extradata, info.width, info.height, name)
        self._encoder = GopEncoder(info.width, info.height, DRAWN, info.extradata, name)

    def make(self, cut: Cut) -> list[bytes]:
        """The 8 encoded pictures that replace nodes i and j of the cut i -> j. Raises what the blender raises."""
        return [packet for half in self.halves(cut) for packet in half]

    def halves(self, cut: Cut) -> Iterator[list[bytes]]:
        """The same, 4 and 4: the first half is out before the second is begun."""
        nodes = None if self._blender.name == CUT else self._nodes(cut)
        if nodes is None:
            yield from map(self._pack.packets, cut)
            return
        encode = self._encoder.encode_i420 if self._blender.pixels == "planes" else self._encoder.encode
        drawn = self._blender.draw(*(self._take(side) for side in nodes))
        for _, frames in zip(range(2), drawn, strict=True):
            yield encode(frames)

    def crossfade(self, cut: Cut, half: int) -> list[bytes]:
        """4 of the 8 pictures of a crossfade, half 0 or 1, at half the cost, whatever the blender."""
        weights = half_of(FADE_WEIGHTS, half)
        i, j = cut
        if self._pack.graph.has_sync(i, j):
            return self._faded(self._planes(i + half), self._planes(j - 1 + half), weights)
        if not self._has_gap(cut):
            return self._pack.packets(cut[half])
        before, after = self._planes(i - 1)[-1], self._planes(j + 1)[0]
        return self._faded([before] * FRAMES_PER_NODE, [after] * FRAMES_PER_NODE, weights)

    def late_crossfade(self, cut: Cut) -> list[bytes]:
        """4 pictures that lead from an unchanged node i into node j: a second half if the first has passed."""
        i, j = cut
        goes_on = self._pack.graph.has_sync(i, j)
        before = list(self._planes(i + 1)) if goes_on else [self._planes(i)[-1]] * FRAMES_PER_NODE
        weights = [k / (FRAMES_PER_NODE + 1) for k in range(1, FRAMES_PER_NODE + 1)]
        return self._faded(before, self._planes(j), weights)

    def _faded(self, a: Pictures, b: Pictures, weights: Sequence[float]) -> list[bytes]:
        """Mixing planes is equivalent to mixing colours, and saves four conversions."""
        return self._encoder.encode_i420(fade(a, b, weights))

    def _nodes(self, cut: Cut) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Nodes that the blender needs before and after the cut: sync if both takes run on beyond it, gap at the ends
        of clips, where one has no such frames; None if there is no gap either."""
        i, j = cut
        if self._blender.samples == "sync" and self._pack.graph.has_sync(i, j):
            return (i, i + 1), (j - 1, j)
        return ((i - 1,), (j + 1,)) if self._has_gap(cut) else None

    def _has_gap(self, cut: Cut) -> bool:
        """Whether both clips have a node on the far side of the cut."""
        i, j = cut
        clip_of = np.searchsorted(self._pack.graph.clip_start, [i - 1, i, j, j + 1], side="right")
        return bool(clip_of[0] == clip_of[1] and clip_of[2] == clip_of[3])

    def _planes(self, *nodes: int) -> np.ndarray:
        return self._decoder.decode_i420(self._packets(*nodes))

    def _packets(self, *nodes: int) -> list[bytes]:
        return [packet for node in nodes for packet in self._pack.packets(node)]

    def _take(self, nodes: Sequence[int]) -> Take:
        pack = self._pack
        frames = slice(nodes[0] * FRAMES_PER_NODE, (nodes[-1] + 1) * FRAMES_PER_NODE)
        decode = self._decoder.decode_i420 if self._blender.pixels == "planes" else self._decoder.decode
        return Take(
            nodes=_DecodedNodes(nodes, lambda node: decode(pack.packets(node))),
            joints=np.asarray(pack["joints"][frames, :, :2]),
            confidence=np.asarray(pack["confidence"][frames]),
            hands_found=np.asarray(pack["hands_found"][frames]),
            surface=np.asarray(pack["surface"][frames]),
        )


class _DecodedNodes(Sequence[np.ndarray]):
    """The frames of nodes, decoded on first use."""

    def __init__(self, nodes: Sequence[int], decode: Callable[[int], np.ndarray]) -> None:
        self._nodes = nodes
        self._decode = cache(decode)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, k: Any) -> Any:
        return self._decode(self._nodes[k])


class TransitionStore:
    """The transitions of one pack for one blender: from its drawn set, from the cache, or made and cached.

    is_cached, get_cached and keep are safe in any thread; the others must be called by one at a time.
    """

    def __init__(
        self,
        pack: CharacterPack,
        blender: Blender,
        cache: TransitionCache | None = None,
        only_this_version: bool = False,
    ) -> None:
        """cache: a shared one, of the same pack and key. only_this_version: ignore a drawn set that an earlier version
        of the blender, or one with other settings, has drawn."""
        self.pack = pack
        self.blender = blender
        self.key = cache_key(pack, blender)
        self._drawn = pack.drawn if _fits(pack.drawn, blender, only_this_version) else None
        self._cache = cache or TransitionCache(pack, self.key)
        self._maker: TransitionMaker | None = None

    def is_cached(self, cut: Cut) -> bool:
        """Whether the transition is available without computing it."""
        return self.is_drawn(cut) or cut in self._cache

    def is_drawn(self, cut: Cut) -> bool:
        """Whether it is in the drawn set of the pack."""
        return self._drawn is not None and cut in self._drawn

    def get_drawn(self, cut: Cut) -> list[bytes] | None:
        """The 8 encoded pictures of a cut, if it is in the drawn set: as quick as the pictures of a node.

        Raises ArtifactError if they are damaged.
        """
        return None if self._drawn is None else self._drawn.packets(cut)

    def get_cached(self, cut: Cut) -> list[bytes] | None:
        """The 8 encoded pictures of a cut, if they are drawn already."""
        return self.get_drawn(cut) or self._cache.read(cut)

    def keep(self, cut: Cut, packets: list[bytes]) -> None:
        """Cache pictures that were made elsewhere."""
        self._cache.keep(cut, packets)

    def discard(self, cuts: Collection[Cut]) -> None:
        """Remove cuts from the cache, because they are in the drawn set by now."""
        self._cache.discard(cuts)

    def packets(self, cut: Cut) -> list[bytes]:
        """The 8 encoded pictures of a cut, computed on the spot if they are not cached."""
        known = self.get_cached(cut)
        if known is not None:
            return known
        if self._maker is None:
            self._maker = TransitionMaker(self.pack, self.blender)
        made = self._maker.make(cut)
        self.keep(cut, made)
        return made


def cache_key(pack: CharacterPack, blender: Blender) -> str:
    """Identifies the blender and everything else that determines the pixels and their encoding, including the whole
    pack: a session that still uses a pack rebuilt meanwhile must not write into the cache of its successor."""
    decisive = f"({blender.version}, {blender.settings}, {pack.sha256!r})"
    return f"{blender.name}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"


def _fits(drawn: DrawnSet | None, blender: Blender, only_this_version: bool) -> bool:
    """Whether a drawn set is by this blender."""
    if drawn is None or drawn.blender != blender.name:
        return False
    return not only_this_version or (drawn.version, drawn.settings) == (blender.version, blender.settings)

"""Pictures for the steps of one session: copied from the pack, or the best transition that is ready in time."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from engine.blending.blender import CROSSFADE, CUT, Blender
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import Cut
from engine.timebase import FRAMES_PER_NODE
from tango_rt.pipeline.ahead import FadePart, TransitionPool
from tango_rt.pipeline.live import Step
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.video.codecs import StepPictures

__all__ = ["PictureSource"]

_MAX_READY = 8
_MAX_PLANNED = 4  # cuts further away are more likely to change than to come


class _Begun(NamedTuple):
    """A transition whose first half was shown. packets: those drawn by then, 8 or the first 4. If there are no more,
    the second half is `part` of a crossfade."""

    cut: Cut
    packets: Sequence[bytes] | None = None
    part: FadePart = FadePart.LATE


class PictureSource:
    """Draws the steps of one session in their order; one caller at a time, from any thread.

    Without a pool, transitions are computed on the spot. With one they are requested as soon as a step plans them. A
    first half is shown as soon as it is drawn; the second has until the next step. What is not ready in time is
    replaced by a crossfade, or at least its second half; the expensive one is cached for the next time.
    """

    def __init__(
        self,
        pack: CharacterPack,
        blender: Blender,
        pool: TransitionPool | None,
        store: TransitionStore | None = None,
    ) -> None:
        """store: existing transitions, for use without a pool."""
        self._pack = pack
        self._blender = blender.name
        self._pool = pool
        if pool is not None:
            store = pool.store(pack, blender)
        self._store = store or TransitionStore(pack, blender)
        self._ready: OrderedDict[Cut, list[bytes]] = OrderedDict()
        self._missed: OrderedDict[Cut, None] = OrderedDict()  # not in the cache when planned
        self._begun: _Begun | None = None

    def draw(self, step: Step, due_in_s: float | None = None) -> StepPictures:
        """The 4 pictures of a step.

        due_in_s: seconds until they are needed; None: wait for the requested blender. Without a pool, raises
        ArtifactError if the pack is damaged.
        """
        if self._pool is not None and self._blender != CUT:
            self._look_ahead(step.planned, self._pool)
        if step.hard:
            self._begun = None
        if step.cut_from is not None:
            return self._second_half((step.cut_from, step.node), due_in_s)
        if step.cut_to is not None:
            return self._first_half((step.node, step.cut_to), due_in_s)
        return StepPictures(tuple(self._pack.packets(step.node)))

    def _look_ahead(self, planned: Sequence[Cut], pool: TransitionPool) -> None:
        # nearest last: the latest request is served first
        for rank, cut in reversed(list(enumerate(planned[:_MAX_PLANNED]))):
            if cut not in self._ready and not self._store.is_drawn(cut):
                pool.look_up(self._store, cut, urgent=rank == 0)
                self._note(cut, pool.lookup_result(self._store, cut))

    def _note(self, cut: Cut, found: list[bytes] | None) -> None:
        """Remember the state of a planned cut. found: its pictures, empty if they must be drawn, None if unknown."""
        if found:
            self._ready[cut] = found
            if len(self._ready) > _MAX_READY:
                self._ready.popitem(last=False)
        elif found is not None:
            self._missed[cut] = None
            if len(self._missed) > _MAX_READY:
                self._missed.popitem(last=False)

    def _first_half(self, cut: Cut, due_in_s: float | None) -> StepPictures:
        if self._blender == CUT:
            return self._hard(cut[0], late=False)
        known = self._ready.pop(cut, None) or self._cached(cut, due_in_s)
        packets = known or self._computed(cut, due_in_s)
        if packets is not None:
            self._begun = _Begun(cut, packets, FadePart.SECOND)
            if self._pool is not None and len(packets) == FRAMES_PER_NODE:
                self._pool.request_fade(self._store, cut, FadePart.SECOND)
            return StepPictures(
                tuple(packets[:FRAMES_PER_NODE]), self._blender, computed=known is None or cut in self._missed
            )
        assert self._pool is not None
        self._pool.request_fade(self._store, cut, FadePart.SECOND)
        self._pool.request_fade(self._store, cut, FadePart.FIRST)
        half = self._pool.fade(self._store, cut, FadePart.FIRST, due_in_s)
        if half is not None:
            self._begun = _Begun(cut, part=FadePart.SECOND)
            return StepPictures(tuple(half), CROSSFADE, late=self._blender != CROSSFADE, computed=True)
        self._pool.request_fade(self._store, cut, FadePart.LATE)
        self._begun = _Begun(cut, part=FadePart.LATE)
        return self._hard(cut[0], late=True)

    def _cached(self, cut: Cut, due_in_s: float | None) -> list[bytes] | None:
        """From the drawn set, or the cache; with a pool, only if another thread has looked into the cache by now."""
        if self._store.is_drawn(cut):
            return self._store.get_drawn(cut)
        if self._pool is None:
            return self._store.get_cached(cut)
        self._pool.look_up(self._store, cut)
        found = self._pool.lookup_result(self._store, cut, due_in_s)
        if found is not None and not found:
            self._missed[cut] = None
        return found or None

    def _computed(self, cut: Cut, due_in_s: float | None, whole: bool = False) -> Sequence[bytes] | None:
        """All 8 pictures, or the first 4 unless `whole`."""
        if self._pool is None:
            return self._store.packets(cut)
        ask = self._pool.transition if whole else self._pool.first_half
        self._pool.request(self._store, cut)
        made = ask(self._store, cut, due_in_s)
        while made is None and due_in_s is None and not self._pool.failed(self._store, cut):
            self._pool.request(self._store, cut)  # was displaced by other requests
            made = ask(self._store, cut, None)
        return made

    def _second_half(self, cut: Cut, due_in_s: float | None) -> StepPictures:
        begun = self._begun
        if begun is None or begun.cut != cut:
            return self._hard(cut[1], late=self._blender != CUT)
        packets = begun.packets
        if packets is not None and len(packets) == FRAMES_PER_NODE:
            packets = self._computed(cut, due_in_s, whole=True)
        if packets is not None:
            self._begun = _Begun(cut, packets)
            return StepPictures(tuple(packets[FRAMES_PER_NODE:]), self._blender)
        assert self._pool is not None
        half = self._pool.fade(self._store, cut, begun.part, due_in_s)
        if half is None:
            return self._hard(cut[1], late=True)
        return StepPictures(tuple(half), CROSSFADE, late=self._blender != CROSSFADE or begun.part is FadePart.LATE)

    def _hard(self, node: int, late: bool) -> StepPictures:
        return StepPictures(tuple(self._pack.packets(node)), CUT, late)

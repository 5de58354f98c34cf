"""Transitions drawn ahead of time: worker processes draw what the sessions of a server will probably need.

There are three lanes. In the first, threads look into the caches of packs, whose disks may be slow or worse. In the
slow lane, low-priority processes draw and cache what is missing, and hand out first halves as soon as they are drawn (a
flow transition of 1280x720 takes 0.23 s on a core, its first half 0.12 s). In the quick lane, a thread mixes crossfades
(50 ms for half of one) for sessions that cannot wait.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from threading import Lock

from engine.blending.blender import CROSSFADE, Blender
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import Cut
from tango_rt.pipeline.drawers import Drawer, Job
from tango_rt.pipeline.lane import Lane
from tango_rt.pipeline.transition_cache import TransitionCache
from tango_rt.pipeline.transitions import TransitionMaker, TransitionStore, cache_key

__all__ = ["FadePart", "PoolCounts", "TransitionPool"]

_MAX_WAITING = 64
_MAX_DONE = 32  # results held outside the cache: 5 MB at 1280x720
_MAX_FADES = 64
_MAX_FOUND = 256  # results of cache look-ups
_N_LOOKING = 2
_MAX_CACHES = 64

_Key = tuple[str, str, Cut]
_FadeKey = tuple[_Key, int]
_Give = Callable[[list[bytes]], None]


class FadePart(IntEnum):
    """4 pictures of a crossfade: either half, or a shorter fade for the second half if the first has passed."""

    FIRST = 0
    SECOND = 1
    LATE = 2


@dataclass(frozen=True)
class PoolCounts:
    """Counts since the start."""

    n_computed: int
    n_failed: int
    n_workers_lost: int
    n_waiting: int


class TransitionPool:
    """Draws transitions for all sessions and characters of a process; safe in any thread, never blocks."""

    def __init__(self, n_workers: int, cache_limit_bytes: int) -> None:
        """cache_limit_bytes: per pack. The workers end with this process, however it ends."""
        if n_workers < 1:
            raise ValueError(f"n_workers is {n_workers}, wanted 1 or more")
        self._cache_limit_bytes = cache_limit_bytes
        self._caches: OrderedDict[tuple[str, str], TransitionCache] = OrderedDict()
        self._lock = Lock()
        self._workers = [Drawer(low_priority=True) for _ in range(n_workers)]
        self._slow: Lane[_Key, Job, list[bytes]] = Lane(
            "transitions", [self._draw(worker) for worker in self._workers], _MAX_WAITING, _MAX_DONE
        )
        self._looking: Lane[_Key, _Look, list[bytes]] = Lane(
            "caches", [self._look] * _N_LOOKING, _MAX_FOUND, _MAX_FOUND
        )
        self._quick: Lane[_FadeKey, _FadeJob, list[bytes]] = Lane("crossfades", [_fade], _MAX_WAITING, _MAX_FADES)

    def store(self, pack: CharacterPack, blender: Blender) -> TransitionStore:
        """The transitions of a pack, for one session; all sessions share a cache."""
        key = cache_key(pack, blender)
        place = str(pack.path), key
        with self._lock:
            if place not in self._caches:
                self._caches[place] = TransitionCache(pack, key, self._cache_limit_bytes)
            self._caches.move_to_end(place)
            if len(self._caches) > _MAX_CACHES:
                self._caches.popitem(last=False)
            return TransitionStore(pack, blender, self._caches[place])

    def look_up(self, store: TransitionStore, cut: Cut, urgent: bool = False) -> None:
        """Find out whether a transition is cached and draw it if not, ahead of all earlier requests.

        urgent: it may be needed before it can be drawn, so a crossfade is mixed, too.
        """
        self._looking.request(_key(store, cut), _Look(store, cut, urgent), store.key)

    def lookup_result(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        """Result of look_up: the 8 pictures, an empty list if not cached, None if not known yet."""
        return self._looking.result(_key(store, cut), within_s)

    def request(self, store: TransitionStore, cut: Cut) -> None:
        """Draw and cache a transition, ahead of all earlier requests."""
        self._slow.request(_key(store, cut), Job(store, cut), store.key)

    def transition(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        """The 8 pictures of a requested transition if ready in time; within_s None: wait as long as it takes."""
        return self._slow.result(_key(store, cut), within_s)

    def first_half(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        """The same, but the first 4 pictures will do: returns 4 or 8."""
        return self._slow.result(_key(store, cut), within_s, part=True)

    def failed(self, store: TransitionStore, cut: Cut) -> bool:
        """Whether it will never be drawn: the pack is damaged, it killed a worker twice, or the pool is closed."""
        return self._slow.failed(_key(store, cut))

    def request_fade(self, store: TransitionStore, cut: Cut, part: FadePart) -> None:
        self._quick.request((_key(store, cut), part), _FadeJob(store, cut, part), store.key)

    def fade(self, store: TransitionStore, cut: Cut, part: FadePart, within_s: float | None) -> list[bytes] | None:
        """The 4 pictures of a requested part of a crossfade if they are ready in time."""
        return self._quick.result((_key(store, cut), part), within_s)

    def _look(self, look: "_Look", give: _Give) -> list[bytes]:
        known = look.store.get_cached(look.cut)
        if known is not None:
            return known
        self.request(look.store, look.cut)
        if look.urgent and look.store.blender.name != CROSSFADE:
            self.request_fade(look.store, look.cut, FadePart.SECOND)
            self.request_fade(look.store, look.cut, FadePart.FIRST)
        return []

    def _draw(self, worker: Drawer) -> Callable[[Job, _Give], list[bytes]]:
        """The job of a thread of the slow lane; another process may have drawn the transition meanwhile."""

        def draw(job: Job, give: _Give) -> list[bytes]:
            made = job.store.get_cached(job.cut) or worker(job, give)
            self._looking.forget(_key(job.store, job.cut))
            return made

        return draw

    def counts(self) -> PoolCounts:
        return PoolCounts(
            n_computed=self._slow.n_done,
            n_failed=self._slow.n_failed + self._quick.n_failed,
            n_workers_lost=sum(worker.n_lost for worker in self._workers),
            n_waiting=self._slow.n_waiting + self._quick.n_waiting,
        )

    def close(self) -> None:
        """End the processes; unfinished work is dropped."""
        self._looking.close()
        self._quick.close()
        self._slow.close(self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()


def _key(store: TransitionStore, cut: Cut) -> _Key:
    return str(store.pack.path), store.key, cut


@dataclass(frozen=True)
class _Look(Job):
    urgent: bool


@dataclass(frozen=True)
class _FadeJob(Job):
    part: FadePart


def _fade(job: _FadeJob, give: _Give) -> list[bytes]:
    """In this process: it is cheap and releases the GIL. The pack is opened each time (1 ms), as it may be deleted."""
    maker = TransitionMaker(job.store.pack, job.store.blender)
    return maker.late_crossfade(job.cut) if job.part is FadePart.LATE else maker.crossfade(job.cut, job.part)

"""Transitions ahead of their time: worker processes draw what the sessions of a server will probably need.

Three lanes. In the first, threads look into the caches of packs, whose disks may be slow or worse. In the slow one,
processes of low priority draw what was not there (a flow transition of 1280x720 takes 0.7 s on one core) and the cache
keeps it. In the quick one a thread mixes crossfades, 50 ms for half of one, for whoever cannot wait.
"""

import logging
import os
import signal
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Literal

import cv2
from threadpoolctl import threadpool_limits

from engine.blending.morph import BlendOptions
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, BackendError, TangoError
from engine.motion_graph.graph import Cut
from tango_rt.interrupts import interrupts_held
from tango_rt.pipeline.lane import Lane
from tango_rt.pipeline.transition_cache import TransitionCache
from tango_rt.pipeline.transitions import TransitionMaker, TransitionStore, cache_key

__all__ = ["Blender", "FadePart", "PoolCounts", "TransitionPool"]

_log = logging.getLogger(__name__)

Blender = Literal["flow", "crossfade", "cut"]

_MOST_WAITING = 64
_MOST_DONE = 32  # results beside the cache: 5 MB at 1280x720
_MOST_FADES = 64
_MOST_FOUND = 256  # looks into caches, with what was there
_N_LOOKING = 2
_MOST_CACHES = 64
_MOST_MAKERS = 4  # opened packs of a worker
_LIMIT_S = 300.0  # a worker that takes longer hangs; on a machine without a free core they take long
_IDLE_S = 10.0
_WORKER_NICE = 10

_Key = tuple[str, str, Cut]
_FadeKey = tuple[_Key, int]


class FadePart(IntEnum):
    """4 pictures of a crossfade: its halves, or a shorter one for the second half when the first is over."""

    FIRST = 0
    SECOND = 1
    LATE = 2


@dataclass(frozen=True)
class PoolCounts:
    """Since the start."""

    n_computed: int
    n_failed: int
    n_workers_lost: int
    n_waiting: int


class TransitionPool:
    """Draws transitions for all sessions and characters of a process; any thread may call it, nothing blocks."""

    def __init__(self, n_workers: int, cache_limit_bytes: int) -> None:
        """cache_limit_bytes: of each pack. The processes end with this one, however it ends."""
        if n_workers < 1:
            raise ValueError(f"n_workers is {n_workers}, wanted 1 or more")
        self._cache_limit_bytes = cache_limit_bytes
        self._caches: OrderedDict[tuple[str, str], TransitionCache] = OrderedDict()
        self._lock = Lock()
        self._workers = [_Worker() for _ in range(n_workers)]
        self._slow: Lane[_Key, _Job, list[bytes]] = Lane(
            "transitions", [self._draw(worker) for worker in self._workers], _MOST_WAITING, _MOST_DONE
        )
        self._looking: Lane[_Key, _Look, list[bytes]] = Lane(
            "caches", [self._look] * _N_LOOKING, _MOST_FOUND, _MOST_FOUND
        )
        self._quick: Lane[_FadeKey, _FadeJob, list[bytes]] = Lane("crossfades", [_fade], _MOST_WAITING, _MOST_FADES)

    def store(self, pack: CharacterPack, blender: Blender) -> TransitionStore:
        """The transitions of a pack, for one session; all of them share a cache."""
        options = BlendOptions(blender=blender)
        key = cache_key(pack, options)
        place = str(pack.path), key
        with self._lock:
            if place not in self._caches:
                self._caches[place] = TransitionCache(pack, key, self._cache_limit_bytes)
            self._caches.move_to_end(place)
            if len(self._caches) > _MOST_CACHES:
                self._caches.popitem(last=False)
            return TransitionStore(pack, options, self._caches[place])

    def look_up(self, store: TransitionStore, cut: Cut, urgent: bool = False) -> None:
        """See whether a transition is cached, and draw it where it is not, before all that was requested earlier.

        urgent: it may be needed before it can be drawn; then a crossfade is mixed, too.
        """
        self._looking.request(_key(store, cut), _Look(store, cut, urgent), store.key)

    def found(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        """What came of looking up: the 8 pictures, nothing where there are none, None where it is not known yet."""
        return self._looking.result(_key(store, cut), within_s)

    def request(self, store: TransitionStore, cut: Cut) -> None:
        """Draw and cache a transition, before all that was requested earlier."""
        self._slow.request(_key(store, cut), _Job(store, cut), store.key)

    def drawn(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        """The 8 pictures of a requested transition, if they come in time; None for within_s: whenever they come."""
        return self._slow.result(_key(store, cut), within_s)

    def failed(self, store: TransitionStore, cut: Cut) -> bool:
        """Whether it will not be drawn: the pack is damaged, a worker died of it twice, or the pool is closed."""
        return self._slow.failed(_key(store, cut))

    def request_fade(self, store: TransitionStore, cut: Cut, part: FadePart) -> None:
        self._quick.request((_key(store, cut), part), _FadeJob(store, cut, part), store.key)

    def fade(self, store: TransitionStore, cut: Cut, part: FadePart, within_s: float | None) -> list[bytes] | None:
        """The 4 pictures of a requested part of a crossfade, if they come in time."""
        return self._quick.result((_key(store, cut), part), within_s)

    def _look(self, look: "_Look") -> list[bytes]:
        known = look.store.known(look.cut)
        if known is not None:
            return known
        self.request(look.store, look.cut)
        if look.urgent and look.store.options.blender == "flow":
            self.request_fade(look.store, look.cut, FadePart.SECOND)
            self.request_fade(look.store, look.cut, FadePart.FIRST)
        return []

    def _draw(self, worker: "_Worker") -> "Callable[[_Job], list[bytes]]":
        """What a thread of the slow lane does: it may have been drawn meanwhile, by another process for example."""

        def draw(job: _Job) -> list[bytes]:
            made = job.store.known(job.cut) or worker(job)
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
        """End the processes; what they are at is dropped."""
        self._looking.close()
        self._quick.close()
        self._slow.close(self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()


def _key(store: TransitionStore, cut: Cut) -> _Key:
    return str(store.pack.path), store.key, cut


@dataclass(frozen=True)
class _Job:
    store: TransitionStore
    cut: Cut


@dataclass(frozen=True)
class _Look(_Job):
    urgent: bool


@dataclass(frozen=True)
class _FadeJob(_Job):
    part: FadePart


def _fade(job: _FadeJob) -> list[bytes]:
    """In this process: it is cheap, and done without Python's lock. Nothing is kept open, least of all a pack that may
    be deleted: that takes 1 ms."""
    maker = TransitionMaker(job.store.pack, job.store.options)
    return maker.late_crossfade(job.cut) if job.part is FadePart.LATE else maker.crossfade(job.cut, job.part)


class _Worker:
    """A process that draws; replaced when it dies or hangs."""

    def __init__(self) -> None:
        self.n_lost = 0
        self._closed = False
        self._lock = Lock()  # nobody is replaced while all are ended
        self._start()

    def __call__(self, job: _Job) -> list[bytes]:
        """Draw and cache. Raises what the drawing raises, BackendError where it kills the process twice."""
        made = self._make(job) or self._make(job)
        if made is None:
            raise BackendError(f"a process that draws transitions died of it twice (cut {job.cut} of {job.store.key})")
        job.store.keep(job.cut, made)
        return made

    def kill(self) -> None:
        """End it for good."""
        with self._lock:
            self._closed = True
            self._process.kill()
            self._process.join()

    def _make(self, job: _Job) -> list[bytes] | None:
        try:
            self._connection.send((job.store.pack.path, job.store.key, job.store.options, job.cut))
            if self._connection.poll(_LIMIT_S):
                answer: list[bytes] | TangoError = self._connection.recv()
                if isinstance(answer, TangoError):
                    raise answer
                return answer
        except (EOFError, OSError):
            pass
        with self._lock:
            if not self._closed:
                self._replace()
        return None

    def _replace(self) -> None:
        self.n_lost += 1
        self._process.kill()
        self._process.join()
        self._connection.close()
        _log.warning("a process that draws transitions was lost (exit code %s) and is replaced", self._process.exitcode)
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with interrupts_held():
            self._process.start()
        theirs.close()


def _serve(connection: Connection) -> None:
    """A worker process: ends when the other end of the connection does, however that came about."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # a request to end goes to all of a service, and its server ends us
    _stand_back()
    cv2.setNumThreads(1)
    makers: OrderedDict[tuple[Path, str], TransitionMaker] = OrderedDict()
    with threadpool_limits(1), suppress(EOFError, OSError):
        while True:
            if not connection.poll(_IDLE_S):
                makers.clear()  # what is open takes disk space, even if it was deleted
            path, key, options, cut = connection.recv()
            try:
                answer: list[bytes] | TangoError = _maker(makers, path, key, options).make(cut)
            except TangoError as error:
                answer = error
            except Exception as error:
                answer = BackendError(f"drawing the cut {cut} of {path} failed: {type(error).__name__}: {error}")
            connection.send(answer)


def _stand_back() -> None:
    """Run while nobody else wants the core: what is drawn here is for later, the streams wait by the millisecond."""
    with suppress(OSError):
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.nice(_WORKER_NICE)


def _maker(
    makers: OrderedDict[tuple[Path, str], TransitionMaker], path: Path, key: str, options: BlendOptions
) -> TransitionMaker:
    maker = makers.pop((path, key), None)
    if maker is None:
        pack = CharacterPack.open(path)
        if cache_key(pack, options) != key:
            raise ArtifactError(f"{path} was built anew: what its predecessor asks for cannot be drawn from it")
        maker = TransitionMaker(pack, options)
    makers[path, key] = maker
    if len(makers) > _MOST_MAKERS:
        makers.popitem(last=False)
    return maker

"""Processes that draw transitions; a Drawer feeds one with cuts and replaces it when it dies or hangs.

For every cut, a process answers with 4 pictures and 4 more, or with the error that it ended in.
"""

import logging
import os
import signal
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

import cv2
from threadpoolctl import threadpool_limits

from engine.blending.blender import Blender
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, BackendError, TangoError
from engine.motion_graph.graph import Cut
from tango_rt.interrupts import hold_interrupts
from tango_rt.pipeline.transitions import TransitionMaker, TransitionStore, cache_key

__all__ = ["Drawer", "Job", "draw_ahead"]

_log = logging.getLogger(__name__)

_MAX_MAKERS = 4  # open packs per process
_LIMIT_S = 300.0  # a process that takes longer has hung; on a busy machine drawing is slow
_IDLE_S = 10.0
_NICE = 10


@dataclass(frozen=True)
class Job:
    """A transition to draw and where to keep it."""

    store: TransitionStore
    cut: Cut


class Drawer:
    """A process that draws, for one thread at a time. It ends with this process, however that ends."""

    def __init__(self, low_priority: bool = False) -> None:
        """low_priority: run only while nothing else wants the core. Raises OSError if no process can be started."""
        self.n_lost = 0
        self._low_priority = low_priority
        self._closed = False
        self._lock = Lock()  # no process is replaced while all are being ended
        self._start()

    def __call__(self, job: Job, give: Callable[[list[bytes]], None] = lambda half: None) -> list[bytes]:
        """Draw and cache. give: called with the first 4 pictures, as soon as they are drawn.

        Raises what the drawing raises, BackendError if it kills the process twice.
        """
        made = self._make(job, give) or self._make(job, give)
        if made is None:
            raise BackendError(
                f"drawing a transition killed its process twice (cut {job.cut} of {job.store.key}): "
                "free some memory, or use fewer processes"
            )
        job.store.keep(job.cut, made)
        return made

    def kill(self) -> None:
        """End it for good."""
        with self._lock:
            self._closed = True
            self._process.kill()
            self._process.join()

    def _make(self, job: Job, give: Callable[[list[bytes]], None]) -> list[bytes] | None:
        """All 8 pictures; None if the process is lost."""
        try:
            self._connection.send((job.store.pack.path, job.store.key, job.store.blender, job.cut))
            first = self._half()
            give(first)
            return first + self._half()
        except (EOFError, OSError):
            pass
        with self._lock:
            if not self._closed:
                self._replace()
        return None

    def _half(self) -> list[bytes]:
        """The next 4 pictures. Raises what the drawing raised, EOFError if the process has hung."""
        if not self._connection.poll(_LIMIT_S):
            raise EOFError
        answer: list[bytes] | TangoError = self._connection.recv()
        if isinstance(answer, TangoError):
            raise answer
        return answer

    def _replace(self) -> None:
        self.n_lost += 1
        self._process.kill()
        self._process.join()
        self._connection.close()
        _log.warning(
            "a process that draws transitions died (exit code %s) and is being replaced", self._process.exitcode
        )
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._low_priority), daemon=True)
        with hold_interrupts():
            process.start()
            self._connection, self._process = ours, process
        theirs.close()


def draw_ahead(store: TransitionStore, cuts: Iterable[Cut], n_processes: int) -> Generator[Cut, None, None]:
    """Draw and cache the cuts that are not cached yet; yields each when done. Close it to end the processes."""
    missing = [cut for cut in dict.fromkeys(cuts) if not store.is_cached(cut)]
    n_processes = min(n_processes, len(missing) // 2)  # starting a process takes as long as a few transitions
    drawers = _started(n_processes) if n_processes > 1 else []
    if not drawers:
        for cut in missing:
            store.packets(cut)
            yield cut
        return
    idle: SimpleQueue[Drawer] = SimpleQueue()
    for drawer in drawers:
        idle.put(drawer)

    def draw(cut: Cut) -> Cut:
        drawer = idle.get()
        try:
            drawer(Job(store, cut))
        finally:
            idle.put(drawer)
        return cut

    threads = ThreadPoolExecutor(len(drawers))
    try:
        yield from threads.map(draw, missing)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        _kill(drawers)  # their unfinished work is no longer needed
        threads.shutdown()


def _started(n_processes: int) -> list[Drawer]:
    """All of them, or none if the system allows no processes."""
    drawers: list[Drawer] = []
    try:
        with hold_interrupts():
            for _ in range(n_processes):
                drawers.append(Drawer())
    except OSError as error:
        _log.warning(
            "transitions are drawn in this process only: no others can be started (%s)", error.strerror or error
        )
        _kill(drawers)
        return []
    except BaseException:
        _kill(drawers)
        raise
    return drawers


def _kill(drawers: Sequence[Drawer]) -> None:
    for drawer in drawers:
        drawer.kill()


def _serve(connection: Connection, low_priority: bool) -> None:
    """A worker process: ends when the other end of the connection is gone, however that happened."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            ending, signal.SIG_IGN
        )  # a service manager signals all processes of a service; our server ends us
    if low_priority:
        _stand_back()
    cv2.setNumThreads(1)  # the processes share the cores already
    makers = _Makers()
    with threadpool_limits(1), suppress(EOFError, OSError):
        while True:
            if not connection.poll(_IDLE_S):
                makers.close_packs()
            path, key, blender, cut = connection.recv()
            try:
                for half in makers.get(path, key, blender).halves(cut):
                    connection.send(half)
            except TangoError as error:
                connection.send(error)
            except Exception as error:
                connection.send(
                    BackendError(f"drawing the cut {cut} of {path} failed: {type(error).__name__}: {error}")
                )


def _stand_back() -> None:
    """Run only while nothing else wants the core: this work is for later, while streams wait by the millisecond."""
    with suppress(OSError):
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.nice(_NICE)


class _Makers:
    """What a process keeps open: a few packs, and its blenders (which may hold networks) for as long as it lives."""

    def __init__(self) -> None:
        self._makers: OrderedDict[tuple[Path, str], TransitionMaker] = OrderedDict()
        self._blenders: dict[tuple[str, int, str], Blender] = {}

    def close_packs(self) -> None:
        """An open pack occupies disk space even after it was deleted."""
        self._makers.clear()

    def get(self, path: Path, key: str, blender: Blender) -> TransitionMaker:
        """Raises ArtifactError if another pack is there by now."""
        maker = self._makers.pop((path, key), None)
        if maker is None:
            pack = CharacterPack.open(path)
            if cache_key(pack, blender) != key:
                raise ArtifactError(f"{path} was rebuilt: transitions of its predecessor cannot be drawn from it")
            same = self._blenders.setdefault((blender.name, blender.version, blender.settings), blender)
            maker = TransitionMaker(pack, same)
        self._makers[path, key] = maker
        if len(self._makers) > _MAX_MAKERS:
            self._makers.popitem(last=False)
        return maker

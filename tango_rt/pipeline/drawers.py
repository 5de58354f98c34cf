"""Processes that draw transitions: one drives each, hands it cuts, and replaces it when it dies or hangs."""

import logging
import os
import signal
from collections import OrderedDict
from collections.abc import Generator, Iterable, Sequence
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

_MAX_MAKERS = 4  # opened packs of a process
_LIMIT_S = 300.0  # a process that takes longer hangs; on a machine without a free core they take long
_IDLE_S = 10.0
_NICE = 10


@dataclass(frozen=True)
class Job:
    """A transition to draw and where to keep it."""

    store: TransitionStore
    cut: Cut


class Drawer:
    """A process that draws, for one thread at a time. It ends with this one, however that comes about."""

    def __init__(self, stands_back: bool = False) -> None:
        """stands_back: it runs only while nothing else wants the core. Raises OSError where none can be started."""
        self.n_lost = 0
        self._stands_back = stands_back
        self._closed = False
        self._lock = Lock()  # nothing is replaced while all are ended
        self._start()

    def __call__(self, job: Job) -> list[bytes]:
        """Draw and cache. Raises what the drawing raises, BackendError where it kills the process twice."""
        made = self._make(job) or self._make(job)
        if made is None:
            raise BackendError(
                f"a process that draws transitions died of it twice (cut {job.cut} of {job.store.key}): "
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

    def _make(self, job: Job) -> list[bytes] | None:
        try:
            self._connection.send((job.store.pack.path, job.store.key, job.store.blender, job.cut))
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
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._stands_back), daemon=True)
        with hold_interrupts():
            process.start()
            self._connection, self._process = ours, process
        theirs.close()


def draw_ahead(store: TransitionStore, cuts: Iterable[Cut], n_processes: int) -> Generator[Cut, None, None]:
    """Draw and cache the cuts that are not cached; yields each when it is done. Close it to end the processes."""
    missing = [cut for cut in dict.fromkeys(cuts) if not store.cached(cut)]
    n_processes = min(n_processes, len(missing) // 2)  # the start of a process takes as long as a few transitions
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
        _kill(drawers)  # what they are at is of no use any more
        threads.shutdown()


def _started(n_processes: int) -> list[Drawer]:
    """All of them, or none where the system allows no processes."""
    drawers: list[Drawer] = []
    try:
        with hold_interrupts():
            for _ in range(n_processes):
                drawers.append(Drawer())
    except OSError as error:
        _log.warning("transitions are drawn by one process: others cannot be started (%s)", error.strerror or error)
        _kill(drawers)
        return []
    except BaseException:
        _kill(drawers)
        raise
    return drawers


def _kill(drawers: Sequence[Drawer]) -> None:
    for drawer in drawers:
        drawer.kill()


def _serve(connection: Connection, stands_back: bool) -> None:
    """A worker process: ends when the other end of the connection does, however that came about."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # a request to end goes to all of a service, and its server ends us
    if stands_back:
        _stand_back()
    cv2.setNumThreads(1)  # the processes share the cores already
    makers = _Makers()
    with threadpool_limits(1), suppress(EOFError, OSError):
        while True:
            if not connection.poll(_IDLE_S):
                makers.close_packs()
            path, key, blender, cut = connection.recv()
            try:
                answer: list[bytes] | TangoError = makers.get(path, key, blender).make(cut)
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
            os.nice(_NICE)


class _Makers:
    """What a process has opened: a few packs, and blenders, which may hold networks, for as long as it lives."""

    def __init__(self) -> None:
        self._makers: OrderedDict[tuple[Path, str], TransitionMaker] = OrderedDict()
        self._blenders: dict[tuple[str, int, str], Blender] = {}

    def close_packs(self) -> None:
        """An opened pack takes disk space, even if it was deleted."""
        self._makers.clear()

    def get(self, path: Path, key: str, blender: Blender) -> TransitionMaker:
        """Raises ArtifactError where another pack lies there by now."""
        maker = self._makers.pop((path, key), None)
        if maker is None:
            pack = CharacterPack.open(path)
            if cache_key(pack, blender) != key:
                raise ArtifactError(f"{path} was built anew: what its predecessor asks for cannot be drawn from it")
            same = self._blenders.setdefault((blender.name, blender.version, blender.settings), blender)
            maker = TransitionMaker(pack, same)
        self._makers[path, key] = maker
        if len(self._makers) > _MAX_MAKERS:
            self._makers.popitem(last=False)
        return maker

"""What the server monitors: the folder of characters, and the delay of the event loop."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress

from engine.errors import TangoError
from engine.inference.networks import Networks
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.character import Character
from tango_rt.pipeline.store import CharacterStore
from tango_rt.pipeline.summary import CharacterSummary
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.warm import prepare, rehearse

__all__ = ["FolderWatch", "watch_characters", "watch_loop"]

_log = logging.getLogger(__name__)

_REST = 20.0  # pause between scans, as a multiple of their duration: for thousands of packs, 1/20 of a core is enough
_LAG_S = 0.1
_LAGS_KEPT = 100  # 10 s
_LAG_WARNING_S = 0.25


async def watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop is: whatever delays it delays every stream."""
    lags: deque[float] = deque(maxlen=_LAGS_KEPT)
    warned_s = 0.0
    while True:
        due = time.monotonic() + _LAG_S
        await asyncio.sleep(_LAG_S)
        now = time.monotonic()
        lags.append(now - due)
        metrics.loop_lag(max(lags))
        if lags[-1] > _LAG_WARNING_S and now - warned_s > _LAGS_KEPT * _LAG_S:
            warned_s = now
            _log.warning("event loop late", extra={"lag_s": lags[-1]})


async def watch_characters(
    folder: "FolderWatch", pool: TransitionPool, n_workers: int, executor: Executor, looked: asyncio.Event
) -> None:
    """Compile kernels, open all characters, set `looked`; then keep opening new ones and reporting those removed."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(executor, rehearse, pool, n_workers)
    while True:
        began_s = loop.time()
        await loop.run_in_executor(executor, folder.look)
        took_s = loop.time() - began_s
        looked.set()
        await loop.run_in_executor(executor, folder.verify)
        await asyncio.sleep(max(folder.look_s, _REST * took_s))


class FolderWatch:
    """Opens characters ahead of time, so that no session waits for it."""

    def __init__(
        self,
        store: CharacterStore,
        config: ServerConfig,
        metrics: Metrics,
        networks: Networks | None = None,
        look_s: float = 2.0,
    ) -> None:
        """look_s: from one look to the next, at the least."""
        self.look_s = look_s
        self.ending = threading.Event()
        self._store = store
        self._config = config
        self._networks = networks
        self._metrics = metrics
        self._listed: Mapping[str, CharacterSummary] = {}
        self._problems: Mapping[str, str] = {}
        self._unverified: OrderedDict[str, None] = OrderedDict()
        self._n_prepared = 0

    def look(self) -> None:
        """Scan the folder once. Returns early if `ending` is set."""
        self._store.look(self._prepare, self.ending)
        if not self.ending.is_set():
            self._tell()

    def verify(self) -> None:
        """Read newly opened packs completely, for at most the time between two scans."""
        until_s = time.monotonic() + self.look_s
        while self._unverified and time.monotonic() < until_s and not self.ending.is_set():
            character_id, _ = self._unverified.popitem(last=False)
            with suppress(TangoError):  # the next scan reports it
                self._store.verify(character_id)

    def _tell(self) -> None:
        listed, problems = self._store.listed, self._store.problems
        for gone in self._listed.keys() - listed.keys() - problems.keys():
            _log.info("character gone", extra={"character": gone})
        for character_id, problem in problems.items():
            if self._problems.get(character_id) != problem:
                _log.warning("character unusable", extra={"character": character_id, "problem": problem})
        self._listed, self._problems = listed, problems
        self._metrics.characters(len(listed), len(problems))

    def _prepare(self, character: Character) -> None:
        """Let a newly opened character perform, unless there are more than stay open."""
        started = time.monotonic()
        about = {"character": character.id, "sha256": character.sha256[:12], "nodes": character.pack.info.n_nodes}
        self._unverified[character.id] = None
        self._n_prepared += 1
        try:
            if self._n_prepared <= self._store.max_open:
                prepare(character, self._config, self._networks)
        except TangoError as error:  # with the default retrieval; another may work
            _log.warning("character cannot be performed by default", extra={**about, "problem": str(error)})
        except Exception:  # our fault; the watch goes on
            _log.exception("character cannot be performed by default", extra=about)
        else:
            _log.info("character opened", extra={**about, "duration_s": time.monotonic() - started})
        if character.pack.drawn is None:
            advice = f"run 'tango-rt character warm {character.pack.path.name}'"
            _log.warning("character without drawn transitions: some will be late", extra={**about, "advice": advice})

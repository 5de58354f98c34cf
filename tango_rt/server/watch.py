"""What the server keeps an eye on: the folder of characters, and whether the event loop is on time."""

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Executor

from engine.errors import TangoError
from engine.networks import Networks
from tango_rt.characters.store import CharacterStore
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.character import Character
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.warm import prepare, rehearse

__all__ = ["FolderWatch", "watch_characters", "watch_loop"]

_log = logging.getLogger(__name__)

_LOOK_S = 2.0
_LAG_S = 0.1
_LAGS_KEPT = 100  # 10 s
_LAG_TOLD_S = 0.25


async def watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop is: what makes it wait, makes every stream wait."""
    lags: deque[float] = deque(maxlen=_LAGS_KEPT)
    told = 0.0
    while True:
        due = time.monotonic() + _LAG_S
        await asyncio.sleep(_LAG_S)
        now = time.monotonic()
        lags.append(now - due)
        metrics.loop_lag(max(lags))
        if lags[-1] > _LAG_TOLD_S and now - told > _LAGS_KEPT * _LAG_S:
            told = now
            _log.warning("event loop late", extra={"lag_s": lags[-1]})


async def watch_characters(
    folder: "FolderWatch", pool: TransitionPool, n_workers: int, executor: Executor, looked: asyncio.Event
) -> None:
    """Compile kernels, open all characters, set `looked`; from then on open what is added and tell what is gone."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(executor, rehearse, pool, n_workers)
    while True:
        await loop.run_in_executor(executor, folder.look)
        looked.set()
        await asyncio.sleep(_LOOK_S)


class FolderWatch:
    """Opens characters before anybody asks for them, so that no session waits for that."""

    def __init__(
        self, store: CharacterStore, config: ServerConfig, metrics: Metrics, networks: Networks | None = None
    ) -> None:
        self.ending = threading.Event()
        self._store = store
        self._config = config
        self._networks = networks
        self._metrics = metrics
        self._opened: dict[str, Character] = {}
        self._unfit: dict[str, Character] = {}
        self._problems: dict[str, str] = {}

    def look(self) -> None:
        """Once over the folder. Returns early where `ending` is set."""
        ids = self._store.ids()
        for character_id in ids:
            if self.ending.is_set():
                return
            self._open(character_id)
        for gone in set(self._opened) - set(self._store.ids()):
            del self._opened[gone]
            _log.info("character gone", extra={"character": gone})
        problems = self._store.problems()
        for character_id, problem in problems.items():
            if self._problems.get(character_id) != problem:
                _log.warning("character unusable", extra={"character": character_id, "problem": problem})
        self._problems = problems
        self._metrics.characters(len(self._opened), len(problems))

    def _open(self, character_id: str) -> None:
        started = time.monotonic()
        try:
            character = self._store.get(character_id)
        except TangoError:  # gone already, or among the problems of the store
            return
        if character in (self._opened.get(character_id), self._unfit.get(character_id)):
            return
        about = {"character": character_id, "sha256": character.sha256[:12], "nodes": character.pack.info.n_nodes}
        try:
            prepare(character, self._config, self._networks)
        except TangoError as error:  # by the default retrieval; another may do
            self._unfit[character_id] = character
            _log.warning("character cannot be performed by default", extra={**about, "problem": str(error)})
            return
        self._unfit.pop(character_id, None)
        self._opened[character_id] = character
        _log.info("character opened", extra={**about, "duration_s": time.monotonic() - started})

"""The server as a process: it serves until a signal asks it to stop, then waits for its sessions."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from engine.cores import usable_cores
from engine.heaps import bound_heaps
from tango_rt import __version__
from tango_rt.pipeline.store import MAX_OPEN
from tango_rt.server.config import ServerConfig
from tango_rt.server.listening import GestureServer

__all__ = ["Ready", "serve"]

_log = logging.getLogger(__name__)

_ENOUGH_FILES = 65_536
_OTHER_FILES = 256  # of sockets, workers and libraries


@dataclass(frozen=True)
class Ready:
    """The state of a server once it accepts sessions."""

    addresses: tuple[str, ...]  # with their real ports
    metrics: str | None  # address; None: not served
    characters: tuple[str, ...]
    tls: bool
    token: bool  # whether one is required
    warm_up_s: float
    pid: int
    version: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


async def serve(
    config: ServerConfig,
    listening: Callable[[], None] | None = None,
    ready: Callable[[Ready], None] | None = None,
) -> bool:
    """Run until SIGTERM, SIGINT or SIGHUP, then let sessions continue for at most config.grace_s.

    listening: called when all addresses are bound; ready: when sessions are accepted.
    Returns False if a second signal cut that short. Raises InputError for an unusable configuration, BackendError if an
    essential part of the server has died.
    """
    bound_heaps(max(usable_cores(), 2))
    _allow_descriptors(config)
    server = GestureServer(config)
    with _signals() as signals:
        async with server:
            if listening is not None:
                listening()
            starting = asyncio.create_task(_start(server, ready))
            number = await _first(starting, signals, server)
            _log.info("draining", extra={"signal": signal.Signals(number).name, "sessions": server.active_sessions})
            draining, hurry = asyncio.create_task(server.drain()), asyncio.create_task(signals.get())
            await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
            in_order = draining.done()
            for task in (starting, draining, hurry):
                task.cancel()
    _log.info("ended", extra={"in_order": in_order})
    return in_order


def _allow_descriptors(config: ServerConfig) -> None:
    """Raise the limit of open files as far as allowed; warn if it is too low for the connections admitted."""
    with suppress(ImportError):  # systems without such a limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = resource.RLIM_INFINITY
        most = _ENOUGH_FILES if hard == unlimited else min(hard, _ENOUGH_FILES)
        if soft != unlimited and soft < most:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                soft = most
        needed = config.max_connections + MAX_OPEN + _OTHER_FILES
        if soft != unlimited and soft < needed:
            _log.warning("the limit of open files is low, see 'ulimit -n'", extra={"limit": soft, "wanted": needed})


async def _start(server: GestureServer, ready: Callable[[Ready], None] | None) -> None:
    warm_up_s = await server.warm_up()
    said = Ready(
        addresses=server.addresses,
        metrics=server.metrics_address,
        characters=tuple(server.store.listed),
        tls=server.config.tls_cert is not None,
        token=server.wants_token,
        warm_up_s=round(warm_up_s, 3),
        pid=os.getpid(),
        version=__version__,
    )
    _log.info("serving", extra=said.to_dict())
    if ready is not None:
        ready(said)


async def _first(starting: "asyncio.Task[None]", signals: "asyncio.Queue[int]", server: GestureServer) -> int:
    """The first signal, perhaps while the server is starting. Raises the error of the start, or of the server since."""
    asked, failing = asyncio.create_task(signals.get()), asyncio.create_task(server.failed())
    try:
        await asyncio.wait({starting, asked, failing}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            if starting.done():
                starting.result()
            await asyncio.wait({asked, failing}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            failing.result()
        return asked.result()
    finally:
        asked.cancel()
        failing.cancel()


@contextmanager
def _signals() -> "Iterator[asyncio.Queue[int]]":
    """A queue of the signals that arrive, in place of their usual effect. Ignored ones (nohup) stay ignored."""
    heard: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        loop.add_signal_handler(number, heard.put_nowait, number)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

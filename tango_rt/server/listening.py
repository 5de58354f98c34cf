"""The server as an object: addresses, interceptors, health and executors, from start to shutdown."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from threadpoolctl import threadpool_limits

from engine.errors import BackendError, InputError
from engine.features.learned import open_embedding_networks
from engine.inference.networks import NetworkOptions, Networks
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.captions import check_text
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.config import ServerConfig
from tango_rt.server.gate import DEFAULT_LIMITS, Gate, GateLimits
from tango_rt.server.health import Health
from tango_rt.server.metrics import Metrics
from tango_rt.server.prices import measure_prices
from tango_rt.server.security import (
    Address,
    check_free,
    check_plaintext,
    load_credentials,
    load_tokens,
    parse_address,
    socket_permissions,
    warn_about_files,
)
from tango_rt.server.service import SERVICE, GestureService
from tango_rt.server.warm import clear_leftovers
from tango_rt.server.watch import FolderWatch, watch_characters, watch_loop

__all__ = ["GestureServer"]

_log = logging.getLogger(__name__)

_OTHER_CALLS = 100  # on one connection, in addition to all sessions (a gateway's): more wait in the client
_PING_TOLERANCE = 0.8  # for clocks and networks: a client that pings at the limit is not cut off
_HANDSHAKE_MS = 10_000
_INT_MAX = 2**31 - 1
_LAST_S = 0.5  # for the last bytes to leave


class GestureServer:
    """Use it in an `async with`. It listens from the start, and refuses sessions until warm_up is done.

    Raises InputError for an unusable configuration, ArtifactError for a bundle that is damaged or that no verification
    report vouches for.
    """

    def __init__(self, config: ServerConfig, limits: GateLimits = DEFAULT_LIMITS, look_s: float = 2.0) -> None:
        """look_s: how often the folder of characters is looked at."""
        self.config = config
        self._limits = limits
        listen = [parse_address(text) for text in config.listen]
        check_plaintext(listen, config)
        self.store = CharacterStore(config.characters)
        self.networks = _open_networks(config)
        tokens = load_tokens(config)
        self.wants_token = bool(tokens)
        self._credentials = load_credentials(config)
        if config.label is not None:
            check_text(config.label, "label")
        self._metrics_at = _metrics_address(config.metrics_listen)
        for address in listen:
            check_free(address)
        self.metrics = Metrics()
        self.addresses: tuple[str, ...] = ()
        self.metrics_address: str | None = None
        self._listen = listen
        self._tokens = tokens
        self._health = Health([SERVICE])
        self._folder = FolderWatch(self.store, config, self.metrics, self.networks, look_s)
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    @property
    def active_sessions(self) -> int:
        return self._service.active_sessions

    async def __aenter__(self) -> Self:
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack:  # undoes the first half if the second fails
            if self._metrics_at is not None:
                endpoint = stack.enter_context(self.metrics.serve(self._metrics_at.host, self._metrics_at.port))
                self.metrics_address = str(Address(endpoint.host, endpoint.port))
            stack.enter_context(threadpool_limits(1))  # sessions already use all cores
            self._executor = self._threads(stack, self.config.threads, "session")
            self._opener = self._threads(stack, 1, "opener")  # separate: opening a character takes seconds
            limit_bytes = self.config.transition_cache_mb << 20
            # in a thread: the main thread would replace signal handlers while it starts processes
            self._pool = await asyncio.get_running_loop().run_in_executor(
                self._opener, TransitionPool, self.config.draw_workers, limit_bytes
            )
            stack.callback(self._pool.close)
            stack.callback(self._folder.ending.set)
            if self.networks is not None:
                stack.callback(self.networks.close)
            self._service = GestureService(
                self.config, self.store, self._pool, self._executor, self.metrics, self.networks
            )
            stack.callback(self._service.close)
            self._gate = Gate(
                self._tokens,
                self.config,
                self.metrics,
                self._service.silent,
                self._service.refusals,
                self._limits,
            )
            self._server = self._grpc_server()
            self.addresses = tuple(self._bind(address) for address in self._listen)
            await self._server.start()
            stack.push_async_callback(self._stop)
            self._warn()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def warm_up(self) -> float:
        """Compile the kernels, open all characters, then accept sessions. Returns the seconds it took."""
        started = time.monotonic()
        looked = asyncio.Event()
        watching = watch_characters(self._folder, self._pool, self.config.draw_workers, self._opener, looked)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._opener, clear_leftovers, self.config.characters)
        prices = await loop.run_in_executor(self._opener, measure_prices)
        self._service.charge(prices)
        await _first_of(self._in_background(watching), looked)
        self._gate.is_warm = True
        self._health.set(True)
        self.metrics.ready(True)
        self._in_background(watch_loop(self.metrics))
        return time.monotonic() - started

    async def failed(self) -> None:
        """Wait forever, or raise BackendError when a background task has died."""
        await asyncio.shield(self._failed)

    async def drain(self) -> bool:
        """Accept no more sessions and wait for the running ones; False if config.grace_s was not enough."""
        self._health.set(False)
        self.metrics.ready(False)
        self._service.begin_drain()
        try:
            await asyncio.wait_for(self._service.drained(), self.config.grace_s)
        except TimeoutError:
            _log.warning("sessions cut off", extra={"sessions": self.active_sessions, "grace_s": self.config.grace_s})
            return False
        return True

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._health.close()
        if self.active_sessions:
            self._service.cut_off()  # gRPC would end them without giving a reason
            with suppress(TimeoutError):
                await asyncio.wait_for(self._service.drained(), _LAST_S)
        await self._server.stop(None if self.active_sessions else _LAST_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._service.drained(), _LAST_S)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_end)
        self._tasks.append(task)
        return task

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self._failed.done():
            return
        error, name = task.exception(), getattr(task.get_coro(), "__name__", "a task")
        _log.error("a task of the server has died", extra={"task": name}, exc_info=error)
        self._failed.set_exception(BackendError(f"{name} of the server has died ({error!r}): it cannot go on"))
        self._failed.exception()  # marks it as retrieved, even if nobody waits

    def _threads(self, stack: AsyncExitStack, n: int, name: str) -> ThreadPoolExecutor:
        executor = ThreadPoolExecutor(n, thread_name_prefix=f"tango-{name}")
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        return executor

    def _grpc_server(self) -> "grpc.aio.Server":
        server = grpc.aio.server(interceptors=[self._gate], options=_channel_options(self.config))
        self._service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self.config.reflection:
            names = [SERVICE, *(found.full_name for found in _own_services())]
            reflection.enable_server_reflection(names, server)
        return server

    def _bind(self, address: Address) -> str:
        """Listen; returns the address with its real port."""
        try:
            with socket_permissions(address.path, self.config.socket_mode):
                if self._credentials is None or address.path:  # socket files have permissions instead
                    port = self._server.add_insecure_port(str(address))
                else:
                    port = self._server.add_secure_port(str(address), self._credentials)
        except RuntimeError as error:
            check_free(address)  # reports if another process took it meanwhile
            raise InputError(f"cannot listen at {address}: gRPC does not take this address") from error
        return str(address) if address.path else str(Address(address.host, port))

    def _warn(self) -> None:
        beyond = [str(address) for address in self._listen if not address.is_local]
        if beyond and self._credentials is None:
            _log.warning("traffic is not encrypted: no TLS", extra={"addresses": beyond})
        if beyond and not self.wants_token and self.config.tls_client_ca is None:
            _log.warning("anybody can use this server: no token, no client certificates", extra={"addresses": beyond})
        if self._metrics_at is not None and not self._metrics_at.is_local:
            _log.warning("anybody can read the metrics", extra={"address": self.metrics_address})
        warn_about_files(self.config)


def _own_services() -> tuple[Any, Any]:
    health = health_pb2.DESCRIPTOR.services_by_name["Health"]
    return health, reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 0),  # otherwise two servers can share a port unnoticed
        # larger than our limit, so that the refusal is ours and has a reason; beyond it, gRPC stops reading
        ("grpc.max_receive_message_length", min(config.max_message_bytes * 2, _INT_MAX)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", config.max_sessions + _OTHER_CALLS),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", _ms(config.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(config.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(config.min_ping_s * _PING_TOLERANCE)),
        ("grpc.max_connection_idle_ms", _ms(config.max_connection_idle_s)),
    ]
    if config.max_connection_age_s is not None:
        options.append(("grpc.max_connection_age_ms", _ms(config.max_connection_age_s)))
        options.append(("grpc.max_connection_age_grace_ms", _ms(config.max_connection_age_grace_s)))
    return options


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _open_networks(config: ServerConfig) -> Networks | None:
    """The networks of all sessions; only verified ones, unless the user asked for others."""
    if config.bundle is None:
        return None
    options = NetworkOptions(
        config.backend,
        config.precision,
        config.profile,
        config.engines,
        config.unverified,
        config.trust_engines,
    )
    networks = open_embedding_networks(config.bundle, options)
    _log.info("networks", extra={"bundle": str(config.bundle), "run_by": networks.reason})
    return networks


def _metrics_address(text: str | None) -> Address | None:
    """A port alone means loopback: to be scraped from other machines, the address must be given."""
    if text is None:
        return None
    address = parse_address(f"127.0.0.1:{text}" if text.isdecimal() else text, "metrics_listen")
    if address.path:
        raise InputError(f"metrics_listen is {text!r}: expected HOST:PORT or PORT")
    return address


async def _first_of(task: "asyncio.Task[None]", event: asyncio.Event) -> None:
    """Wait for the event; raises the error of the task if it ends first."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not event.is_set():
            task.result()
    finally:
        waiting.cancel()

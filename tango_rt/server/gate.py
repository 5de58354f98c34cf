"""What every call has to pass: the token, the end of the warm-up, and the limit on calls of its kind.

gRPC's own limit on calls is not used: it counts all kinds together, so health watchers could keep sessions out, and it
refuses without a reason.
"""

import asyncio
import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc

from tango_rt.server.clients import parse_token, peer_address
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.refusals import RefusalLog
from tango_rt.server.requests import receive_request
from tango_rt.server.rooms import Room, SilentCalls
from tango_rt.server.status import Refusal, abort

__all__ = ["DEFAULT_LIMITS", "Gate", "GateLimits"]

_HEALTH = "/grpc.health.v1.Health/"
_WATCH = _HEALTH + "Watch"
_REFLECTION = "/grpc.reflection."
_OURS = "/tango_rt.v1."
_WARM_UP_S = 2.0

_MISSING = Refusal(
    grpc.StatusCode.UNAUTHENTICATED,
    "TOKEN_MISSING",
    "this server requires a token: send the metadata 'authorization: Bearer TOKEN'",
)
_WRONG = Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_WRONG", "this token is not accepted")
_WARMING_UP = Refusal(
    grpc.StatusCode.UNAVAILABLE,
    "WARMING_UP",
    "the server is starting and accepts no calls yet: try again shortly",
    retry_s=_WARM_UP_S,
)


@dataclass(frozen=True)
class GateLimits:
    """Calls at once of each kind but sessions and clips."""

    watchers: int = 32  # of health; as many as sessions, where those are more
    watchers_per_connection: int = 4
    reflections: int = 8
    reflections_per_connection: int = 2
    reflection_s: float = 30.0  # how long one may last
    short_calls: int = 100


DEFAULT_LIMITS = GateLimits()


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """tokens: those that are accepted; empty: no token is required."""

    def __init__(
        self,
        tokens: Iterable[str],
        config: ServerConfig,
        metrics: Metrics,
        silent: SilentCalls,
        log: RefusalLog,
        limits: GateLimits = DEFAULT_LIMITS,
    ) -> None:
        """silent: shared with the service, whose sessions also wait for a first message."""
        self.is_warm = False
        self._digests = [_digest(token) for token in tokens]
        self._config = config
        self._reflection_s = limits.reflection_s
        self._metrics = metrics
        self._silent = silent
        self._log = log
        # clients that check the health of their connections hold a watcher on each
        most_watchers = max(limits.watchers, config.max_sessions)
        self._watchers = Room("TOO_MANY_WATCHERS", "health watchers", most_watchers, limits.watchers_per_connection)
        self._reflections = Room(
            "TOO_MANY_REFLECTIONS", "reflection streams", limits.reflections, limits.reflections_per_connection
        )
        self._short = Room("TOO_MANY_CALLS", "short calls", limits.short_calls)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        refusal = self._refusal(method, handler_call_details.invocation_metadata)
        if refusal is None:
            handler = await continuation(handler_call_details)
            return None if handler is None else self._counted(method, handler)

        async def refuse(_: Any, context: Any) -> None:
            with _unless_gone():
                await self._refuse(refusal, method, context)

        # fits calls of every kind, and answers before the client has sent anything
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _counted(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        """The same call, within the limit of its kind. Its messages are read here: gRPC would read them, however large,
        before we could refuse the call."""
        behave = handler.stream_stream or handler.unary_stream or handler.unary_unary

        async def counted(requests: Any, context: Any) -> None:
            with _unless_gone():
                await take(requests, context)

        async def take(requests: Any, context: Any) -> None:
            try:
                if not handler.request_streaming:
                    requests = await receive_request(context, self._silent, self._config.idle_timeout_s)
                with self._room(method, peer_address(context)):
                    async with asyncio.timeout(self._reflection_s if method.startswith(_REFLECTION) else None) as limit:
                        await _answer(behave, requests, context)
            except TimeoutError:
                if not limit.expired():
                    raise
                message = f"a reflection stream may last {self._reflection_s:g} s: open another one"
                refusal = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "REFLECTION_TIMEOUT", message)
                await self._refuse(refusal, method, context)
            except Refusal as refusal:
                await self._refuse(refusal, method, context)

        return grpc.stream_stream_rpc_method_handler(counted, handler.request_deserializer, handler.response_serializer)

    def _room(self, method: str, connection: str) -> Any:
        if method == _WATCH:
            return self._watchers.place(connection)
        if method.startswith(_REFLECTION):
            return self._reflections.place(connection)
        if method.startswith(_OURS) and method.rpartition("/")[2] in ("StreamGestures", "RenderClip"):
            return nullcontext()  # the service limits sessions, and silent calls before them
        return self._short.place(connection)

    async def _refuse(self, refusal: Refusal, method: str, context: Any) -> None:
        self._metrics.refused(refusal.reason)
        self._log.refused(refusal.reason, method=method, peer=context.peer())
        await abort(context, refusal)

    def _refusal(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Refusal | None:
        if self._digests and not (self._config.open_health and method.startswith(_HEALTH)):
            given = [str(value) for key, value in metadata if key == "authorization"]
            if not given:
                return _MISSING
            if len(given) != 1 or not self._is_known(given[0]):
                return _WRONG
        return _WARMING_UP if not self.is_warm and method.startswith(_OURS) else None

    def _is_known(self, header: str) -> bool:
        """Takes a time that reveals nothing about the tokens: not their letters, their lengths or which one matches."""
        token = parse_token(header)
        if token is None:
            return False
        given = _digest(token)
        return any([hmac.compare_digest(given, known) for known in self._digests])


@contextmanager
def _unless_gone() -> Iterator[None]:
    """A client may have gone before gRPC reports it: a failed write then ends the call like a cancellation."""
    try:
        yield
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


async def _answer(behave: Callable[[Any, Any], Any], requests: Any, context: Any) -> None:
    answer = behave(requests, context)
    if inspect.isasyncgen(answer):
        async for message in answer:
            await context.write(message)
    elif (message := await answer) is not None:
        await context.write(message)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

"""What every call has to pass: the token, and the end of the warm-up."""

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from tango_rt.server.metrics import Metrics
from tango_rt.server.status import Refusal, abort

__all__ = ["Gate"]

_log = logging.getLogger(__name__)

_HEALTH = "/grpc.health.v1.Health/"
_OURS = "/tango_rt.v1."
_SCHEME = "bearer "
_WARM_UP_S = 2.0


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """tokens: those that are accepted; none: no token is asked for. open_health: health checks need none."""

    def __init__(self, tokens: Iterable[str], open_health: bool, metrics: Metrics) -> None:
        self.is_warm = False
        self._digests = [_digest(token) for token in tokens]
        self._open_health = open_health
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> grpc.RpcMethodHandler:
        refusal = self._refusal(handler_call_details.method, handler_call_details.invocation_metadata)
        if refusal is None:
            return await continuation(handler_call_details)
        method = handler_call_details.method

        async def refuse(_: Any, context: Any) -> None:
            self._metrics.refused(refusal.reason)
            _log.warning("call refused", extra={"reason": refusal.reason, "method": method, "peer": context.peer()})
            await abort(context, refusal)

        # fits calls of every kind, and answers before the client has said anything
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _refusal(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Refusal | None:
        if self._digests and not (self._open_health and method.startswith(_HEALTH)):
            given = [str(value) for key, value in metadata if key == "authorization"]
            if not given:
                return Refusal(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "TOKEN_MISSING",
                    "this server wants a token: send the metadata 'authorization: Bearer TOKEN'",
                )
            if len(given) != 1 or not self._is_known(given[0]):
                return Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_WRONG", "this token is not accepted")
        if not self.is_warm and method.startswith(_OURS):
            return Refusal(
                grpc.StatusCode.UNAVAILABLE,
                "WARMING_UP",
                "the server is starting and takes no calls yet: try again shortly",
                retry_s=_WARM_UP_S,
            )
        return None

    def _is_known(self, header: str) -> bool:
        """In a time that tells nothing of the tokens: not their letters, not their lengths, not which one it is."""
        if header[: len(_SCHEME)].lower() != _SCHEME:
            return False
        given = _digest(header[len(_SCHEME) :].strip())
        return any([hmac.compare_digest(given, known) for known in self._digests])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

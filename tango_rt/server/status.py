"""Why a call is refused: a canonical gRPC status with machine-readable details.

Every status carries google.rpc.ErrorInfo (reason, domain); BadRequest names wrong fields, and if it makes sense to try
again, RetryInfo says when. Nothing internal to the server is exposed: no trace, no path.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from engine.errors import ArtifactError, InputError
from tango_rt.pipeline.store import UnknownCharacter

__all__ = ["DOMAIN", "RETRY_S", "Refusal", "abort", "bad_field", "draining", "refusal_for"]

DOMAIN = "tango-rt"
RETRY_S = 1.0
"""When to retry a call that was refused because of the state of the server, in seconds."""

MAX_MESSAGE_CHARACTERS = 500  # it is sent twice, in headers that gRPC limits to 8 KiB


class Refusal(Exception):
    """Ends a call. reason: UPPER_SNAKE; field: of the request, for BadRequest; retry_s: for RetryInfo."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        field: str | None = None,
        retry_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(" ".join(message.split())[:MAX_MESSAGE_CHARACTERS])
        self.code = code
        self.reason = reason
        self.field = field
        self.retry_s = retry_s
        self.metadata = dict(metadata or {})

    @cached_property
    def answer(self) -> Any:
        """The status for gRPC; built once for a refusal that is sent again and again."""
        return rpc_status.to_status(self.to_status())

    def to_status(self) -> status_pb2.Status:
        status = status_pb2.Status(code=self.code.value[0], message=str(self))
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.field is not None:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=str(self))
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_s * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return status


def bad_field(field: str, message: str, reason: str = "BAD_FIELD") -> Refusal:
    """A field of the request is invalid. message: what was found, what is wanted."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, reason, message, field=field)


def draining() -> Refusal:
    """The server accepts no more sessions and ends the running ones."""
    message = "the server is shutting down: reconnect"
    return Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", message, retry_s=RETRY_S)


def refusal_for(error: BaseException) -> Refusal:
    """The refusal to send for any error."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, UnknownCharacter):
        return Refusal(grpc.StatusCode.NOT_FOUND, "UNKNOWN_CHARACTER", str(error))
    if isinstance(error, InputError):
        return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "BAD_FIELD", str(error))
    if isinstance(error, ArtifactError):
        message = "the character cannot be performed: its pack must be rebuilt (the server's log says why)"
        return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CHARACTER_UNUSABLE", message)
    return Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "the server failed; its log says why")


async def abort(context: Any, refusal: Refusal) -> None:
    """End the call of a grpc.aio servicer context; always raises. Waits for clients that do not read."""
    await context.abort_with_status(refusal.answer)

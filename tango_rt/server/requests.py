"""Messages of clients, before anybody looks at what they ask for."""

from collections.abc import Callable
from typing import Any

import grpc

from tango_rt.server.rooms import SilentCalls
from tango_rt.server.status import Refusal
from tango_rt.v1 import session_pb2

__all__ = ["check_readable", "kind_of", "opening", "reader", "received"]

_UNREADABLE = object()


class _TooLarge(int):
    """Instead of a message, how many bytes it may have."""


def reader(message: Any, most_bytes: int) -> Callable[[bytes], Any]:
    """Reads a message class. gRPC itself would end a call without a reason where it cannot be read, or is larger."""

    def read(data: bytes) -> Any:
        if len(data) > most_bytes:
            return _TooLarge(most_bytes)
        try:
            return message.FromString(data)
        except Exception:  # of protobuf's kind, which is no promise of its interface
            return _UNREADABLE

    return read


def check_readable(request: Any) -> None:
    """Raises Refusal for what was no message of the protocol."""
    if request is _UNREADABLE:
        message = "a message cannot be read: it is not of the package tango_rt.v1"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "BAD_MESSAGE", message)
    if isinstance(request, _TooLarge):
        message = f"a message was larger than {int(request)} bytes, as many as this server takes"
        metadata = {"max_message_bytes": str(int(request))}
        raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", message, metadata=metadata)


async def received(context: Any, silent: SilentCalls, timeout_s: float) -> Any:
    """The one message of a call that has only one. Raises Refusal."""
    try:
        async with silent.patience(timeout_s):
            request = await context.read()
    except TimeoutError as error:
        message = "the message of this call did not come in time: send it with the call"
        raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT", message) from error
    if request is grpc.aio.EOF:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "BAD_MESSAGE", "the call ended without a message")
    return request


async def opening(context: Any, silent: SilentCalls, timeout_s: float) -> session_pb2.SessionConfig:
    """The configuration, which must come first. Raises Refusal."""
    try:
        async with silent.patience(timeout_s):
            request = await context.read()
    except TimeoutError as error:
        message = f"no configuration came within {timeout_s:g} s, or before too many other calls: send it first"
        raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "CONFIG_TIMEOUT", message) from error
    if request is grpc.aio.EOF:
        raise _config_missing("the stream ended")
    kind = kind_of(request)
    if kind != "config":
        raise _config_missing(f"{kind} came")
    return request.config


def kind_of(request: Any) -> str:
    """Which field of a request is set. Raises Refusal for what says nothing."""
    check_readable(request)
    kind = request.WhichOneof("message")
    if kind is None:
        message = "a message says nothing that this server knows: set one of its fields"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_MESSAGE", message)
    return str(kind)


def _config_missing(found: str) -> Refusal:
    message = f"the configuration must come first, but {found}"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CONFIG_MISSING", message)

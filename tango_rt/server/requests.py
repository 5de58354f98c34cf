"""Reading the messages of clients, before their contents are looked at."""

from collections.abc import Callable
from typing import Any

import grpc

from tango_rt.server.rooms import SilentCalls
from tango_rt.server.status import Refusal
from tango_rt.v1 import session_pb2

__all__ = ["check_readable", "reader", "receive_config", "receive_request", "request_kind"]

_UNREADABLE = object()


class _TooLarge(int):
    """Replaces a message that is too large: how many bytes it may have."""


def reader(message: Any, most_bytes: int) -> Callable[[bytes], Any]:
    """A reader for a message class. gRPC itself would end the call without a reason if one is bad or too large."""

    def read(data: bytes) -> Any:
        if len(data) > most_bytes:
            return _TooLarge(most_bytes)
        try:
            return message.FromString(data)
        except Exception:  # which one is not part of protobuf's documented interface
            return _UNREADABLE

    return read


def check_readable(request: Any) -> None:
    """Raises Refusal for anything but a message of the protocol."""
    if request is _UNREADABLE:
        message = "a message cannot be read: it is not from the package tango_rt.v1"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "BAD_MESSAGE", message)
    if isinstance(request, _TooLarge):
        message = f"a message was larger than {int(request)} bytes, the limit of this server"
        metadata = {"max_message_bytes": str(int(request))}
        raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", message, metadata=metadata)


async def receive_request(context: Any, silent: SilentCalls, timeout_s: float) -> Any:
    """The message of a unary call. Raises Refusal."""
    try:
        async with silent.patience(timeout_s):
            request = await context.read()
    except TimeoutError as error:
        message = "the message of this call did not arrive in time: send it with the call"
        raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT", message) from error
    if request is grpc.aio.EOF:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "BAD_MESSAGE", "the call ended without a message")
    return request


async def receive_config(context: Any, silent: SilentCalls, timeout_s: float) -> session_pb2.SessionConfig:
    """The configuration, which must be the first message. Raises Refusal."""
    try:
        async with silent.patience(timeout_s):
            request = await context.read()
    except TimeoutError as error:
        message = f"no configuration arrived within {timeout_s:g} s, or before too many other calls: send it first"
        raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "CONFIG_TIMEOUT", message) from error
    if request is grpc.aio.EOF:
        raise _config_missing("the stream ended")
    kind = request_kind(request)
    if kind != "config":
        raise _config_missing(f"{kind} came")
    return request.config


def request_kind(request: Any) -> str:
    """Which field of a request is set. Raises Refusal if none is."""
    check_readable(request)
    kind = request.WhichOneof("message")
    if kind is None:
        message = "a message has no field that this server knows: set one of its fields"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_MESSAGE", message)
    return str(kind)


def _config_missing(found: str) -> Refusal:
    message = f"the configuration must come first, but {found}"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CONFIG_MISSING", message)

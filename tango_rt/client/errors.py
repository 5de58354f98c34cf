"""Failures of a server or of the connection to it: one line, with the reason defined by the protocol."""

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tango_rt.client.printable import printable

try:
    from tango_rt.errors import BackendError, InputError, TangoError
except ModuleNotFoundError:  # tango-rt-client is installed without the engine

    class TangoError(Exception):  # type: ignore[no-redef]
        """Base of all errors of this project; the message is one line for the user."""

    class InputError(TangoError):  # type: ignore[no-redef]
        """Bad input from the caller."""

    class BackendError(TangoError):  # type: ignore[no-redef]
        """This machine, or the connection to another, lacks something."""


if TYPE_CHECKING:
    from tango_rt.client.route import Route

__all__ = [
    "BackendError",
    "InputError",
    "ServerError",
    "TangoError",
    "broken",
    "ended_early",
    "late_acceptance",
    "not_accepted",
    "server_error",
    "stalled",
]

_DETAILS = "grpc-status-details-bin"

_PREFIX = re.compile(r"^(UNKNOWN: |UNAVAILABLE: )?(ipv[46]:\S+: )?")  # the message names the address already

_TRANSPORT = {
    "CANCELLED": "the call was cancelled",
    "DEADLINE_EXCEEDED": "no answer in time",
    "UNAVAILABLE": "no server answers there, or it has gone away",
    "UNIMPLEMENTED": "the server there does not speak tango_rt.v1",
    "RESOURCE_EXHAUSTED": "there is no room for it",
}


_LARGER = "larger than max"  # gRPC's own words
_TOO_LARGE = "a message was larger than allowed"
_MAX_REASON = 64
_MAX_RETRY_S = 24 * 3600


class ServerError(BackendError):
    """A call failed.

    reason: UPPER_SNAKE, from the server (ErrorInfo); the name of the code if the connection failed.
    code: name of the gRPC status code.
    retry_s: seconds after which to try again, if the server says so, at most a day.
    metadata: of the server's ErrorInfo, unchecked.
    """

    def __init__(
        self, message: str, reason: str, code: str, retry_s: float | None = None, metadata: dict[str, str] | None = None
    ) -> None:
        reason = printable(reason, _MAX_REASON)
        super().__init__(f"{printable(message)} ({reason})")
        self.reason = reason
        self.code = code
        self.retry_s = retry_s
        self.metadata = metadata or {}


def server_error(error: Any, route: "Route") -> ServerError:
    """The ServerError for an error of gRPC: a finished call, or an AioRpcError."""
    code = error.code().name
    details = error.details() or ""
    info, retry_s = _read_details(error.trailing_metadata())
    if info is None:
        what = _TOO_LARGE if _LARGER in details else _TRANSPORT.get(code, "the call failed")
        cause = _PREFIX.sub("", details.rpartition("last error: ")[2])
        return ServerError(f"{route}: {what}: {cause}" if cause else f"{route}: {what}", code, code)
    return ServerError(f"{route.target}: {details}", info.reason, code, retry_s, dict(info.metadata))


def late_acceptance(route: "Route", timeout_s: float) -> ServerError:
    code = "DEADLINE_EXCEEDED"
    return ServerError(f"{route}: the session was not accepted within {timeout_s:g} s", code, code)


def not_accepted(route: "Route") -> ServerError:
    return ServerError(f"{route}: the server began without accepting the session", "NOT_ACCEPTED", "INTERNAL")


def broken(route: "Route", what: str) -> ServerError:
    """The server sent something that cannot be true, or that the protocol does not know."""
    return ServerError(f"{route}: the server breaks the protocol: {what}", "BROKEN_PROTOCOL", "INTERNAL")


def ended_early(route: "Route") -> ServerError:
    what = "the server ended the session before all speech was performed"
    return ServerError(f"{route}: {what}", "ENDED_EARLY", "INTERNAL")


def stalled(route: "Route", patience_s: float) -> ServerError:
    code = "DEADLINE_EXCEEDED"
    return ServerError(f"{route}: the server owes an answer and has sent nothing for {patience_s:g} s", "STALLED", code)


def _read_details(trailing: Any) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    info, retry_s = None, None
    for key, value in trailing or ():
        if key != _DETAILS:
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    found = error_details_pb2.ErrorInfo()
                    detail.Unpack(found)
                    info = found
                elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                    retry = error_details_pb2.RetryInfo()
                    detail.Unpack(retry)
                    delay_s = retry.retry_delay.ToNanoseconds() / 1e9
                    retry_s = delay_s if 0 <= delay_s <= _MAX_RETRY_S else None
        except (DecodeError, TypeError):  # untrusted; TypeError: not bytes, as this header must be
            continue
    return info, retry_s

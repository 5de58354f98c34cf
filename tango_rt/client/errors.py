"""What a server, or the way to it, answers instead of frames: one line, with the reason of the protocol."""

import re
from typing import TYPE_CHECKING, Any

from google.rpc import error_details_pb2, status_pb2

try:
    from tango_rt.errors import BackendError, InputError, TangoError
except ModuleNotFoundError:  # the client alone: nothing else is there to share them with

    class TangoError(Exception):  # type: ignore[no-redef]
        """Base of all errors of this project; the message is one line for the user."""

    class InputError(TangoError):  # type: ignore[no-redef]
        """What the caller gave cannot be used."""

    class BackendError(TangoError):  # type: ignore[no-redef]
        """The machine, or the way to another, lacks something."""


if TYPE_CHECKING:
    from tango_rt.client.route import Route

__all__ = ["BackendError", "InputError", "ServerError", "TangoError", "late_acceptance", "not_accepted", "server_error"]

_DETAILS = "grpc-status-details-bin"

_PREFIX = re.compile(r"^(UNKNOWN: |UNAVAILABLE: )?(ipv[46]:\S+: )?")  # the address is told already

_TRANSPORT = {
    "CANCELLED": "the call was cancelled",
    "DEADLINE_EXCEEDED": "no answer in time",
    "UNAVAILABLE": "no server answers there, or it went away",
    "UNIMPLEMENTED": "the server there does not speak tango_rt.v1",
    "RESOURCE_EXHAUSTED": "a message was larger than allowed",
}


class ServerError(BackendError):
    """A call failed.

    reason: UPPER_SNAKE, of the server (ErrorInfo); the name of the code where the way to it failed. code: the name of
    the gRPC status code. retry_s: after how many seconds to try again, where the server says so.
    """

    def __init__(
        self, message: str, reason: str, code: str, retry_s: float | None = None, metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{' '.join(message.split())} ({reason})")
        self.reason = reason
        self.code = code
        self.retry_s = retry_s
        self.metadata = metadata or {}


def server_error(error: Any, route: "Route") -> ServerError:
    """From what gRPC raised: a finished call, or an AioRpcError."""
    code = error.code().name
    details = error.details() or ""
    info, retry_s = _read_details(error.trailing_metadata())
    if info is None:
        said = _TRANSPORT.get(code, "the call failed")
        cause = _PREFIX.sub("", details.rpartition("last error: ")[2])
        return ServerError(f"{route}: {said}: {cause}" if cause else f"{route}: {said}", code, code)
    return ServerError(f"{route.target}: {details}", info.reason, code, retry_s, dict(info.metadata))


def late_acceptance(route: "Route", timeout_s: float) -> ServerError:
    code = "DEADLINE_EXCEEDED"
    return ServerError(f"{route}: the session was not accepted within {timeout_s:g} s", code, code)


def not_accepted(route: "Route") -> ServerError:
    return ServerError(f"{route}: the server began without accepting the session", "NOT_ACCEPTED", "INTERNAL")


def _read_details(trailing: Any) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    info, retry_s = None, None
    for key, value in trailing or ():
        if key != _DETAILS:
            continue
        status = status_pb2.Status()
        try:
            status.MergeFromString(value)
        except ValueError:  # a stranger's
            continue
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_s = retry.retry_delay.ToNanoseconds() / 1e9
    return info, retry_s

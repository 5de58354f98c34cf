"""Talk to a server: `from tango_rt.client import Client, AsyncClient, SessionOptions, ServerError`.

    with Client("localhost:50051") as client, client.stream(SessionOptions("anna")) as session:
        session.send_audio(samples)  # from any thread, while frames are read
        session.finish()
        for event in session: ...

Events are the messages of the protocol themselves: VideoFrame, UtteranceStarted, UtteranceFinished, Underrun, Warning,
Stats, Pong, CuePlayed and CueRefused of tango_rt.v1. The client never retries and never reconnects: failures raise
ServerError, bad arguments raise InputError; both are TangoErrors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tango_rt.client.distributions import warn_about_mixture

if TYPE_CHECKING:
    from tango_rt.client.aio import AsyncClient, AsyncSession
    from tango_rt.client.channel import ConnectOptions
    from tango_rt.client.errors import BackendError, InputError, ServerError, TangoError
    from tango_rt.client.measurements import Measurements
    from tango_rt.client.options import SessionOptions
    from tango_rt.client.plain import Client, Session
    from tango_rt.client.spoken import SpokenWord

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "BackendError",
    "Client",
    "ConnectOptions",
    "InputError",
    "Measurements",
    "ServerError",
    "Session",
    "SessionOptions",
    "SpokenWord",
    "TangoError",
]

_PLACES = {
    "AsyncClient": "aio",
    "AsyncSession": "aio",
    "BackendError": "errors",
    "Client": "plain",
    "ConnectOptions": "channel",
    "InputError": "errors",
    "Measurements": "measurements",
    "ServerError": "errors",
    "Session": "plain",
    "SessionOptions": "options",
    "SpokenWord": "spoken",
    "TangoError": "errors",
}


def __getattr__(name: str) -> Any:
    # on first use, so that the command line can read the options of this package without importing grpc
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_about_mixture()
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value

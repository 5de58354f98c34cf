"""The connection to a server: TLS, the token, and its limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tango_rt.client.errors import InputError
from tango_rt.client.files import read_small
from tango_rt.client.route import Route

__all__ = ["ConnectOptions", "channel_options", "credentials", "metadata"]

_MAX_MESSAGE_BYTES = 64 * 2**20  # a raw 4K picture has 25 MB; gRPC's default limit is 4 MB


@dataclass(frozen=True)
class ConnectOptions:
    """How to reach a server.

    The default is plaintext to this machine and TLS to any other. Proxies set in the environment (grpc_proxy,
    https_proxy, ...) are used for other machines only.
    """

    token: str | None = None  # bearer token
    tls: bool = False  # TLS to this machine too
    ca: Path | None = None  # PEM of the authority to trust; None: those that grpc trusts
    cert: Path | None = None  # PEM of our own certificate, for servers that ask for one (mutual TLS)
    key: Path | None = None  # PEM of its private key
    name: str | None = None  # name in the server's certificate, if it differs from the address
    insecure: bool = False  # plaintext to another machine, but never through a proxy
    timeout_s: float = 10.0  # for the answer to a unary call, and for the acceptance of a session
    patience_s: float = 60.0  # longest silence of a server that owes an answer; its clock may run ahead by as much


def credentials(route: Route, options: ConnectOptions) -> grpc.ChannelCredentials | None:
    """None: plaintext. Raises InputError if a file cannot be read, options contradict each other, or a proxy would
    see plaintext."""
    asked = options.tls or any((options.ca, options.cert, options.key, options.name))
    if options.insecure and asked:
        raise InputError("TLS and 'insecure' contradict each other: leave one out")
    if (options.cert is None) != (options.key is None):
        raise InputError("a certificate and its key belong together: give both")
    if options.insecure or (route.loopback and not asked):
        _check_plaintext(route)
        return None
    return grpc.ssl_channel_credentials(_read(options.ca), _read(options.key), _read(options.cert))


def _check_plaintext(route: Route) -> None:
    """Trust in the network to another machine is not trust in a proxy that sees all traffic."""
    if route.proxy is not None and route.proxy.used:
        raise InputError(f"{route} without TLS: the proxy would read all speech and the token, so use TLS or bypass it")


def channel_options(route: Route, options: ConnectOptions) -> list[tuple[str, Any]]:
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        # detects servers that vanished silently; not needed without calls
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 15_000),
        # no silent retries
        ("grpc.enable_retries", 0),
        # otherwise clients of one process share a connection, and its failures
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if route.here:
        arguments += [("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", "")]
    if options.name:
        arguments.append(("grpc.ssl_target_name_override", options.name))
    return arguments


def metadata(options: ConnectOptions) -> tuple[tuple[str, str], ...]:
    if options.token is None:
        return ()
    if not options.token or not options.token.isascii() or not options.token.isprintable():
        raise InputError("the token is empty or has characters that are not allowed in a header")
    return (("authorization", f"Bearer {options.token}"),)


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return read_small(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error

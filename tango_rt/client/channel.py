"""The connection to a server: TLS, the token, and its limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tango_rt.client.errors import InputError
from tango_rt.client.files import read_small
from tango_rt.client.route import Route

__all__ = ["ConnectOptions", "channel_options", "credentials", "metadata"]

_MAX_MESSAGE_BYTES = 64 * 2**20  # a raw picture of 4K has 25 MB; gRPC's own limit is 4


@dataclass(frozen=True)
class ConnectOptions:
    """How to reach a server.

    Plaintext to this machine, TLS to any other; tls asks for it here too, insecure does without it elsewhere, but not
    through a proxy. What the environment says of proxies (grpc_proxy, https_proxy, ...) counts for other machines only.
    ca: PEM of whom to trust (default: what grpc trusts). cert and key: who we are, for servers that ask (mutual TLS).
    name: the name in the server's certificate where it is reached by another. timeout_s: for every answer to a single
    question, and for the acceptance of a session. patience_s: a session ends where the server owes something and
    nothing comes for so long; its clock may be ahead of ours by as much.
    """

    token: str | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None
    insecure: bool = False
    timeout_s: float = 10.0
    patience_s: float = 60.0


def credentials(route: Route, options: ConnectOptions) -> grpc.ChannelCredentials | None:
    """None: plaintext. Raises InputError where a file cannot be read, options contradict each other, or a proxy would
    see plaintext."""
    asked = options.tls or any((options.ca, options.cert, options.key, options.name))
    if options.insecure and asked:
        raise InputError("TLS and 'insecure' are asked for at once: leave out one")
    if (options.cert is None) != (options.key is None):
        raise InputError("a certificate and its key are wanted together")
    if options.insecure or (route.loopback and not asked):
        _check_plaintext(route)
        return None
    return grpc.ssl_channel_credentials(_read(options.ca), _read(options.key), _read(options.cert))


def _check_plaintext(route: Route) -> None:
    """Who trusts the network to another machine has not said so of a proxy that everything passes through."""
    if route.proxy is not None and route.proxy.used:
        raise InputError(
            f"{route} without TLS: the proxy would read all speech and the token, so use TLS or go around it"
        )


def channel_options(route: Route, options: ConnectOptions) -> list[tuple[str, Any]]:
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        # a server that vanished without a word is noticed; without calls there is nothing to notice
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 15_000),
        # nothing is tried again behind the caller's back
        ("grpc.enable_retries", 0),
        # else clients of one process share a connection, and its failures
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
        raise InputError("the token is empty or has characters that no header can carry")
    return (("authorization", f"Bearer {options.token}"),)


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return read_small(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error

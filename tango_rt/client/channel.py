"""The way to a server: its address, TLS, the token, and the limits of the connection."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from engine.errors import InputError

__all__ = ["ConnectOptions", "channel_options", "check_target", "credentials", "metadata"]

_MAX_MESSAGE_BYTES = 64 * 2**20  # a raw picture of 4K has 25 MB; gRPC's own limit is 4
_LOOPBACK = re.compile(r"^(localhost|127(\.\d{1,3}){3}|\[::1\]):")
_TARGET = re.compile(r"^(unix:.+|(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):\d{1,5})$")


@dataclass(frozen=True)
class ConnectOptions:
    """How to reach a server.

    Plaintext to this machine, TLS to any other; tls asks for it here too, insecure does without it elsewhere.
    ca: PEM of whom to trust (default: what grpc trusts). cert and key: who we are, for servers that ask (mutual TLS).
    name: the name in the server's certificate where it is reached by another. timeout_s: for every answer to a single
    question, and for the acceptance of a session.
    """

    token: str | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None
    insecure: bool = False
    timeout_s: float = 10.0


def check_target(target: str) -> str:
    """The address itself; InputError where it is none."""
    if not _TARGET.match(target):
        raise InputError(f"{target!r} is no address of a server, wanted HOST:PORT")
    return target


def credentials(target: str, options: ConnectOptions) -> grpc.ChannelCredentials | None:
    """None: plaintext. Raises InputError where a file cannot be read, or options contradict each other."""
    asked = options.tls or any((options.ca, options.cert, options.key, options.name))
    if options.insecure and asked:
        raise InputError("TLS and 'insecure' are asked for at once: leave out one")
    if (options.cert is None) != (options.key is None):
        raise InputError("a certificate and its key are wanted together")
    here = target.startswith("unix:") or _LOOPBACK.match(target)
    if options.insecure or (here and not asked):
        return None
    return grpc.ssl_channel_credentials(_read(options.ca), _read(options.key), _read(options.cert))


def channel_options(options: ConnectOptions) -> list[tuple[str, Any]]:
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
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error

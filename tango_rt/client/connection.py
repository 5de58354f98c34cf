"""The options of the command lines for reaching a server."""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tango_rt.client.channel import ConnectOptions

__all__ = ["add_connection", "connect_options", "quiet"]

TOKEN_VARIABLE = "TANGO_RT_TOKEN"


def add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the connection (default: TLS, but plaintext to this machine)")
    group.add_argument("--tls", action="store_true", help="use TLS to this machine as well")
    group.add_argument("--tls-ca", type=Path, metavar="PEM", help="trust servers with a certificate of this authority")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="our own certificate, if the server asks for one")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    group.add_argument("--tls-name", metavar="HOST", help="name in the server's certificate")
    group.add_argument(
        "--insecure", action="store_true", help="plaintext to another machine, but never through a proxy"
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the bearer token (default: from {TOKEN_VARIABLE})",
    )
    group.add_argument(
        "--patience",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="give up if the server owes an answer and sends nothing for this long (default: 60)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def quiet() -> None:
    """Silence gRPC's own log: our one line says the same."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)


def connect_options(arguments: argparse.Namespace) -> "ConnectOptions":
    """Raises InputError for a token that cannot be read."""
    from tango_rt.client.channel import ConnectOptions
    from tango_rt.client.errors import InputError
    from tango_rt.client.files import read_small

    token = os.environ.get(TOKEN_VARIABLE) or None
    if arguments.token_file is not None:
        try:
            token = read_small(arguments.token_file).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise InputError(f"{arguments.token_file}: cannot read the token ({reason})") from error
    return ConnectOptions(
        token=token,
        tls=arguments.tls,
        ca=arguments.tls_ca,
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        name=arguments.tls_name,
        insecure=arguments.insecure,
        patience_s=arguments.patience,
    )

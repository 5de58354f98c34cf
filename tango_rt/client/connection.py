"""The options of the command lines that say how to reach a server."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tango_rt.client.channel import ConnectOptions

__all__ = ["add_connection", "connection_of"]

TOKEN_VARIABLE = "TANGO_RT_TOKEN"


def add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the connection: TLS, but plaintext within this machine")
    group.add_argument("--tls", action="store_true", help="TLS within this machine as well")
    group.add_argument("--tls-ca", type=Path, metavar="PEM", help="trust servers with a certificate of this authority")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="our own certificate, where the server wants one")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    group.add_argument("--tls-name", metavar="HOST", help="name in the server's certificate")
    group.add_argument(
        "--insecure", action="store_true", help="plaintext to another machine, but never through a proxy"
    )
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"holds the bearer token (default: what {TOKEN_VARIABLE} holds)"
    )


def connection_of(arguments: argparse.Namespace) -> "ConnectOptions":
    """Raises InputError for a token that cannot be read."""
    from tango_rt.client.channel import ConnectOptions
    from tango_rt.client.errors import InputError

    token = os.environ.get(TOKEN_VARIABLE) or None
    if arguments.token_file is not None:
        try:
            token = arguments.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{arguments.token_file}: the token cannot be read ({error})") from error
    return ConnectOptions(
        token=token,
        tls=arguments.tls,
        ca=arguments.tls_ca,
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        name=arguments.tls_name,
        insecure=arguments.insecure,
    )

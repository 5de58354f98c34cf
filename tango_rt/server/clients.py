"""Who a call is from, for limits that each client has on its own."""

from typing import Any
from urllib.parse import unquote

from tango_rt.server.config import ServerConfig

__all__ = ["client_of", "connection_of", "token_in"]

_SCHEME = "bearer "


def client_of(context: Any, config: ServerConfig) -> str:
    """By its token where tokens are asked for, else by its certificate where those are, else by its address.

    context: of a call that was let in, so that nobody makes up a token to be somebody else. The port is no part of an
    address, or each connection would be a client; neither is who stands behind a proxy, which is one client for all.
    """
    if config.token is not None or config.token_file is not None:
        given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if given:
            return f"token:{token_in(str(given[0]))}"
    if config.tls_client_ca is not None:
        names = context.peer_identities()
        if names:
            return "certificate:" + "|".join(name.decode("utf-8", "replace") for name in names)
    return f"address:{_without_port(connection_of(context))}"


def connection_of(context: Any) -> str:
    """As gRPC names it: ipv4:127.0.0.1:50123, ipv6:[::1]:50123, or unix:."""
    return unquote(str(context.peer()))


def token_in(header: str) -> str | None:
    """The token of an authorization header; None where it holds something else."""
    return header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else None


def _without_port(connection: str) -> str:
    return connection.rpartition(":")[0] if connection.startswith(("ipv4:", "ipv6:")) else connection

"""Which client a call is from, for limits per client."""

from typing import Any
from urllib.parse import unquote

from tango_rt.server.config import ServerConfig

__all__ = ["identify_client", "parse_token", "peer_address"]

_SCHEME = "bearer "


def identify_client(context: Any, config: ServerConfig) -> str:
    """An id for the client: by its token if tokens are required, else by certificate if those are, else by address.

    context: of an authorised call, so a made-up token is impossible. The port does not count, or each connection would
    be a client of its own. All clients of a proxy count as one.
    """
    if config.token is not None or config.token_file is not None:
        given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if given:
            return f"token:{parse_token(str(given[0]))}"
    if config.tls_client_ca is not None:
        names = context.peer_identities()
        if names:
            return "certificate:" + "|".join(name.decode("utf-8", "replace") for name in names)
    return f"address:{_without_port(peer_address(context))}"


def peer_address(context: Any) -> str:
    """The peer as gRPC names it: ipv4:127.0.0.1:50123, ipv6:[::1]:50123, or unix:."""
    return unquote(str(context.peer()))


def parse_token(header: str) -> str | None:
    """The token of an authorization header; None if it holds something else."""
    return header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else None


def _without_port(connection: str) -> str:
    return connection.rpartition(":")[0] if connection.startswith(("ipv4:", "ipv6:")) else connection

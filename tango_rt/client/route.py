"""How a server is reached: within this machine, directly, or through the proxy set in the environment.

gRPC core reads the environment itself, in lower case only: grpc_proxy, else https_proxy, else http_proxy; an empty
value means no proxy. no_grpc_proxy, else no_proxy, lists host name suffixes and networks that are reached directly.
This module follows the same rules.
"""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tango_rt.client.errors import InputError

__all__ = ["Proxy", "Route", "route_to"]

_TARGET = re.compile(r"^(unix:.+|(\[[0-9a-fA-F:.]+(%\w+)?\]|[^\s:/\[\]]+):\d{1,5})$")
_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True)
class Proxy:
    """The proxy set in the environment."""

    variable: str  # that names it
    address: str  # without user and password
    used: bool  # gRPC only supports http://


@dataclass(frozen=True)
class Route:
    """The route to a server. str() mentions the proxy too, for errors of the connection."""

    target: str  # HOST:PORT or unix:PATH
    loopback: bool  # certainly this machine, whatever a name server says
    here: bool  # this machine, perhaps by its name or another of its addresses: no proxy is used
    proxy: Proxy | None

    def __str__(self) -> str:
        if self.proxy is None:
            return self.target
        if self.proxy.used:
            around = f"no_grpc_proxy={_host(self.target)} bypasses it"
            return f"{self.target} through the proxy {self.proxy.address} ({self.proxy.variable}; {around})"
        return f"{self.target} without {self.proxy.variable} ({self.proxy.address}: gRPC only supports http:// proxies)"


def route_to(target: str) -> Route:
    """Raises InputError if target is not an address."""
    if not _TARGET.match(target):
        raise InputError(f"{target!r} is not the address of a server, wanted HOST:PORT")
    host = _host(target)
    if host is None or host == "localhost":
        return Route(target, loopback=True, here=True, proxy=None)
    numeric = _numeric(host)
    loopback = any(_loops(address) for address in numeric)
    here = loopback or _is_own_name(host) or any(_is_own(address) for address in numeric)
    return Route(target, loopback, here, None if here or _is_excepted(host) else _proxy())


def _host(target: str) -> str | None:
    """In lower case, without brackets, port and trailing dot; None for a socket in the file system."""
    if target.startswith("unix:"):
        return None
    host = target.rpartition(":")[0].lower()
    return host.removeprefix("[").removesuffix("]").replace("%25", "%").rstrip(".")


def _is_own_name(host: str) -> bool:
    own = socket.gethostname().lower()
    return host.endswith(".localhost") or host in (own, own.partition(".")[0])


def _numeric(host: str) -> list[Any]:
    """The results of getaddrinfo for a host that is an address (127.1 too); empty for names."""
    for address in (host, host.partition("%")[0]):  # only link-local addresses may have a zone
        try:
            return list(socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        except (OSError, ValueError):  # a name; a name that cannot be one
            continue
    return []


def _loops(found: Any) -> bool:
    address: Any = ipaddress.ip_address(found[4][0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return bool(address.is_loopback or address.is_unspecified)


def _is_own(found: Any) -> bool:
    """A socket can only be bound to addresses of this machine; nothing is sent."""
    try:
        with socket.socket(found[0], socket.SOCK_STREAM) as trial:
            trial.bind(found[4])
    except OSError:
        return False
    return True


def _proxy() -> Proxy | None:
    variable = next((name for name in _VARIABLES if name in os.environ), None)
    if variable is None or not os.environ[variable]:
        return None
    scheme, user_and_address = urlsplit(os.environ[variable])[:2]
    address = user_and_address.rpartition("@")[2]
    if scheme == "http" and address:
        return Proxy(variable, address, used=True)
    return Proxy(variable, f"{scheme}://{address}" if address else "no http:// address", used=False)


def _is_excepted(host: str) -> bool:
    """Whether no_grpc_proxy or no_proxy lists the host."""
    listed = next((os.environ[name] for name in _EXCEPTIONS if name in os.environ), "")
    entries = [entry.strip().lower() for entry in listed.split(",") if entry]
    return any(host.endswith(entry) or _is_in(host, entry) for entry in entries)


def _is_in(host: str, network: str) -> bool:
    try:
        return "/" in network and ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False

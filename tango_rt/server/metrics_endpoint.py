"""Metrics by HTTP, for scrapers; silent connections cannot take up more than a few threads."""

import socket
import threading
from collections import deque
from contextlib import suppress
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from engine.errors import InputError

__all__ = ["MetricsEndpoint"]

_MAX_CONNECTIONS = 8


class MetricsEndpoint:
    """`port` is the real one. Raises InputError if it is not available."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int, max_silent_s: float = 5.0) -> None:
        """max_silent_s: a connection that says nothing for so long is closed."""
        try:
            family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _server_class(family)(place[:2], _handler_of(max_silent_s))
        except OSError as error:
            raise InputError(f"metrics cannot be served at {host}:{port}: {error.strerror or error}") from error
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="tango-metrics", daemon=True)
        self._thread.start()
        self.host, self.port = host, int(self._server.server_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: requests are not logged."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection. Beyond the limit the oldest is closed: a scrape takes only milliseconds."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self._open: deque[socket.socket] = deque()
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.append(request)
            if len(self._open) > _MAX_CONNECTIONS:
                with suppress(OSError):
                    self._open.popleft().shutdown(socket.SHUT_RDWR)  # its thread ends by itself
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock, suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that hangs up is not an error."""


def _server_class(family: int) -> type[_Server]:
    """HTTPServer itself only listens on IPv4."""
    return type("_Server", (_Server,), {"address_family": family})


def _handler_of(timeout_s: float) -> type[_Handler]:
    return type("_Handler", (_Handler,), {"timeout": timeout_s})

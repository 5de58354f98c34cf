"""An HTTP proxy that writes down what it is asked for, and refuses it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """address: HOST:PORT. asked: the first line of every request."""

    address: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def fake_proxy(answer: bytes = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(f"127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(listener, proxy, answer), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, proxy: Proxy, answer: bytes) -> None:
    held = []  # what is not answered stays open, as at a proxy that hangs
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        connection.settimeout(10)
        asked = b""
        while b"\r\n\r\n" not in asked and (more := connection.recv(4096)):
            asked += more
        proxy.asked.append(asked.split(b"\r\n")[0].decode("latin-1"))
        if answer:
            connection.sendall(answer)
            connection.close()
        else:
            held.append(connection)
    for connection in held:
        connection.close()

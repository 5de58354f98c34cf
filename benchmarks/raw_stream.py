"""One gRPC stream over a socket of its own, with nothing but what measuring needs.

grpc's own Python client takes about as much time a frame as the server does: on a machine that runs both, it would be
the client that is measured. Here a frame costs a recv and a slice. HTTP/2: RFC 9113; gRPC over it: length-prefixed
messages in DATA.
"""

import socket
import struct
from collections import deque
from collections.abc import Iterator

__all__ = ["PREFACE", "RawStream", "call_headers", "http2_frame"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_CANCEL = 8
_FRAME_BYTES = 16_384
_DEFAULT_WINDOW = 65_535
_MAX_WINDOW = 2**31 - 1
_RECV_BYTES = 1 << 18
_PATH = "/tango_rt.v1.GestureService/StreamGestures"


class RawStream:
    """A stream of one call, not blocking. send() what there is to say, receive() when the socket is readable."""

    def __init__(
        self, host: str, port: int, window: int = _MAX_WINDOW, receive_buffer: int | None = None, token: str = ""
    ) -> None:
        """window: bytes that the server may send before they are read; receive_buffer: of the socket."""
        self.ended = False
        self.ready = False
        """The server has answered: what is sent now arrives at once."""
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._out = bytearray(PREFACE)
        self._in = bytearray()
        self._message = bytearray()
        self._refill = window // 2
        self._received = 0
        self._credit = self._stream_credit = self._new_stream_credit = _DEFAULT_WINDOW
        self._queued: deque[bytes] = deque()
        self._frame(_SETTINGS, 0, 0, struct.pack(">HIHI", _INITIAL_WINDOW_SIZE, window, _MAX_FRAME_SIZE, 2**24 - 1))
        if window > _DEFAULT_WINDOW:
            self._frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", window - _DEFAULT_WINDOW))
        self._frame(_HEADERS, _END_HEADERS, 1, call_headers(f"{host}:{port}", _PATH, token))
        self.flush()

    def send(self, message: bytes) -> None:
        """A message of the call; waits in memory while the server has not read."""
        data = struct.pack(">BI", 0, len(message)) + message
        self._queued.extend(data[start : start + _FRAME_BYTES] for start in range(0, len(data), _FRAME_BYTES))
        self.flush()

    def half_close(self) -> None:
        self._frame(_DATA, _END_STREAM, 1, b"")
        self.flush()

    def cancel(self) -> None:
        self._frame(_RST_STREAM, 0, 1, struct.pack(">I", _CANCEL))
        self.flush()
        self.close()

    def close(self) -> None:
        self.ended = True
        self.socket.close()

    def flush(self) -> None:
        """Write what the socket and the server's windows take."""
        while self._queued and len(self._queued[0]) <= min(self._credit, self._stream_credit):
            data = self._queued.popleft()
            self._credit -= len(data)
            self._stream_credit -= len(data)
            self._frame(_DATA, 0, 1, data)
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def receive(self, most_bytes: int = _RECV_BYTES) -> Iterator[bytes]:
        """The messages that have arrived whole, reading at most so much from the socket."""
        if self.ended:
            return
        try:
            data = self.socket.recv(most_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        self._received += len(data)
        start = 0
        while len(self._in) - start >= 9:
            size = int.from_bytes(self._in[start : start + 3])
            if len(self._in) - start < 9 + size:
                break
            kind, flags = self._in[start + 3], self._in[start + 4]
            self._take(kind, flags, bytes(self._in[start + 5 : start + 9]), self._in[start + 9 : start + 9 + size])
            start += 9 + size
        del self._in[:start]
        yield from self._messages()
        if self._received > self._refill:
            for stream in (0, 1):
                self._frame(_WINDOW_UPDATE, 0, stream, struct.pack(">I", self._received))
            self._received = 0
        self.flush()

    def _messages(self) -> Iterator[bytes]:
        start = 0
        while len(self._message) - start >= 5:
            size = int.from_bytes(self._message[start + 1 : start + 5])
            if len(self._message) - start < 5 + size:
                break
            yield bytes(self._message[start + 5 : start + 5 + size])
            start += 5 + size
        del self._message[:start]

    def _take(self, kind: int, flags: int, stream: bytes, payload: bytearray) -> None:
        if kind == _DATA:
            self._message += payload
        elif kind == _SETTINGS and not flags & _ACK:
            self.ready = True
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == _INITIAL_WINDOW_SIZE:
                    self._stream_credit += value - self._new_stream_credit
                    self._new_stream_credit = value
            self._frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, 0, bytes(payload))
        elif kind == _WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream == b"\0\0\0\0":
                self._credit += more
            else:
                self._stream_credit += more
        elif kind in (_RST_STREAM, _GOAWAY):
            self.ended = True
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self.ended = True

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._out += http2_frame(kind, flags, stream, payload)


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def call_headers(authority: str, path: str, token: str = "") -> bytes:
    """The block of headers with which a call begins."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    if token:
        headers["authorization"] = f"Bearer {token}"
    return b"".join(_literal(name, value) for name, value in headers.items())


def _literal(name: str, value: str) -> bytes:
    """A header as HPACK writes it without any table."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

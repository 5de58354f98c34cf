"""What pictures cost on this machine, measured for admission when the server starts.

A copied picture (H.264, reference) costs next to nothing. One that is decoded and encoded again costs a few
milliseconds of a core, in a separate thread. A large one also costs the event loop, which all sessions share, the time
to copy it into the connection.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt.options import Encoding
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.codecs import DECODED, Decoded, decoded_pictures, is_decoded
from tango_rt.video.gop import GopDecoder, GopEncoder

__all__ = ["FREE", "Cost", "Price", "Prices", "measure_prices"]

_WIDTH, _HEIGHT = 640, 480
_TRIALS = 3
_COPIES = 2.0
"""gRPC copies a message once more than protobuf does and passes it to the kernel: writing a message takes about as long
as building it."""


@dataclass(frozen=True)
class Cost:
    """The cost of a stream (as fractions) or of a frame (in seconds)."""

    making: float = 0.0  # cores, in separate threads
    writing: float = 0.0  # share of the event loop

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.making + other.making, self.writing + other.writing)


FREE = Cost()


@dataclass(frozen=True)
class Price:
    """Seconds per pixel."""

    making_s: float
    writing_s: float


@dataclass(frozen=True)
class Prices:
    """Prices of the encodings that are not copied; all others cost nothing."""

    of: Mapping[Decoded, Price]

    def frame_s(self, encoding: Encoding, width: int, height: int) -> Cost:
        """Seconds for one picture."""
        if not is_decoded(encoding) or encoding not in self.of:
            return FREE
        price = self.of[encoding]
        return Cost(price.making_s * width * height, price.writing_s * width * height)

    def stream(self, encoding: Encoding, width: int, height: int) -> Cost:
        """The cost of a session in real time that shares no pictures with others."""
        frame = self.frame_s(encoding, width, height)
        return Cost(frame.making * FPS, frame.writing * FPS)


def measure_prices() -> Prices:
    """Measured in CPU time, which does not depend on other load; takes about 0.3 s."""
    encoder = GopEncoder(_WIDTH, _HEIGHT)
    packets = encoder.encode(_pictures())
    decoder = GopDecoder(encoder.extradata, _WIDTH, _HEIGHT)
    return Prices({encoding: _price(decoder, encoding, packets) for encoding in DECODED})


def _price(decoder: GopDecoder, encoding: Decoded, packets: list[bytes]) -> Price:
    pictures = decoded_pictures(decoder, encoding, packets)
    made_s = _least_s(lambda: decoded_pictures(decoder, encoding, packets))
    written_s = _least_s(lambda: [_message(picture) for picture in pictures])
    n_pixels = FRAMES_PER_NODE * _WIDTH * _HEIGHT
    return Price(made_s / n_pixels, _COPIES * written_s / n_pixels)


def _message(picture: bytes) -> bytes:
    """A frame as a session builds it."""
    message = session_pb2.StreamGesturesResponse()
    message.frame.data, message.frame.encoding = picture, media_pb2.VIDEO_ENCODING_RGB24
    return message.SerializeToString()


def _least_s(work: Callable[[], object]) -> float:
    taken: list[float] = []
    for _ in range(_TRIALS):
        start_s = time.thread_time()
        work()
        taken.append(time.thread_time() - start_s)
    return min(taken)


def _pictures() -> np.ndarray:
    """uint8 (4, height, width, 3): large shapes, fine texture and a little movement, about as costly as a person."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (FRAMES_PER_NODE, _HEIGHT // 40, _WIDTH // 40, 3))
    shapes = np.kron(coarse[:1], np.ones((1, 40, 40, 1))) + np.zeros((FRAMES_PER_NODE, 1, 1, 1))
    texture = rng.normal(0, 6, (1, _HEIGHT, _WIDTH, 1)) + rng.normal(0, 1, (FRAMES_PER_NODE, _HEIGHT, _WIDTH, 1))
    return np.clip(shapes + texture, 0, 255).astype(np.uint8)

"""Whom a soak attacks, and what all attacks are made of: streams, calls, messages."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.raw_stream import RawStream
from tango_rt.client import SessionOptions
from tango_rt.v1 import service_pb2_grpc, session_pb2

__all__ = ["Attack", "Target", "message", "options_of", "read_for", "refused_calls", "sound"]

ENCODINGS = ("h264", "h264", "reference", "jpeg", "rgb24", "i420")

Attack = Callable[["Target", random.Random], None]


@dataclass(frozen=True)
class Target:
    """Whom to attack. sources: folders a and b, with a pack of the same name but different content in each."""

    host: str
    port: int
    token: str
    characters: str
    sources: str
    pack: str  # its name; installed again and again
    victim: str  # the name of a pack that is copied over where it lies
    seed: int = 0

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    def stream(self) -> RawStream:
        return RawStream(self.host, self.port, token=self.token)

    @contextmanager
    def stub(self, token: str | None = None) -> Iterator[Callable[[str, Any], Any]]:
        """Calls a method of the service, on a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 1 << 20)]
        with grpc.insecure_channel(f"{self.host}:{self.port}", options) as channel:
            service = service_pb2_grpc.GestureServiceStub(channel)
            said = self.token if token is None else token
            headers = [("authorization", f"Bearer {said}")] if said else []
            yield lambda name, request, **more: getattr(service, name)(request, timeout=30, metadata=headers, **more)


def message(**fields: Any) -> bytes:
    return session_pb2.StreamGesturesRequest(**fields).SerializeToString()


def sound(rng: random.Random, n_samples: int) -> bytes:
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 3000, n_samples)
    return message(audio=session_pb2.AudioChunk(data=noise.astype("<i2").tobytes()))


def options_of(target: Target, rng: random.Random, **fixed: Any) -> SessionOptions:
    chosen: dict[str, Any] = {
        "video_encoding": rng.choice(ENCODINGS),
        "pacing": rng.choice(("realtime", "realtime", "fast")),
        "blender": rng.choice(("flow", "crossfade", "cut")),
        "lookahead_nodes": rng.choice((None, 0, 2, 8)),
        "whole_utterance": rng.random() < 0.2,
        "seed": rng.choice((0, rng.randrange(1, 2**62))),
        "audio_echo": rng.random() < 0.3,
        "timings": rng.random() < 0.3,
        "late_policy": rng.choice(("drop", "block")),
        "stats_period_s": rng.choice((None, 0.1, 1.0)),
    }
    return SessionOptions(rng.choice((target.pack, target.victim)), **{**chosen, **fixed})


def read_for(stream: RawStream, seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    while not stream.ended and time.monotonic() < ends_s:
        for _ in stream.receive():
            pass
        time.sleep(0.02)


def refused_calls(target: Target, name: str, requests: Iterator[Any], token: str | None = None, **more: Any) -> None:
    with target.stub(token) as call:
        for request in requests:
            with suppress(grpc.RpcError):
                call(name, request, **more)

"""What hostile clients do to a server, all kinds of it by turns, from one process at moderate rates.

    python -m benchmarks.soak_attacks TARGET.json    (started by bench_soak; prints what it did as JSON when it is ended)

A few threads each take an attack at random, carry it out, rest a little and take the next. On the disk, packs that
nobody but the attackers performs are damaged and replaced; into the cache of transitions of all packs they put rubbish.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.bench_faults import garbage_bytes
from benchmarks.raw_stream import PREFACE, RawStream, call_headers, http2_frame
from engine.timebase import SAMPLE_RATE
from tango_rt.characters.install import install
from tango_rt.client import SessionOptions
from tango_rt.v1 import service_pb2, service_pb2_grpc, session_pb2

__all__ = ["ATTACKS", "Target"]

_N_THREADS = 4
_REST_S = (0.05, 0.6)
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_HEADERS = 4
_STREAM = "/tango_rt.v1.GestureService/StreamGestures"
_WATCH = "/grpc.health.v1.Health/Watch"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_ENCODINGS = ("h264", "h264", "reference", "jpeg", "rgb24", "i420")
_disk = threading.Lock()

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


def _message(**fields: Any) -> bytes:
    return session_pb2.StreamGesturesRequest(**fields).SerializeToString()


def _sound(rng: random.Random, n_samples: int) -> bytes:
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 3000, n_samples)
    return _message(audio=session_pb2.AudioChunk(data=noise.astype("<i2").tobytes()))


def _options(target: Target, rng: random.Random, **fixed: Any) -> SessionOptions:
    chosen: dict[str, Any] = {
        "video_encoding": rng.choice(_ENCODINGS),
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


def _read(stream: RawStream, seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    while not stream.ended and time.monotonic() < ends_s:
        for _ in stream.receive():
            pass
        time.sleep(0.02)


# --- sessions


def watched_and_killed(target: Target, rng: random.Random) -> None:
    """Speech and frames for a while, then an end that is none; some never read, some are still speaking."""
    stream = target.stream()
    stream.send(_message(config=_options(target, rng).to_config()))
    reads = rng.random() < 0.8
    for _ in range(rng.randrange(1, 20)):
        if stream.ended:
            break
        stream.send(_sound(rng, SAMPLE_RATE // 5))
        _read(stream, 0.2) if reads else time.sleep(0.2)
    rng.choice((stream.cancel, stream.close, stream.half_close))()
    _read(stream, 0.5)
    stream.close()


def fast(target: Target, rng: random.Random) -> None:
    stream = target.stream()
    encoding = rng.choice(("h264", "h264", "jpeg"))
    stream.send(_message(config=_options(target, rng, pacing="fast", video_encoding=encoding).to_config()))
    for _ in range(4):
        stream.send(_sound(rng, 5 * SAMPLE_RATE))
    stream.half_close()
    _read(stream, rng.uniform(0.5, 4))
    stream.close()


def refused(target: Target, rng: random.Random) -> None:
    for _ in range(20):
        config = _options(target, rng).to_config()
        field, value = rng.choice(
            (
                ("character", "nobody"),
                ("character", "../" * 20),
                ("lookahead_nodes", 9),
                ("retrieval", "x" * 1000),
                ("request_id", "y" * 65),
                ("video_encoding", 77),
                ("pacing", 5),
            )
        )
        setattr(config, field, value)
        stream = target.stream()
        stream.send(_message(config=config))
        _read(stream, 0.06)
        stream.close()


def clip(target: Target, rng: random.Random) -> None:
    options = _options(target, rng, pacing="fast", video_encoding="h264", stats_period_s=None, idle=False)
    sound = session_pb2.StreamGesturesRequest.FromString(_sound(rng, 30 * SAMPLE_RATE)).audio.data
    with target.stub() as call:
        frames = call("RenderClip", service_pb2.RenderClipRequest(config=options.to_config(), audio=sound))
        most = rng.choice((1, 100, 10_000))
        for _ in zip(range(most), frames, strict=False):
            pass
        frames.cancel()


def _flood(make: Callable[[random.Random, int], bytes], n: int) -> Attack:
    def attack(target: Target, rng: random.Random) -> None:
        stream = target.stream()
        stream.send(_message(config=_options(target, rng, pacing="realtime", video_encoding="h264").to_config()))
        for number in range(n):
            if number % 100 == 0:
                stream.send(_sound(rng, 1600))
                for _ in stream.receive():
                    pass
            stream.send(make(rng, number))
        _read(stream, 1)
        stream.close()

    return attack


def _interrupt(rng: random.Random, _: int) -> bytes:
    return _message(interrupt=session_pb2.Interrupt(mode=rng.randrange(3)))


def _tiny(rng: random.Random, _: int) -> bytes:
    return _message(audio=session_pb2.AudioChunk(data=rng.choice((b"", b"\1\0"))))


def _state(rng: random.Random, _: int) -> bytes:
    return _message(set_state=session_pb2.SetState(state=rng.randrange(4)))


def garbage_messages(target: Target, rng: random.Random) -> None:
    """Bytes that are no message, as the first and behind a good configuration; streams that say nothing at all."""
    for k in range(20):
        stream = target.stream()
        if k % 2:
            stream.send(_message(config=_options(target, rng).to_config()))
        stream.send(rng.randbytes(rng.choice((1, 3, 100, 100_000))))
        _read(stream, 0.1)
        stream.close()


# --- calls


def _many(path: str, n: int) -> Attack:
    """n calls of a method on one connection, held for some seconds."""

    def attack(target: Target, rng: random.Random) -> None:
        with _connection(target) as connection:
            block = call_headers(f"{target.host}:{target.port}", path, target.token)
            calls = [1 + 2 * k for k in range(n)]
            said = b"" if path == _STREAM else bytes(5)
            connection.sendall(
                b"".join(
                    http2_frame(_HEADERS, _END_HEADERS, call, block)
                    + (http2_frame(_DATA, 0, call, said) if said else b"")
                    for call in calls
                )
            )
            time.sleep(rng.uniform(1, 7))

    return attack


@contextmanager
def _connection(target: Target) -> Iterator[socket.socket]:
    with socket.create_connection((target.host, target.port), timeout=10) as connection:
        connection.sendall(PREFACE + http2_frame(_SETTINGS, 0, 0, b""))
        yield connection


def rapid_resets(target: Target, rng: random.Random) -> None:
    block = call_headers(f"{target.host}:{target.port}", _STREAM, target.token)
    with _connection(target) as connection, suppress(OSError):
        for call in range(1, 1001, 2):
            reset = http2_frame(_RST_STREAM, 0, call, (8).to_bytes(4, "big"))
            connection.sendall(http2_frame(_HEADERS, _END_HEADERS, call, block) + reset)


def http2_pings(target: Target, rng: random.Random) -> None:
    with _connection(target) as connection, suppress(OSError):
        connection.sendall(b"".join(http2_frame(_PING, 0, 0, rng.randbytes(8)) for _ in range(2000)))
        time.sleep(0.2)


def silent(target: Target, rng: random.Random) -> None:
    connections = [socket.create_connection((target.host, target.port), timeout=10) for _ in range(30)]
    time.sleep(rng.uniform(0.5, 12))
    for connection in connections:
        connection.close()


def garbage(target: Target, rng: random.Random) -> None:
    garbage_bytes(target.host, target.port, 6)


def _refused_calls(target: Target, name: str, requests: Iterator[Any], token: str | None = None, **more: Any) -> None:
    with target.stub(token) as call:
        for request in requests:
            with suppress(grpc.RpcError):
                call(name, request, **more)


def unknown_ids(target: Target, rng: random.Random) -> None:
    ids = ("\U00020000" * 64, "a" * (1 << 20), "..", "../" + target.pack, "a\0b", "\u202e", target.pack.upper())
    _refused_calls(target, "GetCharacter", (service_pb2.GetCharacterRequest(id=rng.choice(ids)) for _ in range(30)))


def lists(target: Target, rng: random.Random) -> None:
    sizes = (0, 1, 1000, -1)
    requests = (service_pb2.ListCharactersRequest(page_size=rng.choice(sizes)) for _ in range(200))
    _refused_calls(target, "ListCharacters", requests)


def without_token(target: Target, rng: random.Random) -> None:
    token = rng.choice(("", "wrong", target.token[:-1], "x" * 7000))
    _refused_calls(target, "GetServerInfo", (service_pb2.GetServerInfoRequest() for _ in range(100)), token)


def gzip_bomb(target: Target, rng: random.Random) -> None:
    bomb = service_pb2.GetCharacterRequest(id="a" * (rng.choice((15, 64)) << 20))
    _refused_calls(target, "GetCharacter", iter([bomb]), compression=grpc.Compression.Gzip)


def too_large(target: Target, rng: random.Random) -> None:
    _refused_calls(target, "GetCharacter", iter([service_pb2.GetCharacterRequest(id="a" * (17 << 20))]))


# --- on the disk


def damaged_pack(target: Target, rng: random.Random) -> None:
    """A pack with some bytes changed, placed, asked for and removed."""
    name = f"bad{rng.randrange(4)}"
    place, copy = Path(target.characters) / f"{name}.tango", Path(target.sources) / "bad"
    with _disk:
        shutil.copytree(Path(target.sources) / "b" / f"{target.pack}.tango", copy)
        file = rng.choice([file for file in sorted(copy.rglob("*")) if file.is_file()])
        content = bytearray(file.read_bytes())
        for _ in range(rng.choice((1, 1, 20))):
            content[rng.randrange(min(len(content), rng.choice((128, 1 << 30))))] ^= 1 << rng.randrange(8)
        file.write_bytes(content[: rng.choice((len(content), len(content), len(content) // 2))])
        shutil.rmtree(place, ignore_errors=True)
        copy.rename(place)
    _refused_calls(target, "GetCharacter", iter([service_pb2.GetCharacterRequest(id=name)]))
    stream = target.stream()
    stream.send(_message(config=SessionOptions(name).to_config()))
    stream.send(_sound(rng, SAMPLE_RATE))
    _read(stream, rng.uniform(0.5, 4))
    stream.close()
    with _disk:
        shutil.rmtree(place, ignore_errors=True)


def installed(target: Target, rng: random.Random) -> None:
    with _disk:
        install(Path(target.sources) / rng.choice("ab") / f"{target.pack}.tango", Path(target.characters))


def copied_over(target: Target, rng: random.Random) -> None:
    """File by file, as `cp` does it, the files becoming shorter and longer under those who read them."""
    with _disk:
        source = Path(target.sources) / rng.choice("ab") / f"{target.pack}.tango"
        subprocess.run(["cp", "-r", f"{source}/.", f"{target.characters}/{target.victim}.tango/"], check=True)


def rubbish_in_cache(target: Target, rng: random.Random) -> None:
    """A FIFO, a huge sparse file, a folder or noise where a drawn transition was, or will be looked for."""
    with _disk:
        cache = rng.choice(sorted(Path(target.characters).glob("*.tango"))) / "transitions"
        keys = [key for key in cache.glob("*") if key.is_dir()] or [cache / ("0" * 16)]
        key = rng.choice(keys)
        key.mkdir(parents=True, exist_ok=True)
        names = [*(file.name for file in key.glob("*.gops")), f"{rng.randrange(99)}-{rng.randrange(99)}.gops"]
        file = key / rng.choice(names)
        file.unlink() if file.exists() and not file.is_dir() else shutil.rmtree(file, ignore_errors=True)
        kind = rng.randrange(4)
        if kind == 0:
            os.mkfifo(file)
        elif kind == 1:
            file.mkdir()
        else:
            file.write_bytes(rng.randbytes(rng.choice((0, 10, 100_000))))
            if kind == 2:
                os.truncate(file, 3 << 30)


ATTACKS: dict[str, Attack] = {
    "sessions watched and killed": watched_and_killed,
    "more sessions watched and killed": watched_and_killed,
    "fast sessions": fast,
    "refused sessions": refused,
    "clips of 30 s": clip,
    "2,000 interrupts": _flood(_interrupt, 2000),
    "10,000 tiny messages": _flood(_tiny, 10_000),
    "5,000 pings": _flood(lambda _, number: _message(ping=session_pb2.Ping(number=number)), 5000),
    "1,000 states": _flood(_state, 1000),
    "garbage messages": garbage_messages,
    "40 streams without configuration": _many(_STREAM, 40),
    "200 health watchers": _many(_WATCH, 200),
    "200 reflection streams": _many(_REFLECTION, 200),
    "500 rapid resets": rapid_resets,
    "2,000 HTTP/2 pings": http2_pings,
    "30 silent connections": silent,
    "garbage connections": garbage,
    "unknown ids": unknown_ids,
    "200 lists": lists,
    "100 calls without token": without_token,
    "gzip bombs": gzip_bomb,
    "message over the limit": too_large,
    "damaged pack": damaged_pack,
    "installed pack": installed,
    "pack copied over": copied_over,
    "rubbish in the cache": rubbish_in_cache,
}


def _attack(target: Target, number: int, ending: threading.Event, told: Counter[str], times: list[Any]) -> None:
    rng = random.Random(1000 * target.seed + number)
    while not ending.wait(rng.uniform(*_REST_S)):
        name, began_s = rng.choice(list(ATTACKS)), time.monotonic()
        try:
            ATTACKS[name](target, rng)
            told[name] += 1
        except (grpc.RpcError, OSError) as error:  # the server has ended it, as it may
            how = error.code().name if isinstance(error, grpc.RpcError) else type(error).__name__
            told[f"{name}: {how}"] += 1
        except Exception as error:
            told[f"{name}: {error!r}"] += 1
        times.append((name, began_s, time.monotonic()))


def main() -> None:
    target = Target(**json.loads(Path(sys.argv[1]).read_text()))
    ending, told, times = threading.Event(), Counter[str](), list[Any]()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    threads = [threading.Thread(target=_attack, args=(target, k, ending, told, times)) for k in range(_N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"counts": dict(sorted(told.items())), "times": times}))


if __name__ == "__main__":
    main()

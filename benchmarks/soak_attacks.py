"""What hostile clients do to a server, all kinds of it by turns, from one process at moderate rates.

    python -m benchmarks.soak_attacks TARGET.json    (started by bench_soak; tells what it did at its end)

A few threads each take an attack at random, carry it out, rest a little and take the next. On the disk, packs that
nobody but the attackers performs are damaged and replaced; into the cache of transitions of all packs they put rubbish.
"""

import json
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from benchmarks.bench_faults import garbage_bytes
from benchmarks.raw_stream import PREFACE, call_headers, http2_frame
from benchmarks.soak_disk import copied_over, damaged_pack, installed, rubbish_in_cache
from benchmarks.soak_target import Attack, Target, message, options_of, read_for, refused_calls, sound
from engine.timebase import SAMPLE_RATE
from tango_rt.v1 import service_pb2, session_pb2

__all__ = ["ATTACKS"]

_N_THREADS = 4
_REST_S = (0.05, 0.6)
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_HEADERS = 4
_STREAM = "/tango_rt.v1.GestureService/StreamGestures"
_WATCH = "/grpc.health.v1.Health/Watch"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


# --- sessions


def watched_and_killed(target: Target, rng: random.Random) -> None:
    """Speech and frames for a while, then an end that is none; some never read, some are still speaking."""
    stream = target.stream()
    stream.send(message(config=options_of(target, rng).to_config()))
    reads = rng.random() < 0.8
    for _ in range(rng.randrange(1, 20)):
        if stream.ended:
            break
        stream.send(sound(rng, SAMPLE_RATE // 5))
        read_for(stream, 0.2) if reads else time.sleep(0.2)
    rng.choice((stream.cancel, stream.close, stream.half_close))()
    read_for(stream, 0.5)
    stream.close()


def fast(target: Target, rng: random.Random) -> None:
    stream = target.stream()
    encoding = rng.choice(("h264", "h264", "jpeg"))
    stream.send(message(config=options_of(target, rng, pacing="fast", video_encoding=encoding).to_config()))
    for _ in range(4):
        stream.send(sound(rng, 5 * SAMPLE_RATE))
    stream.half_close()
    read_for(stream, rng.uniform(0.5, 4))
    stream.close()


def refused(target: Target, rng: random.Random) -> None:
    for _ in range(20):
        config = options_of(target, rng).to_config()
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
        stream.send(message(config=config))
        read_for(stream, 0.06)
        stream.close()


def clip(target: Target, rng: random.Random) -> None:
    options = options_of(target, rng, pacing="fast", video_encoding="h264", stats_period_s=None, idle=False)
    speech = session_pb2.StreamGesturesRequest.FromString(sound(rng, 30 * SAMPLE_RATE)).audio.data
    with target.stub() as call:
        frames = call("RenderClip", service_pb2.RenderClipRequest(config=options.to_config(), audio=speech))
        most = rng.choice((1, 100, 10_000))
        for _ in zip(range(most), frames, strict=False):
            pass
        frames.cancel()


def _flood(make: Callable[[random.Random, int], bytes], n: int) -> Attack:
    def attack(target: Target, rng: random.Random) -> None:
        stream = target.stream()
        stream.send(message(config=options_of(target, rng, pacing="realtime", video_encoding="h264").to_config()))
        for number in range(n):
            if number % 100 == 0:
                stream.send(sound(rng, 1600))
                for _ in stream.receive():
                    pass
            stream.send(make(rng, number))
        read_for(stream, 1)
        stream.close()

    return attack


def _interrupt(rng: random.Random, _: int) -> bytes:
    return message(interrupt=session_pb2.Interrupt(mode=rng.randrange(3)))


def _tiny(rng: random.Random, _: int) -> bytes:
    return message(audio=session_pb2.AudioChunk(data=rng.choice((b"", b"\1\0"))))


def _state(rng: random.Random, _: int) -> bytes:
    return message(set_state=session_pb2.SetState(state=rng.randrange(4)))


def garbage_messages(target: Target, rng: random.Random) -> None:
    """Bytes that are no message, as the first and behind a good configuration; streams that say nothing at all."""
    for k in range(20):
        stream = target.stream()
        if k % 2:
            stream.send(message(config=options_of(target, rng).to_config()))
        stream.send(rng.randbytes(rng.choice((1, 3, 100, 100_000))))
        read_for(stream, 0.1)
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


def unknown_ids(target: Target, rng: random.Random) -> None:
    ids = (
        "\U00020000" * 64,
        "a" * (1 << 20),
        "..",
        "../" + target.pack,
        "a\0b",
        "\u202e",
        target.pack.upper(),
        "\u0f71\u0f72" * 200_000,
    )
    refused_calls(target, "GetCharacter", (service_pb2.GetCharacterRequest(id=rng.choice(ids)) for _ in range(30)))


def lists(target: Target, rng: random.Random) -> None:
    sizes = (0, 1, 1000, -1)
    requests = (service_pb2.ListCharactersRequest(page_size=rng.choice(sizes)) for _ in range(200))
    refused_calls(target, "ListCharacters", requests)


def without_token(target: Target, rng: random.Random) -> None:
    token = rng.choice(("", "wrong", target.token[:-1], "x" * 7000))
    refused_calls(target, "GetServerInfo", (service_pb2.GetServerInfoRequest() for _ in range(100)), token)


def gzip_bomb(target: Target, rng: random.Random) -> None:
    bomb = service_pb2.GetCharacterRequest(id="a" * (rng.choice((15, 64)) << 20))
    refused_calls(target, "GetCharacter", iter([bomb]), compression=grpc.Compression.Gzip)


def too_large(target: Target, rng: random.Random) -> None:
    refused_calls(target, "GetCharacter", iter([service_pb2.GetCharacterRequest(id="a" * (17 << 20))]))


ATTACKS: dict[str, Attack] = {
    "sessions watched and killed": watched_and_killed,
    "more sessions watched and killed": watched_and_killed,
    "fast sessions": fast,
    "refused sessions": refused,
    "clips of 30 s": clip,
    "2,000 interrupts": _flood(_interrupt, 2000),
    "10,000 tiny messages": _flood(_tiny, 10_000),
    "5,000 pings": _flood(lambda _, number: message(ping=session_pb2.Ping(number=number)), 5000),
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

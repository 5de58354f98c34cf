"""What do bad clients, bad networks and a full disk do to a server, and to a well-behaved client?

    python -m benchmarks.bench_faults PACK.tango [--quick] [--speech FILE] [--only NAME ...] [--json]

Each fault meets a server on which one paced stream is watched from a process of its own. `left_*` is what is still
there when the fault is over, against what was there before it: sessions, threads, files, memory. About 6 minutes;
--quick: two.
"""

import argparse
import json
import platform
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_live import markdown, speech_file
from benchmarks.live_clients import ClientSpec
from benchmarks.live_server import LiveServer, family
from benchmarks.raw_stream import RawStream
from engine.cores import usable_cores
from engine.timebase import SAMPLE_RATE
from tango_rt.client import Client, ServerError, SessionOptions
from tango_rt.v1 import session_pb2

__all__ = ["faults", "garbage_bytes", "witness"]

Row = dict[str, Any]

_SETTLE_S = 20.0
_SMALL_FILE_BYTES = 65_536  # less than the eight pictures of a transition at 720p


@contextmanager
def witness(server: LiveServer, speech: Path) -> Iterator[dict[str, np.ndarray]]:
    """One well-behaved conversation from a process of its own; has what live_clients tells when the with is left."""
    seen: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        out = f"{scratch}/seen.npz"
        at = (server.host, server.port, server.character)
        spec = ClientSpec(*at, str(speech), out, seconds=7200, ramp_s=0, chunk_ms=20, token=server.token)
        file = spec.save(Path(scratch) / "spec.json")
        client = subprocess.Popen([sys.executable, "-m", "benchmarks.live_clients", str(file)])
        try:
            time.sleep(5)
            yield seen
        finally:
            time.sleep(1)
            client.send_signal(signal.SIGTERM)
            client.wait()
        seen |= np.load(out)


@contextmanager
def watched(server: LiveServer, speech: Path) -> Iterator[Row]:
    """One well-behaved conversation meanwhile; the row has its figures when the `with` ends."""
    row: Row = {}
    with witness(server, speech) as seen:
        yield row
    intervals = 1000 * seen["intervals"]
    row |= {
        "watched_frames": int(seen["frames"]),
        "watched_interval_p50_ms": round(float(np.percentile(intervals, 50)), 1),
        "watched_interval_p99_ms": round(float(np.percentile(intervals, 99)), 1),
        "watched_interval_max_ms": round(float(intervals.max()), 1),
        "watched_underruns": int(seen["underruns"]),
        "watched_dropped": int(seen["dropped"]),
        "watched_failed": bool(seen["failed"]),
    }


def during(server: LiveServer, speech: Path, name: str, fault: Callable[[], Row]) -> Row:
    """One fault: what it did, what the watched stream saw of it, what is left of it."""
    with watched(server, speech):
        pass  # what one stream brings about is no leak
    before = _held(server)
    began_s = time.monotonic()
    with watched(server, speech) as seen:
        did = fault()
    freed_s = _settled(server)
    after = _held(server)
    left = {f"left_{key}": round(after[key] - before[key], 1) for key in before}
    return {"fault": name, **did, "seconds": round(time.monotonic() - began_s, 1), **seen, "freed_s": freed_s, **left}


def _held(server: LiveServer) -> dict[str, float]:
    return {
        "sessions": server.metric("sessions_active"),
        "threads": server.n_threads(),
        "files": server.n_files(),
        "rss_mb": server.rss_mb(),
    }


def _settled(server: LiveServer) -> float:
    """Wait until no session is left; returns the seconds it took."""
    began_s = time.monotonic()
    while server.metric("sessions_active") and time.monotonic() - began_s < _SETTLE_S:
        time.sleep(0.05)
    return round(time.monotonic() - began_s, 2)


def _config(server: LiveServer, **options: Any) -> bytes:
    config = SessionOptions(server.character, **options).to_config()
    return session_pb2.StreamGesturesRequest(config=config).SerializeToString()


def _sound(n_samples: int) -> bytes:
    loud = np.random.default_rng(1).normal(0, 3000, n_samples).astype("<i2").tobytes()
    return session_pb2.StreamGesturesRequest(audio=session_pb2.AudioChunk(data=loud)).SerializeToString()


def cancel_storm(server: LiveServer, n: int) -> Row:
    """n sessions, 20 at a time, given up at any age up to 150 ms: half by a cancel, half by a socket that closes."""
    rng = random.Random(0)
    live: list[tuple[float, RawStream]] = []
    config, sound = _config(server), _sound(SAMPLE_RATE)
    started = answered = 0
    while started < n or live:
        if started < n and len(live) < 20:
            stream = RawStream(server.host, server.port)
            stream.send(config)
            stream.send(sound)
            live.append((time.monotonic() + rng.uniform(0, 0.15), stream))
            started += 1
        kept = []
        for ends_s, stream in live:
            answered += any(True for _ in stream.receive())
            if time.monotonic() < ends_s:
                kept.append((ends_s, stream))
            elif rng.random() < 0.5:
                stream.cancel()
            else:
                stream.close()
        live = kept
        time.sleep(0.002)
    return {"cancelled": n, "reads_with_an_answer": answered}


def slow_readers(server: LiveServer, n: int, seconds: float, fps: float) -> Row:
    """n readers of about fps frames a second (0: none), who go on speaking."""
    streams = [RawStream(server.host, server.port, window=65_535, receive_buffer=16_384) for _ in range(n)]
    config, sound = _config(server, stats_period_s=1.0), _sound(SAMPLE_RATE // 5)
    for stream in streams:
        stream.send(config)
    ends_s = time.monotonic() + seconds
    messages = [0] * n
    while time.monotonic() < ends_s:
        for k, stream in enumerate(streams):
            if not stream.ended:
                stream.send(sound)
                if fps:
                    messages[k] += sum(1 for _ in stream.receive(int(20_000 * fps / 5)))
        time.sleep(0.2)
    rss_mb = server.rss_mb()
    for stream in streams:
        stream.close()
    return {"readers": n, "fps": fps, "messages_read": sum(messages), "rss_meanwhile_mb": round(rss_mb, 1)}


def half_open_peers(server: LiveServer, n: int) -> Row:
    """n peers that fall silent in the middle of speech: they neither send, read nor answer pings; no socket closes.

    From the server it looks as a network does that stopped forwarding.
    """
    streams = [RawStream(server.host, server.port) for _ in range(n)]
    config, sound = _config(server), _sound(SAMPLE_RATE)
    ends_s = time.monotonic() + 2
    for stream in streams:
        stream.send(config)
        stream.send(sound)
    while time.monotonic() < ends_s:
        for stream in streams:
            for _ in stream.receive():
                pass
        time.sleep(0.01)
    silent_s = time.monotonic()
    while server.metric("sessions_active") > 1 and time.monotonic() - silent_s < 60:  # the watched one stays
        time.sleep(0.1)
    noticed_s = time.monotonic() - silent_s
    for stream in streams:
        stream.close()
    return {"peers": n, "noticed_after_s": round(noticed_s, 1)}


def garbage_messages(server: LiveServer, n: int) -> Row:
    """Invalid messages, as the first and after a good configuration. Every call must end."""
    rng = random.Random(0)
    config = _config(server)
    ended = 0
    for k in range(n):
        stream = RawStream(server.host, server.port)
        if k % 2:
            stream.send(config)
        stream.send(rng.randbytes(rng.choice((1, 3, 100, 100_000))))
        ended += _ends(stream, 10)
    return {"calls": n, "ended_by_server": ended}


def garbage_bytes(host: str, port: int, n: int) -> Row:
    """Bytes that are no HTTP/2, and HTTP/2 whose frames are nonsense."""
    rng = random.Random(0)
    closed = 0
    for k in range(n):
        with socket.create_connection((host, port)) as connection:
            if k % 3:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0\0\0\0\0")
            connection.settimeout(10)
            try:
                connection.sendall(rng.randbytes(rng.choice((10, 1000, 50_000))))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
                closed += 1
            except TimeoutError:
                pass
            except OSError:
                closed += 1
    return {"connections": n, "closed_by_server": closed}


def _ends(stream: RawStream, patience_s: float) -> bool:
    ends_s = time.monotonic() + patience_s
    while not stream.ended and time.monotonic() < ends_s:
        for _ in stream.receive():
            pass
        time.sleep(0.002)
    ended = stream.ended
    stream.close()
    return ended


def kill_and_restart(pack: Path) -> Row:
    """kill -9 in the middle of a session: what the client gets, what is left, how long until the next session."""
    with LiveServer(pack) as server, Client(server.target) as client:
        session = client.stream(SessionOptions(server.character)).__enter__()
        for _ in zip(range(30), session, strict=False):
            pass
        processes = list(family(server.process.pid))
        killed_s = time.monotonic()
        server.process.kill()
        try:
            for _ in session:
                pass
            told = "nothing"
        except ServerError as error:
            told = error.code
        told_ms = 1000 * (time.monotonic() - killed_s)
        server.process.wait()
        while any(_runs(pid) for pid in processes) and time.monotonic() - killed_s < _SETTLE_S:
            time.sleep(0.05)
        left = sum(_runs(pid) for pid in processes)
        began_s = time.monotonic()
        with (
            LiveServer(server.characters / pack.name, port=server.port, keep=True) as again,
            Client(again.target) as second,
            second.stream(SessionOptions(again.character)) as session,
        ):
            ready_s = time.monotonic() - began_s
            n_frames = sum(1 for _ in zip(range(30), session, strict=False))
    return {
        "fault": "kill -9 and restart",
        "client_told": told,
        "told_after_ms": round(told_ms, 1),
        "processes_left": left,
        "accepted_again_after_s": round(ready_s, 2),
        "frames_then": n_frames,
    }


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def full_disk(pack: Path, speech: Path, seconds: float) -> Row:
    """No transition can be stored on disk: files larger than 64 KiB fail as on a full disk."""

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_SMALL_FILE_BYTES, _SMALL_FILE_BYTES))

    # an empty cache, so that every transition has to be drawn and cannot be kept
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch) / pack.name
        subprocess.run(["cp", "-r", str(pack), str(bare)], check=True)
        subprocess.run(["rm", "-rf", str(bare / "transitions")], check=True)
        with LiveServer(bare, before=no_large_files) as server:
            with watched(server, speech) as row:
                time.sleep(seconds)
            folder = server.characters / pack.name / "transitions"
            kept = [file for file in folder.rglob("*") if file.is_file()]
            drawn = server.metric("transitions_total")
            alive = server.process.poll() is None
    return {
        "fault": "full disk",
        "seconds": seconds,
        **row,
        "server_alive": alive,
        "transitions": int(drawn),
        "files_left": len(kept),
        "bytes_left": sum(file.stat().st_size for file in kept) if alive else 0,
    }


def faults(pack: Path, speech: Path, quick: bool, only: Sequence[str] = ()) -> dict[str, list[Row]]:
    few = 10 if quick else 1
    flags = ("--keepalive-s", "2", "--keepalive-timeout-s", "2", "--max-sessions", "64")

    def with_one_server() -> list[Row]:
        with LiveServer(pack, *flags) as server:
            parts: dict[str, Callable[[], Row]] = {
                "cancel storm": lambda: cancel_storm(server, 1000 // few),
                "readers of 5 frames a second": lambda: slow_readers(server, 8, 30 / few + 5, 5),
                "readers who never read": lambda: slow_readers(server, 8, 30 / few + 5, 0),
                "half-open peers": lambda: half_open_peers(server, 8),
                "garbage messages": lambda: garbage_messages(server, 300 // few),
                "garbage bytes": lambda: garbage_bytes(server.host, server.port, 300 // few),
            }
            return [during(server, speech, name, fault) for name, fault in parts.items() if not only or name in only]

    results = {"bad clients": with_one_server()}
    for name, fault in {
        "kill -9 and restart": lambda: kill_and_restart(pack),
        "full disk": lambda: full_disk(pack, speech, 60 / few),
    }.items():
        if not only or name in only:
            results[name] = [fault()]
    return {title: rows for title, rows in results.items() if rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--speech", type=Path, help="real speech (default: synthetic)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="faults of this name")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        speech = speech_file(Path(scratch), arguments.speech)
        results = faults(arguments.pack, speech, arguments.quick, arguments.only)
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}, {arguments.pack.name}\n")
    print("\n".join(markdown(results)))


if __name__ == "__main__":
    main()

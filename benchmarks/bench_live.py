"""How many live streams does a server hold, how soon does it answer, and how soon does it stop?

    python -m benchmarks.bench_live PACK.tango [--quick] [--speech FILE] [--only NAME ...] [--json]

`tango-rt serve` runs as a process of its own with a copy of the pack; clients are processes of their own, which read
frames from bare sockets (raw_stream says why). All share the cores of one machine. About 25 minutes; --quick: three.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live_clients import ClientSpec
from benchmarks.live_server import LiveServer
from engine.cores import usable_cores
from engine.timebase import FPS, SAMPLE_RATE
from tango_rt.client import Client, ServerError, Session, SessionOptions
from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["cancelling", "crowd", "hour", "interrupting", "live", "overload"]

Row = dict[str, Any]

_STREAMS_A_PROCESS = 200


def crowd(server: LiveServer, speech: Path, n_streams: int, seconds: float, chunk_ms: int = 100, **more: Any) -> Row:
    """n_streams conversations at once: what they see, and what it costs."""
    with tempfile.TemporaryDirectory() as scratch:
        n_processes = -(-n_streams // _STREAMS_A_PROCESS)
        ramp_s = min(10.0, 0.5 + n_streams / 40)
        specs = [
            ClientSpec(
                server.host,
                server.port,
                server.character,
                str(speech),
                f"{scratch}/{k}.npz",
                n_streams=n_streams * (k + 1) // n_processes - n_streams * k // n_processes,
                seconds=seconds,
                ramp_s=ramp_s,
                chunk_ms=chunk_ms,
                seed=1000 * k,
                **more,
            )
            for k in range(n_processes)
        ]
        clients = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.live_clients", str(spec.save(Path(scratch) / f"{k}.json"))]
            )
            for k, spec in enumerate(specs)
        ]
        time.sleep(ramp_s + specs[0].settle_s + 1)
        cpu_s, began_s = server.cpu_s(), time.monotonic()
        time.sleep(max(0.5, seconds - 2))
        load = (server.cpu_s() - cpu_s) / (time.monotonic() - began_s)
        memory, everything = server.rss_mb(), server.family_mb()
        if any(client.wait() for client in clients):
            raise SystemExit("a client process failed")
        found = [dict(np.load(spec.out)) for spec in specs]
    return {"streams": n_streams, "seconds": seconds, "chunk_ms": chunk_ms} | _figures(found) | {
        "server_cores": round(load, 2),
        "client_cores": round(sum(float(one["cpu_s"]) for one in found) / (seconds + ramp_s + 2), 2),
        "rss_mb": round(memory, 1),
        "all_mb": round(everything, 1),
    }  # fmt: skip


def _figures(found: Sequence[dict[str, np.ndarray]]) -> Row:
    seen = {name: np.concatenate([np.atleast_1d(one[name]) for one in found]) for name in found[0]}
    totals = ("failed", "frames", "underruns", "dropped", "cached", "computed", "late")
    return {
        **{name: int(seen[name].sum()) for name in totals},
        **_percentiles("interval", seen["intervals"], (50, 95, 99, 99.9, 100)),
        **_percentiles("first_frame", seen["first_frames"], (50, 95, 99)),
        **_percentiles("speech_server", seen["server_waits"], (50, 95)),
        **_percentiles("speech_client", seen["waits"], (50, 95)),
        "lookahead_ms": round(1000 * int(seen["lookahead"].max()) / SAMPLE_RATE, 1),
    }


def _percentiles(name: str, seconds: Sequence[float] | np.ndarray, wanted: Sequence[float]) -> Row:
    """Milliseconds; None where nothing was measured."""
    values = np.asarray(seconds, float)
    return {
        f"{name}_{'max' if q == 100 else f'p{q:g}'}_ms": round(1000 * float(np.percentile(values, q)), 1)
        if len(values)
        else None
        for q in wanted
    }


def interrupting(server: LiveServer, speech: Path, n: int) -> Row:
    """Interrupts at random moments of speech: from sending one until the last frame of what it interrupts came, and
    until the server said that it is over. No such frame came later: 0."""
    rng = np.random.default_rng(0)
    samples = np.load(speech)[: 6 * SAMPLE_RATE]
    waits: dict[str, list[float]] = {"rest": [], "cut": []}
    told: list[float] = []
    with Client(server.target) as client, client.stream(SessionOptions(server.character)) as session:
        for k in range(n):
            mode = "rest" if k % 2 else "cut"
            session.send_audio(samples, f"i{k}")
            session.end_of_utterance(f"i{k}")
            last_s, told_s = _interrupted(session, f"i{k}", mode, float(rng.uniform(0.2, 3)))
            waits[mode].append(last_s)
            told.append(told_s)
    row: Row = {"interrupts": n}
    row |= _percentiles("last_frame", waits["rest"] + waits["cut"], (50, 95, 100))
    row |= {"later_frames": sum(wait > 0 for mode in waits.values() for wait in mode)}
    for mode, values in waits.items():
        row |= _percentiles(f"last_frame_{mode}", values, (95,))
    return row | _percentiles("told", told, (50, 95, 100))


def _interrupted(session: Session, name: str, mode: Any, delay_s: float) -> tuple[float, float]:
    sent: list[float] = []
    last_s, finished_s = 0.0, 0.0

    def interrupt() -> None:
        sent.append(time.monotonic())
        session.interrupt(mode, name)

    for event in session:
        if isinstance(event, session_pb2.UtteranceStarted) and event.utterance_id == name:
            threading.Timer(delay_s, interrupt).start()
        elif isinstance(event, media_pb2.VideoFrame):
            if event.utterance_id == name:
                last_s = time.monotonic()
            elif finished_s:
                break
        elif isinstance(event, session_pb2.UtteranceFinished) and event.utterance_id == name:
            if not event.interrupted:
                raise SystemExit(f"{name} was performed to its end: the interrupt was lost")
            finished_s = time.monotonic()
    return max(0.0, last_s - sent[0]), finished_s - sent[0]


def cancelling(pack: Path, n: int) -> Row:
    """From the cancel of the only session there may be until another one is accepted in its place."""
    waits = []
    with LiveServer(pack, "--max-sessions", "1") as server, Client(server.target) as client:
        session = client.stream(SessionOptions(server.character)).__enter__()
        for k in range(n):
            for _ in zip(range(5 + k % 7), session, strict=False):
                pass
            cancelled_s = time.monotonic()
            session.cancel()
            session = _admitted(client, server.character)
            waits.append(time.monotonic() - cancelled_s)
        session.cancel()
    return {"cancels": n} | _percentiles("until_next_accepted", waits, (50, 95, 100))


def _admitted(client: Client, character: str) -> Session:
    while True:
        try:
            return client.stream(SessionOptions(character)).__enter__()
        except ServerError as error:
            if error.reason != "TOO_MANY_SESSIONS":
                raise


def overload(pack: Path, n: int) -> Row:
    """How long one who comes too late waits for the refusal, while the sessions there are go on."""
    waits = []
    with (
        LiveServer(pack, "--max-sessions", "2") as server,
        Client(server.target) as client,
        client.stream(SessionOptions(server.character)) as first,
        client.stream(SessionOptions(server.character)) as second,
    ):
        readers = [threading.Thread(target=_read_on, args=(session,)) for session in (first, second)]
        for reader in readers:
            reader.start()
        for _ in range(n):
            began_s = time.monotonic()
            try:
                client.stream(SessionOptions(server.character)).__enter__()
            except ServerError as error:
                waits.append(time.monotonic() - began_s)
                retry_s = error.retry_s
            time.sleep(0.02)
        for session in (first, second):
            session.cancel()
        for reader in readers:
            reader.join()
    return {"refused": len(waits), "of": n, "retry_s": retry_s} | _percentiles("refusal", waits, (50, 95, 100))


def _read_on(session: Session) -> None:
    try:
        for _ in session:
            pass
    except ServerError as error:
        if error.code != "CANCELLED":
            raise


def hour(pack: Path, speech: Path, minutes: float) -> Row:
    """Speech of this length by the fastest pacing, in one utterance: nothing lost or doubled, no drift, no growth.

    Transitions by crossfade: each is drawn, and an hour of them takes minutes.
    """
    voice = np.load(speech)
    n_seconds = int(60 * minutes)
    rss, sound, n_frames, finished = [], 0, 0, None
    with LiveServer(pack) as server, Client(server.target) as client:
        options = SessionOptions(server.character, pacing="fast", audio_echo=True, blender="crossfade")
        began_s = time.monotonic()
        with client.stream(options) as session:
            speaker = threading.Thread(target=_say_for, args=(session, voice, n_seconds))
            speaker.start()
            right = True
            for event in session:
                if isinstance(event, media_pb2.VideoFrame):
                    heard = np.frombuffer(event.audio.data, "<i2")
                    right &= event.audio.pts == sound
                    right &= np.array_equal(heard, np.take(voice, np.arange(sound, sound + len(heard)), mode="wrap"))
                    sound += len(heard)
                    n_frames += 1
                    if n_frames % (60 * FPS) == 0:
                        rss.append(server.rss_mb())
                elif isinstance(event, session_pb2.UtteranceFinished):
                    finished = event
            speaker.join()
        seconds = time.monotonic() - began_s
    assert finished is not None
    return {
        "minutes": minutes,
        "wall_s": round(seconds, 1),
        "times_real_time": round(n_seconds / seconds, 1),
        "frames": n_frames,
        "played_samples": finished.played_samples,
        "sound_complete": right and sound == finished.played_samples == n_seconds * SAMPLE_RATE,
        "offset_at_end_ms": round(1000 * (n_frames / FPS - sound / SAMPLE_RATE), 3),
        "rss_after_1_min_mb": round(rss[0], 1),
        "rss_at_end_mb": round(rss[-1], 1),
        "growth_mb": round(rss[-1] - rss[0], 1),
    }


def _say_for(session: Session, voice: np.ndarray, n_seconds: int) -> None:
    for second in range(n_seconds):
        at = np.arange(second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE)
        session.send_audio(np.take(voice, at, mode="wrap"), "hour", second * SAMPLE_RATE)
    session.end_of_utterance("hour")
    session.finish()


def speech_file(folder: Path, speech: Path | None) -> Path:
    """int16 (n,) at 16 kHz as .npy: of the file, else bursts of noise with the rhythm of syllables."""
    if speech is not None:
        from tango_rt.sound.audio import read_audio

        samples = read_audio(speech)
    else:
        t = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
        loud = np.clip(np.sin(2 * np.pi * 4 * t), 0, 1) * (np.sin(2 * np.pi * 0.3 * t) > -0.6)
        samples = 0.2 * loud * np.random.default_rng(0).normal(size=len(t))
    np.save(folder / "speech.npy", np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16))
    return folder / "speech.npy"


def live(pack: Path, speech: Path, quick: bool, only: Sequence[str] = ()) -> dict[str, list[Row]]:
    """All measurements, by title."""
    seconds = 10.0 if quick else 60.0
    counts = (1, 10, 50) if quick else (1, 10, 50, 100, 200, 400)

    def crowds() -> list[Row]:
        with LiveServer(pack, "--max-sessions", "500") as server:
            crowd(server, speech, 10, 20.0 if quick else 60.0)  # draws the transitions that the others will need
            rows = [crowd(server, speech, n, seconds) for n in counts]
            rows.append(crowd(server, speech, 50, seconds, chunk_ms=20))
        for row in rows[1:]:
            row["mb_a_stream"] = round((row["rss_mb"] - rows[0]["rss_mb"]) / (row["streams"] - 1), 2)
        return rows

    def alone() -> list[Row]:
        with LiveServer(pack) as server:
            return [crowd(server, speech, 1, 30.0 if quick else 600.0, chunk_ms=20)]

    def interrupts() -> list[Row]:
        with LiveServer(pack) as server:
            return [interrupting(server, speech, 20 if quick else 100)]

    parts: dict[str, Callable[[], list[Row]]] = {
        "streams at once": crowds,
        "one stream": alone,
        "interrupts": interrupts,
        "cancels": lambda: [cancelling(pack, 20 if quick else 100)],
        "overload": lambda: [overload(pack, 20 if quick else 100)],
        "an hour of speech": lambda: [hour(pack, speech, 5 if quick else 60)],
    }
    return {title: measure() for title, measure in parts.items() if not only or any(word in title for word in only)}


def markdown(results: dict[str, list[Row]]) -> list[str]:
    """Tables with one figure a line and one run a column: there are more figures than runs."""
    lines = []
    for title, rows in results.items():
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines += [f"### {title[0].upper()}{title[1:]}", "", "| |" + " |" * len(rows), "|---|" + "---|" * len(rows)]
        lines += [f"| {name} | " + " | ".join(str(row.get(name, "")) for row in rows) + " |" for name in names] + [""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--speech", type=Path, help="real speech (default: synthetic)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="tables whose title holds this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        speech = speech_file(Path(scratch), arguments.speech)
        results = live(arguments.pack, speech, arguments.quick, arguments.only)
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}, {arguments.pack.name}\n")
    print("\n".join(markdown(results)))


if __name__ == "__main__":
    main()

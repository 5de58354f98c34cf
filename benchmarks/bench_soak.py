"""Does an innocent session keep its rate, and the server its size, for as long as hostile clients go on?

    python -m benchmarks.bench_soak PACKS_DIR [--minutes 10] [--speech FILE] [--seed 0] [--json]

One server with default options and a token. One paced H.264 session performs the first pack of the folder, speech and
rest, from a process of its own; benchmarks.soak_attacks is another process, which performs, damages and replaces copies
of the second pack. A row a minute: what the innocent session saw of what was due, and what the server held at its end.
`calm` is the time before the attacks, `after` when they are over. `others_cores` is what else the machine did.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_faults import witness
from benchmarks.bench_live import speech_file
from benchmarks.live_server import LiveServer, family
from benchmarks.soak_target import Target
from engine.cores import usable_cores
from engine.timebase import FPS

__all__ = ["soak"]

Row = dict[str, Any]

_CALM_S = 20.0
_SAMPLE_S = 5.0
_SETTLE_S = 40.0
_MAX_LINES = 40
_SLOW_S = 0.06
_ERROR = re.compile(r"\bERROR\b|\bCRITICAL\b|Traceback|^E\d{4} ")


@dataclass(frozen=True)
class Sample:
    """What the server holds at a time, and what the machine has done until then (seconds of cores)."""

    at_s: float
    rss_mb: float
    workers_mb: float
    family_mb: float
    files: int
    threads: int
    sessions: int
    errors: int
    load: float
    busy_s: float
    ours_s: float
    server_s: float


def sample(server: LiveServer) -> Sample:
    return Sample(
        time.monotonic(),
        server.rss_mb(),
        server.workers_mb(),
        server.family_mb(),
        server.n_files(),
        server.n_threads(),
        int(server.metric("sessions_active")),
        len(_errors(server.log)),
        os.getloadavg()[0],
        _busy_s(),
        _spent_s(family(os.getpid())),
        server.cpu_s(),
    )


def _errors(log: str) -> list[str]:
    return [line for line in log.splitlines() if _ERROR.search(line)]


def _busy_s() -> float:
    """Seconds that the cores of the machine were at work."""
    user, nice, system, _idle, _wait, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _spent_s(processes: Iterable[int]) -> float:
    """Of these, and of their children that have ended."""
    ticks = 0
    for pid in processes:
        try:
            values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(value) for value in values[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def attacked(server: LiveServer, target: Target, scratch: Path) -> Iterator[Row]:
    """Attacks meanwhile; the row has their counts when the `with` ends."""
    file = target.save(scratch / "target.json")
    command = [sys.executable, "-m", "benchmarks.soak_attacks", str(file)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told: Row = {}
    try:
        yield told
    finally:
        attacker.terminate()
        output, _ = attacker.communicate()
    told |= json.loads(output)


def soak(packs: Path, minutes: float, speech: Path, seed: int) -> Row:
    """Run it: minutes (rows), attacks (counts), trend of memory, lines of the log that should not be there."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        innocent, target = _folder(packs, scratch, seed)
        with LiveServer(innocent, keep=True, token=target.token) as server:
            target = Target(**{**vars(target), "host": server.host, "port": server.port})
            with witness(server, speech) as seen:
                marks, samples, told = _run(server, target, scratch, minutes)
            log = server.log
    rows = [_row(name, before, after, seen["arrivals"]) for name, before, after in marks]
    errors = _errors(log)
    return {
        "rows": rows,
        "attacks": told["counts"],
        "slow": _slow(told["times"], seen["arrivals"]),
        "innocent": {key: int(seen[key]) for key in ("frames", "dropped", "underruns", "late", "failed")},
        "trend_mb_per_minute": _trend(samples, minutes),
        "log_lines": log.count("\n"),
        "errors": errors[:_MAX_LINES],
        "server_alive": server.process.returncode in (0, -15),
        "log": log,
    }


def _folder(packs: Path, scratch: Path, seed: int) -> tuple[Path, Target]:
    """Copies: one pack for the innocent session, and what attackers need of another."""
    first, second = sorted(packs.glob("*.tango"))[:2]
    characters, sources = scratch / "characters", scratch / "sources"
    shutil.copytree(first, characters / first.name)
    for place in (characters / second.name, characters / "victim.tango", sources / "a" / second.name):
        shutil.copytree(second, place)
    shutil.copytree(first, sources / "b" / second.name)
    target = Target("", 0, "soak", str(characters), str(sources), second.stem, "victim", seed)
    return characters / first.name, target


def _run(
    server: LiveServer, target: Target, scratch: Path, minutes: float
) -> tuple[list[tuple[str, Sample, Sample]], list[Sample], Row]:
    """What was sampled: (name, before, after) of every row, all samples under attack, what the attackers tell."""
    marks, last = [], sample(server)

    def mark(name: str) -> None:
        nonlocal last
        before, last = last, sample(server)
        marks.append((name, before, last))

    time.sleep(_CALM_S)
    mark("calm")
    samples = [last]
    with attacked(server, target, scratch) as told:
        began_s = time.monotonic()
        for minute in range(1, int(np.ceil(minutes)) + 1):
            ends_s = began_s + 60 * min(minute, minutes)
            while (left_s := ends_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _SAMPLE_S))
                samples.append(sample(server))
            mark(str(minute))
            print(f"minute {minute}: {_held(last)}", file=sys.stderr, flush=True)
    ends_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < ends_s - _SETTLE_S / 2 or (
        server.metric("sessions_active") > 1 and time.monotonic() < ends_s
    ):
        time.sleep(1)
    mark("after")
    return marks, samples, told


def _row(name: str, before: Sample, after: Sample, arrivals: np.ndarray) -> Row:
    within = arrivals[(arrivals > before.at_s) & (arrivals <= after.at_s)]
    intervals = 1000 * np.diff(within) if len(within) > 1 else np.full(1, np.nan)
    seconds = after.at_s - before.at_s
    p50, p99 = np.percentile(intervals, (50, 99))
    return {
        "minute": name,
        "frames": len(within),
        "due": round(seconds * FPS),
        "p50 ms": round(float(p50), 1),
        "p99 ms": round(float(p99), 1),
        "max ms": round(float(intervals.max()), 1),
        **_held(after),
        "server_cores": round((after.server_s - before.server_s) / seconds, 2),
        "others_cores": round((after.busy_s - before.busy_s - after.ours_s + before.ours_s) / seconds, 2),
        "load": round(after.load, 1),
    }


def _slow(times: list[tuple[str, float, float]], arrivals: np.ndarray) -> dict[str, Row]:
    """By attack: seconds that it took in all, and the innocent session's intervals of more than _SLOW_S meanwhile."""
    ends = arrivals[1:][np.diff(arrivals) > _SLOW_S]
    found: dict[str, Row] = {}
    for name, began_s, ended_s in times:
        row = found.setdefault(name, {"seconds": 0.0, "slow": 0})
        row["seconds"] = round(row["seconds"] + ended_s - began_s, 1)
        row["slow"] += int(((ends > began_s) & (ends < ended_s + 0.1)).sum())
    return dict(sorted(found.items(), key=lambda one: -one[1]["slow"] / max(one[1]["seconds"], 0.1)))


def _held(of: Sample) -> Row:
    return {
        "rss_mb": round(of.rss_mb),
        "workers_mb": round(of.workers_mb),
        "all_mb": round(of.family_mb),
        "files": of.files,
        "threads": of.threads,
        "sessions": of.sessions,
        "errors": of.errors,
    }


def _trend(samples: list[Sample], minutes: float) -> Row:
    """Slopes over the last two thirds of the attack."""
    late = [one for one in samples if one.at_s > samples[0].at_s + 60 * minutes / 3]
    at = np.array([one.at_s for one in late]) / 60
    return {
        key: round(float(np.polyfit(at, [getattr(one, key) for one in late], 1)[0]), 2)
        for key in ("rss_mb", "family_mb")
    }


def print_tables(result: Row) -> None:
    names = list(result["rows"][0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in result["rows"]:
        print("| " + " | ".join(str(row[name]) for name in names) + " |")
    print(f"\nthe innocent session: {result['innocent']}; the server survived: {result['server_alive']}")
    print(f"trend over the last two thirds, MB a minute: {result['trend_mb_per_minute']}")
    print(f"lines in the log: {result['log_lines']}; errors among them: {len(result['errors'])}\n")
    print(", ".join(f"{name} {n}" for name, n in result["attacks"].items()))
    print("slow intervals a second of it: ", end="")
    print(", ".join(f"{name} {row['slow'] / max(row['seconds'], 0.1):.2f}" for name, row in result["slow"].items()))
    for line in result["errors"]:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path, metavar="PACKS_DIR", help="two packs or more, which are not changed")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--speech", type=Path, help="real speech (default: synthetic)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="where to keep the log of the server")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        speech = speech_file(Path(scratch), arguments.speech)
        result = soak(arguments.packs, arguments.minutes, speech, arguments.seed)
    log = result.pop("log")
    if arguments.log is not None:
        arguments.log.write_text(log)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}, seed {arguments.seed}\n")
    print_tables(result)


if __name__ == "__main__":
    main()

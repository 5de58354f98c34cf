"""Measure everything that the project promises and write benchmarks/RESULTS.md.

    python -m benchmarks.run [--quick] [--work DIR]

What stands at its top under "At a glance" is written by hand, and stays: compare it with the new figures.

Needs the data folder (TANGO_DATA_DIR) and more than an hour on two idle cores, half of it for live streams; --quick
leaves out the real clips. Ratios against the naive twin of the research release are taken side by side in one run.
"""

import argparse
import contextlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2

from benchmarks import bench_faults, bench_graph, bench_live, bench_online, bench_transitions, transition_clips
from benchmarks.live_server import family, proportional_mb
from engine.character.pack import folder_bytes
from engine.cores import usable_cores
from engine.folders import cache_folder
from export.evaluation.run import EvaluateOptions, evaluate
from export.evaluation.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


@dataclass(frozen=True)
class Run:
    """A command, measured from outside: wall seconds, and the most memory that all its processes held together."""

    wall_s: float
    peak_mb: float


def timed(command: Sequence[str | Path], cache: Path) -> Run:
    """Run a command of this project to its end; raises if it fails."""
    environment = {**os.environ, "TANGO_RT_CACHE": str(cache)}
    started = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.DEVNULL)
    peak = [0.0]
    watcher = threading.Thread(target=_watch_memory, args=(process, peak))
    watcher.start()
    code = process.wait()
    wall_s = time.perf_counter() - started
    watcher.join()
    if code:
        raise SystemExit(f"{command} failed with exit code {code}")
    return Run(wall_s, peak[0])


def _watch_memory(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(proportional_mb(pid) for pid in family(process.pid)))
        time.sleep(0.2)


def machine() -> list[str]:
    names = ("numpy", "numba", "opencv-python-headless", "ai-edge-litert", "av")
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return [
        f"Machine: {model}, {usable_cores()} cores, {platform.system()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + ".",
        f"Commit: {commit.stdout.strip() or 'unknown'}.",
    ]


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).is_file() else []


def at_a_glance() -> list[str]:
    """The summary as it stands in the file."""
    text = RESULTS.read_text("utf-8") if RESULTS.is_file() else ""
    found = re.search(r"^## At a glance\n.*?(?=^Written by )", text, re.MULTILINE | re.DOTALL)
    return [found[0].rstrip(), ""] if found else []


def algorithms() -> list[str]:
    edges, search = bench_graph.official_edges_ratio(), bench_graph.official_search_ratio()
    viterbi, hour = bench_graph.viterbi_seconds(), bench_graph.hour_graph()
    rows = ["## Graph and search", "", "| what | figures |", "|---|---|"]
    for name, figures in (
        ("official edge rule against its naive twin", edges),
        ("official search against its naive twin", search),
        ("viterbi, 60 s of speech, warm", viterbi),
        ("our graph, one hour of synthetic motion", hour),
    ):
        rows.append(f"| {name} | " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()) + " |")
    return [*rows, ""]


RULES_NOTE = (
    "`official` joins single frames; a node edge needs one from a last to a first frame of nodes, one in 16 of them,",
    "and the joints are ours: its rows show what the rule gives a graph of nodes, not what the release finds.",
)


def rules(packs: Sequence[Path]) -> list[str]:
    rows = [row for pack in packs for row in bench_graph.compare_rules(pack)]
    lines = [
        "## Rules of cuts on real motion",
        "",
        *RULES_NOTE,
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|---" * len(rows[0]) + "|",
    ]
    lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows]
    return [*lines, ""]


def characters(videos: Sequence[Path], work: Path) -> list[str]:
    """Build and render every clip as a user would, from the command line."""
    rows = [
        "## Build and render, from the command line",
        "",
        "Wall seconds with process start; memory of all processes together. Each clip is rendered to its own speech.",
        "",
        "| clip | build s | MB | rebuild s | render, cold s | render, cached s | cuts | speech s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    command = Path(sys.executable).with_name("tango-rt")
    for video in videos:
        pack, out = work / f"{video.stem}.tango", work / "out.mp4"
        build = timed([command, "character", "build", video, "-o", pack], work / "cache")
        rebuild = timed([command, "character", "build", video, "-o", pack], work / "cache")
        render: Sequence[str | Path] = [command, "render", pack, video, "-o", out]
        cold, cached = timed(render, work / "cache"), timed(render, work / "cache")
        n_cuts = sum(1 for _ in (pack / "transitions").glob("*/*.gops"))
        seconds = _duration_s(video)
        rows.append(
            f"| {video.stem} | {build.wall_s:.1f} | {build.peak_mb:.0f} | {rebuild.wall_s:.1f} | {cold.wall_s:.1f} "
            f"| {cached.wall_s:.2f} | {n_cuts} | {seconds:.1f} |"
        )
    return [*rows, ""]


def _duration_s(video: Path) -> float:
    from engine.timebase import SAMPLE_RATE
    from tango_rt.sound.audio import read_audio

    return len(read_audio(video)) / SAMPLE_RATE


def retrieval(packs: Sequence[Path]) -> list[str]:
    """Every embedding on every clip: `tango-export evaluate aumoclip`."""
    result = evaluate(packs, EvaluateOptions(progress=False))
    return ["## Retrieval", "", *markdown(result, level=3).splitlines(), ""]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list | tuple):
        return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
    return "-" if value is None else str(value)


def transitions(videos: Sequence[Path], packs: Sequence[Path]) -> list[str]:
    results: dict[str, Any] = {}
    for video in videos:
        clip = transition_clips.read_clip(video)
        results[video.stem] = bench_transitions.measure_clip(clip, n_windows=8)
        full = transition_clips.read_clip(video, transition_clips.FULL_HEIGHT_PX, 2 * bench_transitions.MIN_CUT)
        results[video.stem]["seconds"] = bench_transitions.measure_time(full)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        bench_transitions.print_tables(results)
    seconds = [
        f"| {name} | " + ", ".join(f"{kind} {value:.2f}" for kind, value in result["seconds"].items()) + " |"
        for name, result in results.items()
    ]
    return [
        "## Transitions",
        "",
        "```",
        text.getvalue().strip(),
        "```",
        "",
        "| clip, up to 720 px high | CPU s a transition, one core |",
        "|---|---|",
        *seconds,
        "",
        "Decoding and encoding included, stage by stage:",
        "",
        "```",
        _printed("benchmarks.bench_transition_time", *map(str, packs)),
        "```",
        "",
    ]


def networks(work: Path) -> list[str]:
    """The full-size network against plain torch, and the back ends side by side: programs of their own."""
    bundle = work / "full"
    if not bundle.exists():
        subprocess.run(
            [Path(sys.executable).with_name("tango-export"), "bundle", "full", "--random", "5", "-o", bundle]
        )
    report = ["## The published network at full size, made-up weights", ""]
    for threads in ("1", "2"):
        report += ["```", _printed("benchmarks.bench_full", "--bundle", str(bundle), "--threads", threads), "```", ""]
    report += ["## Back ends side by side", "", _printed("benchmarks.bench_sessions"), ""]
    engines = _printed("benchmarks.bench_export", "--full", str(bundle), "--work", str(work / "export"))
    return [*report, "## From weights to verified engines", "", engines, ""]


def online(packs: Sequence[Path], speeches: Sequence[Path]) -> list[str]:
    """The search while it is being heard: how long a node takes, what it costs not to know the rest."""
    lines = ["## Online search", "", *bench_online.markdown("Seconds a node", bench_online.latencies())]
    for title, rows in bench_online.tables(packs, speeches).items():
        lines += bench_online.markdown(title, rows)
    return lines


def streams(pack: Path, speech: Path, work: Path) -> list[str]:
    """The server, its clients and what goes wrong, on one machine."""
    voice = bench_live.speech_file(work, speech)
    lines = ["## Live streams", "", *bench_live.markdown(bench_live.live(pack, voice, quick=False))]
    return [*lines, "## Faults", "", *bench_live.markdown(bench_faults.faults(pack, voice, quick=False))]


def _printed(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="graph and search only")
    parser.add_argument("--work", type=Path, help="folder for packs and videos (default: a temporary one)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if (kept := cache_folder()) is not None:  # kernels stay compiled where a cache of tracking is given below
        os.environ.setdefault("NUMBA_CACHE_DIR", str(kept))
    work = arguments.work or Path(tempfile.mkdtemp(prefix="tango-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    report = ["# Results", "", *at_a_glance(), "Written by `make bench`. " + " ".join(machine()), "", *algorithms()]
    data = Path(os.environ.get("TANGO_DATA_DIR", ROOT.parent / "shared" / "data"))
    videos = sorted((data / "video").glob("*.mp4"))
    if videos and not arguments.quick:
        os.environ["TANGO_RT_CACHE"] = str(work / "cache")
        report += characters(videos, work)
        packs = sorted(work.glob("*.tango"))
        report += rules(packs)
        report += retrieval(packs)
        speeches = sorted((data / "speech").iterdir())
        report += online(packs, speeches)
        report += streams(max(packs, key=folder_bytes), max(speeches, key=_duration_s), work)
        report += networks(work)
        report += transitions(videos, packs)
    RESULTS.write_text("\n".join(report), "utf-8")
    if arguments.work is None:
        shutil.rmtree(work)
    print(f"\nwritten: {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

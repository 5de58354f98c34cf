"""How fast are the motion graph and its searches, and which rule of cuts is the better one?

    python -m benchmarks.bench_graph [--json] [--official] [--hour] [--clips PACK.tango ...]

Always: Viterbi search of a minute of speech. --official: the rules of the release against their naive twins, side
by side (a minute). --hour: our graph for an hour of synthetic motion, in a process of its own (a minute). --clips:
all rules on the motion of real characters. Times are CPU seconds.
"""

import argparse
import json
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from engine.cores import usable_cores

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine import skeleton  # noqa: E402
from engine.character.pack import CharacterPack  # noqa: E402
from engine.features.appearance import slow_colours  # noqa: E402
from engine.motion_graph.graph import CONTINUE, CUT, GraphOptions, MotionGraph, build_graph  # noqa: E402
from engine.motion_graph.official import (  # noqa: E402
    OfficialFrames,
    OfficialGraph,
    largest_component,
    official_edges,
    official_frames,
    search_official,
)
from engine.motion_graph.search import SearchOptions, viterbi  # noqa: E402
from engine.timebase import FPS, FRAMES_PER_NODE  # noqa: E402
from tests.helpers import naive_graph, naive_search  # noqa: E402

UNIT_PX = 230.0
WIDTH_PX, HEIGHT_PX = 1280, 720
STROKE_S, HOLD_S = (0.23, 0.73), (0.1, 1.0)
RESTING_SHARE = 0.4


def cpu_seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """The least of several runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def synthetic_joints(n_frames: int, seed: int = 0) -> np.ndarray:
    """float32 (F, 75, 3): a speaker: eased strokes of the hands between holds and rest, head and torso swaying, and
    the jitter of an estimator. Distances between nodes are about those of real clips."""
    rng = np.random.default_rng(seed)

    def strokes(rest: list[float], spread: list[float], slower: float = 1.0) -> np.ndarray:
        n_poses = int(n_frames / FPS / slower / (STROKE_S[0] + HOLD_S[0])) + 3
        poses = np.array(rest) + np.array(spread) * rng.standard_normal((n_poses, 3))
        resting = rng.random(n_poses) < RESTING_SHARE
        poses[resting] = rest + 0.15 * (poses[resting] - rest)
        gaps = np.stack([rng.uniform(*STROKE_S, n_poses), rng.uniform(*HOLD_S, n_poses)], axis=1).ravel()
        times = np.concatenate([[0], np.cumsum(gaps * FPS * slower)])[:-1]
        keys, frame = np.repeat(poses, 2, axis=0), np.arange(n_frames)
        k = np.searchsorted(times, frame, side="right") - 1
        s = ((frame - times[k]) / (times[k + 1] - times[k]))[:, None]
        return keys[k] + (keys[k + 1] - keys[k]) * (s**3 * (10 + s * (6 * s - 15)))

    joints = np.zeros((n_frames, skeleton.N_JOINTS, 3))
    sway = strokes([0, 0, 0], [0.12, 0.03, 0.05], slower=2)
    joints[:, :11] = rng.normal([0, -0.75, -0.3], [0.12, 0.1, 0.05], (11, 3))
    joints[:, :11] += (sway + strokes([0, 0, 0], [0.1, 0.06, 0.06]))[:, None]
    fan, reach = np.repeat(np.linspace(-0.5, 0.5, 5), 4), np.tile(np.arange(1, 5), 5) * 0.09
    for side, hand, shoulder in ((1, skeleton.LEFT_HAND, 11), (-1, skeleton.RIGHT_HAND, 12)):
        elbow, wrist, hip = shoulder + 2, shoulder + 4, shoulder + 12
        joints[:, shoulder] = sway + np.array([side * 0.5, 0, 0])
        joints[:, hip] = 0.3 * sway + [side * 0.3, 1.6, 0]
        joints[:, hip + 2 : 33 : 2] = joints[:, hip : hip + 1] + np.arange(1, 5)[:, None] * [0, 0.4, 0]
        joints[:, wrist] = sway + strokes([side * 0.25, 1.05, -0.3], [0.3, 0.3, 0.15])
        joints[:, elbow] = (joints[:, shoulder] + joints[:, wrist]) / 2 + [side * 0.2, 0.2, 0.1]
        turn, opened = strokes([side * 2.5, 0.6, 0], [0.6, 0.3, 0])[:, :2].T[:, :, None]
        joints[:, hand] = joints[:, wrist : wrist + 1]
        joints[:, hand, 0][:, 1:] += opened * reach * np.sin(fan + turn)
        joints[:, hand, 1][:, 1:] += opened * reach * np.cos(fan + turn)
    jitter = np.cumsum(rng.normal(0, 0.012, (n_frames + 5, skeleton.N_JOINTS, 3)), axis=0)
    joints += (jitter[5:] - jitter[:-5]) / 5
    return (joints * UNIT_PX * [1, 1, 0.5] + [WIDTH_PX / 2, 330, 0]).astype(np.float32)


def synthetic_surface(joints: np.ndarray) -> np.ndarray:
    """uint64 (F, 96): boxes around the parts of the body on a 48 x 64 grid, then boxes around the hands."""
    cells = np.floor(joints[:, :, :2] * [64 / WIDTH_PX, 48 / HEIGHT_PX]).astype(np.int64)
    words = np.zeros((len(joints), 2, 48), np.uint64)

    def fill(plane: int, which: object, margin: int) -> None:
        x0, y0 = (cells[:, which].min(axis=1) - margin).T
        x1, y1 = (cells[:, which].max(axis=1) + margin).T
        left, right = np.clip(x0, 0, 63).astype(np.uint64), np.clip(x1, 0, 63).astype(np.uint64)
        span = (~np.uint64(0) >> (np.uint64(63) - (right - left))) << left
        rows = (np.arange(48) >= y0[:, None]) & (np.arange(48) <= y1[:, None])
        words[:, plane] |= np.where(rows, span[:, None], np.uint64(0))

    for part in (slice(0, 11), [11, 12, 23, 24], [11, 13], [13, 15], [12, 14], [14, 16]):
        fill(0, part, 1)
    for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND):
        fill(0, hand, 0)
        fill(1, hand, 0)
    return words.reshape(len(joints), -1)


def official_edges_ratio(n_frames: int = 1200) -> dict[str, float]:
    """The release's edge rule against its naive twin on the same frames; their edges are equal."""
    frames = _official_frames(n_frames)
    official_edges(frames)
    fast = cpu_seconds(lambda: official_edges(frames), 5)
    start = time.process_time()
    wanted, _ = naive_graph.official_edges(frames)
    naive = time.process_time() - start
    if not np.array_equal(official_edges(frames)[0], wanted):
        raise AssertionError("the edges differ from the naive ones")
    return {"frames": n_frames, "edges": len(wanted), "naive_s": naive, "fast_s": fast, "ratio": naive / fast}


def _official_frames(n_frames: int) -> OfficialFrames:
    joints = synthetic_joints(n_frames, seed=3)[:, :55]
    return official_frames(joints, np.arange(0, n_frames // FRAMES_PER_NODE + 1, n_frames // FRAMES_PER_NODE // 4))


def official_search_ratio(n_nodes: int = 240, n_steps: int = 900, n_edges: int = 1900) -> dict[str, float]:
    """The release's path search against its naive twin: 4 clips, random jumps, high-level vectors constant over
    windows, as its demo makes them."""
    rng = np.random.default_rng(0)

    def unit(n: int) -> np.ndarray:
        rows = rng.standard_normal((n, 256)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def windows(n: int) -> np.ndarray:
        return np.repeat(unit(-(-n // 128)), 128, axis=0)[:n]

    clip = np.arange(n_nodes) // (n_nodes // 4)
    near = {(i, j) for i in range(n_nodes - 1) for j in [i + 1] if clip[i] == clip[j]}
    near |= {(j, i) for i, j in near}
    pairs = {tuple(pair) for pair in rng.integers(0, n_nodes, (2 * n_edges, 2)).tolist() if pair[0] != pair[1]}
    edges = np.array(sorted(near | set(sorted(pairs - near)[:: max(1, len(pairs) // (n_edges - len(near)))])))
    first = np.concatenate([[True], clip[1:] != clip[:-1]])
    is_continue = np.array([tuple(edge) in near for edge in edges.tolist()])
    graph = OfficialGraph(edges, is_continue, np.where(first, -1, 0), np.arange(n_nodes))
    assert len(largest_component(n_nodes, edges)) == n_nodes
    motion, audio = (unit(n_nodes), windows(n_nodes)), (unit(n_steps), windows(n_steps))
    paths = search_official(graph, *motion, *audio)
    fast = cpu_seconds(lambda: search_official(graph, *motion, *audio), 20)
    start = time.process_time()
    wanted = naive_search.official_search(edges, is_continue, graph.previous, motion, audio, "both", 0.1, 0.1, 1)
    naive = time.process_time() - start
    if paths[0].nodes.tolist() != wanted[0][0]:
        raise AssertionError("the path differs from the naive one")
    sizes = {"nodes": n_nodes, "steps": n_steps, "edges": len(edges)}
    return {**sizes, "naive_s": naive, "fast_s": fast, "ratio": naive / fast}


def viterbi_seconds(n_nodes: int = 1000, n_steps: int = 450, n_cuts: int = 48) -> dict[str, float]:
    """A warm Viterbi search of a minute of speech on random cuts."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n_nodes):
        targets = rng.choice(n_nodes, n_cuts, replace=False)
        rows.append(np.unique(np.append(targets[targets != i], i + 1 if i + 1 < n_nodes else i - 1)))
    indices = np.concatenate(rows).astype(np.int32)
    source = np.repeat(np.arange(n_nodes), [len(row) for row in rows])
    kind = np.where(indices == source + 1, CONTINUE, CUT).astype(np.uint8)
    graph = MotionGraph(
        n_nodes=n_nodes,
        clip_start=np.array([0, n_nodes]),
        indptr=np.searchsorted(source, np.arange(n_nodes + 1)),
        indices=indices,
        distance=np.where(kind == CUT, rng.random(len(kind)), 0).astype(np.float32),
        kind=kind,
        kept=np.ones(n_nodes, bool),
    )
    costs = rng.random((n_steps, n_nodes), dtype=np.float32) * 2
    options = SearchOptions()
    viterbi(costs, graph, options)
    seconds = cpu_seconds(lambda: viterbi(costs, graph, options), 20)
    return {"nodes": n_nodes, "steps": n_steps, "edges": graph.n_edges, "warm_s": seconds}


def hour_graph(n_nodes: int = 27_000, n_clips: int = 12) -> dict[str, float]:
    """Our graph for an hour of synthetic motion in a process of its own: all cores, wall time and peak memory too."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_hour_graph, (n_nodes, n_clips))


def _hour_graph(n_nodes: int, n_clips: int) -> dict[str, float]:
    joints = synthetic_joints(n_nodes * FRAMES_PER_NODE)
    surface = synthetic_surface(joints)
    clip_start = np.linspace(0, n_nodes, n_clips + 1).astype(np.int64)
    short = 400
    build_graph(joints[:short], surface[:short], np.array([0, short // 4]), skeleton.joint_weights(), UNIT_PX)
    wall, cpu = time.perf_counter(), time.process_time()
    graph, report = build_graph(joints, surface, clip_start, skeleton.joint_weights(), UNIT_PX)
    return {
        "nodes": n_nodes,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_rss_gb": _peak_gb(),
        "cuts_per_node": graph.n_cut_edges / n_nodes,
        "parts_before": report.n_components_before,
        "relaxed": report.n_relaxed,
        "kept": report.n_kept / n_nodes,
    }


def _peak_gb() -> float:
    # not getrusage: a new process starts with the peak of the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def compare_rules(path: Path) -> list[dict[str, float | str]]:
    """Graphs of one clip by either rule."""
    pack = CharacterPack.open(path)
    rows: list[dict[str, float | str]] = []
    rules = {
        "window": GraphOptions(),
        "window, factor 1, no floor": GraphOptions(threshold_factor=1.0, floor_quantile=0.0),
        "paper": GraphOptions(rule="paper"),
        "official": GraphOptions(rule="official"),
    }
    for name, options in rules.items():
        graph, report = build_graph(
            np.asarray(pack["joints"]),
            np.asarray(pack["surface"]),
            np.asarray(pack["clip_start"]),
            skeleton.joint_weights(),
            pack.info.shoulder_px,
            options,
            confidence=np.asarray(pack["confidence"]),
            appearance=slow_colours(pack["appearance"], pack["clip_start"]),
        )
        cuts = graph.kind == CUT
        rows.append(
            {
                "clip": path.stem,
                "rule": name,
                "nodes": graph.n_nodes,
                "kept": graph.n_kept,
                "cuts": int(cuts.sum()),
                "cuts_per_node": cuts.sum() / graph.n_kept,
                "parts_before": report.n_components_before,
                "largest_before": report.largest_before,
                "relaxed": report.n_relaxed,
                "relaxed_max": report.relaxed_max,
                "mean_distance": float(graph.distance[cuts].mean()) if cuts.any() else float("nan"),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--official", action="store_true", help="compare with the naive twins of the release")
    parser.add_argument("--hour", action="store_true", help="build the graph of an hour")
    parser.add_argument("--clips", nargs="*", type=Path, default=[], help="character packs")
    asked = parser.parse_args()
    results: dict[str, list[dict[str, float | str]]] = {"viterbi": [{**viterbi_seconds()}]}
    if asked.official:
        results["official edges"] = [{**official_edges_ratio()}]
        results["official search"] = [{**official_search_ratio()}]
    if asked.hour:
        results["hour"] = [{**hour_graph()}]
    if asked.clips:
        results["rules"] = [row for path in asked.clips for row in compare_rules(path)]
    if asked.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{platform.machine()}, {usable_cores()} CPUs, numba {numba.__version__}, numpy {np.__version__}")
    for title, rows in results.items():
        print(f"\n{title}\n" + " | ".join(rows[0]))
        for row in rows:
            print(" | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))


if __name__ == "__main__":
    main()

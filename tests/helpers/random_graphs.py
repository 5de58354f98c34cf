"""Motion graphs of random cuts, and paths through them."""

from dataclasses import replace

import numpy as np

from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps
from engine.motion_graph.graph import CONTINUE, CUT, RELAXED, MotionGraph
from engine.motion_graph.online import OnlineSearch
from engine.motion_graph.online_graph import OnlineGraph, OnlineOptions
from engine.motion_graph.search import SearchOptions
from engine.motion_graph.variety import VarietyOptions


def make_graph(lengths, n_cuts, seed=0, n_relaxed=1):
    """Clips in source order, random cuts between any two nodes."""
    rng = np.random.default_rng(seed)
    clip_start = np.concatenate([[0], np.cumsum(lengths)])
    n_nodes = int(clip_start[-1])
    edges = {(n, n + 1): CONTINUE for n in range(n_nodes - 1) if n + 1 not in clip_start}
    pairs = [(i, j) for i in range(n_nodes) for j in range(n_nodes) if i != j and (i, j) not in edges]
    picked = rng.permutation(len(pairs))[:n_cuts]
    edges |= {pairs[k]: RELAXED if place < n_relaxed else CUT for place, k in enumerate(picked)}
    ordered = sorted(edges)
    kind = np.array([edges[pair] for pair in ordered], np.uint8)
    counts = np.bincount([i for i, _ in ordered], minlength=n_nodes)
    distance = np.where(kind == CONTINUE, 0, rng.integers(1, 64, len(kind)) / 64).astype(np.float32)
    return MotionGraph(
        n_nodes=n_nodes,
        clip_start=clip_start,
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=np.array([j for _, j in ordered], np.int32),
        distance=distance,
        kind=kind,
        kept=np.ones(n_nodes, bool),
    )


def make_motion(n: int, seed: int, width: int = 3, high: int = 2) -> tuple[MotionVectors, np.ndarray]:
    """Motion and rest in sixteenths, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    low, more = (rng.integers(-8, 9, (n, w)).astype(np.float32) / 16 for w in (width, high))
    level, rest = rng.integers(0, 9, (2, n)).astype(np.float32) / 8
    return MotionVectors(low, more, level), rest


def make_steps(n: int, seed: int, width: int = 3, high: int = 2) -> SpeechSteps:
    rng = np.random.default_rng(seed)
    low, more = (rng.integers(-8, 9, (n, w)).astype(np.float32) / 16 for w in (width, high))
    level, speaking = rng.integers(0, 9, (2, n)).astype(np.float32) / 8
    return SpeechSteps(low, more, level, speaking)


def make_live_graph(seed: int, lengths: tuple[int, ...] = (9, 7, 8)) -> MotionGraph:
    """Random cuts, and a way out of the end of every clip into the start of the next: no path dies."""
    graph = make_graph(list(lengths), 60, seed)
    starts = graph.clip_start
    cuts = dict(zip(zip(graph.sources.tolist(), graph.indices.tolist(), strict=True), graph.kind.tolist(), strict=True))
    distance = dict(zip(cuts, graph.distance.tolist(), strict=True))
    for k in range(len(lengths)):
        edge = int(starts[k + 1]) - 1, int(starts[(k + 1) % len(lengths)])
        cuts.setdefault(edge, CUT)
        distance.setdefault(edge, 0.5)
    # a cut into the last nodes of a clip would leave too few to dwell on
    late = {*(starts[1:] - 1).tolist(), *(starts[1:] - 2).tolist()}
    allowed = {edge: kind for edge, kind in cuts.items() if kind == CONTINUE or edge[1] not in late}
    edges = sorted(allowed)
    source = np.array([i for i, _ in edges])
    return replace(
        graph,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(source, minlength=graph.n_nodes))]),
        indices=np.array([j for _, j in edges], np.int32),
        kind=np.array([allowed[e] for e in edges], np.uint8),
        distance=np.array([distance[e] for e in edges], np.float32),
    )


def prepare(
    graph: MotionGraph,
    seed: int = 0,
    options: OnlineOptions | None = None,
    search: SearchOptions | None = None,
    variety: VarietyOptions | None = None,
) -> OnlineGraph:
    motion, rest = make_motion(graph.n_nodes, seed)
    return OnlineGraph(
        graph, motion, rest, search or SearchOptions(), CostOptions(), variety or VarietyOptions(),
        options or OnlineOptions(),
    )  # fmt: skip


def planted(lengths: list[int], cuts: dict[tuple[int, int], float]) -> OnlineGraph:
    """Clips of these lengths with these cuts and their distances."""
    clip_start = np.concatenate([[0], np.cumsum(lengths)])
    n = int(clip_start[-1])
    edges = {(i, i + 1): 0.0 for i in range(n - 1) if i + 1 not in clip_start} | cuts
    ordered = sorted(edges)
    counts = np.bincount([i for i, _ in ordered], minlength=n)
    return prepare(
        MotionGraph(
            n_nodes=n,
            clip_start=clip_start,
            indptr=np.concatenate([[0], np.cumsum(counts)]),
            indices=np.array([j for _, j in ordered], np.int32),
            distance=np.array([edges[edge] for edge in ordered], np.float32),
            kind=np.array([CUT if edge in cuts else CONTINUE for edge in ordered], np.uint8),
            kept=np.ones(n, bool),
        )
    )


def walk(prepared: OnlineGraph, steps: SpeechSteps) -> list[int]:
    search = OnlineSearch(prepared)
    nodes = [search.begin(steps)]
    return nodes + [search.advance(steps[t:]).node for t in range(len(steps) - 1)]

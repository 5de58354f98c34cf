"""The research release's motion graph and path search, reproduced exactly: a compatibility mode.

Differences from the paper: a node is a single frame; an edge needs 45 of 55 joints below their own thresholds in
position and in velocity; playing backwards counts as continuous; the search charges every past jump again at every step
and keeps one best entry per node and step, although costs depend on the whole path, so it is not a global optimum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from engine.motion_graph.kernels import official as kernels
from engine.skeleton import LEFT_SHOULDER, RIGHT_SHOULDER
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = [
    "DEMO_MAX_NODES",
    "OfficialFrames",
    "OfficialGraph",
    "OfficialPath",
    "OfficialSearchOptions",
    "build_official_graph",
    "frames_of_joints",
    "largest_component",
    "official_edges",
    "search_official",
]

DEMO_MAX_NODES = 1800
"""Size to which the release's demo reduces a graph."""

_VOTES, _OF_JOINTS = 45, 55
_LANES = 16  # joints of one vector step
_BLOCK_STEPS = 256


@dataclass(frozen=True, eq=False)
class OfficialFrames:
    """The joints of N frames."""

    position: np.ndarray  # float32 (N, J, 3), relative to the root
    velocity: np.ndarray  # float32 (N, J, 3)
    trans: np.ndarray  # float32 (N, 3)
    previous: np.ndarray  # int (N,): the frame before it in the clip, -1 at the start
    following: np.ndarray  # int (N,): the frame after it in the clip, -1 at the end


@dataclass(frozen=True, eq=False)
class OfficialGraph:
    """Nodes and edges after renumbering."""

    edges: np.ndarray  # int32 (E, 2), new node numbers, ascending
    is_continue: np.ndarray  # bool (E,)
    previous: np.ndarray  # int (n,), not renumbered: only whether it is -1 matters
    frames: np.ndarray  # int32 (n,): the frame of each node


@dataclass(frozen=True)
class OfficialSearchOptions:
    """With the release's defaults. Returning to a node after c visits costs loop_penalty * e^c, and every step costs
    continue_penalty times the number of jumps so far."""

    mode: Literal["both", "high_level", "low_level"] = "both"
    loop_penalty: float = 0.1
    continue_penalty: float = 0.1
    top_k: int = 1


@dataclass(frozen=True, eq=False)
class OfficialPath:
    """A path through an OfficialGraph."""

    nodes: np.ndarray  # int32 (T,)
    is_continue: np.ndarray  # bool (T - 1,), of the edges between them
    cost: float


def frames_of_joints(
    joints: np.ndarray, clip_start: np.ndarray, root_joints: Sequence[int] = (LEFT_SHOULDER, RIGHT_SHOULDER)
) -> OfficialFrames:
    """A character's joints in the release's form.

    joints float32 (F, J, 3); clip_start int (n_clips + 1), in nodes, F = 4 clip_start[-1]. The middle of
    root_joints is the translation and the origin of positions.
    """
    bounds = np.asarray(clip_start, np.int64) * FRAMES_PER_NODE
    if joints.ndim != 3 or joints.shape[2] != 3 or len(joints) != bounds[-1]:
        raise ValueError(f"joints are {joints.shape}; expected ({bounds[-1]}, joints, 3)")
    trans = joints[:, list(root_joints)].mean(axis=1, dtype=np.float32)
    position = joints.astype(np.float32) - trans[:, None]
    velocity = np.empty_like(position)
    frame = np.arange(len(joints))
    previous, following = frame - 1, frame + 1
    previous[bounds[:-1]], following[bounds[1:] - 1] = -1, -1
    for start, stop in pairwise(bounds):
        x, v = position[start:stop], velocity[start:stop]
        v[0], v[-1] = (x[1] - x[0]) * np.float32(FPS), (x[-1] - x[-2]) * np.float32(FPS)
        v[1:-1] = (x[2:] - x[:-2]) * np.float32(FPS / 2)
    return OfficialFrames(position, velocity, trans, previous, following)


def official_edges(frames: OfficialFrames) -> tuple[np.ndarray, np.ndarray]:
    """Edges int32 (E, 2), ascending by source, then target, and is_continue bool (E,).

    45 of 55 joints must vote for an edge; with another number of joints the same share, rounded up.
    """
    n_frames, n_joints, _ = frames.position.shape
    if frames.velocity.shape != frames.position.shape or frames.trans.shape != (n_frames, 3):
        raise ValueError(
            f"positions {frames.position.shape}, velocities {frames.velocity.shape} and translations "
            f"{frames.trans.shape} do not match; expected (N, J, 3) twice and (N, 3)"
        )
    previous, following = frames.previous.astype(np.int64), frames.following.astype(np.int64)
    all_points = []
    used = np.zeros(n_frames, np.int64)
    for points in (frames.position, frames.velocity, frames.trans[:, None]):
        values = np.ascontiguousarray(points.transpose(0, 2, 1), dtype=np.float32)
        mean, used = kernels.thresholds(values, previous, following)
        # Padding has limit 0 and never votes, because the comparison is strict.
        spare = -values.shape[2] % _LANES if values.shape[2] > 1 else 0
        limits = np.pad(_squared_limit(mean), ((0, 0), (0, spare)))
        all_points.append(kernels.Points(np.pad(values, ((0, 0), (0, 0), (0, spare))), limits))
    min_votes = -(-n_joints * _VOTES // _OF_JOINTS)
    position, velocity, trans = all_points
    edges, is_continue = kernels.edges(position, velocity, trans, previous, following, used, min_votes)
    return edges, is_continue


def _squared_limit(threshold: np.ndarray) -> np.ndarray:
    """The smallest float32 s with float32 sqrt(s) >= threshold: sqrt(x) < threshold is then exactly x < s.

    So the inner loop over all pairs needs no square root. The square root rounds monotonically; the float32 next to the
    square of the threshold is at most a few steps off.
    """
    limit: np.ndarray = (threshold * threshold).astype(np.float32)
    while (low := np.sqrt(limit) < threshold).any():
        limit[low] = np.nextafter(limit[low], np.float32(np.inf))
    while True:
        below = np.nextafter(limit, np.float32(0))
        high = (limit > 0) & (np.sqrt(below) >= threshold)
        if not high.any():
            return limit
        limit[high] = below[high]


def largest_component(n_nodes: int, edges: np.ndarray) -> np.ndarray:
    """int32: the nodes of the largest strongly connected component, ascending; ties are broken as in the release.

    edges int (E, 2), ascending.
    """
    by_target = np.argsort(edges[:, 1], kind="stable")
    component = kernels.strong_components(
        _starts(edges[:, 0], n_nodes), edges[:, 1].astype(np.int64),
        _starts(edges[:, 1], n_nodes), edges[by_target, 0].astype(np.int64),
    )  # fmt: skip
    return np.flatnonzero(component == np.argmax(np.bincount(component))).astype(np.int32)


def build_official_graph(frames: OfficialFrames, max_nodes: int | None = None, cut_start: int = 0) -> OfficialGraph:
    """The largest strongly connected component of the graph of all edges.

    max_nodes: if there are more, drop one run of them starting at number cut_start, so that max_nodes remain, and take
    the largest component again. The release's demo does this with DEMO_MAX_NODES and an unseeded random start in 0 ..
    DEMO_MAX_NODES; here the start is given, and by default nothing is dropped.
    """
    edges, is_continue = official_edges(frames)
    n_frames = len(frames.previous)
    whole = OfficialGraph(edges, is_continue, frames.previous, np.arange(n_frames, dtype=np.int32))
    graph = _induced(whole, largest_component(n_frames, edges))
    n_over = 0 if max_nodes is None else len(graph.frames) - max_nodes
    if n_over <= 0:
        return graph
    kept = np.arange(len(graph.frames))
    graph = _induced(graph, kept[(kept < cut_start) | (kept >= cut_start + n_over)])
    return _induced(graph, largest_component(len(graph.frames), graph.edges))


def _induced(graph: OfficialGraph, kept: np.ndarray) -> OfficialGraph:
    number = np.full(len(graph.frames), -1, np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    edges = number[graph.edges]
    inside = (edges >= 0).all(axis=1)
    return OfficialGraph(edges[inside], graph.is_continue[inside], graph.previous[kept], graph.frames[kept])


def _starts(column: np.ndarray, n_nodes: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(column, minlength=n_nodes))])


def search_official(
    graph: OfficialGraph,
    motion_low: np.ndarray,
    motion_high: np.ndarray,
    audio_low: np.ndarray,
    audio_high: np.ndarray,
    options: OfficialSearchOptions | None = None,
) -> list[OfficialPath]:
    """The release's best paths, up to top_k, cheapest first; empty if no path exists.

    motion_* (n, C) and audio_* (T, C), unit vectors, all float32 or all float64: dot products are computed in that
    type, everything else in float64. Paths start at nodes without a previous one. Memory: n^2 top_k visit counts, T n
    top_k predecessors.
    """
    options = options or OfficialSearchOptions()
    n_nodes, n_steps, n_ranks = len(motion_low), len(audio_low), options.top_k
    if n_steps < 1 or n_ranks < 1 or len(motion_high) != n_nodes or len(audio_high) != n_steps:
        raise ValueError(
            f"features of {n_nodes} and {len(motion_high)} nodes, {n_steps} and {len(audio_high)} steps, "
            f"{n_ranks} paths; expected equal numbers, none of them 0"
        )
    order = np.argsort(graph.edges[:, 1], kind="stable")
    start = _starts(graph.edges[:, 1], n_nodes)
    move = 2 * graph.edges[order, 0].astype(np.uint64) + ~graph.is_continue[order]
    moves = kernels.Moves(start, move)
    prices = kernels.Prices(_revisit_costs(options, n_steps), options.continue_penalty)
    cost, jumps = np.full((2, n_nodes, n_ranks), np.inf), np.zeros((2, n_nodes, n_ranks), np.int64)
    visits = np.zeros((2, n_nodes, n_ranks, n_nodes), np.uint16 if n_steps < 2**16 else np.uint32)
    generations = kernels.Generations(cost, jumps, visits)
    back = np.empty((n_steps, n_nodes, n_ranks), np.int32 if len(order) * n_ranks < 2**31 else np.int64)
    now = 0
    for step, added in _increment_blocks(motion_low, motion_high, audio_low, audio_high, options.mode):
        if step == 0:
            starts = np.flatnonzero(graph.previous == -1)
            cost[0, starts, 0], visits[0, starts, 0, starts] = added[0, starts], 1
            continue
        kernels.advance(added, moves, prices, generations, now, back[step : step + len(added)])
        now = (now + len(added)) % 2
    ends = np.argsort(cost[now], axis=None, kind="stable")[:n_ranks]
    return [
        _followed_back(move, back, *divmod(int(end), n_ranks), cost=float(cost[now].flat[end]))
        for end in ends
        if cost[now].flat[end] < np.inf
    ]


def _revisit_costs(options: OfficialSearchOptions, n_steps: int) -> np.ndarray:
    """float64 (T + 1,): the cost of showing a node that the path has shown c times; e^c overflows above 709."""
    costs = np.zeros(n_steps + 1)
    if options.loop_penalty:
        with np.errstate(over="ignore"):
            costs[1:] = options.loop_penalty * np.exp(np.arange(1.0, n_steps + 1))
    return costs


def _followed_back(move: np.ndarray, back: np.ndarray, node: int, rank: int, cost: float) -> OfficialPath:
    nodes, is_continue = np.empty(len(back), np.int32), np.empty(len(back) - 1, bool)
    nodes[-1] = node
    for t in range(len(back) - 1, 0, -1):
        edge, rank = divmod(int(back[t, node, rank]), back.shape[2])
        node, is_jump = divmod(int(move[edge]), 2)
        nodes[t - 1], is_continue[t - 1] = node, not is_jump
    return OfficialPath(nodes, is_continue, cost)


def _increment_blocks(
    motion_low: np.ndarray,
    motion_high: np.ndarray,
    audio_low: np.ndarray,
    audio_high: np.ndarray,
    mode: Literal["both", "high_level", "low_level"],
) -> Iterator[tuple[int, np.ndarray]]:
    """(first step, increments float64 (B, n)); the first block is only the first step."""
    levels = []
    if mode != "high_level":
        levels.append((_filled_up(audio_low), *_distinct_columns(motion_low)))
    if mode != "low_level":
        levels.append((_filled_up(audio_high), *_distinct_columns(motion_high)))
    n_steps = len(audio_low)
    for start in (0, *range(1, n_steps, _BLOCK_STEPS)):
        stop = min(start + _BLOCK_STEPS, n_steps) if start else 1
        similarity: np.ndarray | int = 0
        for audio, columns, which in levels:
            products = np.empty((stop - start, columns.shape[1]), audio.dtype)
            kernels.dot_products(audio[start:stop], columns, products)
            similarity = similarity + (products if which is None else products[:, which])
        yield start, len(levels) - np.asarray(similarity, np.float64)


def _distinct_columns(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The distinct rows as columns, in order of appearance, and each row's index in them, None if all are distinct.

    A high-level vector is repeated over its window of 128 frames.
    """
    numbers: dict[bytes, int] = {}
    which = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows])
    distinct = rows[np.unique(which, return_index=True)[1]]
    return np.ascontiguousarray(_filled_up(distinct).T), None if len(distinct) == len(rows) else which


def _filled_up(rows: np.ndarray) -> np.ndarray:
    """Padded with columns of zeros to a multiple of 4, the number of terms that the kernel adds at once."""
    missing = -rows.shape[1] % 4
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, missing))) if missing else rows)

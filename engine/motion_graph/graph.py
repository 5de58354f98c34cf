"""The motion graph: which nodes of a character may follow which, and at what cost (paper, section 3.1).

Node n is frames 4n .. 4n+3. A path shows ..., i-1, i, j, j+1, ...; around a cut i -> j the 8 generated frames of the
transition replace nodes i and j. The graph is connected under the dwell rule (engine/motion_graph/connect.py): a path
can always go on.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.choices import GraphRule
from engine.cores import usable_cores
from engine.errors import InputError
from engine.motion_graph.connect import ConnectReport, Cuts, connect
from engine.motion_graph.kernels.cuts import NO_NODE, nearest_cuts, spread_out
from engine.motion_graph.kernels.distances import NodeFeatures, cut_distances, natural_distances, node_features
from engine.motion_graph.official import official_edges, official_frames
from engine.timebase import FRAMES_PER_NODE

__all__ = ["CONTINUE", "CUT", "RELAXED", "Cut", "GraphOptions", "MotionGraph", "build_graph", "natural_thresholds"]

CONTINUE, CUT, RELAXED = 0, 1, 2
"""Kinds of edges: to the next node of the clip; an admissible cut; a cut added only to keep the graph connected."""

Cut = tuple[int, int]
"""The node before the cut, the node after it."""

_ROWS_PER_TASK = 256
_OFFICIAL_MAX_FRAMES = 12_000


@dataclass(frozen=True, eq=False)
class MotionGraph:
    """Nodes and edges in CSR form; nodes keep their numbers, and those not kept have no edges."""

    n_nodes: int
    clip_start: np.ndarray  # int64 (n_clips + 1): first node of each clip
    indptr: np.ndarray  # int64 (n_nodes + 1): edges of node n are indptr[n] .. indptr[n + 1] - 1
    indices: np.ndarray  # int32 (n_edges,): their targets, ascending
    distance: np.ndarray  # float32 (n_edges,): window distance of a cut, 0 for a continue edge
    kind: np.ndarray  # uint8 (n_edges,): CONTINUE, CUT or RELAXED; n -> n + 1 into the next clip is a cut
    kept: np.ndarray  # bool (n_nodes,)
    hand_gap: np.ndarray | None = None  # float32 (n_edges,), engine.motion_graph.hands; None: not known, costs nothing

    @property
    def n_edges(self) -> int:
        return len(self.indices)

    @property
    def n_cut_edges(self) -> int:
        """Cuts of both kinds."""
        return int(np.count_nonzero(self.kind != CONTINUE))

    @property
    def n_relaxed_edges(self) -> int:
        return int(np.count_nonzero(self.kind == RELAXED))

    @property
    def n_kept(self) -> int:
        return int(np.count_nonzero(self.kept))

    @property
    def sources(self) -> np.ndarray:
        """int32 (n_edges,): the source of every edge."""
        return np.repeat(np.arange(self.n_nodes, dtype=np.int32), np.diff(self.indptr))

    @property
    def clip(self) -> np.ndarray:
        """int32 (n_nodes,): the clip of every node."""
        return np.repeat(np.arange(len(self.clip_start) - 1, dtype=np.int32), np.diff(self.clip_start))

    def has_sync(self, i: int, j: int) -> bool:
        """Whether the cut i -> j has real frames on both sides: i + 1 in the clip of i, and j - 1 in that of j."""
        return i + 1 not in self.clip_start and j not in self.clip_start


@dataclass(frozen=True)
class GraphOptions:
    """What makes a cut admissible.

    rule "window": the window distance (kernels/cuts.py) is at most threshold_factor * max(t(i), floor), where floor is
    the floor_quantile of all t. A morph of 8 frames covers D at the speed at which 4 natural frames cover D / 2; so at
    factor 2, with t two thirds of a natural step, it moves no faster than the person does. Without the floor, nodes at
    rest, the best places for a cut, would have few: on real clips of a minute 1 node in 3 would have no cut, and at
    factor 1 9 in 10.

    rule "paper": d(i, j) <= t(i); factor and floor do not apply. rule "official": the research release joins single
    frames (engine/motion_graph/official.py), here the last frame of i and the first of j; factor, floor and weights do
    not affect which cuts are admitted.
    """

    rule: GraphRule = "window"
    threshold_factor: float = 2.0
    floor_quantile: float = 0.5
    # 48 cuts from every node are more than any search uses; cuts to different places come first.
    max_cuts_per_node: int = 48
    place_radius: int = 1
    # Position in body units; velocity times the 4 frames of a node: the distance that a difference in speed adds up to
    # in one node.
    position_weight: float = 1.0
    velocity_weight: float = float(FRAMES_PER_NODE)
    surface_weight: float = 1.0
    # Of the mean colour distance of the cells (lightness 0..1): 0.15 to 0.19 between two shirts, 0.07 across jump cuts
    # with the same shirt, 0.01 to 0.05 within a shot.
    appearance_weight: float = 6.0
    # No cuts to targets i-1 .. i+min_skip of the same clip: the path is there anyway.
    min_skip: int = 3


def build_graph(
    joints: np.ndarray,
    surface: np.ndarray,
    clip_start: np.ndarray,
    joint_weights: np.ndarray,
    unit_px: float,
    options: GraphOptions | None = None,
    confidence: np.ndarray | None = None,
    appearance: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[MotionGraph, ConnectReport]:
    """The connected motion graph of a character.

    joints float32 (F, J, 3), absolute in the picture, finite; surface uint64 (F, W), bits of the visible person and the
    hands; clip_start int (n_clips + 1), first node of each clip, F = 4 clip_start[-1]; joint_weights (J,), not
    negative; unit_px, the body size in the unit of joints. confidence (F, J) in 0..1: a joint is weighted by its mean
    over all frames, so that joints out of the picture do not count. appearance float32 (F, cells, 3), colours from
    engine.features.appearance.slow_colours: the window rule adds their distance. progress(nodes done, nodes in all).
    Raises ValueError if arrays do not match, InputError if joints or body size are not numbers or no clip is long
    enough.
    """
    options = options or GraphOptions()
    clip_start = np.asarray(clip_start, np.int64)
    _check(joints, surface, clip_start, joint_weights, unit_px)
    weights = np.asarray(joint_weights, np.float64)
    if confidence is not None:
        weights = weights * confidence.mean(axis=0)
    if options.rule != "window":
        appearance = None
    features = _features(joints, surface, clip_start, weights / (weights.sum() * unit_px), appearance, options)
    if options.rule == "official":
        cuts = _official_cuts(features, joints, clip_start, options)
    else:
        cuts = _admissible_cuts(features, options, progress)
    cuts, kept, report = connect(features, clip_start, cuts, options.min_skip, options.rule != "paper")
    return _assemble(clip_start, cuts, kept), report


def natural_thresholds(features: NodeFeatures) -> np.ndarray:
    """t(i) = (d(i, i-1) + d(i, i) + d(i, i+1)) / 3 over the neighbours that the clip has (paper, 3.1);
    float64 (N,)."""
    following = natural_distances(features).astype(np.float64)
    preceding = np.concatenate([[np.nan], following[:-1]])
    steps = np.stack([preceding, np.zeros(len(following)), following])
    mean: np.ndarray = np.nanmean(steps, axis=0)
    return mean


def _features(
    joints: np.ndarray,
    surface: np.ndarray,
    clip_start: np.ndarray,
    scale: np.ndarray,
    appearance: np.ndarray | None,
    options: GraphOptions,
) -> NodeFeatures:
    counted = scale > 0
    position = joints[:, counted] * scale[counted, None].astype(np.float32)
    velocity = np.empty_like(position)
    for start, stop in zip(clip_start[:-1] * FRAMES_PER_NODE, clip_start[1:] * FRAMES_PER_NODE, strict=True):
        velocity[start:stop] = np.gradient(position[start:stop], axis=0)
    position *= np.float32(options.position_weight)
    velocity *= np.float32(options.velocity_weight)
    if appearance is not None:
        # Cells count as joints at a place in colour space, so that one kernel serves both.
        colours = appearance * np.float32(options.appearance_weight / appearance.shape[1])
        position = np.concatenate([position, colours], axis=1)
        velocity = np.concatenate([velocity, np.zeros_like(colours)], axis=1)
    return node_features(position, velocity, surface, clip_start, options.surface_weight)


def _admissible_cuts(
    features: NodeFeatures, options: GraphOptions, progress: Callable[[int, int], None] | None
) -> Cuts:
    limits = natural_thresholds(features)
    windowed = options.rule == "window"
    if windowed:
        floor = np.quantile(limits, options.floor_quantile)
        limits = options.threshold_factor * np.maximum(limits, floor)
    limits = limits.astype(np.float32)
    n_nodes, n_keep, radius = len(limits), options.max_cuts_per_node, options.place_radius

    def rows_from(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = range(start, min(start + _ROWS_PER_TASK, n_nodes))
        n_best = min((2 * radius + 1) * n_keep, n_nodes)
        found = nearest_cuts(features, rows, limits, n_best, options.min_skip, windowed)
        return spread_out(*found, n_keep, radius)

    parts = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for targets, costs in pool.map(rows_from, range(0, n_nodes, _ROWS_PER_TASK)):
            parts.append((targets, costs))
            if progress is not None:
                progress(min(len(parts) * _ROWS_PER_TASK, n_nodes), n_nodes)
    targets, costs = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    source, place = np.nonzero(targets != NO_NODE)
    return Cuts(source.astype(np.int32), targets[source, place], costs[source, place], n_relaxed=0)


def _official_cuts(features: NodeFeatures, joints: np.ndarray, clip_start: np.ndarray, options: GraphOptions) -> Cuts:
    if len(joints) > _OFFICIAL_MAX_FRAMES:
        raise InputError(
            f"{len(joints)} frames are too many for the release's rule, whose edges grow quadratically: "
            f"at most {_OFFICIAL_MAX_FRAMES}; use the window rule"
        )
    edges, is_continue = official_edges(official_frames(joints, clip_start))
    frame, other = edges[~is_continue].T
    joins = (frame % FRAMES_PER_NODE == FRAMES_PER_NODE - 1) & (other % FRAMES_PER_NODE == 0)
    source, target = frame[joins] // FRAMES_PER_NODE, other[joins] // FRAMES_PER_NODE
    near = features.clip[source] == features.clip[target]
    near &= (target >= source - 1) & (target <= source + options.min_skip)
    source, target = source[~near], target[~near]
    costs = cut_distances(features, source, target)
    by_cost = np.lexsort((target, costs, source))
    rank = np.arange(len(by_cost)) - np.searchsorted(source[by_cost], source[by_cost])
    best = np.sort(by_cost[rank < options.max_cuts_per_node])
    return Cuts(source[best].astype(np.int32), target[best].astype(np.int32), costs[best], n_relaxed=0)


def _assemble(clip_start: np.ndarray, cuts: Cuts, kept: np.ndarray) -> MotionGraph:
    n_nodes = len(kept)
    goes_on = kept[:-1] & kept[1:]
    goes_on[clip_start[1:-1] - 1] = False
    onward = np.flatnonzero(goes_on).astype(np.int32)
    kind = np.full(len(cuts.source), CUT, np.uint8)
    kind[len(kind) - cuts.n_relaxed :] = RELAXED
    source = np.concatenate([onward, cuts.source])
    target = np.concatenate([onward + 1, cuts.target])
    order = np.lexsort((target, source))
    return MotionGraph(
        n_nodes=n_nodes,
        clip_start=clip_start,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n_nodes))]).astype(np.int64),
        indices=target[order].astype(np.int32),
        distance=np.concatenate([np.zeros(len(onward), np.float32), cuts.distance])[order],
        kind=np.concatenate([np.full(len(onward), CONTINUE, np.uint8), kind])[order],
        kept=kept,
    )


def _check(
    joints: np.ndarray,
    surface: np.ndarray,
    clip_start: np.ndarray,
    joint_weights: np.ndarray,
    unit_px: float,
) -> None:
    if joints.ndim != 3 or joints.shape[2] != 3 or joints.dtype != np.float32:
        raise ValueError(f"joints are {joints.dtype} {joints.shape}; expected float32 (frames, joints, 3)")
    if clip_start.ndim != 1 or len(clip_start) < 2 or clip_start[0] != 0 or (np.diff(clip_start) < 1).any():
        raise ValueError("clip starts must be ascending node numbers from 0 to the number of nodes")
    n_frames = int(clip_start[-1]) * FRAMES_PER_NODE
    if len(joints) != n_frames:
        raise ValueError(f"{len(joints)} frames of joints, but clips of {n_frames}; cut clips to whole nodes")
    if surface.dtype != np.uint64 or surface.ndim != 2 or len(surface) != n_frames:
        raise ValueError(f"surface is {surface.dtype} {surface.shape}; expected uint64 ({n_frames}, words)")
    if np.shape(joint_weights) != (joints.shape[1],) or np.min(joint_weights) < 0 or not np.any(joint_weights):
        raise ValueError(f"joint weights must be {joints.shape[1]} numbers, none negative, not all zero")
    if not unit_px > 0:
        raise InputError(f"the body size is {unit_px}; expected a positive number of pixels")
    if not np.isfinite(joints).all():
        raise InputError("joints contain NaN or infinity; fill the gaps before building a graph")

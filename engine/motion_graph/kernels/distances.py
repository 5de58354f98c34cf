"""The distance between two nodes; see engine/motion_graph/kernels/bounds.py for its lower bounds.

d(a, b) = d_pose + d_iou (paper, section 3.1), over the 4 frames of both nodes:
    d_pose  mean over frames of the weighted mean over joints of position distance + velocity distance
    d_iou   mean over frames of 1 - IoU of the surface bits (person mask and hand boxes)
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from scipy.cluster.hierarchy import fcluster, linkage

from engine.jit import FASTMATH, njit
from engine.timebase import FRAMES_PER_NODE

__all__ = [
    "NodeFeatures",
    "cut_distances",
    "distance",
    "natural_distances",
    "node_features",
    "pose_distance",
    "surface_distance",
]

# Of the pairs in a real minute of video 6.7 % are admissible; 8 groups and 4 pivots pass 15 %. Positions alone pass
# 37 %, 4 groups 20 %.
_N_GROUPS = 8
_N_PIVOTS = 4
_GROUPING_FRAMES = 512
_LANES = 32  # floats in one unrolled vector step: rows padded to a multiple have no slow scalar tail


class Surface(NamedTuple):
    """Where the person and the hands are in the picture, for N nodes of 4 frames."""

    words: np.ndarray  # uint64 (N, 4, W)
    n_bits: np.ndarray  # int32 (N, 4): bits set in each frame
    scale: np.float32  # factor of the sum of 1 - IoU over the 4 frames


class NodeFeatures(NamedTuple):
    """Input of the kernels. N nodes, P numbers (4 frames x joints, padded), G groups, K pivots."""

    pose: np.ndarray  # float32 (N, 6, P): position x, y, z, velocity x, y, z; scaled so that lengths simply add up
    surface: Surface
    group_means: np.ndarray  # float32 (2 G, 3, N): position means of the groups, then their velocity means
    pivots: np.ndarray  # float32 (K, N): d_iou to each pivot
    clip: np.ndarray  # int32 (N,): number of the clip
    clip_first: np.ndarray  # bool (N,)
    clip_last: np.ndarray  # bool (N,)


def node_features(
    position: np.ndarray,
    velocity: np.ndarray,
    surface: np.ndarray,
    clip_start: np.ndarray,
    surface_weight: float,
) -> NodeFeatures:
    """Arrange frames for the kernels.

    position and velocity float32 (F, J, 3), with all weights already applied; surface uint64 (F, W); clip_start int
    (n_clips + 1), in nodes; F = 4 clip_start[-1].
    """
    n_joints = position.shape[1]
    n_nodes = len(position) // FRAMES_PER_NODE
    width = FRAMES_PER_NODE * n_joints
    pose = np.zeros((n_nodes, 6, -(-width // _LANES) * _LANES), np.float32)
    for axes, values in ((slice(0, 3), position), (slice(3, 6), velocity)):
        by_node = values.reshape(n_nodes, width, 3).transpose(0, 2, 1)
        np.divide(by_node, FRAMES_PER_NODE, out=pose[:, axes, :width], casting="same_kind")
    words = np.ascontiguousarray(surface).reshape(n_nodes, FRAMES_PER_NODE, -1)
    bits = np.bitwise_count(words).sum(axis=2, dtype=np.int32)
    seen = Surface(words, bits, np.float32(surface_weight / FRAMES_PER_NODE))
    group = _joint_groups(position)
    clip = np.repeat(np.arange(len(clip_start) - 1, dtype=np.int32), np.diff(clip_start))
    changes = np.diff(clip, prepend=-1, append=len(clip_start)) > 0
    return NodeFeatures(
        pose=pose,
        surface=seen,
        group_means=np.concatenate([_group_means(position, group), _group_means(velocity, group)]),
        pivots=_pivot_distances(seen),
        clip=clip,
        clip_first=changes[:-1],
        clip_last=changes[1:],
    )


def distance(features: NodeFeatures, a: int, b: int) -> float:
    """d(a, b) of nodes a and b."""
    return float(pose_distance(features.pose, a, b) + surface_distance(features.surface, a, b))


def natural_distances(features: NodeFeatures) -> np.ndarray:
    """float32 (N,): d(n, n + 1), the distance of natural motion; NaN at the last node of a clip."""
    return _natural_distances(features)


def cut_distances(features: NodeFeatures, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float32 (E,): the cost of each cut source -> target, both int (E,), with its window if it has one."""
    return _cut_distances(features, source.astype(np.int64), target.astype(np.int64))


def _joint_groups(position: np.ndarray) -> np.ndarray:
    """int (J,): joints that move alike share a number. Any grouping gives valid bounds, a good one tight bounds."""
    n_joints = position.shape[1]
    if n_joints <= _N_GROUPS:
        return np.arange(n_joints)
    sample = position[:: -(-len(position) // _GROUPING_FRAMES)].astype(np.float64)
    movement = (sample - sample.mean(axis=0)).transpose(1, 0, 2).reshape(n_joints, -1)
    group: np.ndarray = fcluster(linkage(movement, "ward"), _N_GROUPS, "maxclust").astype(np.int64) - 1
    return group


def _group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """float32 (G, 3, N): sum over the joints of each group, mean over the 4 frames of each node."""
    by_node = values.reshape(-1, FRAMES_PER_NODE, *values.shape[1:])
    sums = [by_node[:, :, group == g].sum(axis=2).mean(axis=1).T for g in range(group.max() + 1)]
    means: np.ndarray = np.stack(sums).astype(np.float32)
    return means


def _pivot_distances(surface: Surface) -> np.ndarray:
    """float32 (K, N): each pivot is the node farthest from the previous pivots."""
    pivots = np.empty((_N_PIVOTS, len(surface.words)), np.float32)
    pivot = 0
    for k in range(_N_PIVOTS):
        pivots[k] = _surface_distances(surface, pivot)
        pivot = int(pivots[: k + 1].min(axis=0).argmax())
    return pivots


@intrinsic
def _popcount(typingctx: Any, word: Any) -> Any:
    # Numba has no population count; LLVM vectorises this one.
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@njit(nogil=True, fastmath=FASTMATH)
def pose_distance(pose: np.ndarray, a: int, b: int) -> np.float32:
    """d_pose of nodes a and b; pose as in NodeFeatures."""
    p, q = pose[a], pose[b]
    total = np.float32(0)
    for k in range(p.shape[1]):
        dx, dy, dz = p[0, k] - q[0, k], p[1, k] - q[1, k], p[2, k] - q[2, k]
        dvx, dvy, dvz = p[3, k] - q[3, k], p[4, k] - q[4, k], p[5, k] - q[5, k]
        total += np.sqrt(dx * dx + dy * dy + dz * dz) + np.sqrt(dvx * dvx + dvy * dvy + dvz * dvz)
    return total


@njit(nogil=True, fastmath=FASTMATH, forceinline=True)  # else every call counts references to the arrays: 15 % slower
def surface_distance(surface: Surface, a: int, b: int) -> np.float32:
    """d_iou of nodes a and b; two empty frames are equal."""
    return _words_apart(surface.words, surface.n_bits, surface.scale, a, b)


@njit(nogil=True, fastmath=FASTMATH)
def _words_apart(words: np.ndarray, n_bits: np.ndarray, scale: np.float32, a: int, b: int) -> np.float32:
    apart = np.float32(0)
    for f in range(words.shape[1]):
        u, v = words[a, f], words[b, f]
        common = np.uint64(0)
        for w in range(u.shape[0]):
            common += _popcount(u[w] & v[w])  # type: ignore[call-arg]
        shared = np.int64(common)
        union = n_bits[a, f] + n_bits[b, f] - shared
        if union > 0:
            apart += np.float32(union - shared) / np.float32(union)
    return scale * apart


@njit(nogil=True)
def _surface_distances(surface: Surface, pivot: int) -> np.ndarray:
    distances = np.empty(surface.words.shape[0], np.float32)
    for n in range(distances.shape[0]):
        distances[n] = surface_distance(surface, pivot, n)
    return distances


@njit(nogil=True)
def _natural_distances(features: NodeFeatures) -> np.ndarray:
    pose, surface, clip_last = features.pose, features.surface, features.clip_last
    natural = np.full(clip_last.shape[0], np.nan, np.float32)
    for n in range(clip_last.shape[0]):
        if not clip_last[n]:
            natural[n] = pose_distance(pose, n, n + 1) + surface_distance(surface, n, n + 1)
    return natural


@njit(nogil=True, fastmath=FASTMATH)
def _cut_distances(features: NodeFeatures, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    pose, surface, clip_first, clip_last = features.pose, features.surface, features.clip_first, features.clip_last
    costs = np.empty(len(source), np.float32)
    for e in range(len(source)):
        i, j = source[e], target[e]
        window = not clip_last[i] and not clip_first[j]
        b = j - 1 if window else j
        costs[e] = pose_distance(pose, i, b) + surface_distance(surface, i, b)
        if window:
            apart = surface_distance(surface, i + 1, j)
            costs[e] = np.float32(0.5) * (costs[e] + pose_distance(pose, i + 1, j) + apart)
    return costs

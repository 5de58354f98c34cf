"""Checks, when a pack is opened, of everything that kernels and slices trust: a wrong byte could crash them."""

from collections.abc import Mapping

import numpy as np

from engine.character.info import PackInfo
from engine.motion_graph.connect import MIN_DWELL
from engine.motion_graph.graph import CONTINUE, CUT, RELAXED
from engine.timebase import FRAMES_PER_NODE

__all__ = ["check_arrays"]

MAX_NODE_BYTES = 64 << 20  # of the pictures of a node, which are read at once
MAX_DISTANCE = 1e4  # far above that of any two poses; sums of its square over hours still keep their precision


def check_arrays(info: PackInfo, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError if the RESIDENT arrays contradict each other or pack.json. Takes milliseconds."""
    _check_packets(arrays["packet_start"])
    nodes = np.cumsum([0] + [clip.n_frames // FRAMES_PER_NODE for clip in info.clips])
    if not np.array_equal(arrays["clip_start"], nodes):
        raise ValueError("clip_start does not match the clips")
    for name in ("motion_level", "rest"):
        if arrays[name].min() < 0 or arrays[name].max() > 1:
            raise ValueError(f"{name} is outside 0 to 1")
    _check_graph(arrays)


def _check_packets(starts: np.ndarray) -> None:
    if starts[0] != 0 or np.any(starts[1:] <= starts[:-1]):
        raise ValueError("packet_start does not ascend from 0")
    of_node = starts[::FRAMES_PER_NODE]
    if np.any(of_node[1:] - of_node[:-1] > MAX_NODE_BYTES):
        raise ValueError(f"a node has pictures of more than {MAX_NODE_BYTES} bytes")


def _check_graph(arrays: Mapping[str, np.ndarray]) -> None:
    indptr, target = arrays["graph_indptr"], arrays["graph_indices"]
    kind, distance, kept = arrays["graph_kind"], arrays["graph_distance"], arrays["graph_kept"]
    if len(target) != len(kind) or len(target) != len(distance):
        raise ValueError("the arrays of the graph are of different lengths")
    if indptr[0] != 0 or indptr[-1] != len(target) or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError("graph_indptr does not match graph_indices")
    if not kept.any():
        raise ValueError("the graph keeps no node")
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < len(kept):
        raise ValueError("graph_indices point outside the graph")
    source = np.repeat(np.arange(len(kept), dtype=np.int32), np.diff(indptr))
    if np.any((target[1:] <= target[:-1]) & (source[1:] == source[:-1])):
        raise ValueError("edges of a node do not ascend")
    if not (kept[source].all() and kept[target].all()):
        raise ValueError("an edge joins a node that is not kept")
    if np.any((kind != CONTINUE) & (kind != CUT) & (kind != RELAXED)):
        raise ValueError("an edge is of an unknown kind")
    if len(distance) and not 0 <= float(distance.min()) <= float(distance.max()) <= MAX_DISTANCE:
        raise ValueError("graph_distance is out of range")
    gap = arrays.get("graph_hand_gap")
    if gap is not None and (len(gap) != len(target) or np.any((gap < 0) | (gap > MAX_DISTANCE))):
        raise ValueError("graph_hand_gap is out of range, or of another length")
    begins = np.zeros(len(kept) + 1, bool)
    begins[arrays["clip_start"]] = True
    continues = kind == CONTINUE  # at most one per node, because targets are unique
    if np.any(continues & ((target != source + 1) | begins[target])):
        raise ValueError("a continue edge does not lead to the next node of its clip")
    _check_ways(indptr, kept, source[continues], target[~continues])


def _check_ways(indptr: np.ndarray, kept: np.ndarray, continued: np.ndarray, entered: np.ndarray) -> None:
    """Raises ValueError if a path could end: searches rely on a way on from every node, under the dwell rule
    (engine.motion_graph.connect).

    continued: nodes that have a continue edge; entered: nodes that cuts lead to.
    """
    if np.any(kept & (indptr[1:] == indptr[:-1])):
        raise ValueError("a node that is kept has no way out")
    goes_on = np.zeros(len(kept) + MIN_DWELL, bool)
    goes_on[continued] = True
    for ahead in range(MIN_DWELL - 1):  # after these nodes the path may cut again
        if not goes_on[entered + ahead].all():
            raise ValueError("after a cut, a path ends before it may cut again")

"""The obvious way to do what engine/motion_graph/ways.py does fast: every path, one by one."""

import math

from engine.motion_graph.online_graph import OnlineGraph
from engine.motion_graph.ways import LATE_PRICE


def successors(prepared: OnlineGraph, node: int, dwell: int):
    """(node, dwell, cost of the cut, whether it is one) of all that may follow."""
    edges, depth = prepared.tables.edges, prepared.depth
    if edges.goes_on[node]:
        yield node + 1, min(dwell + 1, depth), 0.0, False
    if dwell == depth:
        for k in range(edges.cut_start[node], edges.cut_start[node + 1]):
            yield int(edges.cut_target[k]), 1, float(edges.cut_cost[k]), True


def cheapest(prepared: OnlineGraph, start, target: int, window, speaking: bool) -> tuple[float, list[int]]:
    """Cost and nodes of the cheapest path that ends at the target within the window; infinity and none: there is none.

    Every path is followed to its end: for small graphs and short windows only.
    """
    nodes = prepared.tables.nodes
    usual = nodes.usual_speech if speaking else nodes.usual_silence
    lowest = min(usual[n] for n in prepared.kept)
    best: tuple[float, list[int]] = (math.inf, [])

    def follow(node: int, dwell: int, cost: float, path: list[int]) -> None:
        nonlocal best
        step = len(path)
        if step >= window[0] and node == target:
            total = cost + LATE_PRICE * (step - window[0])
            if total < best[0]:
                best = total, path
        if step == window[1]:
            return
        for after, dwelt, price, _ in successors(prepared, node, dwell):
            follow(after, dwelt, cost + price + float(usual[after] - lowest), [*path, after])

    follow(*start, 0.0, [])
    return best

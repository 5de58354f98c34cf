"""The arguments of the kernels of the online search, by name.

N nodes, D dwells, R known rows of speech. Prepared arrays are read-only.
"""

from typing import NamedTuple

import numpy as np

__all__ = [
    "Bonus",
    "Edges",
    "History",
    "Moment",
    "Nodes",
    "Noise",
    "Outlook",
    "Planning",
    "Scratch",
    "Starts",
    "Tables",
]


class Edges(NamedTuple):
    """The edges of N nodes, by source."""

    goes_on: np.ndarray  # bool (N,): there is a continue edge to n + 1
    cut_start: np.ndarray  # int64 (N + 1,): cuts out of n are cut_start[n] .. cut_start[n + 1] - 1
    cut_target: np.ndarray  # int32 (C,)
    cut_cost: np.ndarray  # float64 (C,)
    silent_cut: np.ndarray  # float64 (N,): extra cost of a cut out of n in silence


class Nodes(NamedTuple):
    """N nodes and their costs; low, high and level as in engine.motion_graph.costs.MotionVectors."""

    position: np.ndarray  # int32 (N,): nodes since the beginning of the clip
    run_length: np.ndarray  # int32 (N,): number of consecutive continue edges from here
    low: np.ndarray  # float32 (N, D)
    high: np.ndarray  # float32 (N, E)
    level: np.ndarray  # float32 (N,)
    away: np.ndarray  # float32 (N,): cost in silence
    listless: np.ndarray  # float32 (N,): cost in speech
    usual_speech: np.ndarray  # float64 (N,): average cost in speech
    usual_silence: np.ndarray  # float64 (N,): average cost in silence
    similarity_weight: np.float32
    level_weight: np.float32


class Noise(NamedTuple):
    """Arguments of engine.motion_graph.search.node_jitter."""

    seed: np.uint64
    variation: float  # its maximum
    patch: int  # side of a patch, in nodes


class Tables(NamedTuple):
    """A prepared graph."""

    edges: Edges
    nodes: Nodes
    value_speech: np.ndarray  # float64 (D, N): cost of going on for ever from a state, in speech
    value_silence: np.ndarray  # float64 (D, N): the same in silence
    noise: Noise


class Outlook(NamedTuple):
    """The known speech, as in engine.motion_graph.costs.SpeechSteps, and what is expected after it."""

    low: np.ndarray  # float32 (R, D)
    high: np.ndarray  # float32 (R, E)
    level: np.ndarray  # float32 (R,)
    speaking: np.ndarray  # float32 (R,)
    n_guessed: int  # planned steps after the known rows
    trust: np.ndarray  # float64 (R,): share of the excess cost at a row that remains once everything is heard
    keeps: np.ndarray  # float64 (K + 1,): share of it that is left after k nodes
    repeat_keep: float  # share of stretches that go on for another node
    most_states: int  # kept of each step of a plan, and cuts tried; 0: all
    bonus: "Bonus"  # by step, from row 0 on


class Bonus(NamedTuple):
    """What showing a node at a step saves, sparse: those of step t are start[t] .. start[t + 1] - 1; none later."""

    start: np.ndarray  # int64 (T + 1,)
    node: np.ndarray  # int32 (B,); of a node twice in a step, the largest value counts
    value: np.ndarray  # float32 (B,), above 0


class Moment(NamedTuple):
    """The speech that nodes are priced by at one step of a plan: the row of the step, or the last known one."""

    low: np.ndarray  # float32 (D,)
    high: np.ndarray  # float32 (E,)
    level: np.float32
    speaking: np.float32
    ahead: int  # steps from that row to this one
    share: float  # of the excess cost at that row, how much is expected here


class History(NamedTuple):
    """The nodes shown so far, and the cost of repeating them."""

    shown: np.ndarray  # int32 (L,): a ring buffer, step s at s % L
    n_shown: int  # steps so far
    reach: int  # steps within which a repetition counts
    cost: np.ndarray  # float32 (N,): of a node that has just been shown
    same_steps: int  # steps that are still the same moment
    near_nodes: int  # nodes that are still the same moment


class Scratch(NamedTuple):
    """Memory of one stream, reused by its plans; a mark says for which layer of which plan a number is valid."""

    slot: np.ndarray  # int32 (D * N,): index of a state among those reached
    slot_mark: np.ndarray  # int64 (D * N,)
    price: np.ndarray  # float64 (N,)
    price_mark: np.ndarray  # int64 (N,)
    shown_at: np.ndarray  # int64 (N,): the last step that showed a node; -1 between plans
    bonus: np.ndarray  # float32 (N,): of one step; 0 between steps
    counter: np.ndarray  # int64 (1,): the last mark


class Planning(NamedTuple):
    """The input of a plan."""

    tables: Tables
    outlook: Outlook
    history: History
    scratch: Scratch
    step: int  # number of the step of row 0 of the outlook


class Starts(NamedTuple):
    """The states that a plan may start from."""

    nodes: np.ndarray  # int32 (S,)
    dwells: np.ndarray  # int32 (S,)
    to_pay: bool  # whether the cost of their own step is added

"""What the kernels of the online search are given, by name.

N nodes, D dwells, R rows of speech that are known. Prepared arrays are read-only.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Edges", "History", "Moment", "Nodes", "Noise", "Outlook", "Planning", "Scratch", "Starts", "Tables"]


class Edges(NamedTuple):
    """The edges of N nodes, by source.

    goes_on      bool (N,): there is a continue edge to n + 1
    cut_start    int64 (N + 1,): cuts out of n are cut_start[n] .. cut_start[n + 1] - 1
    cut_target   int32 (C,)
    cut_cost     float64 (C,)
    silent_cut   float64 (N,): what a cut out of n costs more in silence
    """

    goes_on: np.ndarray
    cut_start: np.ndarray
    cut_target: np.ndarray
    cut_cost: np.ndarray
    silent_cut: np.ndarray


class Nodes(NamedTuple):
    """What is known of N nodes.

    position       int32 (N,): nodes since the beginning of the clip
    run_length     int32 (N,): continue edges that follow one another from here
    low, high      float32 (N, D), (N, E), and level (N,): engine.motion_graph.costs.MotionVectors
    away           float32 (N,): what showing it costs while nobody speaks
    listless       float32 (N,): what showing it costs while somebody does
    usual_speech   float64 (N,): what it costs on average while somebody speaks
    usual_silence  float64 (N,): what it costs on average while nobody does
    """

    position: np.ndarray
    run_length: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: np.ndarray
    away: np.ndarray
    listless: np.ndarray
    usual_speech: np.ndarray
    usual_silence: np.ndarray
    similarity_weight: np.float32
    level_weight: np.float32


class Noise(NamedTuple):
    """engine.motion_graph.search.node_jitter: its seed uint64, up to how much, and the side of a patch in nodes."""

    seed: np.uint64
    variation: float
    patch: int


class Tables(NamedTuple):
    """A prepared graph. value_speech, value_silence: float64 (D, N), what going on for ever from a state costs."""

    edges: Edges
    nodes: Nodes
    value_speech: np.ndarray
    value_silence: np.ndarray
    noise: Noise


class Outlook(NamedTuple):
    """What is known of the speech, and what is expected behind it.

    low, high, level, speaking   float32 (R, D), (R, E), (R,), (R,): engine.motion_graph.costs.SpeechSteps
    n_guessed                    steps behind the rows that are planned
    trust                        share of what is unusual at a row that remains when everything is heard
    keeps                        float64 (K + 1,): share that is left k nodes on
    repeat_keep                  share of stretches that go on for another node
    """

    low: np.ndarray
    high: np.ndarray
    level: np.ndarray
    speaking: np.ndarray
    n_guessed: int
    trust: float
    keeps: np.ndarray
    repeat_keep: float


class Moment(NamedTuple):
    """What nodes are priced by at one step of a plan.

    low, high        float32 (D,), (E,): of the step's row, or of the last one that is known
    level, speaking  of that row
    ahead            steps from that row to this one
    share            of what is unusual at that row, how much is expected here
    """

    low: np.ndarray
    high: np.ndarray
    level: np.float32
    speaking: np.float32
    ahead: int
    share: float


class History(NamedTuple):
    """What was shown, and what it costs to show it again.

    shown        int32 (L,): a ring, step s at s % L
    n_shown      steps so far
    reach        steps within which it counts
    cost         float32 (N,): of a node that has just been shown
    same_steps   steps, and near_nodes nodes, that are still the same moment
    """

    shown: np.ndarray
    n_shown: int
    reach: int
    cost: np.ndarray
    same_steps: int
    near_nodes: int


class Scratch(NamedTuple):
    """Memory of one stream, kept between its plans; a mark says for which layer of which plan a number holds.

    slot        int32 (D * N,): of a state, its place among those reached
    slot_mark   int64 (D * N,)
    price       float64 (N,)
    price_mark  int64 (N,)
    shown_at    int64 (N,): the last step that showed a node; -1 between plans
    counter     int64 (1,): the last mark
    """

    slot: np.ndarray
    slot_mark: np.ndarray
    price: np.ndarray
    price_mark: np.ndarray
    shown_at: np.ndarray
    counter: np.ndarray


class Planning(NamedTuple):
    """What a plan depends on. step: the number of the step to which row 0 of the outlook belongs."""

    tables: Tables
    outlook: Outlook
    history: History
    scratch: Scratch
    step: int


class Starts(NamedTuple):
    """nodes int32 (S,) and dwells int32 (S,) to start from; whether their own step is still to be paid."""

    nodes: np.ndarray
    dwells: np.ndarray
    to_pay: bool

"""The expected cost of showing a node some steps ahead, from known speech, estimates and repetition.

No fastmath and no matrix products: every sum has a fixed order, so equal input gives equal prices in every process.
"""

import numpy as np

from engine.jit import njit
from engine.motion_graph.kernels.tables import History, Moment, Nodes, Noise, Outlook, Tables

__all__ = [
    "going_on",
    "later_steps",
    "moment_at",
    "node_noise",
    "note_until",
    "repetition",
    "step_price",
    "unusual",
    "usual",
    "wipe",
]

_ONE = np.float32(1)


@njit(nogil=True)
def moment_at(outlook: Outlook, layer: int) -> Moment:
    """The step that is `layer` steps after the first row."""
    row = min(layer, outlook.speaking.shape[0] - 1)
    ahead, share = layer - row, outlook.trust[row]
    if ahead > 0:
        share = outlook.keeps[ahead] if ahead < outlook.keeps.shape[0] else 0.0
    return Moment(outlook.low[row], outlook.high[row], outlook.level[row], outlook.speaking[row], ahead, share)


# Passing a tuple counts a reference to each of its arrays, which takes as long as a price: so these are inlined, and
# take no tuples of tuples.
@njit(nogil=True, forceinline=True)
def step_price(
    nodes: Nodes, moment: Moment, history: History, noise: Noise, shown_at: np.ndarray, step: int, n: int
) -> np.float64:
    """Expected cost of node n at a moment with the number `step`."""
    price = _price(nodes, moment, n)
    price += np.float64(repetition(history, shown_at, step, n))
    if noise.variation != 0.0:
        price += node_noise(noise, step, n)
    return price


@njit(nogil=True, forceinline=True)
def _price(nodes: Nodes, moment: Moment, n: int) -> np.float64:
    """From its row, or from how its stretch fits the last row."""
    ahead = moment.ahead
    if ahead == 0 and moment.share == 1.0:
        return np.float64(_node_cost(nodes, moment, n))
    cost = usual(nodes, moment, n)
    if moment.share > 0.0 and nodes.position[n] >= ahead:
        cost += moment.share * unusual(nodes, moment, n - ahead)
    return cost


@njit(nogil=True, forceinline=True)
def usual(nodes: Nodes, moment: Moment, n: int) -> np.float64:
    """Average cost of node n when the speech is like the moment's row in how much it speaks."""
    speaking = np.float64(moment.speaking)
    return speaking * nodes.usual_speech[n] + (1.0 - speaking) * nodes.usual_silence[n]


@njit(nogil=True, forceinline=True)
def unusual(nodes: Nodes, moment: Moment, n: int) -> np.float64:
    """Cost of node n at the moment's row above its average."""
    return np.float64(_node_cost(nodes, moment, n)) - usual(nodes, moment, n)


@njit(nogil=True, forceinline=True)
def going_on(tables: Tables, moment: Moment, dwell: int, n: int) -> np.float64:
    """The value of the state (n, dwell) when the speech is like the moment's row in how much it speaks."""
    speaking = np.float64(moment.speaking)
    return speaking * tables.value_speech[dwell - 1, n] + (1.0 - speaking) * tables.value_silence[dwell - 1, n]


@njit(nogil=True)
def later_steps(outlook: Outlook, n_planned: int) -> np.ndarray:
    """Cumulative sums of keeps after the first n_planned steps, float64 (K + 1,)."""
    sums = np.zeros(outlook.keeps.shape[0])
    for k in range(n_planned + 1, sums.shape[0]):
        sums[k] = sums[k - 1] + outlook.keeps[k]
    return sums


@njit(nogil=True, forceinline=True)
def _node_cost(nodes: Nodes, moment: Moment, n: int) -> np.float32:
    """engine.motion_graph.costs.node_costs of one node at the moment's row."""
    cost = _ONE - _product(nodes.low[n], moment.low)
    if nodes.high.shape[1] > 0:
        cost += _ONE - _product(nodes.high[n], moment.high)
    cost *= nodes.similarity_weight
    apart = nodes.level[n] - moment.level
    cost += nodes.level_weight * (apart * apart)
    speaking = moment.speaking
    return cost + ((_ONE - speaking) * nodes.away[n] + speaking * nodes.listless[n])


@njit(nogil=True)
def _product(a: np.ndarray, b: np.ndarray) -> np.float32:
    # Eight parallel sums in a fixed order: a single sum would wait for every addition.
    n = a.shape[0] // 8 * 8
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
    for k in range(0, n, 8):
        s0 += a[k] * b[k]
        s1 += a[k + 1] * b[k + 1]
        s2 += a[k + 2] * b[k + 2]
        s3 += a[k + 3] * b[k + 3]
        s4 += a[k + 4] * b[k + 4]
        s5 += a[k + 5] * b[k + 5]
        s6 += a[k + 6] * b[k + 6]
        s7 += a[k + 7] * b[k + 7]
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    for k in range(n, a.shape[0]):
        total += a[k] * b[k]
    return total


@njit(nogil=True)
def node_noise(noise: Noise, step: int, n: int) -> np.float32:
    """engine.motion_graph.search.node_jitter of one node at one step."""
    patch = noise.patch
    word = _mixed(_mixed(_mixed(noise.seed) + np.uint64(step // patch)) + np.uint64(n // patch)) >> np.uint64(40)
    return np.float32(np.float64(word) * (noise.variation / 16777216.0))


@njit(nogil=True)
def _mixed(word: np.uint64) -> np.uint64:
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(nogil=True, forceinline=True)
def repetition(history: History, shown_at: np.ndarray, step: int, n: int) -> np.float32:
    """The cost that engine.motion_graph.variety adds for a node shown recently; shown_at as set by note_until."""
    since = step - shown_at[n]
    if shown_at[n] < 0 or since < history.same_steps or since > history.reach:
        return np.float32(0)
    return np.float32(1 - since / history.reach) * history.cost[n]


@njit(nogil=True)
def note_until(history: History, shown_at: np.ndarray, noted: int, now: int) -> int:
    """Record in shown_at the steps before `now` that count as another moment; returns the first step not recorded.

    shown_at int64 (N,): the last step of each node, or -1; noted: the first step not recorded yet.
    """
    end = max(noted, min(history.n_shown, now - history.same_steps + 1))
    _note(history, shown_at, noted, end, False)
    return end


@njit(nogil=True)
def wipe(history: History, shown_at: np.ndarray, first: int, end: int) -> None:
    """Undo note_until for steps first .. end - 1."""
    _note(history, shown_at, first, end, True)


@njit(nogil=True)
def _note(history: History, shown_at: np.ndarray, first: int, end: int, forget: bool) -> None:
    near = history.near_nodes
    for step in range(first, end):
        n = history.shown[step % history.shown.shape[0]]
        for m in range(max(0, n - near), min(shown_at.shape[0], n + near + 1)):
            shown_at[m] = -1 if forget else step

"""The cost of showing a node while something is said: similarities of an embedding, loudness, rest.

Speech and motion come as one row per node in the space of an embedding. Correlations and cosines ignore size, so a
third number, the level, says how loud a passage is and how large the gestures are.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["CostOptions", "MotionVectors", "SpeechSteps", "node_costs", "resting"]


@dataclass(frozen=True)
class SpeechSteps:
    """Speech as the search sees it: one row per node step (4 frames)."""

    low: np.ndarray  # float32 (T, D), norm at most 1
    high: np.ndarray  # float32 (T, E), norm at most 1; E may be 0
    level: np.ndarray  # float32 (T,), 0..1: how loud, compared with typical speech
    speaking: np.ndarray  # float32 (T,), 0..1

    def __getitem__(self, part: slice) -> "SpeechSteps":
        return SpeechSteps(self.low[part], self.high[part], self.level[part], self.speaking[part])

    def __len__(self) -> int:
        return len(self.low)

    def __add__(self, later: "SpeechSteps") -> "SpeechSteps":
        """These steps followed by later ones."""
        return SpeechSteps(
            np.concatenate((self.low, later.low)),
            np.concatenate((self.high, later.high)),
            np.concatenate((self.level, later.level)),
            np.concatenate((self.speaking, later.speaking)),
        )


@dataclass(frozen=True)
class MotionVectors:
    """The nodes of a character in the same space."""

    low: np.ndarray  # float32 (N, D), norm at most 1
    high: np.ndarray  # float32 (N, E), norm at most 1; E may be 0
    level: np.ndarray  # float32 (N,), 0..1: rank of the size of the gestures among this person's


@dataclass(frozen=True)
class CostOptions:
    """Weights of the costs relative to the similarities, which are between -1 and 1.

    Over the nodes of a person one row of costs has a standard deviation of 0.2 to 0.5.
    """

    # Of the squared difference of the levels. At 2, loud passages get large gestures (r 0.5 instead of 0.3 on a minute
    # of video), and their rhythm hardly suffers (r 0.36 instead of 0.37).
    level_weight: float = 2.0
    # Of being away from rest while nobody speaks: 0, 1, 2, 4 leave 0.27, 0.15, 0.11, 0.08 of the distance.
    idle_weight: float = 2.0
    listless_weight: float = 0.3  # of resting while somebody speaks
    similarity_weight: float = 1.0  # of both similarities, times that of the embedding


def resting(n_steps: int, motion: MotionVectors, speaking: float = 0.0) -> SpeechSteps:
    """Steps without sound. speaking, 0..1: 0 asks for rest, higher values for less rest."""
    low, high = (np.zeros((n_steps, rows.shape[1]), np.float32) for rows in (motion.low, motion.high))
    return SpeechSteps(low, high, np.zeros(n_steps, np.float32), np.full(n_steps, speaking, np.float32))


def node_costs(
    steps: SpeechSteps, motion: MotionVectors, rest: np.ndarray, options: CostOptions | None = None
) -> np.ndarray:
    """The cost of showing each node at each step, float32 (T, N); `rest` (N,) is engine.features.rest.rest_distance.

    2 - cos_low - cos_high (TANGO, section 3.2) plus level and idle terms; without a high level in the embedding its
    term is left out, because along a stretch without cuts the path sums the low one. Rows are independent: compute
    hours of speech in slices.
    """
    options = options or CostOptions()
    costs = np.empty((len(steps.low), len(motion.low)), np.float32)
    away = np.float32(options.idle_weight) * rest
    listless = np.float32(options.listless_weight) * (1 - rest)
    weight = np.float32(options.similarity_weight)
    for t, speaking in enumerate(steps.speaking):
        # one product per row: a larger one may round differently, and equal speech must give equal paths
        costs[t] = 1 - motion.low @ steps.low[t]
        if motion.high.shape[1]:
            costs[t] += 1 - motion.high @ steps.high[t]
        costs[t] *= weight
        costs[t] += np.float32(options.level_weight) * (motion.level - steps.level[t]) ** 2
        costs[t] += (1 - speaking) * away + speaking * listless
    return costs

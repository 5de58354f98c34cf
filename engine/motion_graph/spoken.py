"""Words of a live utterance, as they arrive, for the online search."""

from collections.abc import Sequence

import numpy as np

from engine.motion_graph.kernels.tables import Bonus
from engine.motion_graph.words import Keywords, Matches, Word, step_of

__all__ = ["SpokenWords", "joined"]


class SpokenWords:
    """The words of one utterance that are still to come."""

    def __init__(self, keywords: Keywords) -> None:
        self._keywords = keywords
        self._steps = np.empty(0, np.int64)
        self._nodes = np.empty(0, np.int64)

    def add(self, words: Sequence[Word], n_decided: int) -> int:
        """Take words; those that start in the first n_decided steps are ignored. Returns how many these are."""
        coming = [word for word in words if step_of(word) >= n_decided]
        pairs = [(step_of(word), node) for word in coming for node in self._keywords.nodes(word)]
        steps, nodes = np.array(pairs, np.int64).reshape(-1, 2).T
        self._steps, self._nodes = np.concatenate((self._steps, steps)), np.concatenate((self._nodes, nodes))
        return len(words) - len(coming)

    def matches(self, first: int, end: int) -> Matches:
        """The bonuses in steps first .. end - 1. Earlier ones are forgotten, but for the last: it may be taken back."""
        reach = self._keywords.options.reach
        coming = self._steps + reach >= first - 1
        self._steps, self._nodes = self._steps[coming], self._nodes[coming]
        near = self._steps - reach < end
        return self._keywords.matches(self._steps[near], self._nodes[near], first, end)


def joined(parts: Sequence[tuple[Matches, int]], n_steps: int) -> Bonus:
    """Bonuses of n_steps steps: each part's steps are moved by the number with it; within 0 .. n_steps - 1."""
    step = np.concatenate([np.empty(0, np.int64), *(part.step + moved for part, moved in parts)])
    order = np.argsort(step, kind="stable")
    node = np.concatenate([np.empty(0, np.int32), *(part.node for part, _ in parts)])[order]
    value = np.concatenate([np.empty(0, np.float32), *(part.value for part, _ in parts)])[order]
    bonus = Bonus(np.searchsorted(step[order], np.arange(n_steps + 1)).astype(np.int64), node, value)
    for array in bonus:
        array.setflags(write=False)  # kernels are compiled for one kind of array only
    return bonus

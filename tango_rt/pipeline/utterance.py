"""One utterance as it arrives, and how far it was performed: step by step, or planned once it is complete."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from engine.character.perform import Performance, planned_transitions
from engine.character.steps import SpeechListener
from engine.errors import InputError
from engine.features.embedding import Embedding
from engine.features.speech import LOOKAHEAD_SAMPLES
from engine.motion_graph.costs import MotionVectors, SpeechSteps, resting
from engine.motion_graph.online import Decision, OnlineSearch
from engine.timebase import FRAMES_PER_NODE, frame_count, frame_start, node_count

__all__ = ["Planner", "StreamedUtterance", "Utterance", "WholeUtterance", "heard_samples"]

_FORGET_STEPS = 64  # performed rows are dropped in batches of this size

Planner = Callable[[np.ndarray, tuple[int, int] | None], Performance]
"""Samples of a whole utterance, and (first node, nodes since the last cut) if fixed -> its best path."""


def heard_samples(step: int, lookahead_frames: int) -> int:
    """Samples of an utterance that are needed before the features of a step (4 frames) are final."""
    return frame_start((step + 1) * FRAMES_PER_NODE + lookahead_frames - 1) + LOOKAHEAD_SAMPLES


class Utterance(Protocol):
    """The output depends on the samples alone, never on chunks."""

    name: str
    n_samples: int
    taken: int  # steps performed
    ended: bool

    @property
    def waiting(self) -> int:
        """Number of steps heard but not performed."""

    @property
    def ready(self) -> bool:
        """Whether enough was heard to perform the next step."""

    @property
    def heard_samples(self) -> int:
        """Samples that were needed before the next step could be performed."""

    def push(self, samples: np.ndarray) -> None:
        """float32 (n,) at 16 kHz. Raises InputError for NaN."""

    def end(self) -> None:
        """No more sound."""

    def begin(self, search: OnlineSearch) -> int:
        """The first node, if nothing was shown before."""

    def advance(self, search: OnlineSearch) -> Decision:
        """The node after that of the next step."""


class StreamedUtterance:
    """Performed as it arrives, with the look-ahead of search and embedding."""

    def __init__(self, name: str, embedding: Embedding, motion: MotionVectors, n_ahead: int) -> None:
        self.name = name
        self.n_samples = 0
        self.taken = 0
        self.ended = False
        self._n_ahead = n_ahead
        self._lookahead_frames = embedding.lookahead_frames
        self._motion = motion
        self._listener = SpeechListener(embedding)
        self._rows = resting(0, motion)
        self._first = 0  # step of self._rows[0]
        self._unheard: list[np.ndarray] = []
        self._due = heard_samples(0, self._lookahead_frames)  # no further step becomes final with fewer samples

    @property
    def waiting(self) -> int:
        return self._first + len(self._rows) - self.taken

    @property
    def ready(self) -> bool:
        return self.waiting > self._n_ahead or (self.ended and self.waiting > 0)

    @property
    def heard_samples(self) -> int:
        needed = heard_samples(self.taken + self._n_ahead, self._lookahead_frames)
        return min(needed, self.n_samples) if self.ended else needed

    def push(self, samples: np.ndarray) -> None:
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(
                f"speech of shape {samples.shape} holds NaN or infinity or is not mono; "
                "wanted finite 16 kHz samples, shape (n,)"
            )
        self._unheard.append(np.array(samples, np.float32))
        self.n_samples += len(samples)
        if self.n_samples >= self._due:  # processing every 20 ms on its own would cost four times as much
            self._listen()

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._listen()
            self._append(self._listener.flush())

    def begin(self, search: OnlineSearch) -> int:
        return search.begin(self._outlook())

    def advance(self, search: OnlineSearch) -> Decision:
        return search.advance(self._outlook())

    def _outlook(self) -> SpeechSteps:
        """The rows of the next step and of those ahead; rest after the end of the utterance."""
        first = self.taken - self._first
        rows = self._rows[first : first + self._n_ahead + 1]
        missing = self._n_ahead + 1 - len(rows)
        return rows + resting(missing, self._motion) if missing else rows

    def _listen(self) -> None:
        if self._unheard:
            self._append(self._listener.push(np.concatenate(self._unheard)))
            self._unheard.clear()
        due = heard_samples(self._first + len(self._rows), self._lookahead_frames)
        self._due = max(due, self.n_samples + 1)

    def _append(self, news: SpeechSteps) -> None:
        drop = self.taken - self._first - 1  # keep the last step, which may be taken back
        if drop > _FORGET_STEPS:
            self._rows = self._rows[drop:]
            self._first += drop
        if len(news):
            self._rows = self._rows + news


class WholeUtterance:
    """Performed by the exact search once all of it was heard."""

    def __init__(self, name: str, planner: Planner, motion: MotionVectors) -> None:
        self.name = name
        self.n_samples = 0
        self.taken = 0
        self.ended = False
        self._planner = planner
        self._motion = motion
        self._chunks: list[np.ndarray] = []
        self._plan: Performance | None = None
        self._cuts: frozenset[int] = frozenset()
        self._blended: frozenset[int] = frozenset()

    @property
    def waiting(self) -> int:
        return node_count(frame_count(self.n_samples)) - self.taken if self.ended else 0

    @property
    def ready(self) -> bool:
        return self.waiting > 0

    @property
    def heard_samples(self) -> int:
        return self.n_samples

    def push(self, samples: np.ndarray) -> None:
        self._chunks.append(np.array(samples, np.float32))
        self.n_samples += len(samples)

    def end(self) -> None:
        self.ended = True

    def begin(self, search: OnlineSearch) -> int:
        first = int(self._planned(None).nodes[0])
        search.jump(first)
        return first

    def advance(self, search: OnlineSearch) -> Decision:
        assert search.node is not None
        nodes = self._planned((search.node, search.dwell)).nodes
        if self.taken + 1 == len(nodes):
            return search.advance(resting(1, self._motion))
        successor = int(nodes[self.taken + 1])
        search.follow(successor, self.taken in self._cuts)
        return Decision(successor, self.taken in self._blended, ())

    def _planned(self, start: tuple[int, int] | None) -> Performance:
        if self._plan is None:
            samples = np.concatenate(self._chunks)
            self._chunks.clear()
            self._plan = self._planner(samples, start)
            self._cuts = frozenset(self._plan.cuts.tolist())
            self._blended = frozenset(planned_transitions(self._plan))
        return self._plan

"""One utterance as it arrives, and how far it was performed: step by step, or planned once it is complete."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.character.perform import Performance, planned_transitions
from engine.character.steps import StepListener
from engine.errors import InputError
from engine.features.embedding import Embedding
from engine.features.speech import LOOKAHEAD_SAMPLES, Speaker, SpeechFeatures
from engine.motion_graph.costs import MotionVectors, SpeechSteps, resting
from engine.motion_graph.kernels.tables import Bonus
from engine.motion_graph.online import NO_BONUS, Decision, OnlineSearch
from engine.motion_graph.spoken import SpokenWords, joined
from engine.motion_graph.words import NO_MATCHES, Keywords, Matches, Word
from engine.timebase import FRAMES_PER_NODE, frame_count, frame_start, node_count

__all__ = ["Lookahead", "Planner", "StreamedUtterance", "Utterance", "WholeUtterance", "heard_samples"]

_FORGET_STEPS = 64  # performed rows are dropped in batches of this size
_WORD_STEPS = 15  # after the known rows, for which words may be known already: 2 s
_PAUSE_STEPS = 6
"""An utterance after another one is heard as after a pause of 0.8 s: without, the features of its first second would
take what was before for average speech. A multiple of 3 nodes, so that frames begin at the same samples. Over the nodes
of two people, r of the scores of the first second with those of the same second in one long recording is 0.57; with
what was learned of the speaker 0.67 and 0.71, with the pause 0.87 and 0.86, with both 0.92 and 0.91 (14 and 6
sentences); with pauses of 4, 5 and 8 nodes 0.91, 0.92, 0.90 and 0.94, 0.93, 0.87."""

Planner = Callable[[np.ndarray, tuple[int, int] | None, tuple[Word, ...]], Performance]
"""Samples of a whole utterance, (first node, nodes since the last cut) if fixed, and its words -> its best path."""


@dataclass(frozen=True)
class Lookahead:
    """How far ahead of a decision an utterance is heard, in nodes."""

    least: int  # waited for
    most: int  # used, if it has arrived; the same as `least` if decisions must not depend on when sound arrives
    embeddings: tuple[Embedding, ...]
    """The same one by look-ahead: the rows of the first come soonest and are waited for, those of the last are best."""
    trusts: tuple[float, ...]  # of each: the share of its similarities that remains once everything is heard


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

    @property
    def speaker(self) -> Speaker | None:
        """What was learned of the speaker up to its end; None: nothing."""

    def push(self, samples: np.ndarray) -> None:
        """float32 (n,) at 16 kHz. Raises InputError for NaN."""

    def end(self) -> None:
        """No more sound."""

    def take_words(self, words: Sequence[Word], n_decided: int) -> int:
        """Words of this utterance, by its time; n_decided: the number of steps whose node is fixed. Returns how many
        came too late and are ignored. Only if the reference has words."""

    def known(self, n: int) -> tuple[SpeechSteps, np.ndarray]:
        """The rows of the next step and of those after it as far as they were heard, at most n, and the trust in each,
        float64 (rows,)."""

    def matches(self, n: int) -> Matches:
        """The bonuses of words in the next n steps, counted from the next."""

    def begin(self, search: OnlineSearch, later: Sequence["Utterance"]) -> int:
        """The first node, if nothing was shown before. later: the utterances that follow."""

    def advance(self, search: OnlineSearch, later: Sequence["Utterance"]) -> Decision:
        """The node after that of the next step. later: as for begin."""


class _HeardRows:
    """What one embedding made of an utterance; memory does not grow."""

    def __init__(self, embedding: Embedding, motion: MotionVectors, n_skipped: int) -> None:
        """n_skipped: steps before the utterance."""
        self._n_skipped = n_skipped
        self._listener = StepListener(embedding)
        self._rows = resting(0, motion)
        self._first = 0  # step of self._rows[0]

    @property
    def end(self) -> int:
        """The first step that is not out yet."""
        return self._first + len(self._rows)

    def push(self, samples: np.ndarray, rows: np.ndarray, taken: int) -> None:
        self._append(self._listener.push(samples, rows), taken)

    def flush(self, rows: np.ndarray, taken: int) -> None:
        self._append(self._listener.flush(rows), taken)

    def of(self, first: int, end: int) -> SpeechSteps:
        """Rows of steps first .. end - 1, as far as they are out."""
        return self._rows[first - self._first : max(end - self._first, 0)]

    def _append(self, news: SpeechSteps, taken: int) -> None:
        drop = min(taken - self._first - 1, len(self._rows))  # keep the last step, which may be taken back
        if drop > _FORGET_STEPS:
            self._rows = self._rows[drop:]
            self._first += drop
        n_skipped = min(self._n_skipped, len(news))
        self._n_skipped -= n_skipped
        if len(news) > n_skipped:
            self._rows = self._rows + news[n_skipped:]


class StreamedUtterance:
    """Performed as it arrives, with the look-ahead of search and embedding."""

    def __init__(
        self,
        name: str,
        lookahead: Lookahead,
        motion: MotionVectors,
        speaker: Speaker | None = None,
        keywords: Keywords | None = None,
    ) -> None:
        """speaker: as learned from the utterances before; None: this is the first. keywords: of the reference."""
        self.name = name
        self.n_samples = 0
        self.taken = 0
        self.ended = False
        self._lookahead = lookahead
        self._lookahead_frames = lookahead.embeddings[0].lookahead_frames
        self._motion = motion
        self._hearing = SpeechFeatures(speaker)
        n_pause = 0 if speaker is None else _PAUSE_STEPS
        self._heard = [_HeardRows(embedding, motion, n_pause) for embedding in lookahead.embeddings]
        self._unheard: list[np.ndarray] = [np.zeros(frame_start(n_pause * FRAMES_PER_NODE), np.float32)]
        self._words = None if keywords is None else SpokenWords(keywords)
        self._due = heard_samples(0, self._lookahead_frames)  # no further step becomes final with fewer samples

    @property
    def waiting(self) -> int:
        return self._heard[0].end - self.taken

    @property
    def ready(self) -> bool:
        return self.waiting > self._lookahead.least or (self.ended and self.waiting > 0)

    @property
    def heard_samples(self) -> int:
        needed = heard_samples(self.taken + self._lookahead.least, self._lookahead_frames)
        return min(needed, self.n_samples) if self.ended else needed

    @property
    def speaker(self) -> Speaker:
        return self._hearing.speaker

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
            rows = self._hearing.flush()
            for heard in self._heard:
                heard.flush(rows, self.taken)

    def known(self, n: int) -> tuple[SpeechSteps, np.ndarray]:
        found, trusts = resting(0, self._motion), []
        for heard, trust in zip(reversed(self._heard), reversed(self._lookahead.trusts), strict=True):
            more = heard.of(self.taken + len(found), self.taken + n)
            found = found + more
            trusts.append(np.full(len(more), trust))
        return found, np.concatenate(trusts)

    def take_words(self, words: Sequence[Word], n_decided: int) -> int:
        assert self._words is not None
        return self._words.add(words, n_decided)

    def matches(self, n: int) -> Matches:
        assert self._words is not None
        end = self.taken + n
        if self.ended:
            end = min(end, self._heard[0].end)
        found = self._words.matches(self.taken, end)
        return found._replace(step=found.step - self.taken)

    def begin(self, search: OnlineSearch, later: Sequence[Utterance]) -> int:
        return search.begin(*self._outlook(later))

    def advance(self, search: OnlineSearch, later: Sequence[Utterance]) -> Decision:
        return search.advance(*self._outlook(later))

    def _outlook(self, later: Sequence[Utterance]) -> tuple[SpeechSteps, Bonus, np.ndarray]:
        """The rows of the next step and of those ahead; after the end of the utterance those of later ones, or rest."""
        least, most = self._lookahead.least + 1, self._lookahead.most + 1
        (rows, trust), ended = self.known(most), self.ended
        starts: list[tuple[Utterance, int]] = [(self, 0)]
        for utterance in later if most > least else ():
            if not ended:
                break
            starts.append((utterance, len(rows)))
            more, trust_more = utterance.known(most - len(rows))
            rows, trust, ended = rows + more, np.concatenate((trust, trust_more)), utterance.ended
        missing = (most if ended else least) - len(rows)
        if missing > 0:
            rows = rows + resting(missing, self._motion)
            trust = np.concatenate((trust, np.full(missing, self._lookahead.trusts[0])))
        if self._words is None:
            return rows, NO_BONUS, trust
        n_steps = len(rows) + _WORD_STEPS
        bonus = joined([(one.matches(n_steps - first), first) for one, first in starts], n_steps)
        return rows, bonus, trust

    def _listen(self) -> None:
        if self._unheard:
            samples = np.concatenate(self._unheard)
            rows = self._hearing.push(samples)
            for heard in self._heard:
                heard.push(samples, rows, self.taken)
            self._unheard.clear()
        due = heard_samples(self._heard[0].end, self._lookahead_frames)
        self._due = max(due, self.n_samples + 1)


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
        self._words: list[Word] = []
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

    @property
    def speaker(self) -> None:
        """It is heard on its own, so that it is performed as a render of it."""

    def push(self, samples: np.ndarray) -> None:
        self._chunks.append(np.array(samples, np.float32))
        self.n_samples += len(samples)

    def end(self) -> None:
        self.ended = True

    def take_words(self, words: Sequence[Word], n_decided: int) -> int:
        if self._plan is not None:
            return len(words)
        self._words += words
        return 0

    def known(self, n: int) -> tuple[SpeechSteps, np.ndarray]:
        return resting(0, self._motion), np.empty(0)

    def matches(self, n: int) -> Matches:
        return NO_MATCHES

    def begin(self, search: OnlineSearch, later: Sequence[Utterance]) -> int:
        first = int(self._planned(None).nodes[0])
        search.jump(first)
        return first

    def advance(self, search: OnlineSearch, later: Sequence[Utterance]) -> Decision:
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
            self._plan = self._planner(samples, start, tuple(self._words))
            self._words.clear()
            self._cuts = frozenset(self._plan.cuts.tolist())
            self._blended = frozenset(planned_transitions(self._plan))
        return self._plan

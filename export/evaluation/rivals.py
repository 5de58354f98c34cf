"""The embeddings under comparison, each made for a person without using a held-out part."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from engine.features.embedding import Embedding, Features
from engine.features.fit import FitOptions, Prior, fit_embedding, fit_prior, generic_embedding
from engine.features.fitted import BlendedListener, FittedEmbedding
from engine.features.learned import learned_embedding, open_embedding_networks
from engine.features.linear import LinearEmbedding
from engine.features.onset import OnsetEmbedding
from engine.features.recording import Recording
from engine.features.validation import outside
from export.evaluation.baselines import CorrelationEmbedding, LaggedEmbedding
from export.evaluation.people import Person, compute_features

__all__ = ["Rival", "bundle_rival", "fitted_to", "make_rivals"]

_LAGS = range(-16, 17)
_TRIAL_HALVES = (13, 32)


@dataclass(frozen=True)
class Rival:
    """without(person, frames): the embedding made without these frames and everything that they depend on.

    frames: ascending, int (n,). refits: whether it depends on them. ablation: only of interest next to another row.
    shown: whether paths through the graph are of interest.
    """

    name: str
    without: Callable[[Person, np.ndarray], Embedding]
    refits: bool = False
    ablation: bool = False
    shown: bool = False


def make_rivals(people: Sequence[Person], options: FitOptions) -> list[Rival]:
    """Every row that needs no network; generic ones only if there are other people."""
    body, mouth = replace(options, mouth=False), replace(options, mouth=True)
    rivals = [
        *(Rival(f"onset, trial, {half}", _constant(CorrelationEmbedding(half))) for half in _TRIAL_HALVES),
        Rival("onset", _constant(OnsetEmbedding()), shown=True),
    ]
    if len(people) > 1:
        rivals += _generic(people, body)
    rivals.append(Rival("fitted", _fitted(body), refits=True, shown=True))
    if all(person.recording.mouth is not None for person in people if person.asked):
        rivals.append(Rival("fitted+mouth", _fitted(mouth), refits=True, shown=True))
    rivals.append(Rival("fitted, no onset", _fitted(body, body.scales), refits=True, ablation=True))
    rivals += [
        Rival(f"fitted, {half} only", _fitted(body, (half,)), refits=True, ablation=True) for half in body.scales
    ]
    return rivals


def fitted_to(person: Person, asked: np.ndarray | None, options: FitOptions) -> Embedding:
    """Fitted to everything, or to everything but the query frames; cached."""
    key = (None, options) if asked is None else (int(asked[0]), int(asked[-1]), options)
    if key not in person.known:
        person.known[key] = _fit(person, asked, options, None)
    embedding: Embedding = person.known[key]
    return embedding


def _fit(person: Person, asked: np.ndarray | None, options: FitOptions, prior: Prior | None) -> Embedding:
    scales = person.scales(options)
    kept = None if asked is None else [outside(contexts, asked) for contexts in scales]
    if kept is not None and not all(part.any() for part in kept):
        # nothing of the person is left: use what a character without a fit gets
        return OnsetEmbedding()
    return fit_embedding(scales, kept, options, prior)


def bundle_rival(folder: Path) -> Rival:
    """A mini or full bundle, unchanged. Raises InputError for other bundles."""
    embedding = learned_embedding(open_embedding_networks(folder))
    return Rival(f"{embedding.name} {folder.name}", _constant(embedding), shown=True)


@dataclass(frozen=True, eq=False)
class _LinearParts:
    """Parts of a fitted embedding, without its onsets."""

    parts: tuple[LinearEmbedding, ...]
    name: str = "fitted"

    @property
    def weight(self) -> float:
        return self.parts[0].weight

    @property
    def sha256(self) -> str:
        return hashlib.sha256("".join(part.sha256 for part in self.parts).encode()).hexdigest()

    @property
    def lookahead_frames(self) -> int:
        return max(part.lookahead_frames for part in self.parts)

    def with_lookahead(self, lookahead_frames: int) -> "_LinearParts":
        return _LinearParts(tuple(part.with_lookahead(lookahead_frames) for part in self.parts))

    def listen(self) -> BlendedListener:
        return BlendedListener([part.listen() for part in self.parts])

    def motion(self, recording: Recording) -> Features:
        low = np.concatenate([part.motion(recording).low for part in self.parts], axis=1)
        low /= np.float32(np.sqrt(len(self.parts)))
        return Features(low, low[:, :0])


def _constant(embedding: Embedding) -> Callable[[Person, np.ndarray], Embedding]:
    return lambda person, asked: embedding


def _fitted(options: FitOptions, scales: Sequence[int] = ()) -> Callable[[Person, np.ndarray], Embedding]:
    """scales: of the linear parts to keep, without the onsets; empty: the whole embedding."""

    def without(person: Person, asked: np.ndarray) -> Embedding:
        embedding = fitted_to(person, asked, options)
        if not scales or not isinstance(embedding, FittedEmbedding):
            return embedding
        return _LinearParts(tuple(part for part in embedding.linear if part.half_frames in scales))

    return without


def _generic(people: Sequence[Person], options: FitOptions) -> list[Rival]:
    """Never fitted to the person in question: leave one person out."""

    @cache
    def prior(person: Person) -> Prior:
        return fit_prior([(other.recording, other.rows) for other in people if other is not person], options)

    @cache
    def generic(person: Person) -> FittedEmbedding:
        return generic_embedding(person.scales(options), prior(person), options)

    def lagged(person: Person, asked: np.ndarray) -> Embedding:
        return LaggedEmbedding(generic(person), _best_lag(generic(person), person, asked, options))

    def leaning(person: Person, asked: np.ndarray) -> Embedding:
        return _fit(person, asked, options, prior(person))

    return [
        Rival("generic, no onset", lambda person, asked: _LinearParts(generic(person).linear), ablation=True),
        Rival("generic", lambda person, asked: generic(person), shown=True),
        Rival("generic, lag fitted", lagged, refits=True, ablation=True),
        Rival("fitted+prior", leaning, refits=True, ablation=True),
    ]


def _best_lag(embedding: Embedding, person: Person, asked: np.ndarray, options: FitOptions) -> int:
    """The lag at which speech and motion are most similar, over contexts independent of the query frames."""
    speech, motion = (features.low for features in compute_features(embedding, person))
    kept = np.flatnonzero(outside(max(person.scales(options), key=lambda one: one.half_frames), asked))
    kept = kept[(kept >= -_LAGS[0]) & (kept < len(speech) - _LAGS[-1])]
    if not len(kept):
        return 0
    return max(_LAGS, key=lambda lag: float(np.einsum("nd,nd->", speech[kept], motion[kept + lag])))

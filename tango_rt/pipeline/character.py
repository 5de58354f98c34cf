"""A character opened for performance, shared by all its streams."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from engine.blending.blender import DEFAULT_BLENDER
from engine.character.embeddings import record_bytes, stored_names
from engine.character.keywords import keywords_of
from engine.character.pack import CharacterPack
from engine.character.perform import Performance, PerformOptions, perform, seeded, weigh_similarities
from engine.character.retrieval import Retrieval, RetrievalOptions, open_retrieval
from engine.features.embedding import Embedding
from engine.motion_graph.graph import MotionGraph
from engine.motion_graph.online_graph import OnlineGraph, OnlineOptions
from engine.motion_graph.variety import VarietyOptions
from engine.motion_graph.ways import WayFinder
from engine.motion_graph.words import Keywords, Word, words_text
from engine.names import canonical
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.options import MAX_HEARD_NODES
from tango_rt.pipeline.live import LiveOptions, LivePerformer
from tango_rt.pipeline.utterance import Lookahead

__all__ = ["MAX_STATES", "Character", "character_from_pack", "lookahead_of", "open_character"]

_MAX_GRAPHS = 8  # searches prepared for a seed, a few megabytes each
MAX_STATES = 48
"""Of each step of a plan with an adaptive look-ahead. With whole sentences heard, one person and three speeches, regret
is 0.33, 0.25, 0.25, 0.23, 0.23, 0.27 a step for 16, 32, 48, 64, 128 and all states, on one cut a node."""

_BY_NETWORKS = ("mini", "full")  # would run once more for each look-ahead
_BETTER = {16: 0.87, 32: 0.94, 10**6: 1.0}
"""Look-aheads of the features of what was heard longer ago, in frames, and what remains of their similarities once
everything is heard: slopes over the nodes of two people and four other voices, where 4 frames leave 0.78. r is 0.71,
0.85, 0.95 for 4, 16, 32 frames."""


@dataclass(frozen=True, eq=False)
class Character:
    """An open pack."""

    id: str
    pack: CharacterPack
    sha256: str  # of everything that determines its performances and pictures, including all arrays and the video
    retrievals: tuple[str, ...]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _opened: dict[RetrievalOptions, Retrieval] = field(default_factory=dict, repr=False)
    _graphs: "OrderedDict[tuple[PerformOptions, bool], tuple[OnlineGraph, WayFinder]]" = field(
        default_factory=OrderedDict, repr=False
    )

    @property
    def blender(self) -> str:
        """What draws transitions unless something else is asked for: what drew the drawn set."""
        return DEFAULT_BLENDER if self.pack.drawn is None else self.pack.drawn.blender

    @cached_property
    def keywords(self) -> Keywords | None:
        """Of the reference; None if the pack has no words. Raises ArtifactError if they are damaged."""
        return keywords_of(self.pack)

    def performer(self, options: LiveOptions | None = None) -> LivePerformer:
        """Start a stream. Raises InputError and ArtifactError as open_retrieval does."""
        options = options or LiveOptions()
        with self._lock:
            retrieval = self._retrieval(options.perform.retrieval)
            lookahead = lookahead_of(retrieval.embedding, options)
            most_states = MAX_STATES if options.adaptive else 0
            graph, ways = self._graph(retrieval, options.perform, options.drawn_only)
            ahead = graph.ahead(lookahead.most, most_states)

        def plan(samples: np.ndarray, start: tuple[int, int] | None, words: tuple[Word, ...]) -> Performance:
            performed = options.perform
            if words:
                performed = replace(performed, words=words_text(words, len(samples) / SAMPLE_RATE))
            return perform(self.pack, samples, performed, retrieval, start, self._cuts(options.drawn_only))

        return LivePerformer(retrieval, ahead, lookahead, options, plan, self.pack.cues.by_name, ways, self.keywords)

    def _retrieval(self, options: RetrievalOptions) -> Retrieval:
        if options not in self._opened:
            self._opened[options] = open_retrieval(self.pack, options)
        return self._opened[options]

    def _cuts(self, drawn_only: bool) -> MotionGraph:
        drawn = self.pack.drawn if drawn_only else None
        return self.pack.graph if drawn is None else drawn.graph

    def _graph(self, retrieval: Retrieval, options: PerformOptions, drawn_only: bool) -> tuple[OnlineGraph, WayFinder]:
        key = replace(options, words=None, cues=()), drawn_only
        if key not in self._graphs:
            graph = OnlineGraph(
                self._cuts(drawn_only),
                retrieval.motion,
                np.asarray(self.pack["rest"]),
                seeded(options.weights, options.seed),
                weigh_similarities(options.costs, retrieval.embedding),
                VarietyOptions(),
                OnlineOptions(),
            )
            self._graphs[key] = graph, WayFinder(graph)
            while len(self._graphs) > _MAX_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]


def open_character(path: Path) -> Character:
    """Raises InputError if there is none, ArtifactError if it is unusable."""
    return character_from_pack(CharacterPack.open(path))


def character_from_pack(pack: CharacterPack) -> Character:
    """Raises ArtifactError if the motion features of the pack cannot be read."""
    names = tuple(stored_names(pack.path))
    digest = hashlib.sha256(pack.sha256.encode())
    for name in names:
        digest.update(record_bytes(pack.path, name))
    if pack.drawn is not None:
        digest.update(pack.drawn.sha256.encode())
    digest.update(pack.cues.sha256.encode())
    return Character(canonical(pack.path.name.removesuffix(".tango")), pack, digest.hexdigest(), names)


def lookahead_of(embedding: Embedding, options: LiveOptions) -> Lookahead:
    """A look-ahead split between nodes that the search sees and frames that features wait for, and what it may grow to.

    Without a look-ahead, for whole utterances, idling sees none.
    """
    nodes, trust = options.lookahead_nodes, OnlineOptions().trust
    if nodes is None:
        return Lookahead(0, 0, (embedding,), (trust,))
    n_search = min(nodes, 1)
    first = embedding.with_lookahead((nodes - n_search) * FRAMES_PER_NODE)
    if not options.adaptive:
        return Lookahead(n_search, n_search, (first,), (trust,))
    by_frames = {first.lookahead_frames: (first, trust)}
    for frames, better in {} if embedding.name in _BY_NETWORKS else _BETTER.items():
        one = embedding.with_lookahead(frames)
        if one.lookahead_frames > first.lookahead_frames:
            by_frames[one.lookahead_frames] = (one, better)
    embeddings, trusts = zip(*(by_frames[frames] for frames in sorted(by_frames)), strict=True)
    return Lookahead(n_search, MAX_HEARD_NODES, embeddings, trusts)

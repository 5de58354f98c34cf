"""A character opened for performance, shared by all its streams."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.blending.blender import DEFAULT_BLENDER
from engine.character.embeddings import record_bytes, stored_names
from engine.character.pack import CharacterPack
from engine.character.perform import Performance, PerformOptions, perform, seeded, weigh_similarities
from engine.character.retrieval import Retrieval, RetrievalOptions, open_retrieval
from engine.motion_graph.graph import MotionGraph
from engine.motion_graph.online_graph import OnlineGraph, OnlineOptions
from engine.motion_graph.variety import VarietyOptions
from engine.motion_graph.ways import WayFinder
from engine.names import canonical
from engine.timebase import FRAMES_PER_NODE
from tango_rt.pipeline.live import LiveOptions, LivePerformer

__all__ = ["Character", "character_from_pack", "open_character"]

_MAX_GRAPHS = 8  # searches prepared for a seed and a look-ahead, a few megabytes each


@dataclass(frozen=True, eq=False)
class Character:
    """An open pack."""

    id: str
    pack: CharacterPack
    sha256: str  # of everything that determines its performances and pictures, including all arrays and the video
    retrievals: tuple[str, ...]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _opened: dict[RetrievalOptions, Retrieval] = field(default_factory=dict, repr=False)
    _graphs: "OrderedDict[tuple[PerformOptions, int, bool], tuple[OnlineGraph, WayFinder]]" = field(
        default_factory=OrderedDict, repr=False
    )

    @property
    def blender(self) -> str:
        """What draws transitions unless something else is asked for: what drew the drawn set."""
        return DEFAULT_BLENDER if self.pack.drawn is None else self.pack.drawn.blender

    def performer(self, options: LiveOptions | None = None) -> LivePerformer:
        """Start a stream. Raises InputError and ArtifactError as open_retrieval does."""
        options = options or LiveOptions()
        with self._lock:
            retrieval = self._retrieval(options.perform.retrieval)
            n_search, n_features = _shared_lookahead(options.lookahead_nodes)
            limited = replace(retrieval, embedding=retrieval.embedding.with_lookahead(n_features))
            graph, ways = self._graph(retrieval, options.perform, n_search, options.drawn_only)

        def plan(samples: np.ndarray, start: tuple[int, int] | None) -> Performance:
            return perform(self.pack, samples, options.perform, retrieval, start, self._cuts(options.drawn_only))

        return LivePerformer(limited, graph, options, plan, self.pack.cues.by_name, ways)

    def _retrieval(self, options: RetrievalOptions) -> Retrieval:
        if options not in self._opened:
            self._opened[options] = open_retrieval(self.pack, options)
        return self._opened[options]

    def _cuts(self, drawn_only: bool) -> MotionGraph:
        drawn = self.pack.drawn if drawn_only else None
        return self.pack.graph if drawn is None else drawn.graph

    def _graph(
        self, retrieval: Retrieval, options: PerformOptions, n_search: int, drawn_only: bool
    ) -> tuple[OnlineGraph, WayFinder]:
        key = (replace(options, words=None, cues=()), n_search, drawn_only)
        if key not in self._graphs:
            graph = OnlineGraph(
                self._cuts(drawn_only),
                retrieval.motion,
                np.asarray(self.pack["rest"]),
                seeded(options.weights, options.seed),
                weigh_similarities(options.costs, retrieval.embedding),
                VarietyOptions(),
                OnlineOptions(lookahead_nodes=n_search),
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


def _shared_lookahead(nodes: int | None) -> tuple[int, int]:
    """Split a look-ahead: nodes that the search sees ahead, and frames that the features wait for."""
    if nodes is None:
        return 0, 10**6
    n_search = min(nodes, 1)
    return n_search, (nodes - n_search) * FRAMES_PER_NODE

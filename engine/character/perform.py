"""Speech -> path: features of the speech, the cost of each node at each step, the cheapest path through the graph."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import csr_array

from engine.character.cues import CueOutcome, TimedCue
from engine.character.keywords import node_start_s, reference_words
from engine.character.pack import CharacterPack
from engine.character.retrieval import Retrieval, RetrievalOptions, open_retrieval
from engine.character.steps import speech_steps
from engine.choices import SearchName
from engine.errors import InputError
from engine.features.embedding import Embedding
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs
from engine.motion_graph.graph import CONTINUE, Cut, MotionGraph
from engine.motion_graph.official import OfficialGraph, OfficialSearchOptions, search_official
from engine.motion_graph.search import Path as NodePath
from engine.motion_graph.search import SearchOptions
from engine.motion_graph.stretches import Stretch, place_stretches
from engine.motion_graph.variety import varied_path
from engine.motion_graph.words import keyword_bonus, parse_words
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_count

__all__ = ["PerformOptions", "Performance", "perform", "planned_transitions", "seeded", "weigh_similarities"]

SEED_VARIATION = 0.4
"""About one standard deviation of a row of node costs with onsets, and a bit over half of one with the fit."""

_BLOCK_STEPS = 512  # node costs in memory at once: 55 MB for an hour of reference


@dataclass(frozen=True)
class PerformOptions:
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    search: SearchName = "viterbi"
    seed: int = 0
    words: str | None = None  # word timings of the speech, as engine.motion_graph.words reads them
    cues: tuple[TimedCue, ...] = ()  # of the speech, by their times
    costs: CostOptions = field(default_factory=CostOptions)
    weights: SearchOptions = field(default_factory=SearchOptions)


@dataclass(frozen=True)
class Performance:
    """A path through a character's graph, one node per 4 frames of video."""

    nodes: np.ndarray  # int32 (T,)
    cuts: np.ndarray  # int (K,): steps t whose successor t + 1 is a cut
    n_frames: int  # frames of the video; the last node may be shown in part
    speaking: np.ndarray  # float32 (T,), 0..1
    cost: float | None  # of the exact search
    retrieval: str
    cues: tuple[CueOutcome, ...] = ()


def perform(
    pack: CharacterPack,
    samples: np.ndarray,
    options: PerformOptions,
    retrieval: Retrieval | None = None,
    start: tuple[int, int] | None = None,
    graph: MotionGraph | None = None,
) -> Performance:
    """The best path for a complete speech; samples: float32 (n,) at 16 kHz.

    retrieval: an open one, else it is opened from the options. start: the first node, and the nodes since the last cut
    there. graph: another one over the nodes of the pack. Raises InputError for unusable word timings or samples, and
    for cues with the official search.
    """
    graph = graph or pack.graph
    retrieval = retrieval or open_retrieval(pack, options.retrieval)
    steps = speech_steps(retrieval.embedding, samples)
    bonus = _bonus(pack, options.words, len(steps.low), len(samples) / SAMPLE_RATE)
    outcomes, forced = _placed(pack, graph, options, len(steps.low), start)
    if options.search == "official":
        path = _official_path(graph, retrieval.motion, steps)
    else:
        costs = weigh_similarities(options.costs, retrieval.embedding)
        path = varied_path(
            lambda: _cost_blocks(pack["rest"], retrieval.motion, steps, bonus, forced, costs),
            graph,
            pack["rest"],
            seeded(options.weights, options.seed),
            start=start,
        )
    return Performance(
        nodes=path.nodes,
        cuts=path.cuts,
        n_frames=frame_count(len(samples)),
        speaking=steps.speaking,
        cost=path.cost,
        retrieval=retrieval.embedding.name + ("" if bonus is None else "+words"),
        cues=outcomes,
    )


def planned_transitions(performance: Performance) -> dict[int, Cut]:
    """Step t -> cut, for every cut that is blended: its pictures replace those of steps t and t + 1.

    The exact search keeps cuts apart. The release's search may not; then the earlier cut is blended, and one that would
    need a picture already used stays hard, as in the release.
    """
    planned: dict[int, Cut] = {}
    for t in performance.cuts.tolist():
        if t - 1 not in planned:
            planned[t] = (int(performance.nodes[t]), int(performance.nodes[t + 1]))
    return planned


def seeded(weights: SearchOptions, seed: int) -> SearchOptions:
    """Search options for a seed: 0 gives the best path, any other the best path under small changes of the costs."""
    return replace(weights, seed=seed, variation=SEED_VARIATION if seed else 0.0)


def weigh_similarities(costs: CostOptions, embedding: Embedding) -> CostOptions:
    """Cost options with the similarity weight multiplied by that of the embedding."""
    return replace(costs, similarity_weight=costs.similarity_weight * embedding.weight)


def _cost_blocks(
    rest: np.ndarray,
    motion: MotionVectors,
    steps: SpeechSteps,
    bonus: csr_array | None,
    forced: Mapping[int, int],
    options: CostOptions,
) -> Iterator[np.ndarray]:
    """forced: step -> the only node that may be shown there."""
    for start in range(0, len(steps.low), _BLOCK_STEPS):
        part = slice(start, start + _BLOCK_STEPS)
        costs = node_costs(steps[part], motion, rest, options)
        if bonus is not None:
            costs -= bonus[part].toarray()
        for row in range(len(costs)):
            if (node := forced.get(start + row)) is not None:
                only = costs[row, node]
                costs[row] = np.inf
                costs[row, node] = only
        yield costs


def _placed(
    pack: CharacterPack, graph: MotionGraph, options: PerformOptions, n_steps: int, start: tuple[int, int] | None
) -> tuple[tuple[CueOutcome, ...], dict[int, int]]:
    """What becomes of each cue, and the node at every step of those that are played."""
    if options.cues and options.search == "official":
        raise InputError("cues need the exact search: leave out --search official")
    asked = [(timed, pack.cues.find(timed.name)) for timed in options.cues]
    known = [(timed, cue) for timed, cue in asked if cue is not None]
    stretches = [Stretch(cue.first_node, cue.n_nodes, timed.step, timed.within_steps) for timed, cue in known]
    places = iter(place_stretches(graph, stretches, n_steps, options.weights.min_dwell, start))
    outcomes: list[CueOutcome] = []
    forced: dict[int, int] = {}
    for timed, cue in asked:
        step = "the character has no cue of this name" if cue is None else next(places)
        if isinstance(step, str):
            outcomes.append(CueOutcome(timed.name, timed.at_s, None, step))
        elif cue is not None:
            outcomes.append(CueOutcome(timed.name, timed.at_s, round(step * FRAMES_PER_NODE / FPS, 3)))
            forced.update(enumerate(cue.nodes, step))
    return tuple(outcomes), forced


def _bonus(pack: CharacterPack, words: str | None, n_steps: int, duration_s: float) -> csr_array | None:
    """Keyword matches to subtract from the costs, sparse (T, N); None if there are no words."""
    if words is None:
        return None
    if not pack.info.words:
        raise InputError(f"{pack.path} was built without --words: build it again with word timings of the reference")
    spoken = parse_words(words, duration_s)
    reference, starts_s = reference_words(pack), node_start_s(pack)
    return keyword_bonus(spoken, reference, n_steps, starts_s, np.asarray(pack["clip_start"]))


def _official_path(graph: MotionGraph, motion: MotionVectors, steps: SpeechSteps) -> NodePath:
    """The release's search on this graph's nodes: paths start where a clip starts, and cuts are not kept apart."""
    kept = np.flatnonzero(graph.kept)
    number = np.full(graph.n_nodes, -1)
    number[kept] = np.arange(len(kept))
    continues = graph.kind == CONTINUE
    entered = np.zeros(graph.n_nodes, bool)
    entered[graph.indices[continues]] = True
    nodes = OfficialGraph(
        edges=np.column_stack([number[graph.sources], number[graph.indices]]),
        is_continue=continues,
        previous=np.where(entered, np.arange(graph.n_nodes) - 1, -1)[kept],
        frames=kept,
    )
    options = OfficialSearchOptions(mode="both" if motion.high.shape[1] else "low_level")
    best, *_ = search_official(nodes, motion.low[kept], motion.high[kept], steps.low, steps.high, options)
    return NodePath(kept[best.nodes].astype(np.int32), best.cost, np.flatnonzero(~best.is_continue))

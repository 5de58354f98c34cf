"""Chooses the cuts of the drawn set: those that many sessions would use, and those that keep all nodes connected."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from engine.character.perform import PerformOptions
from engine.motion_graph.graph import Cut
from engine.motion_graph.live_graph import connecting_cuts, leading_cuts
from engine.motion_graph.search import SearchOptions
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.pipeline.character import Character
from tango_rt.pipeline.live import LiveOptions, LivePerformer, Step
from tango_rt.progress import OnProgress, Stage, silent

__all__ = ["choose_cuts", "likely_cuts"]

# A voice keeps to the motion that belongs to it, and to few cuts. Only if its speech is made of pieces this short, and
# each round is performed with other small changes of the costs, are the cuts found that strangers' speech would use.
# With pieces of 1.5 s and one seed, two cuts of a man standing for a minute were a half of all that were taken, and the
# cost of a live path to strangers' speech was 0.4 a step higher with the cuts so chosen than with all; now it is 0.06.
_PIECE_S = (0.3, 1.0)
_N_SEEDS = 8
_UTTERANCE_S = (3.0, 30.0)  # utterances of the sessions performed, shortest and longest
_INTERRUPTED = 0.25  # share of them that are interrupted
_REST_STEPS = 90  # at most, between two utterances: 12 s
_STEPS_PER_NODE = 120
_MIN_STEPS, _MAX_STEPS = 15 * 60 * FPS // FRAMES_PER_NODE, 120 * 60 * FPS // FRAMES_PER_NODE


def choose_cuts(
    character: Character,
    speeches: Sequence[np.ndarray],
    n_cuts: int,
    lookahead_nodes: int,
    on_progress: OnProgress = silent,
) -> list[Cut]:
    """The n_cuts likeliest cuts of live sessions, those that then are missing on the way from the node of rest to every
    other node and back, and those that lead to cues soon; ascending.

    Raises InputError and ArtifactError as a render does.
    """
    likely = likely_cuts(character, speeches, lookahead_nodes, on_progress)[:n_cuts]
    hub = character.performer(LiveOptions(lookahead_nodes)).rest_node
    chosen = np.array(likely, np.int32).reshape(-1, 2)
    graph, search = character.pack.graph, SearchOptions()
    chosen = np.concatenate([chosen, connecting_cuts(graph, chosen, hub, search)])
    targets = [cue.first_node for cue in character.pack.cues.by_name.values()]
    chosen = np.concatenate([chosen, leading_cuts(graph, chosen, targets, search)])
    return sorted((int(i), int(j)) for i, j in chosen)


def likely_cuts(
    character: Character, speeches: Sequence[np.ndarray], lookahead_nodes: int, on_progress: OnProgress = silent
) -> list[Cut]:
    """The cuts of sessions that speak with the character's own voice and those of speeches (float32, 16 kHz), as
    recorded and rearranged, with interrupts and rests: the most frequent of each node first, then the second of each.

    A quarter of an hour to two hours are performed, 120 steps for each node.
    """
    sounds = [character.pack.recording.samples, *speeches]
    n_steps = int(np.clip(_STEPS_PER_NODE * character.pack.graph.n_kept, _MIN_STEPS, _MAX_STEPS))
    seen: Counter[Cut] = Counter()
    rng = np.random.default_rng(0)
    n_done = n_rounds = 0
    with Stage(on_progress, "live cuts", n_steps, "steps") as stage:
        while n_done < n_steps:
            live = character.performer(LiveOptions(lookahead_nodes, perform=PerformOptions(seed=n_rounds % _N_SEEDS)))
            for sound in [_rearranged(sound, rng) for sound in sounds] if n_rounds else sounds:
                for step in _performed(live, sound, rng):
                    n_done += 1
                    if step.cut_to is not None:
                        seen[step.node, step.cut_to] += 1
                stage.advance_to(min(n_done, n_steps))
            n_rounds += 1
    return _ranked(seen)


def _ranked(seen: Counter[Cut]) -> list[Cut]:
    """The most frequent cut out of each node, most frequent first; then the second out of each, and so on."""
    by_use = sorted(seen, key=lambda cut: (-seen[cut], cut))
    place: Counter[int] = Counter()
    rank = {}
    for cut in by_use:
        rank[cut] = place[cut[0]]
        place[cut[0]] += 1
    return sorted(by_use, key=rank.__getitem__)


def _performed(live: LivePerformer, sound: np.ndarray, rng: np.random.Generator) -> Iterator[Step]:
    """A session that says all of it, in utterances of any length."""
    start = 0
    while start < len(sound):
        end = start + round(rng.uniform(*_UTTERANCE_S) * SAMPLE_RATE)
        live.push(sound[start:end], "speech")
        live.end_of_utterance()
        start = end
        n_left = live.queued_steps
        if rng.random() < _INTERRUPTED:
            n_left = int(rng.integers(n_left + 1))
        while n_left and (step := live.next()) is not None:
            n_left -= 1
            yield step
        live.interrupt("rest")
        for _ in range(int(rng.integers(1, _REST_STEPS))):
            yield live.idle()


def _rearranged(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As much sound, in pieces of any place."""
    pieces: list[np.ndarray] = []
    n_samples = 0
    while n_samples < len(sound):
        length = round(rng.uniform(*_PIECE_S) * SAMPLE_RATE)
        start = int(rng.integers(max(1, len(sound) - length + 1)))
        pieces.append(sound[start : start + length])
        n_samples += len(pieces[-1])
    return np.concatenate(pieces)

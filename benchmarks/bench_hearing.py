"""What is it worth to hear more: sound that has arrived already, and the sentences before this one?

    python -m benchmarks.bench_hearing [--json] [--packs PACK.tango ...] [--speech FILE ...] [--part PART ...]

latency: milliseconds a decision with 60 rows known, on random graphs. ahead: regret (see benchmarks/bench_online.py)
and similarity when so many seconds of sound were pushed ahead of every decision, on all cuts and on those of a drawn
set. bound: the same with everything pushed, by how many states a plan keeps.
sentences: how much the first second of a sentence is heard as in one long utterance, with and without what was learned
from the sentences before.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bench_online import Case, Row, markdown, measured, random_graph  # noqa: E402
from engine.character.pack import CharacterPack  # noqa: E402
from engine.character.perform import Performance  # noqa: E402
from engine.character.retrieval import Retrieval, open_retrieval  # noqa: E402
from engine.character.steps import speech_steps  # noqa: E402
from engine.features.speech import SPEAKING, Speaker, speech_features  # noqa: E402
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs  # noqa: E402
from engine.motion_graph.graph import MotionGraph  # noqa: E402
from engine.motion_graph.live_graph import live_graph  # noqa: E402
from engine.motion_graph.online import OnlineSearch  # noqa: E402
from engine.motion_graph.online_graph import OnlineGraph, OnlineOptions  # noqa: E402
from engine.motion_graph.search import SearchOptions  # noqa: E402
from engine.motion_graph.variety import VarietyOptions, varied_path  # noqa: E402
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_start  # noqa: E402
from tango_rt.options import DEFAULT_LOOKAHEAD_NODES, MAX_HEARD_NODES  # noqa: E402
from tango_rt.pipeline.character import MAX_STATES, Character, character_from_pack, lookahead_of  # noqa: E402
from tango_rt.pipeline.live import LiveOptions, LivePerformer  # noqa: E402
from tango_rt.pipeline.live_cuts import choose_cuts  # noqa: E402
from tango_rt.pipeline.utterance import Lookahead, StreamedUtterance  # noqa: E402
from tango_rt.sound.audio import read_audio  # noqa: E402

AHEAD_S = (0.0, 0.4, 1.0, 2.0, 4.0, 8.0)  # pushed ahead of a decision, beyond the sound that it waits for
BEGINNINGS_S = (0.0, 0.8)  # paths fork early, so one run a speech says little
BOUNDS = (16, 32, 48, 64, 128, 0)
FIRST_STEPS = 8  # of a sentence: 1 s
MIN_STEPS = 12  # of a sentence
PAUSE_FRAMES = 8
NOBODY = OnlineOptions()


def latency(n_nodes: int, n_cuts: int, most_states: int, width: int = 144, n_steps: int = 120) -> Row:
    """Milliseconds of a core a decision of random speech on a random graph."""
    rng = np.random.default_rng(1)

    def features(n: int) -> np.ndarray:
        rows = rng.standard_normal((n, width)).astype(np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))

    level, rest = rng.random((2, n_nodes), np.float32)
    motion = MotionVectors(features(n_nodes), np.empty((n_nodes, 0), np.float32), level)
    said = SpeechSteps(features(400), np.empty((400, 0), np.float32), *rng.random((2, 400), np.float32))
    prepared = OnlineGraph(
        random_graph(n_nodes, n_cuts), motion, rest, SearchOptions(), CostOptions(similarity_weight=4),
        VarietyOptions(), OnlineOptions(lookahead_nodes=MAX_HEARD_NODES, most_states=most_states),
    )  # fmt: skip
    search = OnlineSearch(prepared)
    search.begin(said)
    took = np.empty(n_steps)
    for k in range(n_steps):
        outlook, started = said[k:][: MAX_HEARD_NODES + 1], time.thread_time()
        search.advance(outlook)
        took[k] = time.thread_time() - started
    p50, p99 = 1e3 * np.quantile(took, [0.5, 0.99])
    return {
        "nodes": n_nodes, "cuts a node": n_cuts, "states": most_states, "p50 CPU ms": float(p50),
        "p99 CPU ms": float(p99),
    }  # fmt: skip


def latencies() -> list[Row]:
    return [latency(nodes, cuts, MAX_STATES) for nodes in (1_000, 27_000) for cuts in (1, 20)]


@dataclass(frozen=True, eq=False)
class Said:
    """A speech for a character, and the best path of it offline on all cuts."""

    character: Character
    retrieval: Retrieval
    samples: np.ndarray
    case: Case
    graphs: dict[str, MotionGraph]

    def performed(self, graph: str, ahead_s: float | None, lookahead: Lookahead, most_states: int) -> np.ndarray:
        """int32 (T,): nodes of a live stream with so much sound pushed ahead; None: all."""
        prepared = replace(self.case, graph=self.graphs[graph]).prepared(
            replace(NOBODY, lookahead_nodes=lookahead.most, most_states=most_states)
        )
        live = LivePerformer(self.retrieval, prepared, lookahead, LiveOptions(idle=False), _unplanned)
        ahead = len(self.samples) if ahead_s is None else round(ahead_s * SAMPLE_RATE) + live.lookahead_samples + 1
        pushed, nodes = 0, []
        for step in range(len(self.case.best)):
            end = min(frame_start((step + 1) * FRAMES_PER_NODE) + ahead, len(self.samples))
            live.push(self.samples[pushed:end], "speech")
            pushed = end
            if end == len(self.samples):
                live.end_of_utterance()
            performed = live.next()
            assert performed is not None
            nodes.append(performed.node)
        return np.array(nodes, np.int32)


def _unplanned(*_: object) -> Performance:
    raise AssertionError("no whole utterances here")


def said(packs: Sequence[Path], speeches: Sequence[Path]) -> Iterator[Said]:
    sounds = {path.stem: read_audio(path)[: 30 * SAMPLE_RATE] for path in speeches}
    for path in packs:
        pack = CharacterPack.open(path)
        character, retrieval, rest = character_from_pack(pack), open_retrieval(pack), np.array(pack["rest"])
        used = choose_cuts(character, [], pack.graph.n_kept, DEFAULT_LOOKAHEAD_NODES)
        graphs = {"all": pack.graph, "1 a node": live_graph(pack.graph, np.array(used))}
        options = CostOptions(similarity_weight=retrieval.embedding.weight)
        for name, sound in sounds.items():
            for start_s in BEGINNINGS_S:
                samples = sound[round(start_s * SAMPLE_RATE) :]
                rows = speech_steps(retrieval.embedding, samples)
                costs = node_costs(rows, retrieval.motion, rest, options)
                best = varied_path(lambda: iter([costs.copy()]), pack.graph, rest).nodes  # noqa: B023  (used at once)
                case = Case(path.stem, name, pack.graph, retrieval, rest, {None: rows}, costs, best)
                yield Said(character, retrieval, samples, case, graphs)


def compared(found: Sequence[Said], label: Row, walk: Callable[[Said], np.ndarray]) -> Row:
    """Means over speeches of what a walk costs beyond the best path, and of what it is made of."""
    rows = [measured(one.case, walk(one)) for one in found]
    best = [measured(one.case, one.case.best)["cost"] for one in found]
    mean = {name: float(np.nanmean([row[name] for row in rows])) for name in ("cost", "similarity", "cuts a second")}
    return {**label, "regret": mean.pop("cost") - float(np.mean(best)), **mean}


def lookaheads(retrieval: Retrieval) -> dict[str, Lookahead]:
    """Fixed, and adaptive by the features of what was heard longer ago."""
    fixed = lookahead_of(retrieval.embedding, LiveOptions())
    chosen = lookahead_of(retrieval.embedding, LiveOptions(adaptive=True))
    hurried, whole = fixed.embeddings[0], retrieval.embedding
    return {
        "fixed": fixed,
        "adaptive, hurried features only": replace(chosen, embeddings=(hurried,), trusts=chosen.trusts[:1]),
        "adaptive, hurried and whole": replace(chosen, embeddings=(hurried, whole), trusts=(chosen.trusts[0], 1.0)),
        "adaptive": chosen,
    }


def by_ahead(found: Sequence[Said], graph: str) -> list[Row]:
    rows = []
    for mode in lookaheads(found[0].retrieval):
        for ahead_s in (None,) if mode == "fixed" else (*AHEAD_S, None):
            label: Row = {"cuts": graph, "mode": mode, "pushed ahead s": "all" if ahead_s is None else ahead_s}
            rows.append(compared(found, label, _walk(graph, ahead_s, mode, MAX_STATES)))
    return rows


def by_bound(found: Sequence[Said], graph: str) -> list[Row]:
    return [
        compared(found, {"cuts": graph, "states": most or "all"}, _walk(graph, None, "adaptive", most))
        for most in BOUNDS
    ]


def _walk(graph: str, ahead_s: float | None, mode: str, most: int) -> Callable[[Said], np.ndarray]:
    def walk(one: Said) -> np.ndarray:
        return one.performed(graph, ahead_s, lookaheads(one.retrieval)[mode], 0 if mode == "fixed" else most)

    return walk


def sentences(samples: np.ndarray) -> list[tuple[int, int]]:
    """Frames (first, end) of what is said between two pauses; they begin with a node."""
    speaking = speech_features(samples)[:, SPEAKING] >= 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speaking.astype(int), [0]])))
    found: list[list[int]] = []
    for first, end in edges.reshape(-1, 2).tolist():
        if found and first - found[-1][1] < PAUSE_FRAMES:
            found[-1][1] = end
        else:
            found.append([first // FRAMES_PER_NODE * FRAMES_PER_NODE, end])
    return [(first, end) for first, end in found if end - first >= MIN_STEPS * FRAMES_PER_NODE]


def carried_over(packs: Sequence[Path], speeches: Sequence[Path]) -> list[Row]:
    """The first second of sentences 2 .. n against the same second of one long utterance: scores of all nodes."""
    rows: list[Row] = []
    sounds = [read_audio(path) for path in speeches]
    for path in packs:
        pack = CharacterPack.open(path)
        retrieval = open_retrieval(pack)
        lookahead = lookahead_of(retrieval.embedding, LiveOptions())
        for carries in (False, True):
            parts = [
                _first_seconds(retrieval, lookahead, sound, carries) for sound in (pack.recording.samples, *sounds)
            ]
            mean = np.concatenate(parts).mean(axis=0)
            names = ("r of scores", "score apart", "level apart", "speaking apart")
            values = dict(zip(names, mean.tolist(), strict=True))
            about: Row = {"character": path.stem, "carried over": str(carries), "sentences": sum(map(len, parts))}
            rows.append({**about, **values})
    return rows


def _first_seconds(retrieval: Retrieval, lookahead: Lookahead, samples: np.ndarray, carries: bool) -> np.ndarray:
    """float64 (sentences - 1, 4): how the first second of a sentence differs from what is heard in one utterance."""
    motion, whole = retrieval.motion, _heard(retrieval, lookahead, samples, None)
    speaker: Speaker | None = None
    found = []
    for number, (first, end) in enumerate(sentences(samples)):
        heard = _heard(retrieval, lookahead, samples[frame_start(first) : frame_start(end)], speaker)
        speaker = heard.speaker if carries else None
        steps, wanted = heard.known(FIRST_STEPS)[0], whole.known(10**6)[0][first // FRAMES_PER_NODE :][:FIRST_STEPS]
        scores, right = (motion.low @ rows.low.T + motion.high @ rows.high.T for rows in (steps, wanted))
        if number:
            found.append(
                [
                    float(np.corrcoef(scores.ravel(), right.ravel())[0, 1]),
                    float(np.abs(scores - right).mean()),
                    float(np.abs(steps.level - wanted.level).mean()),
                    float(np.abs(steps.speaking - wanted.speaking).mean()),
                ]
            )
    return np.array(found).reshape(-1, 4)


def _heard(
    retrieval: Retrieval, lookahead: Lookahead, samples: np.ndarray, speaker: Speaker | None
) -> StreamedUtterance:
    utterance = StreamedUtterance("sentence", lookahead, retrieval.motion, speaker)
    utterance.push(samples)
    utterance.end()
    return utterance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--packs", nargs="*", type=Path, default=[], help="character packs")
    parser.add_argument("--speech", nargs="*", type=Path, default=[], help="speech of other people")
    parts = ("latency", "ahead", "bound", "sentences")
    parser.add_argument("--part", nargs="*", choices=parts, default=list(parts))
    asked = parser.parse_args()
    results: dict[str, list[Row]] = {}
    if "latency" in asked.part:
        results["A decision with 60 rows known"] = latencies()
    if "sentences" in asked.part and asked.packs:
        results["The first second of sentences"] = carried_over(asked.packs, asked.speech)
    if {"ahead", "bound"} & set(asked.part) and asked.packs:
        found = list(said(asked.packs, asked.speech))
        for graph in found[0].graphs:
            if "ahead" in asked.part:
                results[f"Regret a step by what was pushed ahead, cuts: {graph}"] = by_ahead(found, graph)
            if "bound" in asked.part:
                results[f"Regret a step by states kept, cuts: {graph}"] = by_bound(found, graph)
    if asked.json:
        print(json.dumps(results, indent=1))
        return
    for title, rows in results.items():
        print("\n".join(markdown(title, rows)))


if __name__ == "__main__":
    main()

"""How fast is the online search, and what does it lose against knowing everything?

    python -m benchmarks.bench_online [--json] [--packs PACK.tango ...] [--speech FILE ...]

Always: seconds a node on random graphs. With packs and speech: regret, the cost of a path a step beyond that of the
best one found offline (engine.motion_graph.variety), both under the features of the whole speech, by look-ahead; and
idling. Every speech is performed by every character, and every character's own recording by itself.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np

from engine.cores import usable_cores

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.character.pack import CharacterPack  # noqa: E402
from engine.character.retrieval import Retrieval, open_retrieval  # noqa: E402
from engine.character.steps import speech_steps  # noqa: E402
from engine.features.speech import LOOKAHEAD_SAMPLES  # noqa: E402
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs, resting  # noqa: E402
from engine.motion_graph.graph import CONTINUE, CUT, MotionGraph  # noqa: E402
from engine.motion_graph.online import OnlineSearch  # noqa: E402
from engine.motion_graph.online_graph import OnlineGraph, OnlineOptions  # noqa: E402
from engine.motion_graph.search import SearchOptions, cut_costs  # noqa: E402
from engine.motion_graph.variety import VarietyOptions, repetition_costs, varied_path  # noqa: E402
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE  # noqa: E402
from tango_rt.sound.audio import read_audio  # noqa: E402

Row = dict[str, float | int | str]

NODE_S = FRAMES_PER_NODE / FPS
OFFSETS = (0, 5, 11)  # first steps: paths fork early, so one run a speech says little
SEARCH_NODES = (0, 1, 2, 4, 8)
FEATURE_FRAMES: tuple[int | None, ...] = (0, 4, 8, 16, None)
IDLE_S = 60
SETTLED = 0.25  # distance from rest


def random_graph(n_nodes: int, n_cuts: int, run: int = 200) -> MotionGraph:
    """Clips of `run` nodes and random cuts, none into the last nodes of a clip."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, n_nodes, (n_nodes, n_cuts))
    target -= np.maximum(target % run - (run - 4), 0)
    cut = np.sort(target, axis=1)
    source = np.repeat(np.arange(n_nodes), n_cuts + 1)
    onward = np.arange(n_nodes) + 1
    indices = np.concatenate([cut, onward[:, None]], axis=1)
    last = (onward % run == 0) | (onward == n_nodes)
    indices[last, -1] = 0
    kind = np.full(indices.shape, CUT, np.uint8)
    kind[~last, -1] = CONTINUE
    distance = np.where(kind == CUT, rng.random(indices.shape), 0)
    order = np.argsort(indices, axis=1, kind="stable")
    targets, lengths, kinds = (np.take_along_axis(part, order, axis=1).ravel() for part in (indices, distance, kind))
    _, first = np.unique(source * n_nodes + targets, return_index=True)
    return MotionGraph(
        n_nodes=n_nodes,
        clip_start=np.append(np.arange(0, n_nodes, run), n_nodes),
        indptr=np.searchsorted(source[first], np.arange(n_nodes + 1)),
        indices=targets[first].astype(np.int32),
        distance=lengths[first].astype(np.float32),
        kind=kinds[first],
        kept=np.ones(n_nodes, bool),
    )


def latency(n_nodes: int, lookahead: int, widths: tuple[int, int], n_cuts: int = 48, n_steps: int = 2000) -> Row:
    """Milliseconds a decision of random speech on a random graph; widths of low and high features."""
    rng = np.random.default_rng(1)

    def features(n: int, width: int) -> np.ndarray:
        rows = rng.standard_normal((n, width)).astype(np.float32)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))

    low, high = (features(n_nodes, width) for width in widths)
    level, rest = rng.random((2, n_nodes), np.float32)
    motion = MotionVectors(low, high, level)
    steps = SpeechSteps(*(features(500, w) for w in widths), *rng.random((2, 500), np.float32))
    started = time.perf_counter()
    prepared = OnlineGraph(
        random_graph(n_nodes, n_cuts), motion, rest, SearchOptions(), CostOptions(similarity_weight=4),
        VarietyOptions(), OnlineOptions(lookahead_nodes=lookahead),
    )  # fmt: skip
    prepare_s = time.perf_counter() - started
    search = OnlineSearch(prepared)
    search.begin(steps)
    started = time.perf_counter()
    OnlineSearch(prepared).begin(steps)
    begin_ms = 1e3 * (time.perf_counter() - started)
    took, busy = np.empty(n_steps), np.empty(n_steps)
    for k in range(n_steps):
        outlook = steps[k % 480 :][: lookahead + 1]
        started, began = time.perf_counter(), time.thread_time()
        search.advance(outlook)
        took[k], busy[k] = time.perf_counter() - started, time.thread_time() - began
    p50, p99 = 1e3 * np.quantile(took, [0.5, 0.99])
    return {
        "nodes": n_nodes, "widths": f"{widths[0]}+{widths[1]}", "look-ahead": lookahead, "p50 ms": float(p50),
        "p99 ms": float(p99), "p99 CPU ms": float(1e3 * np.quantile(busy, 0.99)), "begin ms": begin_ms,
        "prepare s": prepare_s,
    }  # fmt: skip


def latencies() -> list[Row]:
    return [
        latency(n_nodes, lookahead, widths, n_steps=2000 if lookahead <= 2 else 100)
        for n_nodes in (1_000, 27_000)
        for lookahead in SEARCH_NODES
        for widths in ((144, 0), (256, 48))
    ]


@dataclass(frozen=True, eq=False)
class Case:
    """A character, a speech, and the best path offline. hurried: rows by look-ahead of the features, None: whole."""

    character: str
    speech: str
    graph: MotionGraph
    retrieval: Retrieval
    rest: np.ndarray
    hurried: dict[int | None, SpeechSteps]
    costs: np.ndarray
    best: np.ndarray

    @property
    def options(self) -> CostOptions:
        return CostOptions(similarity_weight=self.retrieval.embedding.weight)

    def prepared(self, options: OnlineOptions) -> OnlineGraph:
        return OnlineGraph(
            self.graph, self.retrieval.motion, self.rest, SearchOptions(), self.options, VarietyOptions(), options
        )


def cases(packs: Sequence[Path], speeches: Sequence[Path]) -> Iterator[Case]:
    sounds = {path.stem: read_audio(path) for path in speeches}
    for path in packs:
        pack = CharacterPack.open(path)
        retrieval, rest = open_retrieval(pack), np.array(pack["rest"])
        for name, samples in {**sounds, "own": pack.recording.samples}.items():
            rows = {
                e: speech_steps(retrieval.embedding if e is None else retrieval.embedding.with_lookahead(e), samples)
                for e in FEATURE_FRAMES
            }
            for offset in OFFSETS:
                hurried = {e: steps[offset:] for e, steps in rows.items()}
                options = CostOptions(similarity_weight=retrieval.embedding.weight)
                costs = node_costs(hurried[None], retrieval.motion, rest, options)
                best = _best(costs, pack.graph, rest)
                yield Case(path.stem, name, pack.graph, retrieval, rest, hurried, costs, best)


def _best(costs: np.ndarray, graph: MotionGraph, rest: np.ndarray) -> np.ndarray:
    return varied_path(lambda: iter([costs.copy()]), graph, rest).nodes


def walked(prepared: OnlineGraph, steps: SpeechSteps) -> np.ndarray:
    """int32 (T,): the nodes of an online search."""
    search, reach = OnlineSearch(prepared), prepared.options.lookahead_nodes + 1
    nodes = [search.begin(steps[:reach])]
    nodes += [search.advance(steps[t : t + reach]).node for t in range(len(steps) - 1)]
    return np.array(nodes, np.int32)


def measured(case: Case, nodes: np.ndarray) -> dict[str, float]:
    """A path under the costs of the whole speech: cost a step with repetitions, and what it is made of."""
    along, steps = np.arange(len(nodes)), case.hurried[None]
    edges = _edges(case.graph)
    taken = [edges[pair] for pair in pairwise(nodes.tolist())]
    squares = [distance**2 for _, is_cut, distance in taken if is_cut]
    repeated = repetition_costs(nodes, case.rest, VarietyOptions())[along, nodes]
    low = (case.retrieval.motion.low[nodes] * steps.low).sum(axis=1)
    high = (case.retrieval.motion.high[nodes] * steps.high).sum(axis=1)
    silent = steps.speaking < 0.5
    away = case.rest[nodes]
    price = sum(cost for cost, _, _ in taken)
    return {
        "cost": float((case.costs[along, nodes].sum(dtype=np.float64) + price + repeated.sum()) / len(nodes)),
        "similarity": float((low + high).mean()),
        "cuts a second": len(squares) / (len(nodes) * NODE_S),
        "squared distance": float(np.mean(squares)) if squares else float("nan"),
        "repetition": float(repeated.mean()),
        "from rest, silent": float(away[silent].mean()) if silent.any() else float("nan"),
        "from rest, speaking": float(away[~silent].mean()) if (~silent).any() else float("nan"),
        "level r": _correlation(case.retrieval.motion.level[nodes], steps.level),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def _edges(graph: MotionGraph) -> dict[tuple[int, int], tuple[float, bool, float]]:
    """(i, j) -> price, whether it is a cut, distance."""
    columns = (graph.sources, graph.indices, cut_costs(graph, SearchOptions()), graph.kind, graph.distance)
    return {
        (i, j): (c, k != CONTINUE, d) for i, j, c, k, d in zip(*(column.tolist() for column in columns), strict=True)
    }


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def total_ms(lookahead: int, features: int) -> float:
    """What a step waits for beyond its own sound: analysis, features, and search."""
    return 1e3 * (LOOKAHEAD_SAMPLES / SAMPLE_RATE + (features + FRAMES_PER_NODE * lookahead) / FPS)


def regret(found: Sequence[Case], lookahead: int, features: int | None, options: OnlineOptions | None = None) -> Row:
    """Means over cases of one look-ahead of search and features."""
    options = replace(options or OnlineOptions(), lookahead_nodes=lookahead)
    rows, best = [], []
    for case in found:
        rows.append(measured(case, walked(case.prepared(options), case.hurried[features])))
        best.append(measured(case, case.best))
    mean, wanted = _mean(rows), _mean(best)
    total = float("inf") if features is None else total_ms(lookahead, features)
    head: Row = {"nodes": lookahead, "frames": "whole" if features is None else features, "total ms": total}
    return {**head, "regret": mean.pop("cost") - wanted["cost"], **mean}


def offline(found: Sequence[Case]) -> Row:
    mean = _mean([measured(case, case.best) for case in found])
    cost = mean.pop("cost")
    return {"nodes": "all", "frames": "whole", "total ms": float("inf"), "regret": 0.0, **mean, "cost": cost}


def regret_curve(found: Sequence[Case]) -> list[Row]:
    """By look-ahead of search and features; the last row is the path to compare with."""
    rows = [regret(found, lookahead, features) for lookahead in SEARCH_NODES for features in FEATURE_FRAMES]
    best = offline(found)
    best.pop("cost")
    return [*rows, best]


def by_character(found: Sequence[Case], lookahead: int, features: int) -> list[Row]:
    """Characters apart, other people's voices and their own: online and offline."""
    rows: list[Row] = []
    for character in dict.fromkeys(case.character for case in found):
        for own in (False, True):
            chosen = [case for case in found if case.character == character and (case.speech == "own") == own]
            online, best = regret(chosen, lookahead, features), offline(chosen)
            rows.append(
                {
                    "character": character, "voice": "own" if own else "others'", "regret": online["regret"],
                    "cost offline": best["cost"], "similarity": online["similarity"],
                    "offline ": best["similarity"], "cuts a second": online["cuts a second"],
                    "offline": best["cuts a second"],
                }
            )  # fmt: skip
    return rows


def idling(found: Sequence[Case], lookahead: int = 1) -> list[Row]:
    """A minute of silence, and how soon a speaker comes to rest after the last word."""
    rows: list[Row] = []
    for character in dict.fromkeys(case.character for case in found):
        chosen = [case for case in found if case.character == character]
        case = chosen[0]
        prepared, quiet = case.prepared(OnlineOptions(lookahead_nodes=lookahead)), resting(9, case.retrieval.motion)
        search = OnlineSearch(prepared)
        nodes = [search.begin_at_rest()]
        nodes += [search.advance(quiet).node for _ in range(round(IDLE_S / NODE_S))]
        edges = _edges(case.graph)
        cuts = [edges[pair][2] for pair in pairwise(nodes) if edges[pair][1]]
        rows.append(
            {
                "character": character, "from rest": float(case.rest[nodes].mean()),
                "least": float(case.rest.min()), "cuts a second": len(cuts) / IDLE_S,
                "largest distance": max(cuts, default=0.0),
                **{f"seen {s} s ago": _returns(nodes, round(s / NODE_S)) for s in (1, 2, 5)},
                "s to rest": float(np.mean([_seconds_to_rest(one, lookahead) for one in chosen])),
            }
        )  # fmt: skip
    return rows


def _returns(nodes: Sequence[int], within: int) -> float:
    """Share of nodes that were shown in the last so many steps."""
    return float(np.mean([nodes[t] in nodes[max(0, t - within) : t] for t in range(1, len(nodes))]))


def _seconds_to_rest(case: Case, lookahead: int) -> float:
    steps = case.hurried[4]
    silence = resting(round(8 / NODE_S), case.retrieval.motion)
    nodes = walked(case.prepared(OnlineOptions(lookahead_nodes=lookahead)), steps + silence)[len(steps) :]
    at_rest = np.flatnonzero(case.rest[nodes] <= max(SETTLED, np.quantile(case.rest, 0.1)))
    return float((at_rest[0] if len(at_rest) else len(nodes)) * NODE_S)


def planned_ahead(found: Sequence[Case], lookahead: int = 1, features: int = 4) -> list[Row]:
    """Share of the cuts taken that the plans of 1, 2 and 3 steps before had in them, and of planned cuts taken."""
    known, n_cuts, n_planned, n_kept = np.zeros(3), 0, 0, 0
    for case in found:
        search, steps = OnlineSearch(case.prepared(OnlineOptions(lookahead_nodes=lookahead))), case.hurried[features]
        plans: list[set[tuple[int, int]]] = []
        node = search.begin(steps[: lookahead + 1])
        for t in range(len(steps) - 1):
            decision = search.advance(steps[t : t + lookahead + 1])
            if decision.cut:
                n_cuts += 1
                known += [len(plans) > k and (node, decision.node) in plans[-1 - k] for k in range(3)]
            n_kept += decision.cut and bool(plans) and (node, decision.node) in plans[-1]
            n_planned += bool(plans) and any(i == node for i, _ in plans[-1])
            plans.append(set(decision.planned))
            node = decision.node
    shares = known / max(n_cuts, 1)
    return [
        {
            "1 step before": float(shares[0]), "2 steps": float(shares[1]), "3 steps": float(shares[2]),
            "planned for the next step and taken": n_kept / max(n_planned, 1),
        }
    ]  # fmt: skip


def tables(packs: Sequence[Path], speeches: Sequence[Path]) -> dict[str, list[Row]]:
    """Everything that needs real characters."""
    found = list(cases(packs, speeches))
    others = [case for case in found if case.speech != "own"]
    return {
        "Regret a step by look-ahead, other people's voices": regret_curve(others),
        "Characters, 1 node and features of 4 frames": by_character(found, 1, 4),
        "Idle for a minute": idling(others),
        "Cuts known ahead": planned_ahead(others),
    }


def markdown(title: str, rows: Sequence[Row]) -> list[str]:
    lines = [f"### {title}", "", "| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return [*lines, *("| " + " | ".join(map(_cell, row.values())) + " |" for row in rows), ""]


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if not np.isfinite(value) else f"{value:.0f}" if value >= 100 else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--packs", nargs="*", type=Path, default=[], help="character packs")
    parser.add_argument("--speech", nargs="*", type=Path, default=[], help="speech of other people")
    asked = parser.parse_args()
    results: dict[str, list[Row]] = {"Seconds a node": latencies()}
    if asked.packs:
        results |= tables(asked.packs, asked.speech)
    if asked.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{platform.machine()}, {usable_cores()} CPUs, numba {numba.__version__}, numpy {np.__version__}\n")
    for title, rows in results.items():
        print("\n".join(markdown(title, rows)))


if __name__ == "__main__":
    main()

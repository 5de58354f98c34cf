"""What the price of hands and the drawn set do to paths: gaps at cuts, variety, gestures, cost.

    python -m benchmarks.bench_live_cuts CHARACTER.tango ... --speech SPEECH ... [--json]

Each character performs each speech five ways: rendered, and live with a look-ahead of 2 nodes; with and without the
price of hand gaps; live also on its drawn set. `cost` is that of the path with everything heard, a step: nodes and cuts
as the exact search prices them, hand gaps apart.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bench_online import Row, markdown  # noqa: E402
from engine.character.pack import CharacterPack  # noqa: E402
from engine.character.perform import PerformOptions, weigh_similarities  # noqa: E402
from engine.character.retrieval import Retrieval, open_retrieval  # noqa: E402
from engine.character.steps import speech_steps  # noqa: E402
from engine.motion_graph.costs import CostOptions, node_costs  # noqa: E402
from engine.motion_graph.graph import CONTINUE, Cut  # noqa: E402
from engine.motion_graph.hands import hand_gaps  # noqa: E402
from engine.motion_graph.search import SearchOptions, cut_costs  # noqa: E402
from engine.timebase import FPS, FRAMES_PER_NODE  # noqa: E402
from tango_rt.characters.inspect import LARGE_HAND_GAP  # noqa: E402
from tango_rt.pipeline.character import Character, character_from_pack  # noqa: E402
from tango_rt.pipeline.live import LiveOptions  # noqa: E402
from tango_rt.pipeline.render import perform_speech  # noqa: E402
from tango_rt.sound.audio import read_audio  # noqa: E402

FREE = SearchOptions(hand_gap_weight=0.0)
WAYS = {
    "render, hands free": (LiveOptions(None, False), FREE),
    "render": (LiveOptions(None, False), SearchOptions()),
    "live, hands free": (LiveOptions(2, False), FREE),
    "live, all cuts": (LiveOptions(2, False), SearchOptions()),
    "live, drawn": (LiveOptions(2, False, drawn_only=True), SearchOptions()),
}


@dataclass(frozen=True)
class Known:
    """What paths of a character are judged by."""

    character: Character
    retrieval: Retrieval
    gaps: dict[Cut, float]  # of all cuts, in shoulder widths
    prices: dict[Cut, float]  # without hands


@dataclass(frozen=True)
class Performed:
    """One speech."""

    nodes: np.ndarray  # int32 (T,)
    gaps: list[float]  # of its cuts
    cost: float  # of the whole path
    similarity: float  # summed


def known(pack: CharacterPack) -> Known:
    graph = pack.graph
    cut = graph.kind != CONTINUE
    cuts = list(zip(graph.sources[cut].tolist(), graph.indices[cut].tolist(), strict=True))
    gaps = hand_gaps(graph, np.asarray(pack["joints"]), pack.info.shoulder_px)[cut]
    prices = cut_costs(replace(graph, hand_gap=None), SearchOptions())[cut]
    return Known(
        character_from_pack(pack),
        open_retrieval(pack),
        dict(zip(cuts, gaps.tolist(), strict=True)),
        dict(zip(cuts, prices.tolist(), strict=True)),
    )


def perform(one: Known, samples: np.ndarray, live: LiveOptions, weights: SearchOptions) -> Performed:
    pack, embedding = one.character.pack, one.retrieval.embedding
    steps = speech_steps(embedding, samples)
    prices = node_costs(steps, one.retrieval.motion, pack["rest"], weigh_similarities(CostOptions(), embedding))
    _, found = perform_speech(one.character, samples, replace(live, perform=PerformOptions(weights=weights)))
    nodes = found.nodes
    cuts = [(int(nodes[t]), int(nodes[t + 1])) for t in found.cuts]
    cost = float(prices[np.arange(len(nodes)), nodes].sum()) + sum(one.prices[cut] for cut in cuts)
    return Performed(
        nodes, [one.gaps[cut] for cut in cuts], cost, float((one.retrieval.motion.low[nodes] * steps.low).sum())
    )


def rows(packs: Sequence[Path], speeches: Sequence[Path]) -> Iterator[Row]:
    sounds = [read_audio(speech) for speech in speeches]
    for path in packs:
        one = known(CharacterPack.open(path))
        level = np.asarray(one.character.pack["motion_level"])
        for way, (live, weights) in WAYS.items():
            paths = [perform(one, samples, live, weights) for samples in sounds]
            n_steps, gaps = sum(len(path.nodes) for path in paths), np.concatenate([path.gaps for path in paths])
            yield {
                "character": path.stem,
                "way": way,
                "cuts a minute": len(gaps) / n_steps * 60 * FPS / FRAMES_PER_NODE,
                "% gap > 0.2": 100 * float(np.mean(gaps > SearchOptions().free_hand_gap)),
                "% gap > 0.3": 100 * float(np.mean(gaps > LARGE_HAND_GAP)),
                "distinct": float(np.mean([len(set(path.nodes.tolist())) / len(path.nodes) for path in paths])),
                "motion level": float(np.mean(np.concatenate([level[path.nodes] for path in paths]))),
                "cost a step": sum(path.cost for path in paths) / n_steps,
                "similarity": sum(path.similarity for path in paths) / n_steps,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="+", type=Path, metavar="CHARACTER.tango")
    parser.add_argument("--speech", nargs="+", type=Path, required=True, help="speech of other people")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args()
    found = list(rows(asked.packs, asked.speech))
    print(json.dumps(found) if asked.json else "\n".join(markdown("Hands at cuts", found)))


if __name__ == "__main__":
    main()

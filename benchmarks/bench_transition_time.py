"""How long does a transition of a character take, and where does the time go?

    python -m benchmarks.bench_transition_time CHARACTER.tango [...] [--blender flow] [--cuts 10] [--json]

Milliseconds of one core, decoding and encoding included, the mean over random cuts with real frames on both sides: the
least of three runs of the whole, the least of three of its first half alone, and the stages of a profiled run.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from cProfile import Profile
from pathlib import Path
from pstats import Stats
from typing import Any

import cv2
import numpy as np

from engine.blending.blender import DEFAULT_BLENDER, Blender, open_blender
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import Cut
from tango_rt.console import aligned
from tango_rt.pipeline.transitions import TransitionMaker

__all__ = ["STAGES", "measure_pack", "random_cuts"]

STAGES = {
    "decode": ("decode", "decode_i420"),
    "box, reduce": ("work_grid", "reduce"),
    "flow": ("measure",),
    "correspondence": ("flow_pair", "carry", "_placed"),
    "render": ("render", "fade"),
    "encode": ("encode", "encode_i420"),
}
"""Stage -> the functions of this project that it consists of; none calls another."""
_RUNS = 3


def random_cuts(pack: CharacterPack, count: int) -> list[Cut]:
    """Cuts of the graph that both clips run on beyond; the same every time."""
    graph = pack.graph
    sources = np.repeat(np.arange(len(graph.indptr) - 1), np.diff(graph.indptr))
    ends = zip(sources.tolist(), graph.indices.tolist(), graph.kind.tolist(), strict=True)
    cuts = [(i, j) for i, j, kind in ends if kind == 1 and graph.has_sync(i, j)]
    return [cuts[k] for k in np.random.default_rng(0).permutation(len(cuts))[:count]]


def measure_pack(pack: CharacterPack, blender: Blender, n_cuts: int) -> dict[str, float]:
    """Means over the cuts: "whole", "first half" and the stages in ms, "bytes" of the packets."""
    maker = TransitionMaker(pack, blender)
    rows: list[dict[str, float]] = []
    for cut in random_cuts(pack, n_cuts):
        packets = maker.make(cut)  # compiles
        row = {
            "whole": min(_ms(lambda cut=cut: maker.make(cut)) for _ in range(_RUNS)),
            "first half": min(_ms(lambda cut=cut: next(maker.halves(cut))) for _ in range(_RUNS)),
            **_stages(lambda cut=cut: maker.make(cut)),
            "bytes": float(sum(map(len, packets))),
        }
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _ms(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - start)


def _stages(work: Callable[[], object]) -> dict[str, float]:
    profile = Profile(time.thread_time)
    profile.runcall(work)
    seconds = dict.fromkeys(STAGES, 0.0)
    found: dict[tuple[str, int, str], Any] = Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, function), (_, _, _, cumulative, _) in found.items():
        ours = {"tango_rt", "engine"} & set(Path(file).parts)
        for stage, functions in STAGES.items():
            if ours and function in functions:
                seconds[stage] += cumulative
    return {stage: 1e3 * value for stage, value in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="+", type=Path, metavar="CHARACTER")
    parser.add_argument("--blender", default=DEFAULT_BLENDER)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    results = {}
    for path in options.packs:
        pack = CharacterPack.open(path)
        size = f"{pack.info.width}x{pack.info.height}"
        results[f"{pack.info.name} {size}"] = measure_pack(pack, open_blender(options.blender), options.cuts)
    if options.json:
        print(json.dumps(results))
        return
    names = dict.fromkeys(name for figures in results.values() for name in figures)
    lines = [(name, *(f"{figures[name]:.0f}" for figures in results.values())) for name in names]
    print(*aligned(lines, ("ms a transition", *results)), sep="\n")


if __name__ == "__main__":
    main()

"""A synthetic pack as large as that of an hour of video."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.character.arrays import ARRAYS
from engine.character.embeddings import write_embedding
from engine.character.info import Clip
from engine.character.pack import make_recording
from engine.character.writer import PackWriter
from engine.features.onset import OnsetEmbedding
from engine.motion_graph.graph import CONTINUE, CUT
from engine.timebase import FRAMES_PER_NODE, frame_start
from tango_rt.server.warm import blank_pack

__all__ = ["hour_pack"]

_EDGES = 48
_OF_FRAMES = [name for name, (_, shape) in ARRAYS.items() if shape[0] == "F"]


def hour_pack(folder: Path, n_nodes: int) -> Path:
    """One clip in which a grey picture does not move; from every node on to the next and to 47 others."""
    blank = blank_pack(folder / "blank.tango")
    rng = np.random.default_rng(0)
    n_frames = n_nodes * FRAMES_PER_NODE
    arrays = {name: np.resize(blank[name], (n_frames, *blank[name].shape[1:])) for name in _OF_FRAMES}
    arrays |= {name: np.resize(blank[name], n_nodes) for name in ("motion_level", "rest")}
    arrays["audio"] = rng.integers(-1000, 1000, frame_start(n_frames)).astype(np.int16)
    arrays["clip_start"] = np.array([0, n_nodes])
    # ascending and not the node behind it: that is the edge to continue by
    steps = np.sort(rng.integers(2, n_nodes, (n_nodes, _EDGES + 12)), axis=1)
    nodes = np.arange(n_nodes)
    rows = [np.unique((node + row) % n_nodes)[: _EDGES - 1] for node, row in zip(nodes, steps, strict=True)]
    rows = [np.union1d(row, node + 1) if node + 1 < n_nodes else row for node, row in zip(nodes, rows, strict=True)]
    indices = np.concatenate(rows)
    of_node = np.repeat(nodes, [len(row) for row in rows])
    cuts = indices != of_node + 1
    arrays |= {
        "graph_indptr": np.cumsum([0, *map(len, rows)]),
        "graph_indices": indices.astype(np.int32),
        "graph_kind": np.where(cuts, CUT, CONTINUE).astype(np.uint8),
        "graph_distance": np.where(cuts, rng.random(len(indices)), 0).astype(np.float32),
        "graph_kept": np.ones(n_nodes, bool),
    }
    with PackWriter(folder / "hour.tango") as writer:
        group = blank.packets(0)
        for _ in range(n_nodes):
            writer.add_packets(group)
        info = replace(
            blank.info,
            name="hour",
            n_frames=n_frames,
            clips=(Clip(0, 0, n_frames),),
            sources=(replace(blank.info.sources[0], n_frames=n_frames),),
        )
        write_embedding(writer.folder, OnsetEmbedding(), make_recording("hour", arrays, info.shoulder_px), {})
        writer.commit(info, arrays)
    shutil.rmtree(blank.path)
    return folder / "hour.tango"

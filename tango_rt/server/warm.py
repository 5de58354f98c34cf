"""Before the first session: calls everything that sessions call once, so that none waits for a compiler."""

import logging
import time
from pathlib import Path

import numpy as np

from engine.blending.blender import DEFAULT_BLENDER, open_blender
from engine.character.embeddings import write_embedding
from engine.character.info import Clip, PackInfo, Source
from engine.character.pack import CharacterPack, make_recording
from engine.character.perform import PerformOptions
from engine.character.retrieval import RetrievalOptions
from engine.character.writer import PackWriter
from engine.errors import InputError
from engine.features.appearance import N_CELLS
from engine.features.onset import OnsetEmbedding
from engine.folders import HELPER, temporary_root
from engine.inference.networks import Networks
from engine.leftovers import scratch_folder, sweep
from engine.motion_graph.connect import MIN_DWELL
from engine.motion_graph.graph import CONTINUE, CUT
from engine.skeleton import N_JOINTS
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_start
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.character import Character, character_from_pack
from tango_rt.pipeline.live import LiveOptions, Step
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.server.config import ServerConfig
from tango_rt.sound.resample import MAX_RATE_HZ, Resampler
from tango_rt.video.gop import GopEncoder

__all__ = ["blank_pack", "clear_leftovers", "prepare", "rehearse"]

_log = logging.getLogger(__name__)

_SCRATCH = "tango-rt-blank-"
_N_NODES = 16
_WIDTH, _HEIGHT = 96, 64
_SHOULDER_PX = 20.0


def clear_leftovers(characters: Path) -> None:
    """Remove what killed servers and builds have left behind, next to the packs and among temporary files."""
    places = [(characters, HELPER)]
    if (root := temporary_root()) is not None:
        places.append((root, _SCRATCH))
    removed = [str(folder) for place, prefix in places for folder in sweep(place, prefix)]
    if removed:
        _log.info("left-overs removed", extra={"folders": removed})


def rehearse(pool: TransitionPool, n_workers: int) -> None:
    """Perform and draw a grey character: compiles every kernel, in this process and in those of the pool."""
    started = time.monotonic()
    try:
        with scratch_folder(_SCRATCH, temporary_root()) as folder:
            character = character_from_pack(blank_pack(folder / "blank.tango"))
            blender = open_blender(DEFAULT_BLENDER)
            source = PictureSource(character.pack, blender, pool)
            cuts = [(first, first + _N_NODES // 2) for first in range(min(n_workers, _N_NODES // 2))]
            for cut in cuts:  # one for each worker, at the same time
                pool.request(pool.store(character.pack, blender), cut)
            _perform(character, LiveOptions())
            Resampler(MAX_RATE_HZ).push(np.zeros(MAX_RATE_HZ, np.float32))
            for node, target in cuts:
                source.draw(Step(node=node, cut_to=target))
                source.draw(Step(node=target, cut_from=node))
    except (InputError, OSError) as error:  # no writable folder: the first sessions will wait a little instead
        _log.warning("kernels are not compiled ahead", extra={"error": str(error)})
        return
    _log.info("kernels compiled", extra={"duration_s": time.monotonic() - started})


def prepare(character: Character, config: ServerConfig, networks: Networks | None = None) -> None:
    """Open what sessions share and perform some sound with the character, unseen.

    Raises InputError or ArtifactError if it cannot be performed with the default options of sessions.
    """
    performed = PerformOptions(RetrievalOptions(networks=networks))
    _perform(character, LiveOptions(config.lookahead_nodes, drawn_only=True, perform=performed, adaptive=True))


def _perform(character: Character, options: LiveOptions) -> None:
    live = character.performer(options)
    live.idle()
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    live.push(noise, "warm-up")
    live.flush()
    while live.next() is not None:
        pass


def blank_pack(path: Path) -> CharacterPack:
    """A pack of a few seconds of a still, grey picture. Raises InputError if it cannot be written."""
    n_frames = _N_NODES * FRAMES_PER_NODE
    clip_start = np.array([0, _N_NODES])
    arrays = {
        "clip_start": clip_start,
        "audio": np.random.default_rng(0).integers(-1000, 1000, frame_start(n_frames)).astype(np.int16),
        "joints": np.full((n_frames, N_JOINTS, 3), 30, np.float32),
        "confidence": np.ones((n_frames, N_JOINTS), np.float32),
        "valid": np.ones(n_frames, bool),
        "hands_found": np.ones((n_frames, 2), bool),
        "hand_boxes": np.zeros((n_frames, 2, 4), np.float32),
        "surface": np.zeros((n_frames, 96), np.uint64),
        "appearance": np.zeros((n_frames, N_CELLS, 3), np.uint8),
        "mouth": np.zeros((n_frames, 2), np.float32),
        "motion": np.zeros((n_frames, N_JOINTS, 15), np.float32),
        "motion_level": np.linspace(0, 1, _N_NODES, dtype=np.float32),
        "rest": np.zeros(_N_NODES, np.float32),
        **_edges(),
    }
    encoder = GopEncoder(_WIDTH, _HEIGHT)
    rng = np.random.default_rng(0)
    with PackWriter(path) as writer:
        for _ in range(_N_NODES):
            grey = rng.integers(100, 110, (FRAMES_PER_NODE, _HEIGHT, _WIDTH, 3)).astype(np.uint8)
            writer.add_packets(encoder.encode(grey))
        info = PackInfo(
            name=path.stem,
            width=_WIDTH,
            height=_HEIGHT,
            n_frames=n_frames,
            shoulder_px=_SHOULDER_PX,
            sources=(Source("grey", "0" * 64, n_frames),),
            clips=(Clip(0, 0, n_frames),),
            extradata=encoder.extradata,
        )
        write_embedding(writer.folder, OnsetEmbedding(), make_recording(path.stem, arrays, _SHOULDER_PX), {})
        writer.commit(info, arrays)
    return CharacterPack.open(path)


def _edges() -> dict[str, np.ndarray]:
    """From every node an edge to the next, and to a distant one with enough nodes after it to cut again."""
    half, last = _N_NODES // 2, _N_NODES - MIN_DWELL
    targets: list[list[tuple[int, int, float]]] = [
        [*([(node + 1, CONTINUE, 0.0)] if node + 1 < _N_NODES else []), ((node + half) % (last + 1), CUT, 0.1)]
        for node in range(_N_NODES)
    ]
    edges = [edge for of_node in targets for edge in sorted(of_node)]
    return {
        "graph_indptr": np.cumsum([0, *(len(of_node) for of_node in targets)]),
        "graph_indices": np.array([edge[0] for edge in edges], np.int32),
        "graph_kind": np.array([edge[1] for edge in edges], np.uint8),
        "graph_distance": np.array([edge[2] for edge in edges], np.float32),
        "graph_kept": np.ones(_N_NODES, bool),
    }

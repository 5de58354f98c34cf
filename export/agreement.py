"""The visible effects of another precision: whether the same gestures are retrieved, how much frames differ."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.blending.acinterp import FRAMES, GIVEN, PX_PER_LATENT, GraphRunner, Interpolator, background_flow
from engine.blending.denoise import DenoiseOptions
from engine.character.embeddings import read_embedding, stored_names
from engine.character.pack import CharacterPack
from engine.character.steps import node_rows, speech_steps
from engine.errors import InputError
from engine.features.embedding import Embedding
from engine.features.learned import learned_embedding
from engine.inference.manifest import Bundle
from engine.inference.networks import Networks
from engine.inference.report import PathAgreement, TransitionAgreement
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs
from engine.motion_graph.variety import varied_path
from engine.timebase import SAMPLE_RATE
from export.recordings import read_wav

__all__ = [
    "MIN_PSNR_DB",
    "MIN_SHARE",
    "path_agreement",
    "psnr_db",
    "retrieved_nodes",
    "transition_agreement",
    "transition_frames",
]

MIN_SHARE = 0.99  # of the nodes of a path
MIN_PSNR_DB = 35.0  # of the frames of a transition
MAX_PSNR_DB = 120.0  # reported for equal frames

# Few, for speed on a CPU, and the harder test: with made-up weights of small width, openvino in bf16 reaches 33.1 to
# 34.4 dB at 4 steps and 37.1 to 38.6 at the 20 of a render (5 seeds). Guidance amplifies the rounding of its halves.
_STEPS = 4
_BLOCK_STEPS = 256  # of costs at once
_SEED = 20
_MIN_SECONDS = 2


def path_agreement(reference: Networks, networks: Networks, character: Path, speech: Path) -> PathAgreement:
    """Retrieve a path for a speech twice, with the reference and with other networks of the same bundle.

    Graph, costs and the character's motion features are the same. Raises InputError if the character or the speech
    cannot be used, ArtifactError for a damaged pack.
    """
    expected, got = learned_embedding(reference), learned_embedding(networks)
    pack = CharacterPack.open(character)
    samples = read_wav(speech)
    if len(samples) < _MIN_SECONDS * SAMPLE_RATE:
        raise InputError(f"{speech} has {len(samples) / SAMPLE_RATE:.1f} s of speech, wanted at least {_MIN_SECONDS}")
    motion = _motion(pack, expected)
    paths = [retrieved_nodes(pack, motion, embedding, samples) for embedding in (expected, got)]
    share = float(np.mean(paths[0] == paths[1]))
    return PathAgreement(share, MIN_SHARE, len(paths[0]), pack.path.name, speech.name)


def retrieved_nodes(
    pack: CharacterPack, motion: MotionVectors, embedding: Embedding, samples: np.ndarray
) -> np.ndarray:
    """The path of a render without words and seed: int32 (T,)."""
    steps = speech_steps(embedding, samples)
    costs = replace(CostOptions(), similarity_weight=CostOptions().similarity_weight * embedding.weight)
    return varied_path(lambda: _cost_blocks(pack, motion, steps, costs), pack.graph, pack["rest"]).nodes


def transition_frames(networks: GraphRunner, bundle: Bundle, profile: str) -> np.ndarray:
    """Frames between two made-up clips at the usual size of a profile of `acinterp`, uint8 (8, height, width, 3).

    The noise is the same every time.
    """
    sizes = bundle.graph("denoiser").profiles[profile]
    height_px, width_px = (sizes[symbol][1] * PX_PER_LATENT for symbol in ("height", "width"))
    interpolator = Interpolator(networks, height_px, width_px, DenoiseOptions(steps=_STEPS))
    clips = [[_waves(height_px, width_px, 40 * end + frame) for frame in range(GIVEN)] for end in range(2)]
    poses = [_waves(height_px, width_px, 100 + frame) for frame in range(FRAMES)]
    homographies = np.tile(np.eye(3), (FRAMES, 1, 1))
    homographies[:, 0, 2] = np.arange(FRAMES)  # the background moves by a pixel a frame
    features = interpolator.features(poses, background_flow(homographies, height_px, width_px))
    start, end = (interpolator.latents(clip) for clip in clips)
    reference = interpolator.reference(clips[0][0])
    return interpolator.interpolate(reference, start, end, features, _SEED)


def transition_agreement(expected: np.ndarray, got: np.ndarray) -> TransitionAgreement:
    """How well two runs of `transition_frames` agree."""
    _, height_px, width_px, _ = expected.shape
    return TransitionAgreement(psnr_db(expected, got), MIN_PSNR_DB, _STEPS, width_px, height_px)


def psnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    """PSNR of pictures, uint8 of any shape; 120 if they are equal."""
    error = float(np.mean((expected.astype(np.float64) - got.astype(np.float64)) ** 2))
    return min(MAX_PSNR_DB, 10 * float(np.log10(255**2 / error))) if error else MAX_PSNR_DB


def _motion(pack: CharacterPack, embedding: Embedding) -> MotionVectors:
    """Motion features of a character: those in the pack if they are from these networks, else recomputed."""
    level = np.asarray(pack["motion_level"])
    if embedding.name in stored_names(pack.path):
        stored = read_embedding(pack, embedding.name)
        if stored.sha256 == embedding.sha256:
            return MotionVectors(np.asarray(stored.low), np.asarray(stored.high), level)
    features = embedding.motion(pack.recording)
    return MotionVectors(node_rows(features.low), node_rows(features.high), level)


def _cost_blocks(
    pack: CharacterPack, motion: MotionVectors, steps: SpeechSteps, options: CostOptions
) -> Iterator[np.ndarray]:
    for start in range(0, len(steps), _BLOCK_STEPS):
        yield node_costs(steps[start : start + _BLOCK_STEPS], motion, pack["rest"], options)


def _waves(height_px: int, width_px: int, seed: int) -> np.ndarray:
    """A smooth picture, uint8 (H, W, 3): waves of random direction, one per colour."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height_px, :width_px] / max(height_px, width_px)
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(-12, 12, (3, 3))]
    return np.asarray(127.5 + 127 * np.stack(waves, axis=-1)).astype(np.uint8)

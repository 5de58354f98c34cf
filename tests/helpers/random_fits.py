"""Embeddings of random numbers, of the shapes that a fit makes."""

from itertools import pairwise

import numpy as np

from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS
from engine.features.embedding import Embedding, Features
from engine.features.fit import LOOKAHEADS
from engine.features.fitted import FittedEmbedding
from engine.features.linear import LinearEmbedding, bin_offsets
from engine.features.onset import OnsetEmbedding

NO_SAMPLES = np.empty(0, np.float32)
HALF = 12
WIDTH = 5


def linear_of(seed: int = 0, half: int = HALF, mouth: bool = False, lookahead: int | None = None) -> LinearEmbedding:
    """Random projections of the shapes that a fit makes."""
    rng = np.random.default_rng(seed)
    offsets = bin_offsets(half)
    waits = {*(frames for frames in LOOKAHEADS if frames < half), half + 1}
    heard = {wait: 3 * int((offsets + 1 <= wait).sum()) for wait in waits}
    n_body = len(offsets) * (len(BODY_COLUMNS) + len(MOUTH_COLUMNS) * mouth)
    return LinearEmbedding(
        half_frames=half,
        speech={wait: rng.normal(0, 0.3, (n, WIDTH)).astype(np.float32) for wait, n in heard.items()},
        body=rng.normal(0, 0.3, (n_body, WIDTH)).astype(np.float32),
        speech_mean=rng.normal(0, 1, 3).astype(np.float32),
        speech_size=2.0,
        body_size=0.5,
        mouth=mouth,
        lookahead_frames=half + 1 if lookahead is None else lookahead,
    )


def fitted_of(seed: int = 0) -> FittedEmbedding:
    return FittedEmbedding((linear_of(seed), linear_of(seed + 1, 20)), OnsetEmbedding(31))


def heard(embedding: Embedding, rows: np.ndarray, ends: list[int] | None = None) -> Features:
    listener = embedding.listen()
    cuts = [0, *sorted(min(end, len(rows)) for end in ends or []), len(rows)]
    parts = [*(listener.push(NO_SAMPLES, rows[a:b]) for a, b in pairwise(cuts)), listener.flush()]
    return Features(*(np.concatenate(part) for part in zip(*parts, strict=True)))

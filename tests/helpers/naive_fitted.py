"""Slow, obvious versions of what engine.features.linear and engine.features.scores compute."""

import numpy as np

from engine.features.linear import AUDIO_COLUMNS, LinearEmbedding
from engine.features.speech import LOUDNESS, NOVELTY, PITCH


def shortened(vector: np.ndarray, usual_square: float) -> np.ndarray:
    """Norm 1 for a vector much longer than usual ones are, less for short ones."""
    return np.asarray(vector / np.sqrt((vector**2).sum() + 0.1 * usual_square))


def context(values: np.ndarray, frame: int, half: int, n_bins: int | None = None) -> np.ndarray:
    """Means over 4 frames at -half, -half + 4 .. of values (F, C), flat; zero outside."""
    bins = []
    for offset in range(-half, half + 1, 4)[:n_bins]:
        frames = range(frame + offset - 2, frame + offset + 2)
        known = [values[f] if 0 <= f < len(values) else np.zeros(values.shape[1]) for f in frames]
        bins.append(np.mean(known, axis=0))
    return np.concatenate(bins) if bins else np.empty(0)


def linear_speech(embedding: LinearEmbedding, rows: np.ndarray, frame: int) -> np.ndarray:
    """The feature of one frame of speech, all rows at hand."""
    assert AUDIO_COLUMNS == (LOUDNESS, NOVELTY, PITCH)
    values = rows[:, [LOUDNESS, NOVELTY, PITCH]].astype(np.float64) - embedding.speech_mean
    projection = embedding.speech[embedding.lookahead_frames]
    return shortened(
        context(values, frame, embedding.half_frames, len(projection) // 3) @ projection, embedding.speech_size
    )


def linear_motion(
    embedding: LinearEmbedding, descriptors: np.ndarray, clip_start: np.ndarray, frame: int
) -> np.ndarray:
    """The feature of one frame of motion; descriptors (F, columns) of engine.features.body."""
    values = descriptors.astype(np.float64)
    for cut in clip_start[1:-1] * 4:
        values[max(cut - 3, 0) : cut + 3] = 0
    return shortened(context(values, frame, embedding.half_frames) @ embedding.body, embedding.body_size)


def low_hit(speech: np.ndarray, motion: np.ndarray, frame: int) -> bool:
    """Of 32 frames around this one, does the likest lie within 4?"""
    likest = max(range(frame - 16, frame + 16), key=lambda other: float(speech[frame] @ motion[other]))
    return frame - 4 <= likest < frame + 4

"""Recordings of nobody: joints and voices whose relation is known because it was planted."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.features.recording import Recording
from engine.features.speech import ENERGY, FLUX, LOUDNESS, N_COLUMNS, NOVELTY, PITCH, SMOOTH_ENERGY, SPEAKING
from engine.skeleton import (
    LEFT_ELBOW,
    LEFT_HAND,
    LEFT_SHOULDER,
    LEFT_WRIST,
    N_JOINTS,
    NOSE,
    RIGHT_ELBOW,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)
from engine.timebase import FRAMES_PER_NODE, frame_start

UNIT_PX = 100.0


def at_ease(n_frames: int) -> np.ndarray:
    """Joints of somebody who stands still, float32 (F, 75, 3)."""
    joints = np.zeros((n_frames, N_JOINTS, 3), np.float32)
    joints[:, LEFT_SHOULDER, 0], joints[:, RIGHT_SHOULDER, 0] = 150, 50
    joints[:, [LEFT_ELBOW, RIGHT_ELBOW], 1] = 60
    joints[:, [LEFT_WRIST, RIGHT_WRIST], 1] = 100
    joints[:, LEFT_HAND, 1] = joints[:, RIGHT_HAND, 1] = 110
    return joints


def moved_by(speed: np.ndarray) -> np.ndarray:
    """Joints (F, 75, 3) whose wrists and head move at `speed` (F,) shoulder widths a frame."""
    joints = at_ease(len(speed))
    path = np.cumsum(speed) * UNIT_PX
    for joint in (LEFT_WRIST, RIGHT_WRIST, NOSE):
        joints[:, joint, 1] = 100 + path
    return joints


def restless(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Joints that wander, each on its own."""
    return (at_ease(n_frames) + np.cumsum(rng.normal(0, 1, (n_frames, N_JOINTS, 3)), axis=0)).astype(np.float32)


def recording_of(
    joints: np.ndarray,
    clip_nodes: Sequence[int] = (),
    samples: np.ndarray | None = None,
    mouth: np.ndarray | None = None,
) -> Recording:
    """A recording of whole nodes, one clip where none are given, silent where there is no voice."""
    n_frames = len(joints)
    return Recording(
        name="somebody",
        samples=np.zeros(frame_start(n_frames), np.float32) if samples is None else samples,
        joints=joints,
        confidence=np.ones((n_frames, N_JOINTS), np.float32),
        clip_start=np.cumsum([0, *(clip_nodes or (n_frames // FRAMES_PER_NODE,))]),
        unit_px=UNIT_PX,
        mouth=mouth,
    )


def unseen(recording: Recording, frames: slice, joints: Sequence[int] | slice = slice(None)) -> Recording:
    """The same with joints that the tracker lost for a while."""
    confidence = recording.confidence.copy()
    confidence[frames, joints] = 0
    return replace(recording, confidence=confidence)


def noise(n_frames: int, rng: np.random.Generator, level: float = 0.1) -> np.ndarray:
    return rng.normal(0, level, frame_start(n_frames)).astype(np.float32)


def syllables(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """How loud a voice is, (F,), 0..1: bumps of 0.15 to 0.6 s with gaps."""
    loud = np.zeros(n_frames)
    start = 0
    while start < n_frames:
        length = int(rng.integers(5, 18))
        bump = rng.uniform(0.3, 1) * np.hanning(length + 2)[1:-1]
        stop = min(start + length, n_frames)
        loud[start:stop] = bump[: stop - start]
        start = stop + int(rng.integers(0, 12))
    return loud


def voiced(loud: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of the given loudness a frame over a quiet room, 16 kHz."""
    samples = noise(len(loud), rng, 0.3)
    edges = [frame_start(frame) for frame in range(len(loud) + 1)]
    envelope = np.interp(np.arange(len(samples)), np.add(edges[:-1], edges[1:]) / 2, loud)
    return (samples * (envelope + 1e-3)).astype(np.float32)


def rows_of(loud: np.ndarray) -> np.ndarray:
    """Rows of speech as if engine.features.speech had heard this loudness, float32 (F, N_COLUMNS)."""
    rows = np.zeros((len(loud), N_COLUMNS), np.float32)
    rows[:, [ENERGY, SMOOTH_ENERGY, LOUDNESS]] = 4 * loud[:, None] - 2
    rise = np.maximum(np.diff(loud, prepend=loud[:1]), 0)
    rows[:, [FLUX, NOVELTY]] = 20 * rise[:, None] - 1
    rows[:, PITCH] = np.where(loud > 0.2, 2 * loud - 1, 0)
    rows[:, SPEAKING] = 1
    return rows


def random_rows(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.normal(size=(n_frames, N_COLUMNS)).astype(np.float32)
    rows[:, SPEAKING] = rng.uniform(size=n_frames) < 0.8
    return rows


def gestures(loud: np.ndarray, lag: int, rng: np.random.Generator, noise_px: float = 0.3) -> np.ndarray:
    """Joints whose wrists move as fast as the voice was loud `lag` frames ago, to and fro."""
    speed = 0.12 * np.roll(loud, lag)
    joints = at_ease(len(loud))
    for side, wrist, hand, elbow in (
        (1, LEFT_WRIST, LEFT_HAND, LEFT_ELBOW),
        (-1, RIGHT_WRIST, RIGHT_HAND, RIGHT_ELBOW),
    ):
        path = np.cumsum(speed) * 1.3 + side
        place = UNIT_PX * np.stack([side * np.cos(path), np.sin(path)], axis=1)
        joints[:, wrist, :2] += place
        joints[:, hand, :2] += place[:, None]
        joints[:, elbow, :2] += place / 2
    joints[:, NOSE, 1] += 8 * np.sin(np.cumsum(speed))
    return (joints + rng.normal(0, noise_px, joints.shape)).astype(np.float32)

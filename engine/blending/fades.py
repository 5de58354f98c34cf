"""The two cheap blenders: a crossfade, and a hard cut in the middle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from engine.blending.blender import CROSSFADE, CUT, TRANSITION_FRAMES, Blender, PlaneBlender, Take
from engine.errors import InputError
from engine.timebase import FRAMES_PER_NODE

__all__ = ["FADE_WEIGHTS", "Crossfade", "HardCut", "Pictures", "fade"]

FADE_WEIGHTS = tuple(k / (TRANSITION_FRAMES + 1) for k in range(1, TRANSITION_FRAMES + 1))
"""Share of the second take in each of the 8 frames."""

Pictures: TypeAlias = np.ndarray | Sequence[np.ndarray]


def fade(a: Pictures, b: Pictures, weights: Sequence[float]) -> np.ndarray:
    """Mix frames of two takes, both uint8 (n, ...) -> uint8 (n, ...). weights: the share of b in each frame."""
    out = np.empty((len(weights), *a[0].shape), np.uint8)
    for one, other, weight, frame in zip(a, b, weights, out, strict=True):
        cv2.addWeighted(one, 1 - weight, other, weight, 0, dst=frame)
    return out


@dataclass(frozen=True)
class Crossfade(PlaneBlender):
    """Mixes pairs of frames; across a gap, the last frame before it with the first one after it."""

    name = CROSSFADE
    version = 2
    settings = "BlendOptions(blender='crossfade', arms=False, flow_points=100000)"  # the key of existing caches
    samples = "sync"

    def draw(self, before: Take, after: Take) -> np.ndarray:
        return self.draw_planes(before.frames, after.frames)

    def draw_planes(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return fade(*_held(before, after), FADE_WEIGHTS)


@dataclass(frozen=True)
class HardCut(Blender):
    """Switches in the middle; across a gap, both sides are frozen."""

    name = CUT
    version = 2
    settings = "BlendOptions(blender='cut', arms=False, flow_points=100000)"
    samples = "sync"

    def draw(self, before: Take, after: Take) -> np.ndarray:
        a, b = _held(before.frames, after.frames)
        return np.concatenate([a[:FRAMES_PER_NODE], b[FRAMES_PER_NODE:]])


def _held(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """8 frames of each side: those of a sync transition, or the frames on both sides of a gap, repeated."""
    if before.shape != after.shape or len(before) not in (FRAMES_PER_NODE, TRANSITION_FRAMES):
        raise InputError(f"takes have frames {before.shape} and {after.shape}; expected 4 or 8 of the same shape")
    if len(before) == TRANSITION_FRAMES:
        return before, after
    a, b = (np.broadcast_to(frame, (TRANSITION_FRAMES, *frame.shape)) for frame in (before[-1], after[0]))
    return a, b

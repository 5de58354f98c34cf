"""The two cheap blenders: both takes mixed, and a change from one to the other in the middle."""

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
    """Frames of two takes, uint8 (n, ...) both, `weights` being the share of b: uint8 (n, ...)."""
    out = np.empty((len(weights), *a[0].shape), np.uint8)
    for one, other, weight, frame in zip(a, b, weights, out, strict=True):
        cv2.addWeighted(one, 1 - weight, other, weight, 0, dst=frame)
    return out


@dataclass(frozen=True)
class Crossfade(PlaneBlender):
    """Mixes pair by pair; over a gap, the last frame before it with the first one after it."""

    name = CROSSFADE
    version = 2
    settings = "BlendOptions(blender='crossfade', arms=False, flow_points=100000)"  # as packs were cached under it
    samples = "sync"

    def draw(self, before: Take, after: Take) -> np.ndarray:
        return self.draw_planes(before.frames, after.frames)

    def draw_planes(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return fade(*_held(before, after), FADE_WEIGHTS)


@dataclass(frozen=True)
class HardCut(Blender):
    """Changes over in the middle; over a gap, both sides stand still."""

    name = CUT
    version = 2
    settings = "BlendOptions(blender='cut', arms=False, flow_points=100000)"
    samples = "sync"

    def draw(self, before: Take, after: Take) -> np.ndarray:
        a, b = _held(before.frames, after.frames)
        return np.concatenate([a[:FRAMES_PER_NODE], b[FRAMES_PER_NODE:]])


def _held(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """8 frames of each side: those of a sync transition, or the two beside a gap, held."""
    if before.shape != after.shape or len(before) not in (FRAMES_PER_NODE, TRANSITION_FRAMES):
        raise InputError(f"takes have frames {before.shape} and {after.shape}; wanted 4 or 8 of one shape")
    if len(before) == TRANSITION_FRAMES:
        return before, after
    a, b = (np.broadcast_to(frame, (TRANSITION_FRAMES, *frame.shape)) for frame in (before[-1], after[0]))
    return a, b

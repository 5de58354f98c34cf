"""The two cheap blenders: a crossfade, and a hard cut in the middle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from engine.blending.blender import CROSSFADE, CUT, TRANSITION_FRAMES, Blender, Take
from engine.errors import InputError
from engine.timebase import FRAMES_PER_NODE

__all__ = ["FADE_WEIGHTS", "Crossfade", "HardCut", "Pictures", "fade", "half_of", "paired"]

FADE_WEIGHTS = tuple(k / (TRANSITION_FRAMES + 1) for k in range(1, TRANSITION_FRAMES + 1))
"""Share of the second take in each of the 8 frames."""

Pictures: TypeAlias = np.ndarray | Sequence[np.ndarray]


def fade(a: Pictures, b: Pictures, weights: Sequence[float]) -> np.ndarray:
    """Mix frames of two takes, both uint8 (n, ...) -> uint8 (n, ...). weights: the share of b in each frame."""
    out = np.empty((len(weights), *a[0].shape), np.uint8)
    for one, other, weight, frame in zip(a, b, weights, out, strict=True):
        cv2.addWeighted(one, 1 - weight, other, weight, 0, dst=frame)
    return out


def half_of(numbers: Sequence[float], half: int) -> Sequence[float]:
    """Those of 8 numbers, one a frame, that belong to half 0 or 1."""
    return numbers[half * FRAMES_PER_NODE : (half + 1) * FRAMES_PER_NODE]


@dataclass(frozen=True)
class Crossfade(Blender):
    """Mixes pairs of frames; across a gap, the last frame before it with the first one after it."""

    name = CROSSFADE
    version = 2
    settings = "BlendOptions(blender='crossfade', arms=False, flow_points=100000)"  # the key of existing caches
    samples = "sync"
    pixels = "planes"

    def draw(self, before: Take, after: Take) -> Iterator[np.ndarray]:
        for half, (a, b) in enumerate(paired(before, after)):
            yield fade(a, b, half_of(FADE_WEIGHTS, half))


@dataclass(frozen=True)
class HardCut(Blender):
    """Switches in the middle; across a gap, both sides are frozen."""

    name = CUT
    version = 2
    settings = "BlendOptions(blender='cut', arms=False, flow_points=100000)"
    samples = "sync"
    pixels = "planes"

    def draw(self, before: Take, after: Take) -> Iterator[np.ndarray]:
        for half, sides in enumerate(paired(before, after)):
            yield np.stack(list(sides[half]))


def paired(before: Take, after: Take) -> Iterator[tuple[Pictures, Pictures]]:
    """The 4 frames of each side of each half: of a sync transition, or the two next to a gap, repeated.

    Raises InputError for takes of different or unknown shapes.
    """
    if len(before.nodes) != len(after.nodes) or len(before.nodes) not in (1, 2):
        raise InputError(f"takes have {len(before.nodes)} and {len(after.nodes)} nodes; expected 1 or 2 each")
    for half in range(2):
        a, b = (take.nodes[half % len(take.nodes)] for take in (before, after))
        if a.shape != b.shape or len(a) != FRAMES_PER_NODE:
            raise InputError(f"nodes have frames {a.shape} and {b.shape}; expected 4 of the same shape")
        if len(before.nodes) == 1:
            yield [a[-1]] * FRAMES_PER_NODE, [b[0]] * FRAMES_PER_NODE
        else:
            yield a, b

"""Blenders draw the frames around a cut: their protocol, and the table of names.

To add a blender, add a file to this folder and a line to BLENDERS; the file is imported when it is first opened.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from engine.errors import InputError
from engine.timebase import FRAMES_PER_NODE

if TYPE_CHECKING:  # command lines take the names from here, and need no arrays for them
    import numpy as np

__all__ = [
    "BLENDERS",
    "CROSSFADE",
    "CUT",
    "DEFAULT_BLENDER",
    "TRANSITION_FRAMES",
    "Blender",
    "PlaneBlender",
    "Take",
    "open_blender",
]

TRANSITION_FRAMES = 2 * FRAMES_PER_NODE

DEFAULT_BLENDER = "flow"
CROSSFADE = "crossfade"
"""Used in place of a slower one that would be too late."""
CUT = "cut"
"""Draws nothing: the stored pictures are copied."""

BLENDERS: dict[str, str] = {
    DEFAULT_BLENDER: "engine.blending.morph:Flow",
    CROSSFADE: "engine.blending.fades:Crossfade",
    CUT: "engine.blending.fades:HardCut",
}
"""Name -> module:class. The class is instantiated without arguments."""


@dataclass(frozen=True)
class Take:
    """Consecutive frames of one source next to a cut: 8 for a sync transition, 4 for a gap."""

    frames: "np.ndarray"  # uint8 (n, H, W, 3) RGB
    joints: "np.ndarray"  # float32 (n, 75, 2), pixels, smoothed
    confidence: "np.ndarray"  # float32 (n, 75), 0..1
    hands_found: "np.ndarray"  # bool (n, 2), left and right
    surface: "np.ndarray | None" = None  # uint64 (n, 96): person mask and hand boxes, one word per row of 64 cells


class Blender(Protocol):
    """Draws transitions. It is pickled and sent to worker processes: open large things, such as networks, in `draw`.

    name      its key in BLENDERS
    version   of its output: raise it to invalidate cached transitions
    samples   the frames that it needs, see `draw`
    settings  text with every option that affects its pixels: part of the cache key
    """

    name: str
    version: int
    samples: Literal["sync", "gap"]

    @property
    def settings(self) -> str: ...

    def draw(self, before: Take, after: Take) -> "np.ndarray":
        """The 8 frames around a cut, uint8 (8, H, W, 3) RGB.

        "sync": both takes have 8 frames, one pair of real frames for each frame drawn. At the ends of clips such frames
        do not exist, and with "gap" they are never used: then `before` holds the 4 frames just before the 8, and
        `after` the 4 just after them.

        Raises InputError for takes of other shapes or kinds.
        """


@runtime_checkable
class PlaneBlender(Blender, Protocol):
    """A blender that needs neither colours nor joints: its frames are never converted to RGB, so it is fast."""

    def draw_planes(self, before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
        """Like draw, on frames as decoded, uint8 (n, H * 3 / 2, W) -> uint8 (8, H * 3 / 2, W)."""


def open_blender(name: str) -> Blender:
    """The blender of this name with its default settings. Raises InputError for an unknown name."""
    if name not in BLENDERS:
        raise InputError(f"blender {name!r} is unknown: choose from {', '.join(BLENDERS)}")
    module, _, kind = BLENDERS[name].partition(":")
    blender: Blender = getattr(import_module(module), kind)()
    return blender

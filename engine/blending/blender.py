"""What draws the frames around a cut: the protocol, and the table of names.

Adding a blender is a file in this folder and a line in BLENDERS; its file is imported when it is first opened.
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
"""Drawn in place of a slower one that would come too late."""
CUT = "cut"
"""Draws nothing: the stored pictures are copied."""

BLENDERS: dict[str, str] = {
    DEFAULT_BLENDER: "engine.blending.morph:Flow",
    CROSSFADE: "engine.blending.fades:Crossfade",
    CUT: "engine.blending.fades:HardCut",
}
"""Name -> module:class. The class is made without arguments."""


@dataclass(frozen=True)
class Take:
    """Consecutive frames of one source next to a cut: 8 for a sync transition, 4 for a gap."""

    frames: "np.ndarray"  # uint8 (n, H, W, 3) RGB
    joints: "np.ndarray"  # float32 (n, 75, 2), pixels, smoothed
    confidence: "np.ndarray"  # float32 (n, 75), 0..1
    hands_found: "np.ndarray"  # bool (n, 2), left and right
    surface: "np.ndarray | None" = None  # uint64 (n, 96): person mask and hand boxes, one word a row of 64 cells


class Blender(Protocol):
    """Draws transitions. Worker processes are sent pickled ones: open what is large, networks for example, in `draw`.

    name      its key in BLENDERS
    version   of what it draws: with a higher number, cached transitions of lower ones are not used any more
    samples   the frames that it wants, see `draw`
    settings  text that names every option that decides its pixels: part of the key of the cache
    """

    name: str
    version: int
    samples: Literal["sync", "gap"]

    @property
    def settings(self) -> str: ...

    def draw(self, before: Take, after: Take) -> "np.ndarray":
        """The 8 frames around a cut, uint8 (8, H, W, 3) RGB.

        "sync": both takes have 8 frames, one pair of real frames for each frame that is drawn. At the ends of clips
        such frames do not exist, and for "gap" they are never taken: `before` then holds the 4 frames that end where
        the 8 begin, `after` the 4 that follow them.

        Raises InputError for takes of other shapes or kinds.
        """


@runtime_checkable
class PlaneBlender(Blender, Protocol):
    """A blender that needs neither colours nor joints: its transitions are never converted to RGB, and encoded fast."""

    def draw_planes(self, before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
        """As draw, of frames as they are decoded, uint8 (n, H * 3 / 2, W) -> uint8 (8, H * 3 / 2, W)."""


def open_blender(name: str) -> Blender:
    """The blender of a name, with its default settings. Raises InputError for a name that is unknown."""
    if name not in BLENDERS:
        raise InputError(f"blender {name!r} is unknown: choose {', '.join(BLENDERS)}")
    module, _, kind = BLENDERS[name].partition(":")
    blender: Blender = getattr(import_module(module), kind)()
    return blender

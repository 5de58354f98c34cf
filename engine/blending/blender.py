"""Blenders draw the frames around a cut: their protocol, and the table of names.

To add a blender, add a file to this folder and a line to BLENDERS; the file is imported when it is first opened.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol

from engine.errors import InputError
from engine.timebase import FRAMES_PER_NODE

if TYPE_CHECKING:  # command lines take the names from here, and need no arrays for them
    from collections.abc import Iterator, Sequence

    import numpy as np

__all__ = [
    "BLENDERS",
    "CROSSFADE",
    "CUT",
    "DEFAULT_BLENDER",
    "TRANSITION_FRAMES",
    "Blender",
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
    """Consecutive frames of one source next to a cut: two nodes for a sync transition, one for a gap."""

    # Each uint8, as Blender.pixels says: (4, H * 3 / 2, W), planes Y, U, V as decoded, or (4, H, W, 3) RGB.
    # Whoever needs a node first should read it first: it may be decoded only then.
    nodes: "Sequence[np.ndarray]"
    joints: "np.ndarray"  # float32 (n, 75, 2), pixels, smoothed
    confidence: "np.ndarray"  # float32 (n, 75), 0..1
    hands_found: "np.ndarray"  # bool (n, 2), left and right
    surface: "np.ndarray | None" = None  # uint64 (n, 96): person mask and hand boxes, one word per row of 64 cells


class Blender(Protocol):
    """Draws transitions. It is pickled and sent to worker processes: open large things, such as networks, in `draw`.

    name      its key in BLENDERS
    version   of its output: raise it to invalidate cached transitions
    samples   the frames that it needs, see `draw`
    pixels    what it reads and draws: "planes" as decoded, which is faster by two conversions a frame, or "rgb"
    settings  text with every option that affects its pixels: part of the cache key
    """

    name: str
    version: int
    samples: Literal["sync", "gap"]
    pixels: Literal["planes", "rgb"]

    @property
    def settings(self) -> str: ...

    def draw(self, before: Take, after: Take) -> "Iterator[np.ndarray]":
        """The two halves of the 8 frames around a cut, 4 frames each, of the shape of the nodes of the takes.

        "sync": both takes have two nodes, one pair of real frames for each frame drawn; the first half should need the
        first ones only, because it is shown as soon as it is drawn. At the ends of clips such frames do not exist, and
        with "gap" they are never used: then `before` holds the node just before the 8 frames, and `after` the one just
        after them.

        Raises InputError for takes of other shapes or kinds, if need be only when a half is asked for.
        """


def open_blender(name: str) -> Blender:
    """The blender of this name with its default settings. Raises InputError for an unknown name."""
    if name not in BLENDERS:
        raise InputError(f"blender {name!r} is unknown: choose from {', '.join(BLENDERS)}")
    module, _, kind = BLENDERS[name].partition(":")
    blender: Blender = getattr(import_module(module), kind)()
    return blender

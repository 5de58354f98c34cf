"""Which clips show the same person, clothes and place: judged by colour, regardless of pose, framing and exposure.

A file may show two people, two outfits or two sets. Cuts between them never look good, and a character must not turn
into somebody else between two talks. So the colours of the person are compared as one distribution, and those of the
background as another: gestures, pans and a moderate zoom do not change them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from engine.character.info import Clip
from engine.features.appearance import lab_colours
from tango_rt.characters.pose import MASK_COLUMNS, MASK_ROWS
from tango_rt.characters.source import THUMBNAIL_FRAMES, TrackedSource

__all__ = ["group_clips"]

_OTHER_LOOK = 0.1
"""Looks at least this far apart show a different person or place.

Measured on 8 looks of 7 people: any two differ by 0.13 or more; one man in one shirt over 23 jump cuts by at most 0.06,
pieces of 2 s of one shot by 0.05, the same picture by 0.06 if a quarter brighter, by 0.04 if zoomed to 1.2 and by 0.09
if zoomed to 1.5.
"""

_EXPOSURES = np.geomspace(0.88, 1 / 0.88, 7)  # factors of lightness that do not count as a difference
_EDGES = np.linspace(-1.28, 1.28, 257)  # of the histogram bins, in Lab with lightness 0..1
_MIN_SHARE = 0.01  # of the picture; the colours of a smaller person or background are ignored
_MAX_SAMPLES = 200  # pictures examined per clip


def group_clips(sources: Sequence[TrackedSource], clips: Sequence[Clip]) -> list[list[int]]:
    """Clip numbers grouped by look, ascending, the group with the most seconds first. Every clip is in one group.

    Longest first, each clip joins the group most like it, or starts a new one; so a dissolve between two people,
    which is a short clip and resembles both, cannot merge them.
    """
    groups: list[tuple[_Look, list[int]]] = []
    for number in sorted(range(len(clips)), key=lambda number: -clips[number].n_frames):
        look = _look(sources[clips[number].source], clips[number])
        distances = [look.distance(other) for other, _ in groups]
        best = int(np.argmin(distances)) if distances else -1
        if best >= 0 and distances[best] < _OTHER_LOOK:
            other, members = groups[best]
            groups[best] = other.joined(look), [*members, number]
        else:
            groups.append((look, [number]))
    groups.sort(key=lambda group: -group[0].n_frames)
    return [sorted(members) for _, members in groups]


@dataclass(frozen=True)
class _Look:
    """Colours as sums over frames, so that looks can be added. First axis: person, background."""

    n_frames: int
    histograms: np.ndarray  # (2, 3, bins): L, a and b; each picture cell counts by its share
    shares: np.ndarray  # (2,): fraction of the picture, times n_frames

    def joined(self, other: "_Look") -> "_Look":
        return _Look(self.n_frames + other.n_frames, self.histograms + other.histograms, self.shares + other.shares)

    def distance(self, other: "_Look") -> float:
        """How far colours must move to turn one look into the other (the larger of person and background).

        In Lab, lightness 0..1; the mean over all colours, at the exposure at which the two are most alike.
        """
        seen = np.minimum(self.shares / self.n_frames, other.shares / other.n_frames) >= _MIN_SHARE
        if not seen.any():
            return 0.0
        # as one is darkened, the other is brightened
        moved = np.abs(self._cumulative - other._cumulative[::-1]).sum(axis=-1) * (_EDGES[1] - _EDGES[0])
        return float(np.linalg.norm(moved, axis=-1)[:, seen].max(axis=1).min())

    @cached_property
    def _cumulative(self) -> np.ndarray:
        """(exposures, 2, 3, bins): shares of colours up to each edge, at each exposure."""
        totals = np.maximum(self.histograms.sum(axis=-1, keepdims=True), 1e-9)
        below = np.repeat((np.cumsum(self.histograms, axis=-1) / totals)[None], len(_EXPOSURES), axis=0)
        for exposure, layers in zip(np.sqrt(_EXPOSURES), below, strict=True):
            for layer in layers:
                layer[0] = np.interp(_EDGES[1:] / exposure, _EDGES[1:], layer[0])
        return below.astype(np.float32)


def _look(source: TrackedSource, clip: Clip) -> _Look:
    first = -(-clip.first_frame // THUMBNAIL_FRAMES)
    last = (clip.first_frame + clip.n_frames - 1) // THUMBNAIL_FRAMES
    chosen = np.unique(np.linspace(first, last, _MAX_SAMPLES).astype(int))
    thumbnails = source.thumbnails[chosen]
    person = _person_shares(source.track.surface[chosen * THUMBNAIL_FRAMES], thumbnails.shape[1:3])
    colours = lab_colours(thumbnails.reshape(len(chosen), -1, 3)).reshape(-1, 3)
    layers = np.stack([person, 1 - person])
    scale = clip.n_frames / len(person)
    histograms = [
        [np.histogram(colours[:, channel], _EDGES, weights=scale * weights)[0] for channel in range(3)]
        for weights in layers
    ]
    return _Look(clip.n_frames, np.array(histograms), clip.n_frames * layers.mean(axis=1))


def _person_shares(surface: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a grid (rows, columns) is person: uint64 (n, words), the mask first -> (n * cells,)."""
    words = np.ascontiguousarray(surface[:, :MASK_ROWS]).view(np.uint8)
    masks = np.unpackbits(words, axis=1, bitorder="little").reshape(-1, MASK_ROWS, MASK_COLUMNS)
    small = [cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) for mask in masks]
    return np.stack(small).ravel()

"""Which clips show one and the same person, clothes and place: told by colours, apart from pose and framing.

A file may hold two people, two outfits or two sets. Cuts between them are never good, and a character must not change
into somebody else between two talks. The colours of a clip are those of its person and those of what is behind, each
as a mean over the picture, which a zoom or a pan leaves as it is; and where clips are framed alike also cell by cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.appearance import COLUMNS, N_CELLS, ROWS, lab_colours
from engine.pack import Clip
from engine.skeleton import LEFT_SHOULDER, RIGHT_SHOULDER
from tango_rt.characters.pose import MASK_COLUMNS, MASK_ROWS
from tango_rt.characters.source import TrackedSource

__all__ = ["group_clips"]

# Distances in Lab, lightness 0..1, beyond which it is somebody or somewhere else. Measured on 5 people: other people,
# clothes or places differ by 0.19 to 0.47 in one of the means, or by 0.24 in the cells of the person; one man over 31
# jump cuts by 0.06 and 0.16; the same picture by 0.13 when it is a quarter brighter, by 0.12 when it is zoomed to 1.5.
_MEANS = 0.16
_PERSON_CELLS = 0.2
_BACKGROUND_CELLS = 0.14
# Framed alike: shoulders of nearly one width (ratio), at nearly one place (in shoulder widths).
_SAME_WIDTH = 1.3
_SAME_PLACE = 0.5
_LEAST_SHARE = 0.01  # of the picture; a person or background smaller than that has no colour

_MAX_SAMPLES = 200  # frames of a clip that are looked at


def group_clips(sources: Sequence[TrackedSource], clips: Sequence[Clip]) -> list[list[int]]:
    """Numbers of clips by their look, ascending, the group of most seconds first. Every clip is in one group.

    Longest clips first, each joins the group that it is most like, or begins one; so a dissolve between two people,
    which is a short clip and like both, cannot join them.
    """
    groups: list[tuple[_Look, list[int]]] = []
    for number in sorted(range(len(clips)), key=lambda number: -clips[number].n_frames):
        look = _look(sources[clips[number].source], clips[number])
        distances = [look.distance(other) for other, _ in groups]
        best = int(np.argmin(distances)) if distances else -1
        if best >= 0 and distances[best] <= 1:
            other, members = groups[best]
            groups[best] = other.joined(look), [*members, number]
        else:
            groups.append((look, [number]))
    groups.sort(key=lambda group: -group[0].n_frames)
    return [sorted(members) for _, members in groups]


@dataclass(frozen=True)
class _Look:
    """Colours and framing, as sums over frames, so that looks add up.

    colours (2, N_CELLS, 3) and weights (2, N_CELLS): of the person, and of what is behind. shoulders (3,): x, y of
    their middle and their width, times n_frames.
    """

    n_frames: int
    colours: np.ndarray
    weights: np.ndarray
    shoulders: np.ndarray

    def joined(self, other: "_Look") -> "_Look":
        return _Look(
            self.n_frames + other.n_frames,
            self.colours + other.colours,
            self.weights + other.weights,
            self.shoulders + other.shoulders,
        )

    def distance(self, other: "_Look") -> float:
        """Above 1: another person, other clothes or another place."""
        found = [0.0]
        alike = self._framed_like(other)
        for layer, most in enumerate((_PERSON_CELLS, _BACKGROUND_CELLS)):
            shares = [look.weights[layer] / look.n_frames for look in (self, other)]
            if min(share.mean() for share in shares) < _LEAST_SHARE:
                continue
            means = [look.colours[layer].sum(axis=0) / look.weights[layer].sum() for look in (self, other)]
            found.append(float(np.linalg.norm(means[0] - means[1])) / _MEANS)
            both = np.minimum(*shares)
            if alike and both.mean() >= _LEAST_SHARE:
                cells = [look.colours[layer] / np.maximum(look.weights[layer], 1e-6)[:, None] for look in (self, other)]
                found.append(float(np.average(np.linalg.norm(cells[0] - cells[1], axis=1), weights=both)) / most)
        return max(found)

    def _framed_like(self, other: "_Look") -> bool:
        one, two = self.shoulders / self.n_frames, other.shoulders / other.n_frames
        narrow, wide = sorted((one[2], two[2]))
        return bool(wide <= _SAME_WIDTH * narrow and np.linalg.norm(one[:2] - two[:2]) <= _SAME_PLACE * wide)


def _look(source: TrackedSource, clip: Clip) -> _Look:
    chosen = np.linspace(0, clip.n_frames - 1, min(clip.n_frames, _MAX_SAMPLES)).astype(int) + clip.first_frame
    track = source.track
    person = _person_shares(track.surface[chosen])
    layers = np.stack([person, 1 - person])  # (2, F, N_CELLS)
    colours = lab_colours(source.appearance[chosen])
    shoulders = track.joints[chosen][:, [LEFT_SHOULDER, RIGHT_SHOULDER], :2]
    width = np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=-1)
    scale = clip.n_frames / len(chosen)
    return _Look(
        n_frames=clip.n_frames,
        colours=scale * np.einsum("lfc,fcd->lcd", layers, colours),
        weights=scale * layers.sum(axis=1),
        shoulders=clip.n_frames * np.array([*np.median(shoulders.mean(axis=1), axis=0), np.median(width)]),
    )


def _person_shares(surface: np.ndarray) -> np.ndarray:
    """How much of each cell of the colour grid is person: uint64 (F, words), the mask first -> (F, N_CELLS)."""
    words = np.ascontiguousarray(surface[:, :MASK_ROWS]).view(np.uint8)
    mask = np.unpackbits(words, axis=1, bitorder="little")
    tall, wide = MASK_ROWS // ROWS, MASK_COLUMNS // COLUMNS
    return mask.reshape(-1, ROWS, tall, COLUMNS, wide).mean(axis=(2, 4), dtype=np.float32).reshape(-1, N_CELLS)

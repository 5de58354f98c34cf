"""Training batches: windows of several people's speech and motion, determined by seed and step number alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from engine.errors import InputError
from engine.features.mini import motion_rows
from engine.features.recording import Recording
from engine.features.speech import speech_features
from engine.timebase import FPS, FRAMES_PER_NODE, frame_start
from export.training.augment import AugmentOptions, augmented

__all__ = ["Batch", "Sampler", "Take", "cut_nodes", "make_takes", "prepare", "split_time"]

_MIN_INNER_FRAMES = 32  # the local loss compares up to 16 frames away, both ways
_TRIES = 8  # to find a window that overlaps no other in its batch


class Take(NamedTuple):
    """A recording, or a variant of one, as input of the networks: there is no continuity from one clip to the next."""

    name: str
    rows: np.ndarray  # float32 (F, audio columns)
    descriptors: np.ndarray  # float32 (F, motion columns)
    clips: list[slice]


class Batch(NamedTuple):
    """Windows (B, W, columns), zeros after the first `n_frames` (B,) frames of each."""

    rows: np.ndarray
    descriptors: np.ndarray
    n_frames: np.ndarray


def cut_nodes(recording: Recording, first_node: int, last_node: int) -> Recording:
    """Nodes first_node .. last_node - 1 of a recording."""
    starts = recording.clip_start
    first, last = first_node * FRAMES_PER_NODE, last_node * FRAMES_PER_NODE
    inside = starts[(starts > first_node) & (starts < last_node)]
    n_samples = frame_start(last - first)
    samples = recording.samples[frame_start(first) : frame_start(first) + n_samples]
    return Recording(
        name=recording.name,
        # frames do not start on whole samples: the last one may be a sample short
        samples=np.pad(samples, (0, n_samples - len(samples))),
        joints=recording.joints[first:last],
        confidence=recording.confidence[first:last],
        clip_start=np.concatenate([[first_node], inside, [last_node]]) - first_node,
        unit_px=recording.unit_px,
        mouth=None if recording.mouth is None else recording.mouth[first:last],
        motion=None if recording.motion is None else recording.motion[first:last],
    )


def split_time(recording: Recording, share: float, gap_s: float) -> tuple[Recording, Recording | None]:
    """A recording without its last `share`, and that, `gap_s` apart; None if nothing is left of it."""
    n_nodes = recording.n_frames // FRAMES_PER_NODE
    last = round(n_nodes * share)
    gap = -(-int(gap_s * FPS) // FRAMES_PER_NODE)
    if last < 1 or n_nodes - last - gap < 1:
        return recording, None
    return cut_nodes(recording, 0, n_nodes - last - gap), cut_nodes(recording, n_nodes - last, n_nodes)


def make_takes(recordings: Sequence[Recording], mouth: bool) -> list[Take]:
    """Recordings without augmentation."""
    return [Take(r.name, speech_features(r.samples), motion_rows(r, mouth), r.clips) for r in recordings]


def prepare(
    recordings: Sequence[Recording], mouth: bool, seed: int, variants: int, options: AugmentOptions
) -> list[list[Take]]:
    """The takes of every recording: itself and `variants` augmented ones."""
    takes = []
    for number, recording in enumerate(recordings):
        some = [recording]
        for variant in range(variants):
            rng = np.random.default_rng([seed, number, variant])
            some.append(augmented(recording, rng, options))
        takes.append(make_takes([replace(r, motion=None) for r in some], mouth))
    return takes


class Sampler:
    """Draws batches; a seed and a step always give the same batch, whatever was drawn before."""

    def __init__(self, takes: Sequence[Sequence[Take]], window_frames: int, margin_frames: int, seed: int) -> None:
        """`margin_frames` at both ends of a window are context, not compared; clips too short for any are left out.

        Raises InputError if all are.
        """
        self._window, self._margin, self._seed = window_frames, margin_frames, seed
        least = 2 * margin_frames + _MIN_INNER_FRAMES
        usable = ([(take, clip) for take in some for clip in take.clips if _length(clip) >= least] for some in takes)
        self._people = [some for some in usable if some]
        if not self._people:
            longest = max((_length(clip) for some in takes for take in some for clip in take.clips), default=0)
            raise InputError(
                f"the longest clip without a jump cut has {longest / FPS:.1f} s, training needs {least / FPS:.1f} s: "
                "give longer recordings"
            )
        # long recordings more often, but less than in proportion to length: people are scarcer than data
        self._share = _shares([np.sqrt(sum(_length(clip) - least + 1 for _, clip in some)) for some in self._people])
        self._clip_share = [_shares([_length(clip) - least + 1.0 for _, clip in some]) for some in self._people]

    @property
    def n_recordings(self) -> int:
        """Number of recordings that are long enough to be used."""
        return len(self._people)

    def statistics(self) -> tuple[np.ndarray, ...]:
        """Mean and deviation of the columns of rows, then of descriptors, over one take of each recording."""
        takes = [some[0][0] for some in self._people]
        rows, descriptors = (np.concatenate([take[k] for take in takes]) for k in (1, 2))
        return rows.mean(axis=0), rows.std(axis=0), descriptors.mean(axis=0), descriptors.std(axis=0)

    def batch(self, step: int, size: int) -> Batch:
        """`size` windows for a step."""
        rng = np.random.default_rng([self._seed, 1, step])
        drawn: list[tuple[Take, int, int]] = []
        for _ in range(size):
            for _ in range(_TRIES):
                window = self._draw(rng)
                if not any(_overlap(window, other) for other in drawn):
                    break
            drawn.append(window)
        return Batch(
            np.stack([self._cut(take.rows, first, last) for take, first, last in drawn]),
            np.stack([self._cut(take.descriptors, first, last) for take, first, last in drawn]),
            np.array([last - first for _, first, last in drawn]),
        )

    def _draw(self, rng: np.random.Generator) -> tuple[Take, int, int]:
        person = rng.choice(len(self._people), p=self._share)
        take, clip = self._people[person][rng.choice(len(self._people[person]), p=self._clip_share[person])]
        n_frames = min(self._window, _length(clip))
        first = int(rng.integers(clip.start, clip.stop - n_frames + 1))
        return take, first, first + n_frames

    def _cut(self, values: np.ndarray, first: int, last: int) -> np.ndarray:
        return np.pad(values[first:last], ((0, self._window - (last - first)), (0, 0)))


def _overlap(one: tuple[Take, int, int], other: tuple[Take, int, int]) -> bool:
    """Whether two windows share more than half: they would be false negatives of each other.

    Variants of a recording have other tempi; the resulting shift of their positions is ignored.
    """
    shared = min(one[2], other[2]) - max(one[1], other[1])
    return one[0].name == other[0].name and shared > (one[2] - one[1]) / 2


def _length(clip: slice) -> int:
    return int(clip.stop - clip.start)


def _shares(weights: Sequence[float]) -> np.ndarray:
    return np.asarray(weights, np.float64) / np.sum(weights)

"""Tracked sources -> clips of whole nodes, and the arrays of a pack, one clip after another."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from engine.character.info import Clip
from engine.errors import InputError
from engine.features.motion import motion_vectors
from engine.motion_graph.connect import MIN_DWELL
from engine.skeleton import PARENTS
from engine.timebase import FRAMES_PER_NODE, frame_start
from tango_rt.characters.source import TrackedSource
from tango_rt.characters.tracking import SHORT_GAP_FRAMES

__all__ = ["cut_into_clips", "gather_audio", "gather_tracks"]


def cut_into_clips(sources: Sequence[TrackedSource]) -> tuple[Clip, ...]:
    """Stretches between shot changes in which the person is visible, cut to whole nodes.

    Raises InputError if no stretch is long enough.
    """
    clips = []
    for number, source in enumerate(sources):
        for first, last in _seen_stretches(source):
            n_frames = (last - first) // FRAMES_PER_NODE * FRAMES_PER_NODE
            if n_frames >= MIN_DWELL * FRAMES_PER_NODE:
                clips.append(Clip(number, first, n_frames))
    if not clips:
        longest = max((b - a for source in sources for a, b in _seen_stretches(source)), default=0)
        raise InputError(
            f"the longest stretch with a person and without a shot change has {longest} frames, "
            f"at least {MIN_DWELL * FRAMES_PER_NODE} are needed: use a video with fewer cuts"
        )
    return tuple(clips)


def _seen_stretches(source: TrackedSource) -> list[tuple[int, int]]:
    """Half-open ranges of frames without a shot change or a long stretch in which nobody was found."""
    valid = source.track.valid
    bounds = [0, *source.shots, len(valid)]
    stretches = []
    for first, last in pairwise(bounds):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], ~valid[first:last], [False]]).astype(np.int8)))
        at = first
        for start, stop in edges.reshape(-1, 2) + first:
            if stop - start > SHORT_GAP_FRAMES:
                stretches.append((at, int(start)))
                at = int(stop)
        stretches.append((at, last))
    return [(a, b) for a, b in stretches if b > a]


def gather_tracks(sources: Sequence[TrackedSource], clips: Sequence[Clip], unit_px: float) -> dict[str, np.ndarray]:
    """Arrays per frame of ARRAYS (engine.character.pack), F frames in the order of the clips."""
    names = ("joints", "confidence", "valid", "hands_found", "hand_boxes", "surface", "mouth")
    arrays = {
        name: np.concatenate([getattr(sources[clip.source].track, name)[_frames(clip)] for clip in clips])
        for name in names
    }
    clip_start = np.cumsum([0] + [clip.n_frames // FRAMES_PER_NODE for clip in clips])
    arrays["clip_start"] = clip_start
    arrays["appearance"] = np.concatenate([sources[clip.source].appearance[_frames(clip)] for clip in clips])
    if all(source.motion is not None for source in sources):
        arrays["motion"] = np.concatenate([sources[c.source].motion[_frames(c)] for c in clips])  # type: ignore[index]
    else:
        arrays["motion"] = motion_vectors(arrays["joints"], PARENTS, unit_px, clip_start * FRAMES_PER_NODE)
    return arrays


def gather_audio(sources: Sequence[TrackedSource], clips: Sequence[Clip]) -> np.ndarray:
    """Reference speech for the frames of the clips, int16 (frame_start(F),); silence once a source has run out."""
    n_frames = sum(clip.n_frames for clip in clips)
    audio = np.zeros(frame_start(n_frames), np.int16)
    frame = 0
    for clip in clips:
        at, end = frame_start(frame), frame_start(frame + clip.n_frames)
        first = frame_start(clip.first_frame)
        part = sources[clip.source].audio[first : first + end - at]
        audio[at : at + len(part)] = np.round(np.clip(part, -1, 1) * 32767)
        frame += clip.n_frames
    return audio


def _frames(clip: Clip) -> slice:
    return slice(clip.first_frame, clip.first_frame + clip.n_frames)

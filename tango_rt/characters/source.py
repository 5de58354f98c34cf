"""One tracked reference video: joints, shots and voice. The slow part, so it is cached by the file's content."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from engine.errors import InputError
from engine.features.appearance import N_CELLS, coarse_colours
from engine.features.archive import read_arrays
from engine.features.motion import smplx_motion_vectors
from engine.files import read_plain
from engine.folders import cache_folder, why_no_cache
from engine.warn import warn_once
from tango_rt.characters.pose import BLOCK_FRAMES, MASK_ROWS, RawPose, estimate_poses
from tango_rt.characters.shots import ShotDetector
from tango_rt.characters.smplx import joint_positions, read_body_model, read_smplx
from tango_rt.characters.stillness import Stillness
from tango_rt.characters.subject import SAMPLE_FRAMES, find_subject
from tango_rt.characters.tracking import Track, build_track
from tango_rt.progress import OnProgress, counted, silent
from tango_rt.sound.audio import check_audible, read_audio
from tango_rt.video.reader import MAX_FRAMES, VideoReader

__all__ = ["THUMBNAIL_FRAMES", "TrackedSource", "track_source"]

TRACKING_VERSION = 5
"""Version of what is cached (raw poses, colours, shots, notes) and of the pictures that it is computed from."""

THUMBNAIL_FRAMES = 6
"""Interval of the frames kept as thumbnails, from frame 0: at least two in the shortest clip."""

_THUMBNAIL_SIZE = 32, 24  # divides the grid of the masks
_LOW_HAND_SHARE = 0.6
_FRAME_BYTES = 4096  # more than a cached frame takes
_SPARE_FRAMES = 1000  # room for notes, shots, headers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedSource:
    """What a build needs from one video."""

    path: Path
    sha256: str
    n_frames: int
    shots: tuple[int, ...]
    track: Track
    appearance: np.ndarray  # uint8 (F, cells, 3): engine.features.appearance.coarse_colours
    thumbnails: np.ndarray  # uint8 (ceil(F / THUMBNAIL_FRAMES), 24, 32, 3)
    motion: np.ndarray | None  # float32 (F, 55, 15), if there is an SMPL-X file next to the video
    audio: np.ndarray  # float32, 16 kHz, from frame 0
    warnings: tuple[str, ...]
    cached: bool


@dataclass(frozen=True)
class _Found:
    """What is cached: raw poses and colours of all frames, thumbnails, shot changes, and notes for the user."""

    body: np.ndarray
    hands: np.ndarray
    mouth: np.ndarray
    masks: np.ndarray
    appearance: np.ndarray
    thumbnails: np.ndarray
    shots: np.ndarray
    notes: np.ndarray  # of strings

    def fits_together(self) -> bool:
        """Whether the arrays can come from one video."""
        n = len(self.body)
        wanted: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "body": (np.float32, (n, 33, 4)),
            "hands": (np.float32, (n, 2, 21, 3)),
            "mouth": (np.float32, (n, 2)),
            "masks": (np.uint64, (n, MASK_ROWS)),
            "appearance": (np.uint8, (n, N_CELLS, 3)),
            "thumbnails": (np.uint8, (-(-n // THUMBNAIL_FRAMES), *_THUMBNAIL_SIZE[::-1], 3)),
        }
        alike = all(
            getattr(self, name).shape == shape and getattr(self, name).dtype == dtype
            for name, (dtype, shape) in wanted.items()
        )
        shots = self.shots.tolist() if self.shots.ndim == 1 and self.shots.dtype == np.int64 else [-1]
        ordered = all(a < b for a, b in pairwise([0, *shots, n]))
        return alike and ordered and self.notes.ndim == 1 and self.notes.dtype.kind == "U"

    def poses(self) -> list[RawPose]:
        return [
            RawPose(body, hands[0], hands[1], mask, mouth)
            for body, hands, mask, mouth in zip(self.body, self.hands, self.masks, self.mouth, strict=True)
        ]


def track_source(
    path: Path, max_height: int, body_model: Path | None, n_workers: int, on_progress: OnProgress = silent
) -> TrackedSource:
    """Track the person in a video, or load what an earlier build of the same file found.

    Raises InputError: no usable video or voice, no person, or an SMPL-X file next to it that does not match.
    """
    heard: list[str] = []
    audio = read_audio(path, align_to_video=True, warn=heard.append)
    check_audible(audio, path)
    motion = _smplx_motion(path, body_model)
    sha256 = _sha256(path)
    name = f"{sha256}-{max_height}-{TRACKING_VERSION}.npz"
    folder = cache_folder()
    with VideoReader(path, max_height) as reader:
        info = reader.info
    found = None if folder is None else _load(folder / name, info.n_frames or MAX_FRAMES)
    cached = found is not None
    if found is None:
        found = _find(path, max_height, n_workers, on_progress)
        _save(folder, name, found)
    shots = tuple(int(shot) for shot in found.shots)
    track = build_track(found.poses(), shots, (info.height, info.width), path.name)
    return TrackedSource(
        path=path,
        sha256=sha256,
        n_frames=len(found.body),
        shots=shots,
        track=track,
        appearance=found.appearance,
        thumbnails=found.thumbnails,
        motion=None if motion is None else _of_length(motion, len(found.body), path),
        audio=audio,
        warnings=(*(f"{path.name}: {text}" for text in heard), *_warnings(path, track, found.notes.tolist())),
        cached=cached,
    )


def _find(path: Path, max_height: int, n_workers: int, on_progress: OnProgress) -> _Found:
    with VideoReader(path, max_height) as reader:
        n_frames = reader.info.n_frames
        samples = reader.every(SAMPLE_FRAMES)
        n_samples = None if n_frames is None else -(-n_frames // SAMPLE_FRAMES)
        subject = find_subject(counted(samples, on_progress, f"looking at {path.name}", n_samples, "frames"))
    detector, stillness = ShotDetector(), Stillness()
    appearance: list[np.ndarray] = []
    thumbnails: list[np.ndarray] = []

    def watched(frames: VideoReader) -> Iterator[np.ndarray]:
        for frame in frames:
            detector.push(frame)
            stillness.push(detector.picture)
            if len(appearance) % THUMBNAIL_FRAMES == 0:
                thumbnails.append(np.asarray(cv2.resize(frame, _THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA)))
            appearance.append(coarse_colours(frame))
            yield frame

    if n_frames is not None:
        n_workers = min(n_workers, -(-n_frames // BLOCK_FRAMES))  # a short video cannot use more
    with VideoReader(path, max_height) as reader:
        poses = estimate_poses(watched(reader), n_workers, subject=subject)
        found = list(counted(poses, on_progress, f"tracking {path.name}", n_frames, "frames"))
    notes = [*filter(None, [subject.warning]), *reader.warnings, *stillness.warnings()]
    return _Found(
        body=np.stack([pose.body for pose in found]),
        hands=np.stack([[pose.left_hand, pose.right_hand] for pose in found]),
        mouth=np.stack([pose.mouth for pose in found]),
        masks=np.stack([pose.person_mask for pose in found]),
        appearance=np.stack(appearance),
        thumbnails=np.stack(thumbnails),
        shots=np.array(detector.changes(), np.int64),
        notes=np.array(notes, str),
    )


def _warnings(path: Path, track: Track, notes: Iterable[str]) -> Iterator[str]:
    yield from (f"{path.name}: {note}" for note in notes)
    for side, share in zip(("left", "right"), track.hands_found.mean(axis=0), strict=True):
        if share < _LOW_HAND_SHARE:
            yield (
                f"{path.name}: the {side} hand was found in only {share:.0%} of frames; "
                "gestures match the voice better if the hands are always visible"
            )


def _smplx_motion(path: Path, body_model: Path | None) -> np.ndarray | None:
    """Motion at 30 fps from talk.smplx.npz or talk.npz next to talk.mp4, as the release computes it; else None."""
    adjacent = [path.with_suffix(suffix) for suffix in (".smplx.npz", ".npz")]
    file = next((file for file in adjacent if os.path.isfile(file)), None)  # False for a name that is too long
    if file is None:
        return None
    if body_model is None:
        raise InputError(f"{file} is next to the video: give the body model with --smplx-model, or move the file away")
    model = read_body_model(body_model)
    motion = read_smplx(file, model)
    return smplx_motion_vectors(joint_positions(motion, model), motion.poses)


def _of_length(motion: np.ndarray, n_frames: int, path: Path) -> np.ndarray:
    if abs(len(motion) - n_frames) > 2:
        raise InputError(
            f"the SMPL-X file next to {path} has {len(motion)} frames at 30 fps, the video {n_frames}: "
            "the two must be equal"
        )
    return motion[np.minimum(np.arange(n_frames), len(motion) - 1)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(file: Path, n_frames: int) -> _Found | None:
    """None for a missing or damaged file: then the video is tracked again. n_frames: approximate number of frames."""
    try:
        arrays = read_arrays(read_plain(file, _FRAME_BYTES * (2 * n_frames + _SPARE_FRAMES), follow_links=False))
        found = _Found(**{field.name: arrays[field.name] for field in fields(_Found)})
        return found if found.fits_together() else None
    except (OSError, ValueError, KeyError):
        return None


def _save(folder: Path | None, name: str, found: _Found) -> None:
    """Cache the result; on a full or read-only disk this build still succeeds, but the next one starts over."""
    if folder is None:
        _say_not_kept(why_no_cache())
        return
    partial = None
    try:
        # readable by its owner alone, even in a shared folder: how a person moves is private
        handle, partial = tempfile.mkstemp(prefix=".tango-", suffix=".npz", dir=folder)
        with os.fdopen(handle, "wb") as content:
            np.savez(content, **vars(found))
        os.replace(partial, folder / name)
    except OSError as error:
        _say_not_kept(f"{folder} cannot be written ({error.strerror or error})")
    finally:
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)


def _say_not_kept(reason: str) -> None:
    warn_once(_log, f"the tracking result is not cached, so the next build of this video will take as long: {reason}")

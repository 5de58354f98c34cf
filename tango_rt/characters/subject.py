"""Chooses whom to follow when several people are in the picture, before anything is tracked.

MediaPipe Holistic follows one person, and may jump from one to another. So faces are detected first, twice a second
over the whole video, and linked into tracks; the larger and steadier track is the subject, and the part of the picture
that belongs to somebody else is blacked out before tracking. With one person in view nothing is changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from tango_rt.characters.estimator import face_detector

__all__ = ["SAMPLE_FRAMES", "Face", "Subject", "choose_subject", "find_subject"]

SAMPLE_FRAMES = 15
_MIN_TRACK_SAMPLES = 2
_MAX_STEP = 1.5  # face widths between two samples of one track
_MAX_SIZE_RATIO = 1.6


@dataclass(frozen=True)
class Face:
    """A face in a picture: centre and width, in picture widths (x, width) and picture heights (y)."""

    x: float
    y: float
    width: float
    aspect: float = 1.0  # picture width / height: makes distances in x and y comparable

    def distance(self, other: "Face") -> float:
        return float(np.hypot(self.x - other.x, (self.y - other.y) / self.aspect))


@dataclass(frozen=True)
class Subject:
    """The part of the picture that belongs to the person who is followed."""

    # float32 (n_samples, 4): x0, y0, x1, y1 as fractions of width and height, a row for every SAMPLE_FRAMES frames
    regions: np.ndarray
    n_people: int
    crowded_share: float  # of the samples that show more than one person

    @property
    def warning(self) -> str | None:
        """One line for the user if there are other people in the picture."""
        if self.n_people < 2:
            return None
        return (
            f"{self.n_people} people are in the picture ({self.crowded_share:.0%} of the time): "
            "the larger and steadier one is followed"
        )

    def hide_others(self, frame: np.ndarray, index: int) -> None:
        """Black out, in place, what belongs to others in frame number `index`: uint8, shape (height, width, 3)."""
        if self.n_people < 2 or not len(self.regions):
            return
        height, width = frame.shape[:2]
        sample = min(round(index / SAMPLE_FRAMES), len(self.regions) - 1)
        x0, y0, x1, y1 = np.rint(self.regions[sample] * [width, height, width, height]).astype(int)
        frame[:y0], frame[y1:], frame[:, :x0], frame[:, x1:] = 0, 0, 0, 0


@dataclass
class _Track:
    samples: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)

    def score(self) -> float:
        """Larger and steadier is better: the sum of its sizes, reduced by how much it moves between samples."""
        widths = np.array([face.width for face in self.faces])
        steps = [one.distance(other) for one, other in zip(self.faces, self.faces[1:], strict=False)]
        return float(widths.sum() / (1 + np.median(steps or [0.0]) / np.median(widths)))

    def spans(self, sample: int) -> bool:
        return self.samples[0] <= sample <= self.samples[-1]

    def at(self, sample: int) -> Face:
        """The face at a sample: interpolated where it was missed, held before its first and after its last."""
        x, y, width = (
            float(np.interp(sample, self.samples, [getattr(face, name) for face in self.faces]))
            for name in ("x", "y", "width")
        )
        return Face(x, y, width, self.faces[0].aspect)

    def is_seen_with(self, other: "_Track") -> bool:
        return other is not self and len(set(self.samples) & set(other.samples)) >= _MIN_TRACK_SAMPLES


def find_subject(frames: Iterable[np.ndarray]) -> Subject:
    """Choose whom to follow. frames: every SAMPLE_FRAMES-th RGB frame of a video, uint8, shape (height, width, 3)."""
    samples: list[list[Face]] = []
    find_faces = face_detector()
    for frame in frames:
        aspect = frame.shape[1] / frame.shape[0]
        samples.append([Face(x, y, width, aspect) for x, y, width in find_faces(frame)])
    return choose_subject(samples)


def choose_subject(samples: list[list[Face]]) -> Subject:
    """The subject among the faces seen in evenly spaced samples of a video."""
    tracks = [track for track in _link(samples) if len(track.samples) >= _MIN_TRACK_SAMPLES]
    tracks.sort(key=_Track.score, reverse=True)
    regions = np.tile(np.array([0, 0, 1, 1], np.float32), (len(samples), 1))
    n_people, n_crowded = min(1, len(tracks)), 0
    for sample in range(len(samples)):
        subject = next((track for track in tracks if track.spans(sample)), None)
        if subject is None:
            continue
        # a small face is missed now and then, so anybody seen once together with the subject is assumed to stay
        rivals = [track for track in tracks if track.is_seen_with(subject)]
        n_people = max(n_people, 1 + sum(rival.spans(sample) for rival in rivals))
        n_crowded += bool(rivals)
        for rival in rivals:
            regions[sample] = _cut_off(regions[sample], subject.at(sample), rival.at(sample))
    return Subject(regions, n_people, n_crowded / max(1, len(samples)))


def _link(samples: list[list[Face]]) -> list[_Track]:
    tracks: list[_Track] = []
    for sample, faces in enumerate(samples):
        taken: set[int] = set()
        for face in sorted(faces, key=lambda face: -face.width):
            near = [
                (track.faces[-1].distance(face), number)
                for number, track in enumerate(tracks)
                if number not in taken and _may_follow(track.faces[-1], face)
            ]
            number = min(near)[1] if near else len(tracks)
            if not near:
                tracks.append(_Track())
            taken.add(number)
            tracks[number].samples.append(sample)
            tracks[number].faces.append(face)
    return tracks


def _may_follow(last: Face, face: Face) -> bool:
    larger, smaller = max(last.width, face.width), min(last.width, face.width)
    return last.distance(face) < _MAX_STEP * larger and larger < _MAX_SIZE_RATIO * smaller


def _cut_off(region: np.ndarray, subject: Face, rival: Face) -> np.ndarray:
    """The region without the rival's side; the border lies between the faces in proportion to their sizes."""
    share = subject.width / (subject.width + rival.width)
    x0, y0, x1, y1 = region
    dx, dy = rival.x - subject.x, rival.y - subject.y
    if abs(dx) >= abs(dy) / subject.aspect:
        border = subject.x + share * dx
        x0, x1 = (x0, min(x1, border)) if dx > 0 else (max(x0, border), x1)
    else:
        border = subject.y + share * dy
        y0, y1 = (y0, min(y1, border)) if dy > 0 else (max(y0, border), y1)
    return np.array([x0, y0, x1, y1], np.float32)

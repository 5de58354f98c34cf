"""The people that embeddings are tested on: recordings, with everything computed from them cached."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from engine.character.pack import SUFFIX, CharacterPack
from engine.features.body import joint_speeds
from engine.features.embedding import Embedding, Features
from engine.features.fit import Contexts, FitOptions, make_contexts
from engine.features.recording import Recording
from engine.features.scores import REACH, WINDOW, window_starts
from engine.features.speech import SMOOTH_ENERGY, SPEAKING, speech_features
from engine.features.validation import folds
from engine.skeleton import LEFT_ELBOW, LEFT_WRIST, NOSE, RIGHT_ELBOW, RIGHT_WRIST
from engine.timebase import FPS
from export.recordings import read_recordings

__all__ = ["Person", "Stretch", "compute_features", "compute_speech_features", "read_people", "smooth"]

_BODY = [NOSE, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST]
_SMOOTH_FRAMES = 2.0  # standard deviation; makes body speed as smooth as the energy it is compared with
_NAMESAKE = " #"


@dataclass(frozen=True)
class Stretch:
    """A part held out of a fit: first frame, last frame + 1, and the query windows, by number."""

    first: int
    last: int
    windows: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        return np.arange(self.first, self.last)


@dataclass(frozen=True, eq=False)
class Person:
    """A recording; pack is None if it came from another kind of file."""

    recording: Recording
    pack: CharacterPack | None = None

    @property
    def name(self) -> str:
        return self.recording.name

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of engine.features.speech, float32 (F, columns)."""
        return speech_features(self.recording.samples)[: self.recording.n_frames]

    @cached_property
    def speech_s(self) -> float:
        return float((self.rows[:, SPEAKING] >= 0.5).sum()) / FPS

    @cached_property
    def voice(self) -> np.ndarray:
        """Energy of the voice, float64 (F,)."""
        return self.rows[:, SMOOTH_ENERGY].astype(np.float64)

    @cached_property
    def raw_speed(self) -> np.ndarray:
        """Mean root of the speeds of head, elbows and wrists, float64 (F,): neither smoothed nor aware of clips."""
        recording = self.recording
        return np.asarray(
            np.sqrt(joint_speeds(recording.joints, recording.clip_start, recording.unit_px)[:, _BODY]).mean(axis=1)
        )

    @cached_property
    def speed(self) -> np.ndarray:
        """raw_speed smoothed within each clip."""
        return np.concatenate([smooth(self.raw_speed[clip]) for clip in self.recording.clips])

    @cached_property
    def asked(self) -> list[np.ndarray]:
        """Query frames of the low level, by stretch; empty if the recording is too short."""
        return folds(self.recording.n_frames)

    @cached_property
    def window_starts(self) -> np.ndarray:
        return window_starts(self.recording.n_frames)

    @cached_property
    def stretches(self) -> list[Stretch]:
        """Windows inside the query frames of the low level, so that one fit serves both; else the one in the middle."""
        found, starts = [], self.window_starts
        for asked in self.asked if len(starts) else []:
            first, last = int(asked[0]) - REACH, int(asked[-1]) + REACH
            inside = np.flatnonzero((starts >= first) & (starts + WINDOW <= last))
            if not len(inside):
                middle = (first + last - WINDOW) / 2
                inside = np.array([np.abs(starts - middle).argmin()])
                first, last = int(starts[inside[0]]), int(starts[inside[0]]) + WINDOW
            found.append(Stretch(first + REACH, last - REACH, inside))
        return found

    @cached_property
    def known(self) -> dict[Any, Any]:
        """Cached contexts and fits, by what they were made from."""
        return {}

    def scales(self, options: FitOptions) -> list[Contexts]:
        """The contexts that a fit uses, by scale."""
        return [self._contexts(half, options.mouth) for half in options.scales]

    def _contexts(self, half_frames: int, mouth: bool) -> Contexts:
        key = (half_frames, mouth)
        if key not in self.known:
            self.known[key] = make_contexts(self.recording, self.rows, half_frames, mouth)
        contexts: Contexts = self.known[key]
        return contexts


def read_people(data: Sequence[Path]) -> list[Person]:
    """Every recording counts as a different person. Raises like read_recordings."""
    packs = [CharacterPack.open(folder) for path in data for folder in _packs(path)]
    by_name = {(pack.info.name, pack.info.n_frames): pack for pack in packs}
    people: list[Person] = []
    for one in read_recordings(data):
        pack = by_name.get((one.name, one.n_frames))
        namesakes = sum(other.name.partition(_NAMESAKE)[0] == one.name for other in people)
        named = replace(one, name=f"{one.name}{_NAMESAKE}{namesakes + 1}") if namesakes else one
        people.append(Person(named, pack))
    return people


def compute_features(embedding: Embedding, person: Person) -> tuple[Features, Features]:
    """Features of a whole recording: speech, motion; each float32 (F, D)."""
    return compute_speech_features(embedding, person.recording.samples, person.rows), embedding.motion(person.recording)


def compute_speech_features(embedding: Embedding, samples: np.ndarray, rows: np.ndarray) -> Features:
    """Features of a whole speech whose rows of engine.features.speech are given."""
    listener = embedding.listen()
    parts = zip(listener.push(samples, rows), listener.flush(), strict=True)
    return Features(*(np.concatenate(pair)[: len(rows)] for pair in parts))


def smooth(speed: np.ndarray) -> np.ndarray:
    return np.asarray(gaussian_filter1d(speed, _SMOOTH_FRAMES, mode="nearest"))


def _packs(path: Path) -> list[Path]:
    if path.suffix == SUFFIX or (path / "pack.json").is_file():
        return [path]
    return sorted(folder for folder in path.rglob(f"*{SUFFIX}") if folder.is_dir()) if path.is_dir() else []

"""The effect of another voice: fitted to one voice, queried with another."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.features.embedding import Embedding
from engine.features.fit import FitOptions, fit_embedding
from engine.features.scores import WINDOW, low_hits
from engine.features.speech import speech_features
from engine.timebase import FPS
from export.evaluation.effects import EFFECTS
from export.evaluation.measures import BLOCK_FRAMES, correlation, mean_interval, score_windows
from export.evaluation.people import Person, compute_speech_features
from export.evaluation.rivals import fitted_to

__all__ = ["changed_hits", "changed_summary", "foreign", "foreign_summary"]

_STEP_FRAMES = 32  # between windows of foreign speech
_BLOCK = WINDOW // _STEP_FRAMES
_NEAR_FRAMES = FPS  # two choices this close are the same
_MIN_S = 20.0  # of a recording, for a fit to each half

Hits = dict[str, list[np.ndarray]]


def changed_hits(person: Person, options: FitOptions) -> Hits:
    """Low level, by effect and stretch, of the person's own unseen speech after each of EFFECTS: bool (n,)."""
    heard = {}
    for name, (tempo, effect) in EFFECTS.items():
        samples = effect(person.recording.samples)
        heard[name] = (tempo, samples, speech_features(samples))
    hits: Hits = {name: [] for name in EFFECTS}
    for asked in person.asked:
        embedding = fitted_to(person, asked, options)
        motion = embedding.motion(person.recording)
        for name, (tempo, samples, rows) in heard.items():
            speech = compute_speech_features(embedding, samples, rows)
            own = np.arange(person.recording.n_frames)
            places = np.round((own + 0.5) / tempo - 0.5).astype(int)
            hits[name].append(low_hits(speech.low[np.clip(places, 0, len(speech.low) - 1)], motion.low, asked))
    return hits


def changed_summary(people: Sequence[Hits]) -> dict[str, Any]:
    """By effect: low level, and the gain over the unchanged voice, with intervals."""
    told = {}
    for name in EFFECTS:
        parts = [part for hits in people for part in hits[name]]
        plain = [part for hits in people for part in hits["unchanged"]]
        gain = [a.astype(np.float64) - b for a, b in zip(parts, plain, strict=True)]
        told[name] = {"low": mean_interval(parts, BLOCK_FRAMES), "gain": mean_interval(gain, BLOCK_FRAMES)}
    return told


def foreign(person: Person, speakers: Sequence[Person], options: FitOptions) -> list[dict[str, np.ndarray]]:
    """What the fit to this person chooses for the speech of each of the others, by window (w,).

    chosen, random: r of voice energy and the person's body speed in the chosen window, and over all windows. If the
    recording is long enough for a fit to each half: `alike`, r of the scores that both fits give to the person's
    windows, `same`, whether they choose the same second, and both with the speech of one fit shifted (`_control`).
    """
    starts = person.window_starts
    speeds = person.speed[starts[:, None] + np.arange(WINDOW)]
    fits = [fitted_to(person, None, options)]
    if person.recording.duration_s >= _MIN_S:
        fits += _halves(person, options)
    motions = [fit.motion(person.recording) for fit in fits]
    found = []
    for speaker in speakers:
        asked = np.arange(0, speaker.recording.n_frames - WINDOW + 1, _STEP_FRAMES)
        if not len(asked):
            continue
        scores = [
            score_windows(compute_speech_features(fit, speaker.recording.samples, speaker.rows), motion, asked, starts)
            for fit, motion in zip(fits, motions, strict=True)
        ]
        r = correlation(speaker.voice[asked[:, None] + np.arange(WINDOW)], speeds)
        told = {"chosen": r[np.arange(len(asked)), scores[0].argmax(axis=1)], "random": r.mean(axis=1)}
        found.append(told | (_agreement(scores[1], scores[2], starts) if len(fits) > 1 else {}))
    return found


def foreign_summary(found: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Means with intervals over all windows of all speakers."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: mean_interval([one[name] for one in found if name in one], _BLOCK) for name in names}


def _halves(person: Person, options: FitOptions) -> tuple[Embedding, Embedding]:
    scales = person.scales(options)
    middle = person.recording.n_frames // 2
    first = [contexts.frames < middle - contexts.half_frames for contexts in scales]
    last = [contexts.frames > middle + contexts.half_frames for contexts in scales]
    return fit_embedding(scales, first, options), fit_embedding(scales, last, options)


def _agreement(one: np.ndarray, other: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    told = {}
    for name, moved in (("", other), ("_control", np.roll(other, len(other) // 2, axis=0))):
        told[f"alike{name}"] = np.diag(correlation(one, moved))
        gap = np.abs(starts[one.argmax(axis=1)] - starts[moved.argmax(axis=1)])
        told[f"same{name}"] = gap <= _NEAR_FRAMES
    return told

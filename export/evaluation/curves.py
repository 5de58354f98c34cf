"""What the fitted embedding gains from more look-ahead and from more video of the person, and what it costs."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from engine.character.steps import SpeechListener
from engine.features.embedding import Embedding
from engine.features.fit import LOOKAHEADS, FitOptions, Prior, fit_embedding, fit_prior, make_contexts
from engine.features.fitted import FittedEmbedding
from engine.features.onset import OnsetEmbedding
from engine.features.recording import Recording
from engine.features.scores import REACH, low_hits
from engine.features.speech import speech_features
from engine.features.validation import SMOOTHING_FRAMES, fit_person
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_start
from export.evaluation.measures import BLOCK_FRAMES, mean_interval
from export.evaluation.people import Person, compute_features, compute_speech_features
from export.evaluation.rivals import fitted_to
from export.training.batches import cut_nodes

__all__ = ["LEARNING_S", "learning_curve", "lookahead_hits", "lookahead_summary", "measure_costs"]

LEARNING_S = (5, 10, 15, 20, 30, 40)
_WHOLE = "whole"

Hits = dict[str, list[np.ndarray]]


def lookahead_hits(person: Person, options: FitOptions) -> Hits:
    """Hits of the low level by frames of look-ahead and stretch, bool (n,)."""
    hits: Hits = {name: [] for name in (*map(str, LOOKAHEADS), _WHOLE)}
    for asked in person.asked:
        embedding = fitted_to(person, asked, options)
        motion = embedding.motion(person.recording)
        for name in hits:
            reduced = embedding if name == _WHOLE else embedding.with_lookahead(int(name))
            speech = compute_speech_features(reduced, person.recording.samples, person.rows)
            hits[name].append(low_hits(speech.low, motion.low, asked))
    return hits


def lookahead_summary(people: Sequence[Hits]) -> dict[str, Any]:
    """Over one or more people, by frames of look-ahead."""
    return {name: mean_interval([part for hits in people for part in hits[name]], BLOCK_FRAMES) for name in people[0]}


def learning_curve(person: Person, options: FitOptions, others: Sequence[Person]) -> dict[str, Any]:
    """Low level on the last stretch by seconds fitted to; these end before anything that the stretch depends on.

    `prior`: with the covariances of the others mixed in. Empty if the recording is too short.
    """
    if not person.asked:
        return {}
    asked = person.asked[-1]
    end = (int(asked[0]) - REACH - max(options.scales) - SMOOTHING_FRAMES) // FRAMES_PER_NODE
    prior = fit_prior([(other.recording, other.rows) for other in others], options) if others else None
    told: dict[str, Any] = {"frames": len(asked), "onset": _hits(OnsetEmbedding(), person, asked), "fitted": {}}
    told["prior"] = {}
    for seconds in LEARNING_S:
        first = end - seconds * FPS // FRAMES_PER_NODE
        if first < 0:
            break
        part = cut_nodes(person.recording, first, end)
        told["fitted"][str(seconds)] = _hits(_fit(part, options, None), person, asked)
        if prior is not None:
            told["prior"][str(seconds)] = _hits(_fit(part, options, prior), person, asked)
    return told if told["fitted"] else {}


def measure_costs(person: Person, options: FitOptions) -> dict[str, Any]:
    """CPU seconds of a fit, with and without cross-validation, and of processing speech.

    The work of all cores is counted, so they are seconds on one core.
    """
    seconds = person.recording.duration_s
    samples = person.recording.samples
    embedding, fit_s = _timed(lambda: _fit(person.recording, options, None))
    _, build_s = _timed(lambda: fit_person(person.recording, options))
    _, rows_s = _timed(lambda: speech_features(samples))
    node_ms = _node_ms(embedding, samples)
    return {
        "duration_s": seconds,
        "fit_cpu_s": fit_s,
        "fit_and_cross_validation_cpu_s": build_s,
        "rows_times_real_time": seconds / rows_s,
        "node_ms_p50": float(np.quantile(node_ms, 0.5)),
        "node_ms_p99": float(np.quantile(node_ms, 0.99)),
        "streaming_times_real_time": 1000 * len(node_ms) * FRAMES_PER_NODE / FPS / float(node_ms.sum()),
    }


def _fit(recording: Recording, options: FitOptions, prior: Prior | None) -> FittedEmbedding:
    rows = speech_features(recording.samples)
    return fit_embedding(
        [make_contexts(recording, rows, half, options.mouth) for half in options.scales], None, options, prior
    )


def _hits(embedding: Embedding, person: Person, asked: np.ndarray) -> dict[str, float]:
    speech, motion = compute_features(embedding, person)
    return mean_interval([low_hits(speech.low, motion.low, asked)], BLOCK_FRAMES)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the fewest CPU seconds of three runs."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return result, min(seconds)


def _node_ms(embedding: Embedding, samples: np.ndarray) -> np.ndarray:
    """Milliseconds of compute per node of speech, streamed one node at a time."""
    listener = SpeechListener(embedding)
    edges = [frame_start(frame) for frame in range(0, len(samples) * FPS // SAMPLE_RATE, FRAMES_PER_NODE)]
    times = []
    for first, last in pairwise(edges):
        started = time.thread_time()
        listener.push(samples[first:last])
        times.append(1000 * (time.thread_time() - started))
    return np.array(times)

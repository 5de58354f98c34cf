"""People whose hands move with the voice, and fits to them."""

import numpy as np

from engine.features import fit as fit_module
from engine.features.embedding import Embedding
from engine.features.fit import FitOptions, fit_embedding, make_contexts
from engine.features.fitted import FittedEmbedding
from engine.features.recording import Recording
from engine.features.scores import low_hits
from engine.features.speech import speech_features
from engine.features.validation import hear
from tests.helpers.fakes_recording import gestures, recording_of, syllables, voiced

QUICK = FitOptions(scales=(8, 24))
MINUTE = 1200  # frames of a planted person, 40 s


def person(seed: int, n_frames: int = MINUTE, lag: int = 0, noise_px: float = 0.3) -> Recording:
    """Somebody whose hands move with the voice, `lag` frames later."""
    rng = np.random.default_rng(seed)
    loud = syllables(n_frames, rng)
    return recording_of(gestures(loud, lag, rng, noise_px), samples=voiced(loud, rng))


def rows_of(recording: Recording) -> np.ndarray:
    return speech_features(recording.samples)[: recording.n_frames]


def share_found(embedding: Embedding, recording: Recording, shift: int = 0) -> float:
    """Low-level accuracy on a recording that the embedding was not fitted to."""
    speech = np.roll(hear(embedding, rows_of(recording)).low, shift, axis=0)
    frames = np.arange(150, recording.n_frames - 50)
    return float(low_hits(speech, embedding.motion(recording).low, frames).mean())


def fitted_to(
    recording: Recording, options: FitOptions = QUICK, prior: fit_module.Prior | None = None
) -> FittedEmbedding:
    scales = [make_contexts(recording, rows_of(recording), half, options.mouth) for half in options.scales]
    return fit_embedding(scales, None, options, prior)

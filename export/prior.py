"""What people have in common: covariances of voice and motion, for fits to people with little video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.errors import InputError
from engine.features.fit import FitOptions, fit_prior
from engine.features.prior import save_prior
from engine.features.speech import speech_features
from export.recordings import read_recordings

__all__ = ["make_prior"]


def make_prior(data: Sequence[Path], output: Path, options: FitOptions) -> dict[str, Any]:
    """Write the prior of all recordings found. Raises InputError if the mouth is requested and a recording lacks it."""
    recordings = read_recordings(data)
    without = [one.name for one in recordings if options.mouth and one.mouth is None]
    if without:
        raise InputError(f"{', '.join(without)}: there are no mouth movements; use --no-mouth")
    heard = tqdm(recordings, desc="hearing", unit="recording", disable=None)
    people = [(one, speech_features(one.samples)[: one.n_frames]) for one in heard]
    save_prior(fit_prior(people, options), output)
    return {
        "output": str(output),
        "recordings": [one.name for one in recordings],
        "duration_s": round(sum(one.duration_s for one in recordings), 1),
        "mouth": options.mouth,
    }

"""Covariances of many people on disk, which support a fit if there is little of the person."""

from pathlib import Path

import numpy as np

from engine.errors import ArtifactError, InputError
from engine.features.archive import read_arrays
from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS
from engine.features.fit import Covariances, FitOptions, Prior
from engine.features.linear import AUDIO_COLUMNS, bin_offsets
from engine.files import read_plain

__all__ = ["load_prior", "save_prior"]

_PARTS = ("voice", "body", "both")
_MAX_BYTES = 64 << 20


def save_prior(prior: Prior, file: Path) -> None:
    """Save as .npz, float32. Raises InputError if it cannot be written."""
    arrays = {
        f"{half}/{name}": getattr(part, name).astype(np.float32) for half, part in prior.items() for name in _PARTS
    }
    try:
        with file.open("wb") as content:
            np.savez(content, **arrays)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error


def load_prior(file: Path, options: FitOptions) -> Prior:
    """Load a prior. Raises InputError if there is none, ArtifactError if it is damaged or made for other options."""
    if not file.is_file():
        raise InputError(f"no prior at {file}: expected a file made by 'tango-export prior'")
    n_body = len(BODY_COLUMNS) + (len(MOUTH_COLUMNS) if options.mouth else 0)
    prior = {}
    try:
        arrays = read_arrays(read_plain(file, _MAX_BYTES))
        for half in options.scales:
            n_bins = len(bin_offsets(half))
            sides = {"voice": n_bins * len(AUDIO_COLUMNS), "body": n_bins * n_body}
            found = Covariances(*(arrays[f"{half}/{name}"].astype(np.float64) for name in _PARTS))
            for name, shape in {
                "voice": (sides["voice"],) * 2,
                "body": (sides["body"],) * 2,
                "both": (sides["voice"], sides["body"]),
            }.items():
                part = getattr(found, name)
                if part.shape != shape or not np.isfinite(part).all():
                    raise ValueError(f"{name} of {half} frames has shape {part.shape}, expected {shape}")
            prior[half] = found
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{file} is not a prior for a fit {'with' if options.mouth else 'without'} the mouth ({error}): "
            "make it with 'tango-export prior'"
        ) from error
    return prior

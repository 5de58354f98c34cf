"""A complete speech: from a file, a pipe or an array."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from engine.errors import InputError
from tango_rt.media.pipes import make_rereadable
from tango_rt.sound.audio import audio_blocks, check_audible, discard_warning, read_audio
from tango_rt.sound.resample import Resampler

__all__ = ["Speech", "open_speech", "speech_from_samples"]


@dataclass(frozen=True)
class Speech:
    """Its samples for retrieval, and its sound once more for the video."""

    name: str
    samples: np.ndarray  # float32 (n,), 16 kHz, from -1 to 1
    blocks: Callable[[int], Iterator[np.ndarray]]  # rate in Hz -> float32 (m,), one after the other
    warnings: tuple[str, ...] = ()
    path: Path | None = None  # the file, if it is one


@contextmanager
def open_speech(path: Path) -> Iterator[Speech]:
    """Open any audio or video file, or a pipe (-). Raises InputError if it is silent or unreadable."""
    with make_rereadable(path) as file:
        warnings: list[str] = []
        samples = read_audio(file, warn=warnings.append)
        check_audible(samples, file)

        def blocks(rate_hz: int) -> Iterator[np.ndarray]:
            return audio_blocks(file, rate_hz, warn=discard_warning)

        yield Speech(path.name, samples, blocks, tuple(f"{path.name}: {text}" for text in warnings), path)


def speech_from_samples(samples: np.ndarray, rate_hz: int) -> Speech:
    """samples: float32 (n,), mono, from -1 to 1. Raises InputError for a rate outside 8 to 48 kHz, and for silence."""
    resampler = Resampler(rate_hz)
    heard = np.concatenate([resampler.push(samples), resampler.flush()])
    if not len(heard):
        raise InputError("the speech has no samples")
    check_audible(heard, Path("the speech"))

    def blocks(wanted_hz: int) -> Iterator[np.ndarray]:
        common = gcd(wanted_hz, rate_hz)
        same = wanted_hz == rate_hz
        whole = samples if same else resample_poly(samples, wanted_hz // common, rate_hz // common)
        yield np.clip(whole, -1, 1).astype(np.float32)

    return Speech("the speech", heard, blocks)

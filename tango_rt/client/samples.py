"""Sound as a session sends it, from arrays, lists, typed buffers or bytes.

Nothing is guessed: numbers of unknown full scale are refused, because a wrong guess would sound like noise or silence.
"""

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from tango_rt.client.errors import BackendError, InputError
from tango_rt.client.options import AudioCoding

__all__ = ["BYTES_PER_SAMPLE", "Samples", "audio_bytes"]

BYTES_PER_SAMPLE = {"s16": 2, "float32": 4}

_BUFFER_FORMATS = {"s16": "h", "float32": "f"}
_FULL_SCALES = {"int8": (0, 2**7), "uint8": (2**7, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}
"""For each integer type of recordings: the value of silence, and its distance to full scale."""

_LIMIT = 1 + 2**-10
"""Of floats: one step of half precision beyond full scale is rounding, and so is -32768 / 32767; servers agree."""

_BLOCK = 1 << 16  # samples converted at once, to bound the memory for long sound
_WANTED = "wanted floats from -1 to 1, int16, int32, int8, or uint8 as WAV files hold it"


class Arrayable(Protocol):
    """NumPy arrays, and anything that converts to one: tensors, series, ..."""

    def __array__(self) -> Any: ...


Samples = Arrayable | Sequence[float] | bytes | bytearray | memoryview


def audio_bytes(samples: Samples, encoding: AudioCoding) -> bytes:
    """One channel in the session's encoding, little endian.

    samples: an array of floats in [-1, 1], or of int8, int16, int32 or uint8 (128 is silence) of full range, of shape
    (n,), (n, 1) or (1, n). Bytes, and any other buffer of bytes that is not an array, hold samples in the session's
    encoding already. Without NumPy, only those and buffers of the session's own type can be sent.

    Raises InputError for anything else: several channels, other types, NaN, floats beyond full scale by more than
    rounding; BackendError if NumPy is needed and missing.
    """
    view = None if hasattr(samples, "__array__") else _view(samples)
    if view is not None and view.format.lstrip("@=<>!") in ("B", "c"):
        return _as_written(view.tobytes(), encoding)
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        if view is not None and view.format == _BUFFER_FORMATS[encoding] and sys.byteorder == "little":
            return _as_written(view.tobytes(), encoding)
        raise _needs_numpy(samples, encoding) from error
    values = _channel(samples, np)
    silence, full_scale = _scale_of(values)
    return b"".join(
        _encoded((block.astype(np.float64) - silence) / full_scale, encoding, np) for block in _blocks(values)
    )


def _view(samples: object) -> memoryview | None:
    try:
        return memoryview(samples)  # type: ignore[arg-type]
    except TypeError:
        return None


def _as_written(data: bytes, encoding: AudioCoding) -> bytes:
    if len(data) % BYTES_PER_SAMPLE[encoding]:
        raise InputError(f"{len(data)} bytes are not a whole number of {encoding} samples")
    if encoding == "float32":
        floats = array("f", data)
        if sys.byteorder == "big":
            floats.byteswap()
        # not max(): comparisons with NaN are false, so it could miss one
        _check_peak(next((value for value in floats if not -_LIMIT <= value <= _LIMIT), 0.0))
    return data


def _needs_numpy(samples: object, encoding: AudioCoding) -> BackendError:
    return BackendError(
        f"samples of type {type(samples).__name__} are converted by NumPy, which is not installed: pip install numpy, "
        f"or send bytes or a buffer of {'int16' if encoding == 's16' else 'float32'}"
    )


def _channel(samples: Any, np: Any) -> Any:
    """(n,) of any type."""
    if np.ma.is_masked(samples):
        raise InputError("some of the samples are masked: fill them in first")
    try:
        values = np.asarray(samples)
    except Exception as error:  # whatever a foreign __array__ raises
        reason = " ".join(str(error).split())
        raise InputError(f"samples of type {type(samples).__name__} cannot be read as an array ({reason})") from error
    if values.ndim == 2 and 1 in values.shape:
        return values.reshape(-1)
    if values.ndim == 0:
        raise InputError(f"samples of type {type(samples).__name__} are not an array, {_WANTED}")
    if values.ndim != 1:
        mixed = ": mix the channels, or send one of them" if values.ndim == 2 else ""
        raise InputError(f"samples have shape {values.shape}, wanted one channel, (n,), (n, 1) or (1, n){mixed}")
    return values


def _scale_of(values: Any) -> tuple[int, int]:
    """The value of silence, and its distance to full scale."""
    if values.dtype.kind == "f":
        return 0, 1
    if values.dtype.name in _FULL_SCALES:
        return _FULL_SCALES[values.dtype.name]
    unknown = ", whose full scale is unknown" if values.dtype.kind in "iu" else ""
    raise InputError(f"samples of type {values.dtype}{unknown}: {_WANTED}")


def _blocks(values: Any) -> Iterator[Any]:
    for start in range(0, len(values), _BLOCK):
        yield values[start : start + _BLOCK]


def _encoded(block: Any, encoding: AudioCoding, np: Any) -> bytes:
    """block: float64 (n,), 1 is full scale."""
    _check_peak(float(np.abs(block).max()))
    if encoding == "float32":
        data: bytes = np.clip(block, -1, 1).astype("<f4").tobytes()
    else:
        data = np.clip(np.rint(block * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes()
    return data


def _check_peak(peak: float) -> None:
    """Raises InputError for a peak that is NaN, infinite or beyond full scale."""
    if abs(peak) <= _LIMIT:
        return
    if abs(peak) < float("inf"):
        raise InputError(
            f"samples reach {peak:g}, but full scale is 1: divide 16-bit numbers by 32768 (or send them as int16), and "
            "scale or clip sound that is too loud"
        )
    raise InputError("samples are NaN or infinite, wanted numbers from -1 to 1")

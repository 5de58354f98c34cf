"""What a session sends of samples of any kind: their sound, or a line that says why not; never noise."""

import asyncio
import ctypes
import mmap
import subprocess
import sys
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tango_rt.client import AsyncClient, BackendError, Client, InputError, SessionOptions
from tango_rt.client.options import AudioCoding
from tango_rt.client.samples import audio_bytes
from tests.helpers.fakes_server import Response, accept, fake_server

ENCODINGS: tuple[AudioCoding, ...] = ("s16", "float32")
FULL_SCALE = {"s16": 2.0**15, "float32": 1.0}
TYPES = {"int8": (0, 128), "uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}

encodings = st.sampled_from(ENCODINGS)


def heard(data: bytes, encoding: AudioCoding) -> np.ndarray:
    """What the protocol says that bytes stand for, float64 in [-1, 1]."""
    return np.frombuffer(data, {"s16": "<i2", "float32": "<f4"}[encoding]) / FULL_SCALE[encoding]


def finest(encoding: AudioCoding) -> float:
    """How far a sample may be from what it stands for: half a step, or a whole one at the positive end of 16 bits."""
    return {"s16": 1.001 / 2**15, "float32": 2.0**-24}[encoding]


@st.composite
def layouts(draw: st.DrawFn, dtype: str, **elements: Any) -> np.ndarray:
    """Samples of a type in either byte order, contiguous or not, in one of the shapes of one channel."""
    order = draw(st.sampled_from("<>"))
    values = draw(arrays.arrays(np.dtype(dtype).newbyteorder(order), st.integers(0, 40), **elements))
    step = draw(st.sampled_from((1, -1, 2, 3)))
    return values[::step].reshape(draw(st.sampled_from(((-1,), (-1, 1), (1, -1)))))


@given(data=st.data(), name=st.sampled_from(sorted(TYPES)), encoding=encodings)
def test_integers_sound_by_their_own_range(data: st.DataObject, name: str, encoding: AudioCoding) -> None:
    samples = data.draw(layouts(name))
    silence, full_scale = TYPES[name]
    meant = (samples.reshape(-1).astype(float) - silence) / full_scale
    assert np.abs(heard(audio_bytes(samples, encoding), encoding) - meant).max(initial=0) <= finest(encoding)


@given(data=st.data(), name=st.sampled_from(("float16", "float32", "float64")), encoding=encodings)
def test_floats_sound_as_they_are(data: st.DataObject, name: str, encoding: AudioCoding) -> None:
    width = 8 * np.dtype(name).itemsize
    samples = data.draw(layouts(name, elements=st.floats(-1, 1, width=width)))
    sound = heard(audio_bytes(samples, encoding), encoding)
    assert np.abs(sound - samples.reshape(-1)).max(initial=0) <= finest(encoding)


@given(samples=arrays.arrays(np.int16, st.integers(0, 40)))
def test_16_bits_come_back_from_floats(samples: np.ndarray) -> None:
    floats = np.frombuffer(audio_bytes(samples, "float32"), "<f4")
    assert audio_bytes(floats, "s16") == audio_bytes(samples, "s16") == samples.astype("<i2").tobytes()


@given(
    samples=arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1, 1)),
    loud=st.floats(1.001, allow_nan=False) | st.just(float("nan")),
    sign=st.sampled_from((-1, 1)),
    at=st.integers(0, 39),
    encoding=encodings,
)
def test_floats_beyond_full_scale_are_refused(
    samples: np.ndarray, loud: float, sign: int, at: int, encoding: AudioCoding
) -> None:
    samples[at % len(samples)] = sign * loud
    with pytest.raises(InputError, match=r"full scale is 1: divide|NaN or infinite"):
        audio_bytes(samples, encoding)
    if encoding == "float32" and not 1 < loud < 1.0011:
        with np.errstate(over="ignore"), pytest.raises(InputError, match=r"full scale is 1: divide|NaN or infinite"):
            audio_bytes(samples.astype("<f4").tobytes(), encoding)


def test_rounding_is_clipped() -> None:
    samples = np.array([-32768 / 32767, 1.0001, 1.0])
    assert audio_bytes(samples, "s16") == np.array([-32768, 32767, 32767], "<i2").tobytes()
    assert audio_bytes(samples, "float32") == np.array([-1, 1, 1], "<f4").tobytes()


def test_16_bit_numbers_as_floats_are_told_by_their_size() -> None:
    with pytest.raises(InputError, match=r"samples reach 12000, .* divide 16-bit numbers by 32768"):
        audio_bytes(np.array([5.0, -12000.0, 3.0]), "s16")


class _Tensor:
    """As the tensors of other libraries."""

    def __init__(self, values: np.ndarray, error: Exception | None = None) -> None:
        self._values = values
        self._error = error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._error is not None:
            raise self._error
        return self._values


MEANT = np.array([0, 1, -2, 16384, -32768], np.int16)


def _mapped(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


@pytest.mark.parametrize(
    "samples",
    [
        MEANT.tobytes(),
        bytearray(MEANT.tobytes()),
        memoryview(MEANT.tobytes()),
        _mapped(MEANT.tobytes()),
        array("B", MEANT.tobytes()),
        (ctypes.c_ubyte * 10).from_buffer_copy(MEANT.tobytes()),
        memoryview(MEANT),
        array("h", MEANT),
        (ctypes.c_int16 * 5)(*MEANT.tolist()),
        MEANT.astype(">i2"),
        np.repeat(MEANT, 2)[::2],
        MEANT[:, None],
        MEANT[None],
        (MEANT / 32768).tolist(),
        tuple(MEANT / 32768),
        array("f", MEANT / 32768),
        array("i", MEANT.astype(int) << 16),
        _Tensor(MEANT),
    ],
    ids=lambda samples: type(samples).__name__,
)
def test_what_samples_may_lie_in(samples: Any) -> None:
    assert audio_bytes(samples, "s16") == MEANT.tobytes()


class _Nothing:
    pass


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros((480, 2)), r"shape \(480, 2\), wanted one channel, .*: mix the channels"),
        (np.zeros((2, 480), np.int16), "mix the channels"),
        (np.zeros((1, 1, 4)), "wanted one channel"),
        (np.float32(0.5), "no array"),
        (0.5, "type float are no array"),
        (None, "type NoneType are no array"),
        (_Nothing(), "type _Nothing are no array"),
        (iter([0.5]), "no array"),
        ("text", "type str are no array"),
        (["0.5"], "type <U3"),
        (np.zeros(4, bool), "samples of type bool: wanted floats from -1 to 1, int16"),
        (np.zeros(4, complex), "samples of type complex128: wanted"),
        (np.array([0.5, None]), "samples of type object: wanted"),
        (np.zeros(4, "V2"), r"samples of type \|V2: wanted"),
        (np.zeros(4, "M8[s]"), "samples of type datetime64"),
        ([1, 2, 3], "samples of type int64, whose full scale is unknown: wanted"),
        (np.zeros(4, np.int64), "full scale is unknown"),
        (np.zeros(4, np.uint16), "samples of type uint16, whose full scale is unknown"),
        (np.zeros(4, np.uint32), "full scale is unknown"),
        (np.zeros(4, np.uint64), "full scale is unknown"),
        ([[0.5], [0.5, 0.5]], "cannot be read as an array"),
        ([0.5, 10**400], "samples of type object"),
        (
            _Tensor(MEANT, TypeError("can't convert cuda:0\ndevice")),
            "_Tensor cannot be read .*can't convert cuda:0 dev",
        ),
        (np.ma.masked_array([0.5, 0.1], [False, True]), "masked"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([0.0, -np.inf], np.float16), "NaN or infinite"),
        (b"odd", "3 bytes are not a whole number of"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_cannot_be_told_is_refused(samples: Any, said: str, encoding: AudioCoding) -> None:
    with pytest.raises(InputError, match=said) as refused:
        audio_bytes(samples, encoding)
    assert "\n" not in str(refused.value)


def test_no_samples_are_no_bytes() -> None:
    for samples in (b"", [], np.zeros(0, np.int8), np.zeros((0, 1))):
        assert audio_bytes(samples, "s16") == audio_bytes(samples, "float32") == b""


def test_long_sound_is_converted_in_pieces() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 300_001)
    assert audio_bytes(samples, "float32") == samples.astype("<f4").tobytes()


WITHOUT_NUMPY = """
import sys
from array import array
sys.modules["numpy"] = None
from tango_rt.client import BackendError, InputError
from tango_rt.client.samples import audio_bytes

assert audio_bytes(b"\\1\\0", "s16") == audio_bytes(array("h", [1]), "s16") == b"\\1\\0"
halves = array("f", [0.5, -0.5])
assert audio_bytes(halves, "float32") == audio_bytes(halves.tobytes(), "float32") == halves.tobytes()
for samples, encoding, kind, said in (
    ([0.5], "s16", BackendError, "type list are converted by NumPy, which is not installed: pip install numpy"),
    (array("f", [0.5]), "s16", BackendError, "or send bytes or a buffer of int16"),
    (array("h", [1]), "float32", BackendError, "or send bytes or a buffer of float32"),
    (array("f", [0.5, float("nan")]), "float32", InputError, "NaN"),
    (array("f", [0.5, -12000.0]), "float32", InputError, "samples reach -12000, but full scale is 1"),
    (b"odd", "s16", InputError, "whole samples"),
):
    try:
        audio_bytes(samples, encoding)
    except kind as error:
        assert said in str(error), error
    else:
        raise AssertionError(said)
"""


def test_without_numpy_bytes_and_buffers_are_sent() -> None:
    assert issubclass(BackendError, Exception)
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_a_server_hears(asynchronous: bool, encoding: AudioCoding) -> None:
    """16 bits into either session, by either client, as a server gets them; what cannot be sent ends nothing."""
    got = bytearray()

    def behaviour(requests: Iterator[Any], context: Any) -> Iterator[Response]:
        yield accept(next(requests))
        for request in requests:
            got.extend(request.audio.data)

    options = SessionOptions("anna", audio_encoding=encoding)

    async def speak(target: str) -> None:
        async with AsyncClient(target) as client, client.stream(options) as session:
            with pytest.raises(InputError, match="full scale"):
                await session.send_audio(MEANT.astype(float))
            await session.send_audio(MEANT)
            await session.finish()
            assert [event async for event in session] == []

    with fake_server(behaviour) as target:
        if asynchronous:
            asyncio.run(speak(target))
        else:
            with Client(target) as client, client.stream(options) as session:
                with pytest.raises(InputError, match="full scale"):
                    session.send_audio(MEANT.astype(float))
                session.send_audio(MEANT)
                session.finish()
                assert list(session) == []
    assert np.array_equal(heard(bytes(got), encoding), MEANT / 32768)


def test_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.tensor([0.5, -0.25])
    assert audio_bytes(tensor, "s16") == np.array([16384, -8192], "<i2").tobytes()
    assert audio_bytes(tensor[None], "float32") == np.array([0.5, -0.25], "<f4").tobytes()
    for unreadable in (tensor.requires_grad_(), torch.zeros(4, dtype=torch.bfloat16)):
        with pytest.raises(InputError, match="Tensor cannot be read as an array"):
            audio_bytes(unreadable, "s16")

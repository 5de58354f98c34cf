"""Speech from a WAV file, using only the standard library."""

import wave
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import mul
from pathlib import Path

from tango_rt.client.errors import InputError

__all__ = ["WavSpeech"]

_BLOCK = 1 << 14  # samples read at once


@dataclass(frozen=True)
class WavSpeech:
    """One channel of a file. channel: from 0, the loudest; not a mix, because opposite phases would cancel out."""

    path: Path
    rate_hz: int
    n_samples: int
    n_channels: int
    channel: int

    @classmethod
    def open(cls, path: Path) -> "WavSpeech":
        """Raises InputError for anything but a WAV file of 8, 16, 24 or 32 bits with samples."""
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            with wave.open(str(path)) as file:
                n_channels, rate_hz, n_samples = file.getnchannels(), file.getframerate(), file.getnframes()
                loudest = _loudest(file, n_channels) if n_channels > 1 else 0
        except (wave.Error, EOFError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "it ends early"
            wanted = "wanted WAV of 8 to 32 bits: ffmpeg -i IN -ac 1 -c:a pcm_s16le OUT.wav makes one"
            raise InputError(f"{path}: cannot read it as WAV ({reason}), {wanted}") from error
        if not n_samples:
            raise InputError(f"{path}: no samples in it")
        return cls(path, rate_hz, n_samples, n_channels, loudest)

    def blocks(self) -> Iterator[bytes]:
        """All samples, 16 bits, little endian."""
        with wave.open(str(self.path)) as file:
            for data in _read(file):
                yield _channel(data, self.n_channels, self.channel)


def _read(file: wave.Wave_read) -> Iterator[bytes]:
    """16 bits of every channel, interleaved."""
    to_16 = _to_16(file.getsampwidth())
    n_bytes = file.getsampwidth() * file.getnchannels()
    while data := file.readframes(_BLOCK):
        yield to_16(data[: len(data) // n_bytes * n_bytes])  # a truncated file may end in the middle of a sample


def _loudest(file: wave.Wave_read, n_channels: int) -> int:
    energy = [0] * n_channels
    for data in _read(file):
        samples = array("h", data)
        for channel in range(n_channels):
            values = samples[channel::n_channels]
            energy[channel] += sum(map(mul, values, values))
    return energy.index(max(energy))


def _channel(data: bytes, n_channels: int, channel: int) -> bytes:
    return array("h", array("h", data)[channel::n_channels]).tobytes() if n_channels > 1 else data


def _to_16(n_bytes: int) -> Callable[[bytes], bytes]:
    """Converter from samples of n_bytes to their upper 16 bits; 8-bit samples are centred on 128."""
    signed = bytes(value ^ 0x80 for value in range(256))

    def from_8(data: bytes) -> bytes:
        samples = bytearray(2 * len(data))
        samples[1::2] = data.translate(signed)
        return bytes(samples)

    def from_more(data: bytes) -> bytes:
        samples = bytearray(len(data) // n_bytes * 2)
        samples[0::2], samples[1::2] = data[n_bytes - 2 :: n_bytes], data[n_bytes - 1 :: n_bytes]
        return bytes(samples)

    return from_8 if n_bytes == 1 else from_more

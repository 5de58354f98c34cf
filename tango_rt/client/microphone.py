"""Sound from the microphone in short blocks, using the package sounddevice if it is installed."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.errors import BackendError

__all__ = ["Microphone"]

_BLOCK_S = 0.02
_INSTALL = "the microphone needs the package sounddevice: pip install sounddevice"


class Microphone:
    """Blocks of 20 ms, float32 (n,) mono, from entering the with until stop()."""

    def __init__(self, rate_hz: int) -> None:
        """Raises BackendError if sounddevice or a microphone is missing."""
        try:
            import sounddevice
        except ImportError as error:
            raise BackendError(_INSTALL) from error
        except OSError as error:  # the package is installed, its native library is not
            raise BackendError(f"sounddevice cannot be used: {error} (on Debian: apt install libportaudio2)") from error
        self._blocks: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._stopped = threading.Event()
        try:
            self._stream = sounddevice.InputStream(
                samplerate=rate_hz,
                channels=1,
                dtype="float32",
                blocksize=round(_BLOCK_S * rate_hz),
                callback=self._heard,
            )
        except sounddevice.PortAudioError as error:
            raise BackendError(f"no usable microphone: {error.args[0]}") from error

    def __enter__(self) -> Iterator[np.ndarray]:
        self._stream.start()
        return self._read()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stream.close()

    def stop(self) -> None:
        """End the blocks after what was recorded so far."""
        self._stopped.set()

    def _read(self) -> Iterator[np.ndarray]:
        while True:
            try:
                yield self._blocks.get(timeout=_BLOCK_S)
            except queue.Empty:
                if self._stopped.is_set():
                    return

    def _heard(self, data: np.ndarray, n_frames: int, time: Any, status: Any) -> None:
        if not self._stopped.is_set():
            self._blocks.put(np.clip(np.nan_to_num(data[:, 0]), -1, 1))

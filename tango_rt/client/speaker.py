"""The sending side: a thread that sends a file or a microphone into a session, at once or in real time."""

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from tango_rt.client.errors import ServerError
from tango_rt.client.microphone import Microphone
from tango_rt.client.plain import Session
from tango_rt.client.spoken import SpokenWord

__all__ = ["UTTERANCE", "Speaker"]

_CHUNKS_A_SECOND = 50
UTTERANCE = "speech"  # named, so that what arrives after an interrupt is recognised as part of it


class Speaker:
    """Speaks one utterance. A failure here ends the session and is raised by check()."""

    def __init__(
        self, session: Session, source: np.ndarray | Microphone, live: bool, words: Sequence[SpokenWord] = ()
    ) -> None:
        """source: float32 (n,) samples at the session's rate. live: send 20 ms of them every 20 ms. words: sent before
        them."""
        self._words = words
        self._session = session
        self._source = source
        self._live = live
        self._stopped = threading.Event()
        self._finish = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)

    def start(self, finish: bool) -> None:
        """finish: nothing follows this utterance. Does nothing if already started."""
        if self._thread.ident is None:
            self._finish = finish
            self._thread.start()

    def stop(self) -> None:
        """Send no more; what was sent is performed to its end."""
        self._stopped.set()
        if isinstance(self._source, Microphone):
            self._source.stop()

    def close(self) -> None:
        """To be called once the session is over."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._session.words(self._words, UTTERANCE)
            if isinstance(self._source, Microphone):
                with self._source as blocks:
                    complete = self._say(blocks)
            else:
                complete = self._say(self._paced(self._source) if self._live else iter([self._source]))
            if complete:
                self._session.end_of_utterance(UTTERANCE)
            if self._finish:
                self._session.finish()
        except (ServerError, ValueError):
            pass  # the session is over: reading from it raises the error
        except Exception as error:
            self._error = error
            self._session.cancel()

    def _say(self, blocks: Iterator[np.ndarray]) -> bool:
        """Whether all of it was sent, without an interrupt."""
        return all(self._session.send_audio(block, UTTERANCE) for block in blocks)

    def _paced(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yield chunk k when its last sample would have been spoken, computed from k, so that no error accumulates."""
        rate_hz = self._session.options.sample_rate_hz
        size = rate_hz // _CHUNKS_A_SECOND
        started_s = time.monotonic()
        for k, start in enumerate(range(0, len(samples), size)):
            due_s = started_s + (k + 1) / _CHUNKS_A_SECOND
            if self._stopped.wait(max(0.0, due_s - time.monotonic())):
                return
            yield samples[start : start + size]

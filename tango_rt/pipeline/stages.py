"""What happens to pictures between the search and whoever sees them: stages, the same for renders, clips and sessions.

Without stages nothing is decoded: packets leave as they are stored. A stage that changes pixels costs a decoding and an
encoding of the four frames, however many stages there are.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Protocol

import numpy as np

from engine.character.info import PackInfo
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_start
from tango_rt.pipeline.live import Step
from tango_rt.video.codecs import Drawn
from tango_rt.video.gop import GopDecoder, GopEncoder, GopOptions
from tango_rt.video.shared_pictures import SharedPictures

__all__ = ["HeardSound", "PictureStage", "Shown", "StageChain"]

# 40 ms for 4 of 1280x720 instead of 56: these are encoded while somebody waits, and seen once
_ENCODING = GopOptions(preset="superfast")


@dataclass(frozen=True, eq=False)
class Shown:
    """Four frames on their way out.

    step     what they show, and of which utterance
    sound    float32 (n,) at 16 kHz, as retrieval heard it: of these frames and of the look-ahead of the stages behind
             them, silence where the utterance is over; None while nobody speaks, and where no stage hears
    packets  as stored, 4 pictures; None once a stage has changed pixels
    frames   what the last stage made of them, uint8 (4, H * 3 / 2, W), planes Y, U, V; None: nothing yet
    """

    step: Step
    sound: np.ndarray | None
    packets: tuple[bytes, ...] | None
    frames: np.ndarray | None
    _decode: Callable[[], np.ndarray] = field(repr=False)

    def pixels(self) -> np.ndarray:
        """The frames, decoded if no stage asked before; copy them before you write. Raises ArtifactError for damage."""
        return self._decode() if self.frames is None else self.frames

    def changed(self, frames: np.ndarray) -> "Shown":
        """The same with other pixels."""
        return replace(self, frames=frames, packets=None)


class PictureStage(Protocol):
    """Changes the frames of one stream, in their order, or lets them pass.

    A step may come again, or another in its place, where an interrupt took it back before it was seen, and steps that
    come too late are left out: a stage that remembers tells by `utterance` and `first_frame` whether a step follows
    the last one.

    lookahead_s  how much sound behind its frames it must hear; None: it hears nothing, and no sound is kept for it
    key          names it and its options where what it makes depends on the pixels alone: then it is made once for all
                 streams that show the same pictures; None: it depends on more
    """

    @property
    def lookahead_s(self) -> float | None: ...

    @property
    def key(self) -> str | None: ...

    def apply(self, shown: Shown) -> Shown:
        """The frames as they leave; the same object where nothing changes."""


class HeardSound:
    """One utterance at 16 kHz, as far as stages may still ask for it."""

    def __init__(self) -> None:
        self._samples = np.zeros(0, np.float32)
        self._first = 0  # sample of self._samples[0]
        self._news: list[np.ndarray] = []  # joined when they are asked for

    def push(self, samples: np.ndarray) -> None:
        """The next samples, float32 (n,)."""
        self._news.append(samples)

    def of(self, step: Step, lookahead_s: float) -> np.ndarray:
        """The sound of the 4 frames of a step and so much behind them, float32 (n,). Ask for later and later steps:
        what is before the one before is forgotten."""
        first = frame_start(step.first_frame)
        end = frame_start(step.first_frame + FRAMES_PER_NODE) + round(lookahead_s * SAMPLE_RATE)
        if self._news:
            self._samples = np.concatenate([self._samples, *self._news])
            self._news.clear()
        kept = max(self._first, frame_start(max(0, step.first_frame - FRAMES_PER_NODE)))
        self._samples, self._first = self._samples[kept - self._first :], kept
        sound = self._samples[first - kept : end - kept]
        return np.pad(sound, (0, end - first - len(sound)))


class StageChain:
    """The stages of one stream; one caller at a time, from any thread."""

    def __init__(
        self, info: PackInfo, stages: Sequence[PictureStage] = (), shared: SharedPictures | None = None
    ) -> None:
        """shared: with other streams, where what depends on the pixels alone is kept."""
        self._info = info
        self._stages = tuple(stages)
        keys = [stage.key for stage in stages]
        self._shared = None if None in keys else shared
        self._origin = hashlib.blake2b(f"stages {keys} {info.width} {info.height} ".encode() + info.extradata)

    @property
    def lookahead_s(self) -> float | None:
        """How much sound behind the frames must be heard; None: no stage hears."""
        return max((stage.lookahead_s for stage in self._stages if stage.lookahead_s is not None), default=None)

    def apply(self, step: Step, drawn: Drawn, sound: HeardSound | None = None) -> Drawn:
        """The pictures of a step as they leave. sound: of its utterance; for stages that hear."""
        if not self._stages:
            return drawn
        if self._shared is None:
            packets = self._passed(step, drawn.packets, sound)
        else:
            packets = self._shared.get(self._key(drawn.packets), lambda: self._passed(step, drawn.packets, sound))
        return drawn if packets is drawn.packets else replace(drawn, packets=packets, changed=True)

    def _passed(self, step: Step, packets: tuple[bytes, ...], sound: HeardSound | None) -> tuple[bytes, ...]:
        lookahead_s = self.lookahead_s
        heard = None if sound is None or lookahead_s is None or step.utterance is None else sound.of(step, lookahead_s)
        shown = Shown(step, heard, packets, None, cache(lambda: self._decoder.decode_i420(packets)))
        for stage in self._stages:
            shown = stage.apply(shown)
        return packets if shown.packets is not None else tuple(self._encoder.encode_i420(shown.pixels()))

    def _key(self, packets: Sequence[bytes]) -> bytes:
        digest = self._origin.copy()
        for packet in packets:
            digest.update(len(packet).to_bytes(8))
            digest.update(packet)
        return digest.digest()

    @cached_property
    def _decoder(self) -> GopDecoder:
        info = self._info
        return GopDecoder(info.extradata, info.width, info.height, f"the video of {info.name!r}")

    @cached_property
    def _encoder(self) -> GopEncoder:
        info = self._info
        return GopEncoder(info.width, info.height, _ENCODING, info.extradata, f"the video of {info.name!r}")

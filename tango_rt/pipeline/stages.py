"""Stages that process pictures on their way out; the same for renders, clips and sessions.

Without stages nothing is decoded: packets leave as stored. If stages change pixels, the four frames are decoded and
encoded once, however many stages there are.
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
from tango_rt.video.codecs import StepPictures
from tango_rt.video.gop import DRAWN, GopDecoder, GopEncoder
from tango_rt.video.shared_pictures import SharedPictures

__all__ = ["PictureStage", "Shown", "StageChain", "UtteranceSound"]


@dataclass(frozen=True, eq=False)
class Shown:
    """Four frames on their way out.

    step     what they show, and of which utterance
    sound    float32 (n,) at 16 kHz, as used by retrieval: for these frames plus the look-ahead of the stages, zeros
             after the end of the utterance; None between utterances, or if no stage uses sound
    packets  4 pictures as stored; None once a stage has changed pixels
    frames   output of the last stage, uint8 (4, H * 3 / 2, W), planes Y, U, V; None before the first
    """

    step: Step
    sound: np.ndarray | None
    packets: tuple[bytes, ...] | None
    frames: np.ndarray | None
    _decode: Callable[[], np.ndarray] = field(repr=False)

    def pixels(self) -> np.ndarray:
        """The frames, decoded on first use; copy them before writing. Raises ArtifactError for damaged packets."""
        return self._decode() if self.frames is None else self.frames

    def changed(self, frames: np.ndarray) -> "Shown":
        """The same with other pixels."""
        return replace(self, frames=frames, packets=None)


class PictureStage(Protocol):
    """Changes the frames of one stream, in order, or passes them on.

    A step may be repeated or replaced if an interrupt took it back before it was shown, and late steps are skipped: a
    stage with state must check `utterance` and `first_frame` to see whether a step follows the last one.

    lookahead_s  seconds of sound that it needs beyond its frames; None: it uses no sound, and none is kept for it
    key          identifies the stage and its options if its output depends on the pixels alone; the output is then
                 shared by all streams that show the same pictures; None: it depends on more
    """

    @property
    def lookahead_s(self) -> float | None: ...

    @property
    def key(self) -> str | None: ...

    def apply(self, shown: Shown) -> Shown:
        """The processed frames; return the same object if nothing changes."""


class UtteranceSound:
    """The part of an utterance, at 16 kHz, that stages may still ask for."""

    def __init__(self) -> None:
        self._samples = np.zeros(0, np.float32)
        self._first = 0  # sample of self._samples[0]
        self._news: list[np.ndarray] = []  # joined on demand

    def push(self, samples: np.ndarray) -> None:
        """The next samples, float32 (n,)."""
        self._news.append(samples)

    def excerpt(self, step: Step, lookahead_s: float) -> np.ndarray:
        """The sound of the 4 frames of a step plus lookahead_s, float32 (n,). Ask in ascending order of steps: sound
        before the previous step is dropped."""
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
        """shared: with other streams; holds output that depends on the pixels alone."""
        self._info = info
        self._stages = tuple(stages)
        keys = [stage.key for stage in stages]
        self._shared = None if None in keys else shared
        self._origin = hashlib.blake2b(f"stages {keys} {info.width} {info.height} ".encode() + info.extradata)

    @property
    def lookahead_s(self) -> float | None:
        """Seconds of sound needed beyond the frames; None: no stage uses sound."""
        return max((stage.lookahead_s for stage in self._stages if stage.lookahead_s is not None), default=None)

    def apply(self, step: Step, drawn: StepPictures, sound: UtteranceSound | None = None) -> StepPictures:
        """The processed pictures of a step. sound: of its utterance, for stages that use it."""
        if not self._stages:
            return drawn
        if self._shared is None:
            packets = self._passed(step, drawn.packets, sound)
        else:
            packets = self._shared.get(self._key(drawn.packets), lambda: self._passed(step, drawn.packets, sound))
        return drawn if packets is drawn.packets else replace(drawn, packets=packets, changed=True)

    def _passed(self, step: Step, packets: tuple[bytes, ...], sound: UtteranceSound | None) -> tuple[bytes, ...]:
        lookahead_s = self.lookahead_s
        heard = (
            None if sound is None or lookahead_s is None or step.utterance is None else sound.excerpt(step, lookahead_s)
        )
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
        return GopEncoder(info.width, info.height, DRAWN, info.extradata, f"the video of {info.name!r}")

"""Places sound by its time stamps, which are trusted on average but not one by one.

Recorders stamp sound on arrival: stamps wander by some 10 ms around the count of the samples, and their clock may run a
little faster or slower than that of the sound card. So samples are counted. The mean deviation of the stamps over a
second is followed by stretching the sound, by 0.25 % (4 cents, which is inaudible) unless it is far off: unlike
inserting silence or cutting in quiet places, this needs no quiet place and leaves no click. Only a lasting step of the
deviation, clearly larger than the wandering, is a gap or an overlap of the recording: a gap is filled with silence,
repeated sound is dropped.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise, takewhile
from math import copysign
from statistics import fmean, median

from av.audio.frame import AudioFrame

from tango_rt.media.container import MAX_JUMP_S
from tango_rt.media.decoding import PacketDecoder

__all__ = ["SoundBlock", "Steady"]

_WINDOW_S = 1.0

_STEP_S = 0.02
"""Smallest gap."""

_ROUNDED_S = 0.002
"""Stamps of some containers are rounded to milliseconds."""

_SPARED_S = 0.01  # not worth stretching
_GENTLE_S = 0.0025  # stretched per second
_TOLERATED_S = 0.02  # anything beyond is removed by stretching within a second
_MAX_S = 0.1
_NOISE_S = 5.0  # averaging time for how far stamps wander
_NEAR = 5  # frames that distinguish a step from a single bad stamp


@dataclass(frozen=True)
class SoundBlock:
    """About a second of frames of one format, without a gap."""

    frames: list[AudioFrame]
    n_samples: int
    """Fewer than the frames hold if the last one ends with padding."""
    start_s: float | None
    """Start time in seconds on the clock of the file; None: where the block before ends."""
    stretch_s: float
    """Seconds by which it is to be longer than its samples."""


@dataclass(frozen=True)
class _Counted:
    frame: AudioFrame
    n_samples: int
    at_s: float
    """Time by the count of the samples before it."""
    stamp_s: float | None
    piece: object
    """Changes when another recording begins."""


class Steady:
    """Frames of sound in, blocks with a place in time out. If there is no picture to stay in sync with, a clock that
    starts over, jumps or runs away is ignored in favour of the count of samples."""

    def __init__(self, decoder: PacketDecoder, rate_hz: int) -> None:
        """rate_hz: the sound is stretched by whole samples at this rate."""
        self.stretched_s = 0.0
        self.closed_s = 0.0
        """Seconds of gaps that were taken for jumps of a broken clock."""
        self._frames = _counted(decoder)
        self._rate_hz = rate_hz
        self._lone = decoder.clock.lone
        self._ahead: deque[_Counted] = deque()
        self._past: deque[tuple[float, float]] = deque()  # (at_s, deviation)
        self._shift_s = 0.0  # added to the stamps since clocks started over
        self._offset_s = 0.0  # of the output, relative to the count
        self._noise_s = 0.0  # mean deviation from it
        self._last: _Counted | None = None

    def __iter__(self) -> Iterator[SoundBlock]:
        begins = self._begins()
        while self._ahead:
            start_s = self._ahead[0].at_s + self._offset_s if begins else None
            stretch_s = self._stretch()
            block = [self._advance()]
            begins = self._begins()
            while self._ahead and not begins and self._ahead[0].at_s - block[0].at_s < _WINDOW_S:
                block.append(self._advance())
                begins = self._begins()
            yield SoundBlock([item.frame for item in block], sum(item.n_samples for item in block), start_s, stretch_s)

    def _advance(self) -> _Counted:
        item = self._ahead.popleft()
        if item.stamp_s is not None:
            deviation_s = self._deviation(item)
            self._past.append((item.at_s, deviation_s))
            share = min(item.n_samples / item.frame.sample_rate / _NOISE_S, 1.0)
            self._noise_s += share * (min(abs(deviation_s - self._offset_s), _MAX_S) - self._noise_s)
            while item.at_s - self._past[0][0] > _WINDOW_S:
                self._past.popleft()
        self._last = item
        return item

    def _begins(self) -> bool:
        """Whether the next frame does not simply continue the one before; looks a second ahead."""
        while not self._ahead or self._ahead[-1].at_s - self._ahead[0].at_s < _WINDOW_S:
            item = next(self._frames, None)
            if item is None:
                break
            self._ahead.append(item)
        if not self._ahead:
            return False
        item, last = self._ahead[0], self._last
        if last is None:
            ahead = self._deviations_ahead(item.piece)
            self._offset_s = _level(ahead)
            self._noise_s = median(abs(deviation - self._offset_s) for deviation in ahead) if ahead else 0.0
            return True
        steps = self._steps(item) if item.piece == last.piece else self._continues(item)
        trimmed = last.n_samples < last.frame.samples
        return steps or trimmed or _format(item.frame) != _format(last.frame)

    def _steps(self, item: _Counted) -> bool:
        if item.stamp_s is None or abs(self._deviation(item) - self._offset_s) <= _STEP_S:
            return False
        before = [deviation for _, deviation in self._past] or [self._offset_s]
        step_s = _step(self._offset_s, before, self._deviations_ahead(item.piece), self._noise_s)
        if step_s == 0:
            return False
        if self._lone and not 0 <= step_s <= MAX_JUMP_S:
            self._shift_s -= step_s
            self.closed_s += max(step_s, 0.0)
            return False
        return self._step_to(self._offset_s + step_s)

    def _continues(self, item: _Counted) -> bool:
        """Another piece begins: it starts exactly at its own stamps, or, in a lone track, where the last one ends."""
        ahead = self._deviations_ahead(item.piece)
        offset_s = _level(ahead) if ahead else self._offset_s
        if self._lone:
            self._shift_s += self._offset_s - offset_s
            return False
        return abs(offset_s - self._offset_s) > _ROUNDED_S and self._step_to(offset_s)

    def _step_to(self, offset_s: float) -> bool:
        self._offset_s = offset_s
        self._past.clear()
        return True

    def _stretch(self) -> float:
        """Seconds by which the next block is to be longer; updates the offset accordingly."""
        off_s = _middle([deviation for _, deviation in self._past]) - self._offset_s if self._past else 0.0
        if abs(off_s) <= _SPARED_S:
            return 0.0
        if self._lone and abs(off_s) > _MAX_S:  # a clock that runs away, as in joined files of different rates
            self._shift_s -= off_s
            self._past.clear()
            return 0.0
        wanted_s = min(abs(off_s), max(_GENTLE_S, abs(off_s) - _TOLERATED_S), _MAX_S)
        stretch_s = copysign(round(wanted_s * self._rate_hz) / self._rate_hz, off_s)
        self._offset_s += stretch_s
        self.stretched_s += abs(stretch_s)
        return stretch_s

    def _deviation(self, item: _Counted) -> float:
        assert item.stamp_s is not None
        return item.stamp_s + self._shift_s - item.at_s

    def _deviations_ahead(self, piece: object) -> list[float]:
        return [self._deviation(i) for i in self._ahead if i.stamp_s is not None and i.piece == piece]


def _step(offset_s: float, before: list[float], after: list[float], noise_s: float) -> float:
    """Seconds by which the deviations step away from an offset between the two; 0 if they only wander."""
    limit_s = max(_STEP_S, 3 * noise_s, 3 * _wandering(before + after))
    level = median(before[-_NEAR:])
    at_once, on_average = median(after[:_NEAR]) - level, fmean(after) - fmean(before)
    if min(abs(at_once), abs(on_average)) <= limit_s:
        return 0.0
    if _exact(before + after):
        alike = list(takewhile(lambda deviation: abs(deviation - after[0]) <= _STEP_S, after))
        step_s = median(alike[:_NEAR] if len(alike) > 1 else after[:_NEAR]) - offset_s
    else:
        step_s = fmean(after) - offset_s
    in_the_end, first = median(after[-_NEAR:]) - level, after[0] - level
    stays = all(value / at_once >= 0.5 for value in (first, on_average, in_the_end)) and step_s / at_once > 0
    return step_s if stays and abs(step_s) > _STEP_S else 0.0


def _level(deviations: list[float]) -> float:
    """Offset of the first second of a piece; a few wild stamps at its beginning do not matter."""
    if not deviations:
        return 0.0
    return median(deviations) if _exact(deviations) else fmean(deviations)


def _exact(deviations: list[float]) -> bool:
    return 3 * _wandering(deviations) < _STEP_S / 2


def _middle(deviations: list[float]) -> float:
    """Mean without the top and bottom tenth: a few wild stamps do not matter."""
    n_wild = len(deviations) // 10
    return fmean(sorted(deviations)[n_wild : len(deviations) - n_wild])


def _wandering(deviations: list[float]) -> float:
    """By how much deviations change from frame to frame; a few steps among them do not matter."""
    changes = [abs(later - earlier) for earlier, later in pairwise(deviations)]
    return median(changes) if changes else 0.0


def _format(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _counted(decoder: PacketDecoder) -> Iterator[_Counted]:
    """Frames with their time by the count of samples, the last one of a file without its padding."""
    start_s, n_before, rate = 0.0, 0, 0
    for frame, n_samples, piece in _trimmed(decoder):
        if frame.sample_rate != rate:
            start_s += n_before / (rate or 1)
            n_before, rate = 0, frame.sample_rate
        yield _Counted(frame, n_samples, start_s + n_before / rate, frame.time, piece)
        n_before += n_samples


def _trimmed(decoder: PacketDecoder) -> Iterator[tuple[AudioFrame, int, tuple[int, int]]]:
    """Frames, how many samples of them count, and their piece. Only mp4 says how much of its last frame is padding.

    Some recorders round durations in the middle of a track, where no sample is missing; the last one is trusted only
    if it differs by more than those.
    """
    held: tuple[AudioFrame, tuple[int, int]] | None = None
    rounding, n_held, tick = 0.0, 0, 0.0
    for frame in chain(decoder, [None]):
        if held is not None:
            n_samples = held[0].samples
            tick = tick or float((held[0].time_base or 0) * held[0].sample_rate)
            missing = n_samples - held[0].duration * tick if held[0].duration > 0 else 0.0
            last = frame is None or decoder.piece[0] != held[1][0]
            yield held[0], n_samples - round(missing) if last and missing > rounding else n_samples, held[1]
            # the first frame may be trimmed at its start
            rounding = max(rounding, abs(missing)) if n_held else 0.0
            n_held += 1
            if last:
                rounding, n_held, tick = 0.0, 0, 0.0
        held = None if frame is None else (frame, decoder.piece)

"""Any video in, upright RGB frames at a constant 30 fps out, one at a time.

    packets -> pictures that decode -> no interlacing -> times from the first one -> 30 fps -> upright RGB of one size

Each step is a generator, so memory does not grow with the length of the video. Times come from the pictures
alone; the duration stated by the container is not used.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.stream import VideoStream

from engine.errors import InputError
from engine.timebase import FPS
from tango_rt.media.container import MAX_HOURS, audio_stream, open_media, video_stream
from tango_rt.media.decoding import PacketDecoder, frame_rate, timed_pictures
from tango_rt.video.alpha import alpha_decoder, has_alpha_track
from tango_rt.video.convert import BACKGROUND, Converter
from tango_rt.video.interlace import deinterlace
from tango_rt.video.shapes import ShapeDuration, find_shapes
from tango_rt.video.view import Crop, Layout, Shape, container_crop, picture_shape, pixel_aspect

__all__ = ["MAX_FRAMES", "MAX_SIDE_PX", "VideoInfo", "VideoReader"]

MAX_SIDE_PX = 8192
MAX_FRAMES = MAX_HOURS * 3600 * FPS
_MAX_SIZES_NAMED = 4


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video before it is read; sizes are those of the output frames."""

    width: int
    height: int
    source_fps: float
    codec: str
    has_audio: bool
    n_frames: int | None
    """Number of frames at 30 fps, estimated from the stamps of the packets; None if there are none."""


class VideoReader:
    """Frames of a video, uint8 (height, width, 3) RGB at 30 fps; iterate once, inside a `with`.

    Output frame n is the source frame nearest in time to n/30 s after the first; if the source has none, the frame
    before is repeated (the same array: do not write to frames). Frames are upright, have square pixels and even sides,
    are at most max_height pixels high, and are never enlarged. They have the size that the file shows longest; pictures
    of other sizes are scaled to it, with black bars if their aspect differs. Cropping by the container is applied,
    interlaced pictures become one per field, and transparent pictures are put on grey.

    Raises InputError: no such file, not a video, no video track, no frames, over 8192 px a side, over 4 hours.
    """

    def __init__(self, path: Path, max_height: int = 720) -> None:
        self._path = path
        self._container = open_media(path)
        try:
            self._open(max_height)
        except BaseException:
            self._container.close()
            raise

    def _open(self, max_height: int) -> None:
        stream = video_stream(self._container)
        if stream is None:
            raise InputError(f"{self._path}: has no video track")
        crop = container_crop(self._container, stream)
        decoder = alpha_decoder(stream)
        self._hidden_alpha = has_alpha_track(stream) and decoder is None
        self._decoder = PacketDecoder(self._path, self._container, "video", decoder)
        picture_s = self._decoder.clock.picture_s
        n_frames = None if picture_s is None else round(picture_s * FPS)
        self._check_bounds(stream.width, stream.height, n_frames or 0)
        self._rate = frame_rate(stream)
        pictures = timed_pictures(self._decoder, stream.codec_context.has_b_frames, 1 / self._rate)
        first = next(pictures, None)
        if first is None:
            raise InputError(f"{self._path}: none of the video can be decoded")
        self._start_s = first[0]
        self._main, self._layout = self._laid_out(stream, first[1], crop, max_height)
        self._pictures = deinterlace(chain([first], pictures), 1 / self._rate)
        self._to_frame = Converter(self._layout)
        self._n_frames_of: Counter[Shape] = Counter()
        self.info = VideoInfo(
            width=self._layout.width,
            height=self._layout.height,
            source_fps=float(self._rate),
            codec=stream.codec_context.name,
            has_audio=audio_stream(self._container) is not None,
            n_frames=n_frames,
        )

    def _laid_out(self, stream: VideoStream, first: av.VideoFrame, crop: Crop, max_height: int) -> tuple[Shape, Layout]:
        shown = find_shapes(self._path) or (ShapeDuration(picture_shape(first), Fraction(1), None),)
        for one in shown:
            self._check_bounds(one.shape.width, one.shape.height, 0)
        told = stream.sample_aspect_ratio
        if told == shown[0].codec_aspect:
            told = None  # the container only repeats the codec, which may change
        aspects = {one.shape[:2]: pixel_aspect(told, one.codec_aspect, crop) for one in shown}
        main = max(shown, key=lambda one: one.seconds).shape
        layout = Layout(main, aspects, crop, max_height)
        self._check_bounds(layout.width, layout.height, 0)
        return main, layout

    def _check_bounds(self, width: int, height: int, n_frames: int) -> None:
        if max(width, height) > MAX_SIDE_PX:
            raise InputError(f"{self._path}: {width}x{height} px, wanted at most {MAX_SIDE_PX} a side")
        if n_frames > MAX_FRAMES:
            hours = n_frames / FPS / 3600
            raise InputError(f"{self._path}: {hours:.2f} hours long, wanted at most {MAX_HOURS}: cut it into pieces")

    @property
    def skipped(self) -> int:
        """Broken packets and pictures left out so far."""
        return self._decoder.skipped

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.every(1)

    def every(self, step: int) -> Iterator[np.ndarray]:
        """Frames 0, step, 2 step, ...; those between are decoded but not converted, which saves most of the work."""
        shown: av.VideoFrame | None = None
        timed = ((time_s - self._start_s, picture) for time_s, picture in self._pictures)
        for n, picture in enumerate(_at_30_fps(timed)):
            self._check_bounds(picture.width, picture.height, n + 1)
            self._n_frames_of[picture_shape(picture)] += 1
            if n % step:
                continue
            if picture is not shown:
                shown, frame = picture, self._to_frame(picture)
            yield frame

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the frames read so far, one line each, without the name of the file."""
        found = [*_size_changes(self._n_frames_of, self._main, self._layout)]
        if self._to_frame.transparent:
            found.append(
                f"transparent parts are shown on grey ({BACKGROUND}, {BACKGROUND}, {BACKGROUND}), with alpha taken as "
                "straight; to avoid this, add a background yourself"
            )
        if self._hidden_alpha:
            found.append("its transparency cannot be read, because libvpx is missing: hidden colours are shown")
        return tuple(found)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _size_changes(n_frames_of: Counter[Shape], main: Shape, layout: Layout) -> Iterator[str]:
    """At most one line: which sizes there are, for how long, and how they are handled."""
    others = [(shape, n) for shape, n in n_frames_of.most_common() if str(shape) != str(main) or not layout.fits(shape)]
    if not others:
        return
    main_s = (n_frames_of.total() - sum(n for _, n in others)) / FPS
    line = f"the picture changes its size: {main} is shown longest ({main_s:.1f} s) and is kept"
    for fate, fits in (("scaled to it", True), ("scaled into it with black bars", False)):
        sizes = [f"{shape} ({n / FPS:.1f} s)" for shape, n in others if layout.fits(shape) is fits]
        if len(sizes) > _MAX_SIZES_NAMED:
            sizes[_MAX_SIZES_NAMED:] = [f"{len(sizes) - _MAX_SIZES_NAMED} more sizes"]
        if sizes:
            line += f"; {fate}: {', '.join(sizes)}"
    yield line


def _at_30_fps(timed: Iterable[tuple[Fraction, av.VideoFrame]]) -> Iterator[av.VideoFrame]:
    """One picture for each n/30 s: each belongs to the n nearest in time, and the nearest of several wins.

    A picture half way between two n belongs to the earlier, so that 60 fps leave no extra frame at the end.
    """
    kept: av.VideoFrame | None = None
    kept_n, kept_error = 0, Fraction(1)
    for time, picture in timed:
        n = math.ceil(time * FPS - Fraction(1, 2))
        error = abs(time * FPS - n)
        if n < kept_n or (n == kept_n and error >= kept_error):
            continue
        if kept is not None:
            yield from (kept for _ in range(kept_n, n))
        kept, kept_n, kept_error = picture, n, error
    if kept is not None:
        yield kept

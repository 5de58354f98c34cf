"""Encodes four frames to one closed group of pictures (GOP), and back: the unit in which a character is stored.

Every GOP comes from its own encoder: an IDR picture and three P pictures that depend on these four frames alone.
So equal frames give equal bytes in every process, and any sequence of GOPs of one size is a valid H.264 stream,
because all share one set of parameters (the extradata). Opening x264 takes 1.5 ms of the 50 to 60 ms that a GOP
of 720p takes: cheaper than keeping state.

Packets are Annex B, one picture each: a 4-byte start code and one slice. Parameter sets are in the extradata.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from engine.errors import ArtifactError, InputError
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["DRAWN", "GopDecoder", "GopEncoder", "GopOptions", "encode_nodes"]

START_CODE = b"\x00\x00\x00\x01"
_SHORT_START_CODE = START_CODE[1:]

# BT.709, limited range, both ways. The accurate flags cost 3 ms a frame of 720p and matter: without full
# chroma interpolation, decoding and encoding loses 5 dB, or grey 128 comes back as 126.
_TO_YUV = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
_TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

_X264 = ":".join(
    (
        f"keyint={FRAMES_PER_NODE}:min-keyint=1:scenecut=0:bframes=0:open-gop=0:force-cfr=1",
        "rc-lookahead=0:sync-lookahead=0:mbtree=0:threads=1:sliced-threads=0:repeat-headers=0:annexb=1",
        # One quantiser for all GOPs, whatever their content, or neighbours from different places would flicker.
        "qcomp=1",
        # Headers that depend on neither content nor crf, so that GOPs of all encoders fit together.
        "stitchable=1",
    )
)


@dataclass(frozen=True)
class GopOptions:
    """Quality of the stored video. All GOPs of one stream need the same parameter sets: those of veryfast and superfast
    are equal, and crf may differ.

    Measured on two real clips at 1280x720, a GOP on one core: superfast 24 to 33 ms, 3.9 to 5.9 Mbit/s;
    veryfast 31 to 48 ms, 3.8 to 5.6; faster 47 to 74 ms, 3.7 to 5.4; medium 70 to 118 ms, 3.7 to 5.4 Mbit/s.
    PSNR is the same within 0.5 dB. The conversion from RGB adds 12 ms.
    """

    crf: float = 18.0
    preset: str = "veryfast"


DRAWN = GopOptions(preset="superfast")
"""For pictures that are encoded while somebody waits for them: transitions, and what stages have changed.

Four drawn frames of 1280x720 take 25 ms instead of 38 (veryfast), for 49.5 instead of 50.1 dB and 3 % more bytes.
"""


class GopEncoder:
    """Encodes RGB frames of one size, four at a time; holds no state between calls."""

    def __init__(
        self,
        width: int,
        height: int,
        options: GopOptions = GopOptions(),
        expected_extradata: bytes | None = None,
        name: str = "the stored video",
    ) -> None:
        """name: what an ArtifactError calls the video. Raises InputError for odd sizes, ArtifactError if the parameter
        sets are not the expected ones."""
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise InputError(f"a video of {width}x{height} px cannot be stored: width and height must be even")
        self._width = width
        self._height = height
        self._options = options
        self._reformatter = VideoReformatter()
        self.extradata = bytes(self._open().extradata or b"")
        if expected_extradata is not None and expected_extradata != self.extradata:
            raise ArtifactError(f"{name} was encoded by another version of x264: build the character again")

    def encode(self, frames: np.ndarray) -> list[bytes]:
        """Encode frames, uint8 (4, height, width, 3) RGB. Returns 4 packets, the first one an IDR picture."""
        shape = (FRAMES_PER_NODE, self._height, self._width, 3)
        if frames.shape != shape or frames.dtype != np.uint8:
            raise ValueError(f"frames are {frames.dtype} {frames.shape}, wanted uint8 {shape}")
        return self._encode(self._to_yuv(frame) for frame in np.ascontiguousarray(frames))

    def encode_i420(self, frames: np.ndarray) -> list[bytes]:
        """Like encode, for frames as returned by GopDecoder.decode_i420: uint8 (4, height * 3 / 2, width)."""
        shape = (FRAMES_PER_NODE, self._height * 3 // 2, self._width)
        if frames.shape != shape or frames.dtype != np.uint8:
            raise ValueError(f"frames are {frames.dtype} {frames.shape}, wanted uint8 {shape}")
        return self._encode(av.VideoFrame.from_ndarray(frame, format="yuv420p") for frame in frames)

    def _encode(self, pictures: Iterable[av.VideoFrame]) -> list[bytes]:
        encoder = self._open()
        packets = []
        for pts, picture in enumerate(pictures):
            picture.pts, picture.time_base = pts, encoder.time_base
            packets += encoder.encode(picture)
        packets += encoder.encode(None)
        return [_slice_only(bytes(packet)) for packet in packets]

    def _open(self) -> av.VideoCodecContext:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = self._width, self._height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
        encoder.thread_count = 1
        encoder.flags |= av.codec.context.Flags.global_header
        encoder.color_range = ColorRange.MPEG
        encoder.colorspace = Colorspace.ITU709
        encoder.color_primaries = ColorPrimaries.BT709
        encoder.color_trc = ColorTrc.BT709
        options = self._options
        encoder.options = {"preset": options.preset, "crf": f"{options.crf:g}", "x264-params": _X264}
        encoder.open()
        return encoder

    def _to_yuv(self, frame: np.ndarray) -> av.VideoFrame:
        return self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(frame, format="rgb24"),
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_TO_YUV,
            threads=1,
        )


def encode_nodes(nodes: Iterable[np.ndarray], n_threads: int) -> Iterator[list[bytes]]:
    """Packets of each node, uint8 (4, height, width, 3), in order; encoding releases the GIL, so threads help."""
    pending: deque[Future[list[bytes]]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for node in nodes:
            pending.append(pool.submit(_encode_node, node))
            if len(pending) > 2 * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _encode_node(node: np.ndarray) -> list[bytes]:
    # an encoder must not be shared between threads, and opening a new one costs little compared to its work
    return GopEncoder(node.shape[2], node.shape[1]).encode(node)


def _slice_only(packet: bytes) -> bytes:
    """The picture without x264's comment (SEI): its one slice comes last and has no start code inside."""
    return START_CODE + packet.rpartition(_SHORT_START_CODE)[2]


class GopDecoder:
    """Decodes GOPs of one stream to RGB; opened once, used for any GOPs in any order."""

    def __init__(self, extradata: bytes, width: int, height: int, name: str = "the stored video") -> None:
        """name: what an ArtifactError calls the video."""
        self._name = name
        self._width = width
        self._height = height
        self._reformatter = VideoReformatter()
        self._decoder = av.CodecContext.create("h264", "r")
        self._decoder.extradata = extradata
        self._decoder.thread_count = 1
        # Damage must be reported, not concealed with grey blocks.
        self._decoder.options = {"err_detect": "explode"}

    def decode(self, packets: Sequence[bytes]) -> np.ndarray:
        """Decode whole GOPs, or the beginning of one. Returns uint8 (len(packets), height, width, 3) RGB.

        Raises ArtifactError if the packets are damaged or of another size.
        """
        pictures = self._pictures(packets)
        frames = np.empty((len(packets), self._height, self._width, 3), np.uint8)
        for frame, picture in zip(frames, pictures, strict=True):
            frame[:] = self._to_rgb(picture)
        return frames

    def decode_i420(self, packets: Sequence[bytes]) -> np.ndarray:
        """Like decode, without conversion: uint8 (len(packets), height * 3 / 2, width), planes Y, U, V in sequence,
        limited-range BT.709."""
        pictures = self._pictures(packets)
        frames = np.empty((len(packets), self._height * 3 // 2, self._width), np.uint8)
        for frame, picture in zip(frames.reshape(len(packets), -1), pictures, strict=True):
            end = 0
            for plane in picture.planes:
                start, end = end, end + plane.height * plane.width
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
                frame[start:end].reshape(plane.height, plane.width)[:] = rows[:, : plane.width]
        return frames

    def _pictures(self, packets: Sequence[bytes]) -> list[av.VideoFrame]:
        try:
            pictures = [picture for packet in packets for picture in self._decoder.decode(av.Packet(packet))]
        except av.FFmpegError as error:
            raise ArtifactError(f"{self._name} is damaged ({error.strerror})") from error
        finally:
            self._decoder.flush_buffers()
        if len(pictures) != len(packets):
            raise ArtifactError(f"{self._name} is damaged: {len(pictures)} of {len(packets)} pictures decode")
        for picture in pictures:
            found = f"{picture.width}x{picture.height} px {picture.format.name}"
            if found != f"{self._width}x{self._height} px yuv420p":
                raise ArtifactError(f"{self._name} is {found}, wanted {self._width}x{self._height} px yuv420p")
        return pictures

    def _to_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        return self._reformatter.reformat(
            picture,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_TO_RGB,
            threads=1,
        ).to_ndarray()

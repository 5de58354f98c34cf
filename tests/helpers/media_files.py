"""Small video and audio files for tests, made with exactly known content."""

import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.filter import Graph

# Kr, Kb of the YCbCr matrices; AVColorSpace numbers
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def ycbcr(rgb: Sequence[float], colorspace: int, full_range: bool, bits: int = 8) -> tuple[int, int, int]:
    """Textbook conversion of one 8-bit RGB colour (ITU-R BT.601, BT.709, BT.2020)."""
    kr, kb = MATRICES[colorspace]
    r, g, b = (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    unit = 2 ** (bits - 8)
    if full_range:
        top = 2**bits - 1
        return round(y * top), round(cb * top + 128 * unit), round(cr * top + 128 * unit)
    return round((16 + 219 * y) * unit), round((128 + 224 * cb) * unit), round((128 + 224 * cr) * unit)


def flat_picture(planes: Sequence[int], width: int, height: int, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A picture of one colour, given as it is stored."""
    picture = av.VideoFrame(width, height, pix_fmt)
    for plane, value in zip(picture.planes, planes, strict=True):
        dtype = np.dtype("<u2") if "10le" in pix_fmt else np.dtype("u1")
        plane.update(np.full(plane.buffer_size // dtype.itemsize, value, dtype).tobytes())
    return picture


def gray_pictures(levels: Iterable[int], width: int = 64, height: int = 48) -> Iterable[av.VideoFrame]:
    """Grey pictures, one a level: the level tells which picture a frame shows."""
    for level in levels:
        yield flat_picture(ycbcr((level,) * 3, 6, full_range=False), width, height)


def write_video(
    path: Path,
    pictures: Iterable[av.VideoFrame],
    times_s: Iterable[Fraction] | None = None,
    *,
    fps: Fraction | int = 30,
    codec: str = "libx264",
    rotation: float | None = None,
    hflip: bool = False,
    colorspace: int = 2,
    full_range: bool = False,
    pixel_aspect: Fraction | None = None,
    gop: int = 12,
    fields: str | None = None,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Nearly lossless video of pictures at given times (default: constant fps).

    fields: tff or bff, as which the pictures are marked and encoded; a picture that is marked already stays so.
    """
    pictures = list(pictures) if fields is None else list(marked(pictures, fields))
    times = list(times_s) if times_s is not None else [Fraction(n) / fps for n in range(len(pictures))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        first = pictures[0]
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
        # avi and MPEG-2 count in frames, the others can place a picture at any time
        counts = path.suffix == ".avi" or codec == "mpeg2video"
        stream.codec_context.time_base = 1 / Fraction(fps) if counts else Fraction(1, 90_000)
        stream.codec_context.gop_size = gop
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = 2 if full_range else 1
        stream.codec_context.color_primaries = first.color_primaries
        stream.codec_context.color_trc = first.color_trc
        if codec == "libx264":
            stream.options = {"crf": "1", "preset": "ultrafast", "x264-params": "threads=1"}
        if options is not None:
            stream.options = options
        if fields is not None:
            stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        stream.metadata.update(metadata or {})
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        for time, picture in zip(times, pictures, strict=True):
            picture.pts, picture.time_base = round(time * 90_000), Fraction(1, 90_000)
            picture.colorspace, picture.color_range = colorspace, 2 if full_range else 1
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def marked(pictures: Iterable[av.VideoFrame], fields: str) -> Iterator[av.VideoFrame]:
    """The same pictures, marked as interlaced (tff, bff) or as progressive (prog)."""
    for picture in pictures:
        graph = Graph()
        source = graph.add(
            "buffer", f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}:time_base=1/30"
        )
        sink = graph.add("buffersink")
        graph.link_nodes(source, graph.add("setfield", fields), sink).configure()
        source.push(picture)
        yield sink.pull()


def write_sizes(
    path: Path, shots: Sequence[Sequence[av.VideoFrame]], codec: str, options: dict[str, str], fps: int = 30
) -> Path:
    """Shots encoded each for itself, in its own size, and put behind one another in one track, as live streams are."""
    with av.open(str(path), "w") as container:
        first = shots[0][0]
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
        stream.options, stream.time_base = dict(options), Fraction(1, fps)
        at = 0
        for shot in shots:
            for packet in _encoded(shot, codec, options, fps):
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = at + packet.pts, at + (packet.pts if packet.dts is None else packet.dts)
                copy.time_base, copy.duration, copy.is_keyframe = Fraction(1, fps), 1, packet.is_keyframe
                copy.stream = stream
                container.mux(copy)
            at += len(shot)
    return path


def _encoded(shot: Sequence[av.VideoFrame], codec: str, options: dict[str, str], fps: int) -> Iterator[av.Packet]:
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = shot[0].width, shot[0].height, shot[0].format.name
    encoder.time_base, encoder.framerate, encoder.options = Fraction(1, fps), Fraction(fps), dict(options)
    for n, picture in enumerate(shot):
        picture.pts, picture.time_base = n, Fraction(1, fps)
        yield from encoder.encode(picture)
    yield from encoder.encode(None)


def add_clean_aperture(path: Path, width: int, height: int, x: int = 0, y: int = 0) -> Path:
    """Write a clap box into an mp4: the part that is shown, its middle off that of the picture by x, y."""
    data = bytearray(path.read_bytes())
    box = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, x, 1, y, 1)
    at, parents = 0, []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        while data[at + 4 : at + 8] != name:
            at += int.from_bytes(data[at : at + 4])
        parents.append(at)
        at += 8
    at += 8  # version, number of entries
    end = at + int.from_bytes(data[at : at + 4])
    data[end:end] = box
    for parent in [*parents, at]:
        data[parent : parent + 4] = (int.from_bytes(data[parent : parent + 4]) + len(box)).to_bytes(4)
    path.write_bytes(data)
    return path


def remux(source: Path, target: Path) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = stream
                writer.mux(packet)
    return target


def write_audio(
    path: Path,
    samples: np.ndarray,
    rate: int,
    *,
    codec: str = "pcm_s16le",
    layout: str = "mono",
    container_format: str | None = None,
    start_s: Fraction = Fraction(0),
    pictures: Iterable[av.VideoFrame] = (),
    pictures_start_s: Fraction = Fraction(0),
    hole: tuple[int, int] | None = None,
) -> Path:
    """samples: float32 (n,) for all channels alike, or (channels, n). Pictures make a 30 fps video track.

    hole: samples that are not in the file, between two that keep their times.
    """
    channels = av.AudioLayout(layout).nb_channels
    samples = np.broadcast_to(np.atleast_2d(samples), (channels, samples.shape[-1])).astype(np.float32)
    with av.open(str(path), "w", format=container_format) as container:
        video = None
        pictures = list(pictures)
        if pictures:
            video = container.add_stream("libx264", rate=30)
            video.width, video.height, video.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for n, picture in enumerate(pictures):
            picture.pts, picture.time_base = n + round(pictures_start_s * 30), Fraction(1, 30)
            container.mux(video.encode(picture))
        if video is not None:
            container.mux(video.encode(None))
        first, last = hole or (0, 0)
        for begin, end in ((0, first), (last, samples.shape[-1])):
            for block in range(begin, end, 1024):
                piece = np.ascontiguousarray(samples[:, block : min(block + 1024, end)])
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(start_s * rate) + block
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_talk(
    path: Path,
    seconds: float,
    *,
    codecs: tuple[str, str] = ("libx264", "aac"),
    container_format: str | None = None,
    live: bool = False,
) -> Path:
    """A flash of 0.1 s and a beep of 0.06 s, a quarter of a second into every second; 30 fps, 48 kHz."""
    rate, fps = 48_000, 30
    t = np.arange(round(rate * seconds)) / rate
    loud = np.where((t - 0.25) % 1 < 0.06, 0.7, 0.02)
    sound = (loud * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None]
    with av.open(str(path), "w", format=container_format, options={"live": "1"} if live else {}) as container:
        video = container.add_stream(codecs[0], rate=fps)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.gop_size = 15
        if codecs[0] == "libx264":
            video.options = {"crf": "10", "preset": "ultrafast", "x264-params": "threads=1:bframes=2:b-adapt=0"}
        audio = container.add_stream(codecs[1], rate=rate, layout="mono")
        for n in range(round(fps * seconds)):
            picture = flat_picture((220 if (n / fps - 0.25) % 1 < 0.1 else 30, 128, 128), 64, 48)
            picture.pts, picture.time_base = n, Fraction(1, fps)
            container.mux(video.encode(picture))
            first = n * rate // fps
            piece = np.ascontiguousarray(sound[:, first : (n + 1) * rate // fps])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def restamp(source: Path, target: Path, stamp: Callable[[str, Fraction], Fraction | None]) -> Path:
    """The same packets with other times: stamp(kind, seconds) gives the new time, None leaves the packet out."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        latest: dict[int, int] = {}
        for packet in reader.demux():
            if not packet.size or (time := stamp(packet.stream.type, packet.pts * packet.time_base)) is None:
                continue
            shift = round(time / packet.time_base) - packet.pts
            if packet.stream.type == "audio":  # muxers refuse stamps that go back
                shift = max(shift, latest.get(packet.stream.index, shift + packet.pts - 1) + 1 - packet.pts)
                latest[packet.stream.index] = packet.pts + shift
            packet.pts += shift
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.stream = streams[packet.stream.index]
            writer.mux(packet)
    return target


def join(target: Path, *parts: Path, head_bytes: int = 0) -> Path:
    """`cat`; without the first head_bytes of all but the first."""
    target.write_bytes(b"".join(part.read_bytes()[head_bytes if n else 0 :] for n, part in enumerate(parts)))
    return target


@contextmanager
def piped(content: bytes) -> Iterator[Path]:
    """What <(...) gives: the name of an open descriptor."""
    out, into = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(into, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield Path(f"/dev/fd/{out}")
    finally:
        os.close(out)
        writer.join()

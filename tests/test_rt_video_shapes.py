"""Pictures that are not simply pictures: sizes that change, crops of the container, fields, transparency."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.errors import InputError
from tango_rt.video.interlace import deinterlace
from tango_rt.video.reader import VideoReader
from tango_rt.video.shapes import find_shapes
from tango_rt.video.view import Crop, pixel_aspect
from tango_rt.video.vp9 import Vp9Sizes
from tests.helpers.media_files import (
    add_clean_aperture,
    flat_picture,
    gray_pictures,
    marked,
    remux,
    write_sizes,
    write_video,
    ycbcr,
)


def read(path: Path, max_height: int = 720) -> tuple[VideoReader, list[np.ndarray]]:
    with VideoReader(path, max_height) as reader:
        frames = list(reader)
    assert all(frame.shape == (reader.info.height, reader.info.width, 3) for frame in frames)
    return reader, frames


def gray(levels: Sequence[int], width: int, height: int) -> list[av.VideoFrame]:
    return list(gray_pictures(levels, width, height))


# Codecs that may change their size in the middle of a track, and containers that let them.
LIVE = {
    "vp8.webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "threads": "1"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "threads": "1"}),
    "h264.ts": ("libx264", {"preset": "ultrafast", "crf": "4"}),
    "h264.mkv": ("libx264", {"preset": "ultrafast", "crf": "4", "x264-params": "repeat-headers=1"}),
    "h264.mp4": ("libx264", {"preset": "ultrafast", "crf": "4", "x264-params": "repeat-headers=1"}),
    "mpeg2.ts": ("mpeg2video", {"b": "8000000"}),
    "mpeg4.ts": ("mpeg4", {"b": "8000000"}),
}


@pytest.mark.parametrize("name", LIVE)
def test_the_size_shown_longest_decides(tmp_path: Path, name: str) -> None:
    shots = [gray([40] * 10, 80, 48), gray([120] * 40, 160, 96), gray([200] * 15, 96, 96), gray([90] * 5, 322, 192)]
    reader, frames = read(write_sizes(tmp_path / name, shots, *LIVE[name]))
    assert (reader.info.width, reader.info.height) == (160, 96)
    assert abs(len(frames) - 70) <= 1
    small, large, other = frames[5], frames[30], frames[58]
    assert np.abs(small.astype(int) - 40).max() < 8, "the small one is scaled to fill the frame"
    assert np.abs(large.astype(int) - 120).max() < 8
    assert np.abs(other[:, 36:124].astype(int) - 200).max() < 8, "a square stays a square"
    assert other[:, :28].max() < 8 and other[:, 132:].max() < 8, "and gets bars"
    (line,) = reader.warnings
    assert "160x96 is shown longest (1.3 s)" in line
    assert "scaled to it: 80x48 (0.3 s), 322x192 (0.2 s); scaled into it with black bars: 96x96 (0.5 s)" in line
    assert "\n" not in line


def test_seconds_count_not_pictures(tmp_path: Path) -> None:
    """40 small pictures in 1.3 s, then 20 large ones in 4 s."""
    shots = [gray([40] * 40, 80, 48), gray([120] * 20, 160, 96)]
    file = write_sizes(tmp_path / "even.webm", shots, *LIVE["vp8.webm"])
    assert read(file)[0].info.width == 80
    with av.open(str(file)) as source, av.open(str(tmp_path / "slow.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for n, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.time_base = Fraction(1, 30)
            packet.pts = packet.dts = n if n < 40 else 40 + 6 * (n - 40)
            packet.stream = stream
            target.mux(packet)
    reader, _ = read(tmp_path / "slow.webm")
    assert reader.info.width == 160
    assert "160x96 is shown longest (3.8 s)" in reader.warnings[0]


def test_one_size_is_not_spoken_of(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", gray_pictures(range(40, 70)))
    (shown,) = find_shapes(file)
    assert str(shown.shape) == "64x48" and abs(shown.seconds - 1) < Fraction(1, 10)
    assert read(file)[0].warnings == ()


def test_another_file_of_the_same_name_is_looked_at_again(tmp_path: Path) -> None:
    file = tmp_path / "a.mkv"
    write_video(file, gray_pictures(range(30), 64, 48))
    assert read(file)[0].info.width == 64
    write_video(file, gray_pictures(range(40), 128, 96))
    assert read(file)[0].info.width == 128


def test_many_sizes_make_a_short_warning(tmp_path: Path) -> None:
    shots = [gray([100] * 20, 160, 96), *(gray([100] * 2, 40 + 8 * n, 96) for n in range(8))]
    (line,) = read(write_sizes(tmp_path / "a.webm", shots, *LIVE["vp8.webm"]))[0].warnings
    assert line.count("(0.1 s)") == 4 and line.endswith(", 4 more sizes")


def test_pictures_that_turn_are_upright_and_whole(tmp_path: Path) -> None:
    """A phone that is turned sends 90x160 after 160x90; the frame stays as it was most of the time."""
    shots = [gray([60] * 12, 90, 160), gray([180] * 30, 160, 90)]
    reader, frames = read(write_sizes(tmp_path / "a.webm", shots, *LIVE["vp8.webm"]))
    assert frames[0].shape == (90, 160, 3)
    lit = np.flatnonzero(frames[5].max(axis=(0, 2)) > 30)
    assert abs(len(lit) - 90 * 90 / 160) <= 2 and abs(lit.mean() - 79.5) <= 1
    assert "black bars: 90x160 (0.4 s)" in reader.warnings[0]


def test_the_case_file_that_grows(data_dir: Path) -> None:
    reader, frames = read(data_dir / "cases" / "size_grows_80_to_320.webm")
    assert (reader.info.width, reader.info.height, len(frames)) == (320, 240, 90)
    assert "80x60 (1.0 s)" in reader.warnings[0]


class Bits:
    """A VP9 header, written bit by bit."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, *fields: tuple[int, int]) -> "Bits":
        """Fields of value and width."""
        self.text += "".join(f"{value:0{width}b}" for value, width in fields if width)
        return self

    def bytes(self) -> bytes:
        text = self.text + "0" * (-len(self.text) % 8) + "0" * 64
        return int(text, 2).to_bytes(len(text) // 8)


def vp9_key(width: int, height: int, shown: int = 1, profile: int = 0) -> bytes:
    bits = Bits().add((2, 2), (profile & 1, 1), (profile >> 1, 1), (0, 1 if profile == 3 else 0), (0, 1), (0, 1))
    bits.add((shown, 1), (0, 1), (0x498342, 24), (0, 1 if profile >= 2 else 0), (2, 3), (0, 1))
    bits.add((0, 3 if profile in (1, 3) else 0), (width - 1, 16), (height - 1, 16))
    return bits.bytes()


def vp9_inter(slots: tuple[int, int, int], found: int | None, size: tuple[int, int], refreshed: int) -> bytes:
    """found: which of the three references gives its size; None: the header holds one."""
    bits = Bits().add((2, 2), (0, 2), (0, 1), (1, 1), (1, 1), (0, 1), (0, 2), (refreshed, 8))
    bits.add(*((slot << 1, 4) for slot in slots))
    bits.add(*((int(n == found), 1) for n in range(3 if found is None else found + 1)))
    if found is None:
        bits.add((size[0] - 1, 16), (size[1] - 1, 16))
    return bits.bytes()


def superframe(*frames: bytes) -> bytes:
    marker = bytes([0xC0 | 1 << 3 | len(frames) - 1])
    return b"".join(frames) + marker + b"".join(len(frame).to_bytes(2, "little") for frame in frames) + marker


def test_vp9_changes_its_size_between_key_pictures() -> None:
    """As browsers do when the network gets worse: no key picture, references of another size."""
    sizes = Vp9Sizes()
    assert sizes.size(vp9_key(640, 360)) == (640, 360)
    assert sizes.size(vp9_inter((0, 1, 2), 0, (0, 0), 1)) == (640, 360)
    assert sizes.size(vp9_inter((0, 1, 2), None, (320, 180), 0b10)) == (320, 180)
    assert sizes.size(vp9_inter((1, 0, 0), 0, (0, 0), 0)) == (320, 180), "of slot 1"
    assert sizes.size(vp9_inter((1, 0, 0), 1, (0, 0), 0)) == (640, 360), "of slot 0"
    hidden = vp9_key(1280, 720, shown=0)
    assert sizes.size(superframe(hidden, vp9_inter((3, 3, 3), None, (160, 90), 0))) == (160, 90)
    assert sizes.size(Bits().add((2, 2), (0, 2), (1, 1), (3, 3)).bytes()) == (1280, 720), "shown again from slot 3"
    assert sizes.size(hidden) is None
    for profile in (1, 2, 3):
        assert Vp9Sizes().size(vp9_key(352, 288, profile=profile)) == (352, 288)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 9, vp9_key(640, 360)[:8], b"\xc1" * 5])
def test_vp9_damage_is_no_size(data: bytes) -> None:
    assert Vp9Sizes().size(data) is None


def corners(width: int = 320, height: int = 240) -> av.VideoFrame:
    """Red tells the column, green the row, in steps of 8 and 10 pixels."""
    column = np.broadcast_to(np.arange(width) // 8 * 6, (height, width))
    row = np.broadcast_to((np.arange(height) // 10 * 10)[:, None], (height, width))
    picture = np.dstack([column, row, np.full_like(row, 60)]).astype(np.uint8)
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3)])
def test_crops_of_the_container_come_before_everything(
    tmp_path: Path, suffix: str, degrees: int, aspect: Fraction
) -> None:
    """32 columns of the left, 8 of the right, 40 rows above, 20 below."""
    whole = write_video(tmp_path / "a.mp4", [corners()] * 3, rotation=degrees, pixel_aspect=aspect, colorspace=6)
    file = remux(add_clean_aperture(whole, 280, 180, 12, 10), tmp_path / f"b.{suffix}") if suffix == "mkv" else whole
    if suffix != "mkv":
        add_clean_aperture(whole, 280, 180, 12, 10)
        file = whole.rename(tmp_path / f"b.{suffix}")
    _, frames = read(file)
    width = round(280 * aspect) // 2 * 2
    upright = np.rot90(frames[0], -degrees // 90)
    assert upright.shape == (180, width, 3)
    assert np.abs(upright[3, 3, :2].astype(int) - (32 // 8 * 6, 40)).max() <= 3
    assert np.abs(upright[-4, -4, :2].astype(int) - (311 // 8 * 6, 219 // 10 * 10)).max() <= 3


def test_a_crop_and_a_lower_height(tmp_path: Path) -> None:
    file = add_clean_aperture(write_video(tmp_path / "a.mp4", [corners()] * 3), 201, 101)
    assert read(file)[1][0].shape == (100, 200, 3)
    assert read(file, 50)[1][0].shape == (50, 100, 3)


def test_a_crop_that_leaves_nothing_is_damage(tmp_path: Path) -> None:
    file = add_clean_aperture(write_video(tmp_path / "a.mp4", [corners()] * 3), 0, 240)
    assert read(file)[1][0].shape == (240, 320, 3)


def test_the_case_file_that_is_cropped(data_dir: Path) -> None:
    """Display sizes of mkvmerge are those of the whole picture."""
    reader, _ = read(data_dir / "cases" / "crop_180_of_240.mkv")
    assert (reader.info.width, reader.info.height, reader.warnings) == (320, 180, ())


def test_pixel_aspects_of_cropped_pictures() -> None:
    crop = Crop(0, 0, 30, 30, 320, 240)
    narrow, wide = Fraction(3, 4), Fraction(4, 3)
    for container, codec, wanted in [
        (None, None, Fraction(1)),
        (Fraction(1), None, Fraction(1)),
        (narrow, Fraction(1), Fraction(1)),  # mkvmerge: display size of the whole picture
        (wide, None, Fraction(1)),  # mp4: track size of the shown part
        (wide, wide, wide),  # anamorphic, and the codec says so
        (Fraction(1), wide, wide),
        (Fraction(16, 11), None, Fraction(16, 11)),
    ]:
        assert pixel_aspect(container, codec, crop) == wanted
    assert Crop(0, 0, 30, 30, 320, 240).squeeze == Fraction(3, 4)


def woven(n: int, fields: str, width: int = 160, height: int = 96) -> Iterator[av.VideoFrame]:
    """n pictures of two moments each: a bar that moves 2 pixels to the right from moment to moment."""
    for k in range(n):
        picture = np.full((height, width, 3), 60, np.uint8)
        for half in range(2):
            x = 10 + 2 * (2 * k + half)
            row = half if fields == "tff" else 1 - half
            picture[row::2, x : x + 16] = 220
        yield av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", interpolation="POINT")


def places(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Where the bar is in each frame: its left side, in pixels."""
    weight = np.array([frame[..., 1].astype(float).mean(axis=0) - 60 for frame in frames])
    weight[weight < 20] = 0
    return (weight * np.arange(weight.shape[1])).sum(axis=1) / weight.sum(axis=1) - 7.5


def combing(frame: np.ndarray) -> float:
    """How much lines differ from both neighbours, grey levels."""
    gray = frame[..., 1].astype(float)
    return float(np.abs(2 * gray[1:-1] - gray[:-2] - gray[2:]).mean())


INTERLACED = {
    "h264.mp4": ("libx264", None),
    "h264.ts": ("libx264", None),
    "h264.mkv": ("libx264", None),
    "mpeg2.ts": ("mpeg2video", {"b": "8000000"}),
    "ffv1.mkv": ("ffv1", {}),
}


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001)])
@pytest.mark.parametrize("fields", ["tff", "bff"])
@pytest.mark.parametrize("name", INTERLACED)
def test_fields_become_pictures(tmp_path: Path, name: str, fields: str, fps: Fraction | int) -> None:
    n = 30
    codec, options = INTERLACED[name]
    file = write_video(
        tmp_path / name, woven(n, fields), codec=codec, options=options, fps=fps, fields=fields, colorspace=6
    )
    reader, frames = read(file)
    assert max(combing(frame) for frame in frames) < 2
    at = places(frames)
    moments = np.arange(len(frames)) / 30 * fps * 2  # of each frame, counted in fields
    assert np.abs(at - (10 + 2 * moments)).max() <= 2, "each frame shows the field nearest in time"
    assert np.diff(at).min() >= 1.5, "none is shown twice"
    assert len(frames) - n * 30 / fps in (pytest.approx(0, abs=1),)
    assert reader.warnings == () and reader.info.source_fps == pytest.approx(float(fps))


def test_progressive_pictures_are_left_alone(tmp_path: Path) -> None:
    """Combed pictures that are not marked come out as they went in: the mark decides."""
    pictures = list(woven(8, "tff"))
    timed = [(Fraction(n, 25), picture) for n, picture in enumerate(pictures)]
    assert list(deinterlace(iter(timed), Fraction(1, 25))) == timed
    frames = read(write_video(tmp_path / "a.mp4", pictures, fps=30, colorspace=6))[1]
    assert min(combing(frame) for frame in frames) > 4


def clocked(
    pictures: Sequence[av.VideoFrame], times_ms: Sequence[int], duration: int = 40
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    for picture, time in zip(pictures, times_ms, strict=True):
        picture.pts, picture.time_base, picture.duration = time, Fraction(1, 1000), duration
        yield Fraction(time, 1000), picture


def times_of(pictures: Sequence[av.VideoFrame], times_ms: Sequence[int], duration: int = 40) -> list[float]:
    return [float(1000 * time_s) for time_s, _ in deinterlace(clocked(pictures, times_ms, duration), Fraction(1, 50))]


def test_times_of_fields() -> None:
    """Half of its picture's duration after its picture; whatever the clock does, it is that of the file."""
    fields = list(marked(woven(4, "tff"), "tff"))
    assert times_of(fields, [0, 40, 80, 120]) == [0, 20, 40, 60, 80, 100, 120, 140]
    fields = list(marked(woven(4, "tff"), "tff"))
    assert times_of(fields, [900, 940, 0, 40]) == [900, 920, 940, 960, 0, 20, 40, 60]
    fields = list(marked(woven(2, "tff"), "tff"))
    assert times_of(fields, [0, 40], duration=0) == [0, 10, 40, 50], "without a duration, the period that is given"
    assert times_of(list(marked(woven(1, "tff"), "tff")), [0]) == [0, 20]


def test_mixed_content_keeps_every_picture() -> None:
    progressive, fields = list(woven(6, "tff")), list(marked(woven(4, "tff"), "tff"))
    pictures = [*progressive[:2], *fields[:2], *marked(progressive[2:4], "prog"), *fields[2:], *progressive[4:]]
    assert times_of(pictures, list(range(0, 400, 40))) == [
        0,
        40,
        80,
        100,
        120,
        140,
        160,
        200,
        240,
        260,
        280,
        300,
        320,
        360,
    ]


def test_fields_of_two_sizes() -> None:
    small, large = marked(woven(3, "tff"), "tff"), marked(woven(3, "tff", 320, 192), "tff")
    out = list(deinterlace(clocked([*small, *large], list(range(0, 240, 40))), Fraction(1, 25)))
    assert [picture.width for _, picture in out] == [160] * 6 + [320] * 6


def test_what_the_filter_cannot_take_is_refused_in_one_line() -> None:
    for pix_fmt, width, height in (("gray32le", 64, 48), ("yuv420p", 64, 2)):
        pictures = list(marked([av.VideoFrame(width, height, pix_fmt)], "tff"))
        with pytest.raises(InputError, match=f"{width}x{height} px in {pix_fmt} cannot be deinterlaced"):
            list(deinterlace(clocked(pictures, [0]), Fraction(1, 25)))


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuvj420p", "nv12", "uyvy422", "yuv422p10le", "yuva420p", "rgb24", "bgra"]
)
def test_any_pixel_format_and_matrix_goes_through_the_filter(pix_fmt: str) -> None:
    for colorspace in (0, 1, 6, 8, 9):
        pictures = list(marked((picture.reformat(format=pix_fmt) for picture in woven(3, "tff")), "tff"))
        for picture in pictures:
            picture.colorspace = colorspace
        out = list(deinterlace(clocked(pictures, [0, 40, 80]), Fraction(1, 25)))
        assert len(out) == 6 and not any(picture.interlaced_frame for _, picture in out)
        assert out[0][1].format.is_rgb or out[0][1].colorspace == colorspace


def test_crop_of_an_odd_row_does_not_mix_fields(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", woven(20, "tff"), fps=25, fields="tff", colorspace=6)
    _, frames = read(add_clean_aperture(file, 160, 90, 0, 0))
    assert frames[0].shape == (90, 160, 3) and max(combing(frame) for frame in frames) < 2


def test_the_case_file_that_is_interlaced(data_dir: Path) -> None:
    _, frames = read(data_dir / "cases" / "interlaced_moving_bar.mp4")
    assert max(combing(frame) for frame in frames) < 4


COLOUR = (200, 60, 30)
TRANSPARENT = {
    "vp8.webm": (
        "libvpx",
        "yuva420p",
        {"auto-alt-ref": "0", "crf": "4", "b": "3000000", "cpu-used": "8", "deadline": "realtime", "threads": "1"},
    ),
    "vp9.webm": ("libvpx-vp9", "yuva420p", {"crf": "4", "deadline": "realtime", "cpu-used": "8", "threads": "1"}),
    "prores.mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
    "png.mov": ("png", "rgba", {}),
    "png16.mov": ("png", "rgba64be", {}),
    "grey.mov": ("png", "ya8", {}),
    "qtrle.mov": ("qtrle", "argb", {}),
    "ffv1.mkv": ("ffv1", "yuva444p", {}),
    "utvideo.avi": ("utvideo", "gbrap", {}),
    "raw.avi": ("rawvideo", "bgra", {}),
}


def layered(alpha: int, pix_fmt: str, n: int = 6) -> Iterator[av.VideoFrame]:
    """An opaque box on noise that alpha hides."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        picture = rng.integers(0, 256, (96, 160, 4), np.uint8)
        picture[..., 3] = alpha
        picture[20:80, 50:110] = (*COLOUR, 255)
        yield av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pix_fmt)


def write_layered(path: Path, alpha: int) -> Path:
    codec, pix_fmt, options = TRANSPARENT[path.name]
    return write_video(
        path, layered(alpha, pix_fmt), codec=codec, options=options, metadata={"alpha_mode": "1"}, full_range=False
    )


@pytest.mark.parametrize("height", [96, 48])
@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_is_transparent_shows_grey_and_nothing_hidden(tmp_path: Path, name: str, height: int) -> None:
    reader, frames = read(write_layered(tmp_path / name, 0), height)
    frame, scale = frames[-1].astype(int), 96 // height
    outside = np.concatenate([frame[: 18 // scale].reshape(-1, 3), frame[82 // scale :].reshape(-1, 3)])
    assert np.abs(outside - 128).max() <= 4
    inside = frame[30 // scale : 70 // scale, 60 // scale : 100 // scale]
    assert np.abs(inside - ((98,) * 3 if name == "grey.mov" else COLOUR)).max() <= 6
    (line,) = reader.warnings
    assert "grey (128, 128, 128)" in line and "straight" in line


@pytest.mark.parametrize("name", TRANSPARENT)
def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path, name: str) -> None:
    reader, frames = read(write_layered(tmp_path / name, 255))
    assert reader.warnings == ()
    assert frames[-1][:18].std() > 40, "the noise is there"


def test_half_transparent_is_mixed(tmp_path: Path) -> None:
    picture = np.full((48, 64, 4), (200, 100, 0, 128), np.uint8)
    pictures = [av.VideoFrame.from_ndarray(picture, format="rgba")] * 3
    frame = read(write_video(tmp_path / "a.mov", pictures, codec="png", options={}))[1][0]
    assert np.abs(frame.astype(int) - (164, 114, 64)).max() <= 1


def test_no_libvpx_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_layered(tmp_path / "vp9.webm", 0)
    monkeypatch.setattr("tango_rt.video.alpha.av.codecs_available", {"vp9"})
    assert "libvpx" in read(file)[0].warnings[0]


def test_the_case_file_with_hidden_colours(data_dir: Path) -> None:
    reader, frames = read(data_dir / "cases" / "alpha_with_hidden_colours.mov")
    assert frames[5][:, :40].std() < 5 and "transparent" in reader.warnings[0]


def test_colours_are_right_through_every_detour(tmp_path: Path) -> None:
    """Crop, fields and alpha take ways of their own through the converter: the colour is the same."""
    rgb = (200, 60, 30)
    plain = [flat_picture(ycbcr(rgb, 6, False), 64, 48)] * 6
    cropped = add_clean_aperture(write_video(tmp_path / "a.mp4", plain, colorspace=6), 60, 40)
    fields = write_video(tmp_path / "b.mp4", plain, colorspace=6, fields="tff")
    wide = [flat_picture(ycbcr(rgb, 1, False), 64, 48)] * 6
    other_matrix = write_video(tmp_path / "c.mp4", wide, colorspace=1, fields="bff")
    for file in (cropped, fields, other_matrix):
        assert np.abs(read(file)[1][3].astype(int) - rgb).max() <= 3, file.name


def test_every_few_frames_are_those_of_all(tmp_path: Path) -> None:
    shots = [gray([40] * 20, 80, 48), gray(list(range(100, 140)), 160, 96)]
    path = write_sizes(tmp_path / "a.webm", shots, *LIVE["vp8.webm"])
    frames = read(path)[1]
    with VideoReader(path) as reader:
        sampled = list(reader.every(7))
    assert all(np.array_equal(one, other) for one, other in zip(sampled, frames[::7], strict=True))

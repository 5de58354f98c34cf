from fractions import Fraction
from math import ceil
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from tango_rt.video.reader import MAX_SIDE_PX, VideoReader, _at_30_fps
from tests.helpers.media_files import flat_picture, gray_pictures, write_audio, write_video, ycbcr


def read(path: Path, max_height: int = 720) -> np.ndarray:
    with VideoReader(path, max_height) as reader:
        return np.array(list(reader))


def levels_of(frames: np.ndarray) -> list[int]:
    """Which grey picture each frame shows: they are made 4 levels apart."""
    return [round(float(frame.mean()) / 4) for frame in frames]


def naive_choice(times: list[Fraction]) -> list[int]:
    """For each output frame the source picture to show, by looking at all of them."""
    nearest = [ceil(time * 30 - Fraction(1, 2)) for time in times]
    choice = []
    for n in range(max(nearest) + 1):
        here = [k for k, m in enumerate(nearest) if m == n]
        if here:
            choice.append(min(here, key=lambda k: abs(times[k] - Fraction(n, 30))))
        else:
            choice.append(choice[-1])
    return choice


@given(st.lists(st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(1, 3)), max_size=40))
def test_choice_of_pictures_equals_the_naive_one(steps: list[Fraction]) -> None:
    times = [Fraction(0)]
    for step in steps:
        times.append(times[-1] + step)
    assert list(_at_30_fps(zip(times, range(len(times)), strict=True))) == naive_choice(times)


@pytest.mark.parametrize("fps", [24, Fraction(24000, 1001), 25, Fraction(30000, 1001), 30, 48, 50, 60])
def test_any_frame_rate_becomes_30(tmp_path: Path, fps: Fraction | int) -> None:
    file = write_video(tmp_path / "a.mp4", gray_pictures(range(0, 240, 4)), fps=fps)
    choice = naive_choice([Fraction(n) / fps for n in range(60)])
    assert abs(len(choice) - 60 * 30 / fps) <= 1
    assert levels_of(read(file)) == choice


@pytest.mark.parametrize("step", [1, 7, 15, 200])
def test_every_few_frames_are_those_of_all(tmp_path: Path, step: int) -> None:
    path = write_video(tmp_path / "ramp.mp4", gray_pictures(range(30, 130)), fps=25)
    with VideoReader(path) as reader:
        frames = list(reader)
    with VideoReader(path) as reader:
        sampled = list(reader.every(step))
    assert len(sampled) == -(-len(frames) // step)
    assert all(np.array_equal(one, other) for one, other in zip(sampled, frames[::step], strict=True))


def test_an_hour_does_not_drift() -> None:
    n_source = 3600 * 30000 // 1001
    times = ((Fraction(n * 1001, 30000), n) for n in range(n_source))
    for n, source in enumerate(_at_30_fps(times)):
        assert abs(n * 1000 - source * 1001) <= 1001 // 2
    assert abs(n + 1 - 3600 * 30) <= 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_containers_and_their_clocks(tmp_path: Path, suffix: str) -> None:
    """Milliseconds in mkv, a start at 1.4 s in ts: a video at 30 fps comes out frame by frame."""
    file = write_video(tmp_path / f"a.{suffix}", gray_pictures(range(0, 240, 4)))
    assert levels_of(read(file)) == list(range(60))


@pytest.mark.parametrize("start_s", [Fraction(0), Fraction(5), Fraction(7, 11)])
def test_variable_rate_and_any_start(tmp_path: Path, start_s: Fraction) -> None:
    rng = np.random.default_rng(5)
    steps_ms = rng.integers(8, 120, 50).tolist()
    times = [Fraction(sum(steps_ms[:k]), 1000) for k in range(50)]
    file = write_video(tmp_path / "a.mkv", gray_pictures(range(0, 200, 4)), [start_s + t for t in times])
    got, wanted = levels_of(read(file)), naive_choice(times)
    assert len(got) == len(wanted)
    assert np.mean(np.array(got) == wanted) > 0.95  # times rounded to milliseconds settle ties otherwise


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_all_eight_orientations(tmp_path: Path, degrees: int, hflip: bool) -> None:
    tiles = np.kron(np.array([[250, 130], [60, 10], [30, 90]], np.uint8), np.ones((16, 32), np.uint8))
    picture = av.VideoFrame.from_ndarray(np.dstack([tiles] * 3), format="rgb24").reformat(format="yuv444p")
    file = write_video(tmp_path / "a.mp4", [picture] * 3, rotation=degrees, hflip=hflip, colorspace=6)
    # The flip is written as the last step of the display matrix, the rotation is counterclockwise.
    upright = np.rot90(tiles, degrees // 90)
    wanted = upright[:, ::-1] if hflip else upright
    frame = read(file)[0]
    assert frame.shape == (*wanted.shape, 3)
    assert np.abs(frame[..., 0].astype(int) - wanted).max() <= 3


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("colorspace", [1, 6, 9])
@pytest.mark.parametrize(
    ("pix_fmt", "codec"), [("yuv420p", "libx264"), ("yuv420p10le", "libx264"), ("yuv444p", "ffv1")]
)
def test_colours_of_all_matrices_ranges_and_depths(
    tmp_path: Path, pix_fmt: str, codec: str, colorspace: int, full_range: bool
) -> None:
    bits = 10 if "10" in pix_fmt else 8
    for rgb in [(200, 60, 30), (20, 180, 90), (128, 128, 128), (250, 250, 250), (10, 20, 240)]:
        picture = flat_picture(ycbcr(rgb, colorspace, full_range, bits), 64, 48, pix_fmt)
        file = tmp_path / "a.mkv"
        write_video(file, [picture], codec=codec, colorspace=colorspace, full_range=full_range)
        assert np.abs(read(file)[0].astype(int) - rgb).max() <= 2


def test_wide_gamut_becomes_bt709(tmp_path: Path) -> None:
    """Skin in BT.2020 primaries, shrunk; naive: ITU-R BT.2087 in the light of a display (gamma 2.4)."""
    rgb = np.array((210, 160, 140))
    matrix = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    wide = 255 * (matrix @ (rgb / 255) ** 2.4) ** (1 / 2.4)
    picture = flat_picture(ycbcr(wide.tolist(), 9, False, 10), 64, 48, "yuv420p10le")
    picture.color_primaries, picture.color_trc = 9, 14
    frame = read(write_video(tmp_path / "a.mkv", [picture], colorspace=9), 24)[0]
    assert np.abs(frame.astype(int) - rgb).max() <= 4


def test_hdr_is_as_bright_as_sdr(tmp_path: Path) -> None:
    """Reference white is 75 % of HLG (ITU-R BT.2408): taken for SDR it would be 191."""
    picture = flat_picture((round(64 + 876 * 0.75), 512, 512), 64, 48, "yuv420p10le")
    picture.color_primaries, picture.color_trc = 9, 18
    frame = read(write_video(tmp_path / "a.mkv", [picture], colorspace=9))[0]
    assert frame.min() > 235
    assert np.ptp(frame) <= 3


@pytest.mark.parametrize(("width", "height", "colorspace"), [(1280, 720, 1), (320, 240, 6), (720, 576, 6)])
def test_unmarked_colours_go_by_the_size(tmp_path: Path, width: int, height: int, colorspace: int) -> None:
    picture = flat_picture(ycbcr((200, 60, 30), colorspace, False), width, height)
    frame = read(write_video(tmp_path / "a.mp4", [picture]))[0]
    assert np.abs(frame.astype(int) - (200, 60, 30)).max() <= 2


def test_sizes_shrink_to_even_sides_and_never_grow(tmp_path: Path) -> None:
    for (width, height), aspect, limit, wanted in [
        ((192, 108), Fraction(1), 720, (192, 108)),
        ((192, 108), Fraction(1), 54, (96, 54)),
        ((108, 192), Fraction(1), 72, (40, 72)),
        ((96, 64), Fraction(2), 720, (192, 64)),
        ((96, 64), Fraction(1, 2), 32, (24, 32)),
        ((101, 75), Fraction(1), 720, (100, 74)),
    ]:
        picture = flat_picture((126, 128, 128), width, height, "yuv444p")
        file = write_video(tmp_path / "a.mp4", [picture] * 2, pixel_aspect=aspect)
        with VideoReader(file, limit) as reader:
            frames = list(reader)
            assert (reader.info.width, reader.info.height) == wanted
        assert all(frame.shape == (wanted[1], wanted[0], 3) and frame.flags.c_contiguous for frame in frames)


def test_an_odd_row_and_column_are_cut_not_scaled(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    picture = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="bgr0")
    frame = read(write_video(tmp_path / "a.mkv", [picture], codec="ffv1", colorspace=0, full_range=True))[0]
    np.testing.assert_array_equal(frame, noise[:74, :100])


def test_shrinking_averages(tmp_path: Path) -> None:
    """A fine checkerboard becomes grey; picking every third pixel would give black and white."""
    board = np.indices((216, 216)).sum(0) % 2 * 255
    picture = av.VideoFrame.from_ndarray(np.dstack([board] * 3).astype(np.uint8), format="rgb24")
    file = write_video(tmp_path / "a.mkv", [picture.reformat(format="bgr0")], codec="ffv1", colorspace=0)
    frame = read(file, 72)[0]
    assert frame.shape == (72, 72, 3)
    assert np.abs(frame.astype(int) - 128).max() < 20


def copy_with_damage(source: Path, target: Path, damaged: set[int]) -> Path:
    """The same video with the bytes of some packets replaced by rubbish."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for n, packet in enumerate(reader.demux(video=0)):
            if packet.size:
                copy = av.Packet(b"\xa5" * packet.size if n in damaged else bytes(packet))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.duration, copy.is_keyframe, copy.stream = packet.duration, packet.is_keyframe, stream
                writer.mux(copy)
    return target


@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
def test_broken_packets_are_skipped_and_counted(tmp_path: Path, codec: str) -> None:
    pictures = gray_pictures(range(0, 240, 4))
    good = write_video(tmp_path / "good.mkv", pictures, codec=codec, gop=1)
    with VideoReader(copy_with_damage(good, tmp_path / "bad.mkv", {20, 21, 40})) as reader:
        shown = levels_of(np.array(list(reader)))
        assert reader.skipped == 3
    assert shown == [{20: 19, 21: 19, 40: 39}.get(n, n) for n in range(60)]


def test_a_file_cut_short_plays_to_the_cut(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", gray_pictures(range(0, 240, 4)), codec="ffv1")
    (tmp_path / "b.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    shown = levels_of(read(tmp_path / "b.mkv"))
    assert 20 < len(shown) < 40
    assert shown == list(range(len(shown)))


def test_what_is_known_before_reading(tmp_path: Path) -> None:
    file = write_audio(
        tmp_path / "a.mp4", np.zeros(16000, np.float32), 16000, codec="aac", pictures=gray_pictures([9] * 30)
    )
    with VideoReader(file) as reader:
        info = reader.info
    assert (info.width, info.height, info.source_fps, info.codec) == (64, 48, 30.0, "h264")
    assert info.has_audio
    assert info.n_frames == 30


def test_real_clips(data_dir: Path) -> None:
    """One has 60 fps, one is upright HEVC of 1080x1920 at 25 fps, one has a wrong duration in its header."""
    for name, n_frames, size in [
        ("man_navy_shirt_stool_15s", 450, (256, 256)),
        ("woman_black_blouse_seated_10s", 300, (256, 256)),
    ]:
        with VideoReader(data_dir / "video" / f"{name}.mp4") as reader:
            assert (reader.info.width, reader.info.height) == size
            assert reader.info.n_frames == sum(1 for _ in reader) == n_frames
            assert reader.skipped == 0
    with VideoReader(data_dir / "video" / "woman_grey_coat_seated_10s.mp4") as reader:
        assert (reader.info.width, reader.info.height, reader.info.n_frames) == (404, 720, 300)
        assert next(iter(reader)).shape == (720, 404, 3)
    with VideoReader(data_dir / "video" / "man_dark_suit_standing_61s.mp4") as reader:
        assert reader.info.n_frames == 1844


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video\n" * 100)
    (tmp_path / "notes.mp4").write_bytes(b"no video\n" * 100)
    write_audio(tmp_path / "sound.wav", np.zeros(1000, np.float32), 16000)
    good = write_video(tmp_path / "good.mkv", gray_pictures([50] * 5), codec="ffv1")
    copy_with_damage(good, tmp_path / "rubbish.mkv", set(range(5)))
    for name, words in [
        ("absent.mp4", "no such file"),
        (".", "is a folder"),
        ("notes.txt", "not a video or audio file"),
        ("notes.mp4", "cannot be read"),
        ("sound.wav", "no video track"),
        ("rubbish.mkv", "none of the video"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            VideoReader(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_bounds_are_checked_before_reading(tmp_path: Path) -> None:
    wide = flat_picture((16, 128, 128), MAX_SIDE_PX + 8, 16)
    with pytest.raises(InputError, match="8200x16 px"):
        VideoReader(write_video(tmp_path / "wide.mkv", [wide], codec="ffv1"))
    times = [Fraction(0), Fraction(5 * 3600)]
    long = write_video(tmp_path / "long.mp4", gray_pictures([0, 100]), times)
    with pytest.raises(InputError, match="hours long"):
        VideoReader(long)

"""Sound and picture of a file on one clock: pieces, gaps, jumps, and containers that stamp pictures as they are stored.

Files of flashes and beeps: both are found where they belong, and each flash has its beep.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tango_rt.media.clock import _Pieces, read_clock
from tango_rt.sound.audio import read_audio
from tango_rt.video.reader import VideoReader
from tests.helpers.media_files import gray_pictures, join, restamp, write_audio, write_talk, write_video

# A flash is found to half a frame, a beep to 5 ms; the issue wants 50 ms between the two.
APART_S = 0.04

Stamp = Callable[[str, Fraction], Fraction | None]


def silent(_: str) -> None:
    """Takes remarks that a test does not look at."""


def flashes(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        bright = np.array([frame.mean() for frame in reader]) > 120
    return (np.flatnonzero(bright[1:] & ~bright[:-1]) + 1) / 30


def beeps(samples: np.ndarray) -> np.ndarray:
    loud = np.abs(samples[: len(samples) // 80 * 80]).reshape(-1, 80).max(axis=1) > 0.3
    return (np.flatnonzero(loud[1:] & ~loud[:-1]) + 1) * 80 / 16000


def seen_and_heard(path: Path, warn: Callable[[str], None] = silent) -> tuple[np.ndarray, np.ndarray]:
    return flashes(path), beeps(read_audio(path, align_to_video=True, warn=warn))


def together(path: Path, times: list[float], warn: Callable[[str], None] = silent) -> None:
    """Every flash and every beep is at its time, and they are at one time."""
    seen, heard = seen_and_heard(path, warn)
    assert len(seen) == len(heard) == len(times)
    assert np.abs(seen - heard).max() < APART_S
    assert np.abs(seen - times).max() < 0.2  # pieces end where the longer of their tracks does


PIECES = {
    "ts": ("libx264", "aac"),
    "webm": ("libvpx", "libopus"),
    "mkv": ("libx264", "aac"),
    "flv": ("libx264", "aac"),
    "mpg": ("mpeg2video", "mp2"),
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "pcm_s16le"),
    "avi": ("libx264", "libmp3lame"),
}


@pytest.mark.parametrize("seconds", [2.5, 0.5])
@pytest.mark.parametrize("suffix", PIECES)
def test_pieces_whose_clock_restarts_follow_each_other(tmp_path: Path, suffix: str, seconds: float) -> None:
    piece = write_talk(tmp_path / f"a.{suffix}", seconds, codecs=PIECES[suffix])
    in_piece = [k + 0.25 for k in range(int(seconds + 0.75))]
    times = [n * seconds + at for n in range(4) for at in in_piece]
    together(join(tmp_path / f"b.{suffix}", *[piece] * 4), times)


def test_a_live_stream_that_was_interrupted(tmp_path: Path) -> None:
    """RTMP: the clock starts over within one FLV file. MediaRecorder: parts without lengths, one behind the other."""
    flv = write_talk(tmp_path / "a.flv", 2)
    together(join(tmp_path / "b.flv", *[flv] * 3, head_bytes=13), [n + 0.25 for n in range(6)])
    webm = write_talk(tmp_path / "a.webm", 2, codecs=("libvpx", "libopus"), live=True)
    together(join(tmp_path / "b.webm", *[webm] * 3), [n + 0.25 for n in range(6)])


def test_pieces_without_sound_keep_their_place(tmp_path: Path) -> None:
    with_sound = write_talk(tmp_path / "a.ts", 2)
    without = write_video(tmp_path / "b.ts", gray_pictures([10] * 90))
    joined = join(tmp_path / "c.ts", with_sound, without, with_sound)
    together(joined, [0.25, 1.25, 5.25, 6.25])


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 seconds, to be stamped again."""
    return write_talk(tmp_path_factory.mktemp("talk") / "talk.mp4", 30)


CONTAINERS = ["mkv", "mp4", "flv", "ts"]


def without(kinds: str, first: int, stop: int) -> Stamp:
    return lambda kind, time: None if kind in kinds and first <= time < stop else time


def jumping(kinds: str, at: int, by: int) -> Stamp:
    return lambda kind, time: time + by if kind in kinds and time >= at else time


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_gap_in_one_track_stays_while_the_other_goes_on(tmp_path: Path, talk: Path, suffix: str) -> None:
    muted = restamp(talk, tmp_path / f"muted.{suffix}", without("audio", 8, 21))
    seen, heard = seen_and_heard(muted)
    assert len(seen) == 30
    assert np.abs(heard - np.array([k + 0.25 for k in range(30) if not 8 <= k < 21])).max() < APART_S
    assert len(read_audio(muted)) == pytest.approx(30 * 16000, abs=1600)
    frozen = restamp(talk, tmp_path / f"frozen.{suffix}", without("video", 8, 21))
    seen, heard = seen_and_heard(frozen)
    assert len(heard) == 30
    assert np.abs(seen - np.array([k + 0.25 for k in range(30) if not 8 <= k < 21])).max() < APART_S


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_gap_in_both_closes_when_it_is_long(tmp_path: Path, talk: Path, suffix: str) -> None:
    said: list[str] = []
    short = restamp(talk, tmp_path / f"short.{suffix}", without("audio video", 8, 13))
    together(short, [k + 0.25 for k in range(30) if not 8 <= k < 13], said.append)
    assert not said
    long = restamp(talk, tmp_path / f"long.{suffix}", without("audio video", 8, 21))
    together(long, [k + 0.25 for k in range(17)], said.append)
    assert len(said) == 1 and "13 s" in said[0] and "closed" in said[0]


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("by_s", [12, 20_000])
def test_a_clock_that_jumps_ahead_in_both_tracks(tmp_path: Path, talk: Path, suffix: str, by_s: int) -> None:
    """20,000 s would be more than the longest video."""
    jumped = restamp(talk, tmp_path / f"a.{suffix}", jumping("audio video", 10, by_s))
    together(jumped, [k + 0.25 for k in range(30)])


@pytest.mark.parametrize("suffix", ["mkv", "flv", "ts"])
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_clock_that_jumps_in_one_track_alone_is_bridged(tmp_path: Path, talk: Path, suffix: str, kind: str) -> None:
    said: list[str] = []
    together(
        restamp(talk, tmp_path / f"a.{suffix}", jumping(kind, 10, 1000)), [k + 0.25 for k in range(30)], said.append
    )
    assert len(said) == 1 and "one track" in said[0]


def test_a_track_that_begins_late_or_ends_early(tmp_path: Path, talk: Path) -> None:
    late = restamp(talk, tmp_path / "late.mkv", without("audio", -1, 20))
    seen, heard = seen_and_heard(late)
    assert len(seen) == 30
    np.testing.assert_allclose(heard, [k + 0.25 for k in range(20, 30)], atol=APART_S)
    early = restamp(talk, tmp_path / "early.ts", without("video", 0, 15))
    together(early, [k + 0.25 for k in range(15)])


def test_a_small_step_back_of_one_track_moves_nothing(tmp_path: Path, talk: Path) -> None:
    """Half a second of sound that was written twice, as recorders do when they cut."""
    twice = restamp(talk, tmp_path / "a.mkv", lambda kind, t: t - Fraction(1, 2) if kind == "audio" and t >= 10 else t)
    assert read_clock(twice).warnings == ()
    _, heard = seen_and_heard(twice)
    assert np.abs(heard[10:] - np.array([k - 0.25 for k in range(11, 30)])).max() < APART_S


@pytest.mark.parametrize("lag_s", [0.0, 0.7, 1.8, -1.0])
@pytest.mark.parametrize("bases_s", [(0, 0, 0, 0), (100, 7, 3000, 0)])
def test_tracks_that_lie_apart_in_the_file_restart_together(lag_s: float, bases_s: tuple[int, ...]) -> None:
    """The sound of a piece is stored later than its picture, up to beyond the start of the next piece."""
    packets = []
    for n, base in enumerate(bases_s):
        packets += [(3 * n + k / 30, "video", base + k / 30, 1 / 30) for k in range(90)]
        packets += [(3 * n + k / 50 + lag_s, "audio", base + k / 50, 1 / 50) for k in range(150)]
    pieces = _Pieces(longest_s=0.25)
    for position, (_, kind, time_s, duration_s) in enumerate(sorted(packets, key=lambda packet: packet[0])):
        pieces.take(kind, time_s, duration_s, True, position)
    clock = pieces.clock(lone=False)
    shifts = [bases_s[0] + 3 * n - base for n, base in enumerate(bases_s)]
    for kind, n_packets in (("video", 90), ("audio", 150)):
        assert [number for number, _ in clock.shifts[kind]] == [n * n_packets for n in range(4)]
        np.testing.assert_allclose([shift for _, shift in clock.shifts[kind]], shifts, atol=1e-6)


def test_a_clock_of_33_bits_that_runs_over(tmp_path: Path, talk: Path) -> None:
    before_s = Fraction(2**33, 90_000) - 12
    path = restamp(talk, tmp_path / "a.ts", lambda _, time: time + before_s)
    together(path, [k + 0.25 for k in range(30)])


def test_a_lone_track_follows_itself(tmp_path: Path) -> None:
    levels = list(range(0, 240, 4))
    video = write_video(tmp_path / "a.ts", gray_pictures(levels))
    joined = join(tmp_path / "b.ts", *[video] * 3)
    with VideoReader(joined) as reader:
        shown = [round(float(frame.mean()) / 4) for frame in reader]
        assert abs(reader.info.n_frames - 180) <= 3
    assert [n for n, before in zip(shown, [-1, *shown], strict=False) if n != before] == list(range(60)) * 3
    assert abs(len(shown) - 180) <= 3
    still = write_video(tmp_path / "c.mkv", gray_pictures([0, 40, 80, 120]), [Fraction(t) for t in (0, 1, 10, 3610)])
    with VideoReader(still) as reader:
        assert 300 <= len(list(reader)) <= 335  # nine seconds stay, an hour closes


SOUNDS = {"opus": ("libopus", "ogg"), "oga": ("flac", "ogg"), "flac": ("flac", None), "mp3": ("libmp3lame", None)}


@pytest.mark.parametrize("seconds", [2.0, 0.5])
@pytest.mark.parametrize("suffix", SOUNDS)
def test_joined_sound_is_as_long_as_its_pieces(tmp_path: Path, suffix: str, seconds: float) -> None:
    codec, container_format = SOUNDS[suffix]
    t = np.arange(round(48000 * seconds)) / 48000
    sound = 0.5 * np.sin(2 * np.pi * 440 * t).astype(np.float32)
    piece = write_audio(tmp_path / f"a.{suffix}", sound, 48000, codec=codec, container_format=container_format)
    alone = read_audio(piece)
    heard = read_audio(join(tmp_path / f"b.{suffix}", *[piece] * 4), warn=silent)
    # the padding of all but the first MP3 is heard, for only the first says how much there is
    assert abs(len(heard) - 4 * len(alone)) < (0.25 if suffix == "mp3" else 0.02) * 16000
    power = np.square(heard[: len(heard) // 1600 * 1600]).reshape(-1, 1600).mean(axis=1)
    assert suffix == "mp3" or power.min() > 0.5 * np.median(power)  # and nowhere silent


def test_joined_sound_of_other_rates(tmp_path: Path) -> None:
    """Raw AAC has no clock of its own: FFmpeg counts all of it by the rate of the first."""
    parts = []
    for n, rate in enumerate((44100, 22050, 44100)):
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate).astype(np.float32)
        parts.append(write_audio(tmp_path / f"{n}.aac", tone, rate, codec="aac", container_format="adts"))
    heard = read_audio(join(tmp_path / "joined.aac", *parts))
    assert len(heard) / 16000 == pytest.approx(6.1, abs=0.12)  # with the padding of the coder
    power = np.square(heard[: len(heard) // 1600 * 1600]).reshape(-1, 1600).mean(axis=1)
    assert power.min() > 0.2 * np.median(power)


STORED = [
    ("a.avi", "libx264"),
    ("a.avi", "mpeg4"),
    ("a.wmv", "libx264"),
    ("a.mxf", "libx264"),
    ("a.mxf", "mpeg2video"),
    ("a.h264", "libx264"),
    ("a.m4v", "mpeg4"),
    ("a.mkv", "libx264"),
]


@pytest.mark.parametrize(("name", "codec"), STORED)
def test_pictures_that_are_stamped_as_they_are_stored(tmp_path: Path, name: str, codec: str) -> None:
    """With B pictures, which are stored in another order: every frame once and in order."""
    path = tmp_path / name
    with av.open(str(path), "w", format="asf" if path.suffix == ".wmv" else None) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 2, 12
        stream.codec_context.bit_rate = 2_000_000
        if codec == "libx264":
            stream.options = {"crf": "1", "preset": "ultrafast", "x264-params": "threads=1:bframes=2:b-adapt=0"}
        for n, picture in enumerate(gray_pictures(range(0, 240, 4))):
            picture.pts, picture.time_base = n, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        shown = [float(frame.mean()) / 4 for frame in reader]
    assert len(shown) == 60
    assert np.abs(np.array(shown) - np.arange(60)).max() < (0.6 if codec == "libx264" else 1.5)


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("a.avi", ("libx264", "pcm_s16le")),
        ("a.wmv", ("libx264", "libmp3lame")),
        ("a.mxf", ("libx264", "pcm_s16le")),
        ("a.mov", ("libx264", "pcm_s16le")),
    ],
)
def test_sound_goes_with_pictures_that_are_stamped_as_they_are_stored(
    tmp_path: Path, name: str, codecs: tuple[str, str]
) -> None:
    container_format = "asf" if name.endswith("wmv") else None
    together(write_talk(tmp_path / name, 3, codecs=codecs, container_format=container_format), [0.25, 1.25, 2.25])


def test_cases_of_the_data_folder(data_dir: Path) -> None:
    cases = data_dir / "cases"
    if not cases.is_dir():
        pytest.skip(f"no cases: {cases} is absent")
    for name, seconds in [("chained_opus_4x2s.ogg", 8.0), ("muted_12s_of_26.webm", 26.0), ("restart_4x3s.ts", 12.0)]:
        assert len(read_audio(cases / name, warn=silent)) / 16000 == pytest.approx(seconds, abs=0.15), name
    with VideoReader(cases / "frozen_12s_of_26.webm") as reader:
        assert sum(1 for _ in reader) == pytest.approx(26 * 30, abs=5)
    with VideoReader(cases / "h264_bframes_reference.mkv") as reader:
        wanted = [frame[::2, ::2].astype(np.int16) for frame in reader]
    with VideoReader(cases / "h264_bframes.avi") as reader:
        shown = [frame[::2, ::2].astype(np.int16) for frame in reader]
    nearest = [int(np.argmin([np.abs(frame - other).mean() for other in wanted])) for frame in shown[::7]]
    assert len(shown) == len(wanted)
    assert nearest == list(range(0, len(wanted), 7))

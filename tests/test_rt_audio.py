import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from engine.errors import InputError
from tango_rt.sound.audio import audio_blocks, check_audible, read_audio
from tests.helpers.media_files import gray_pictures, join, restamp, write_audio, write_video
from tests.helpers.signals import chirp, lag, rms


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_every_rate_and_layout_gives_the_same_16_khz(tmp_path: Path, rate: int, layout: str) -> None:
    codec, suffix = ("pcm_f32le", "wav") if rate == 96000 else ("flac", "flac")
    file = write_audio(tmp_path / f"a.{suffix}", chirp(rate), rate, codec=codec, layout=layout)
    samples = read_audio(file)
    assert samples.dtype == np.float32
    assert len(samples) == 32000
    assert rms((samples - chirp(16000))[50:-50]) < 1e-3


@pytest.mark.parametrize(
    ("codec", "name", "rate"),
    [
        ("libmp3lame", "a.mp3", 44100),
        ("libopus", "a.ogg", 48000),
        ("aac", "a.mp4", 44100),
        ("aac", "a.mp4", 16000),
        ("pcm_u8", "a.wav", 22050),
    ],
)
def test_lossy_codecs_stay_in_place_and_keep_their_length(tmp_path: Path, codec: str, name: str, rate: int) -> None:
    samples = read_audio(write_audio(tmp_path / name, chirp(rate), rate, codec=codec, layout="stereo"))
    assert len(samples) == 32000
    assert lag(samples, chirp(16000)) == 0
    assert rms((samples - chirp(16000))[500:-500]) < 0.03


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    write_audio(file, chirp(44100), 44100, codec="libmp3lame", container_format="mp3")
    assert lag(read_audio(file), chirp(16000)) == 0


def test_channels_that_agree_do_not_overflow(tmp_path: Path) -> None:
    loud = 1.98 * chirp(48000)
    samples = read_audio(write_audio(tmp_path / "a.wav", loud, 48000, codec="pcm_f32le", layout="5.1"))
    assert np.abs(samples).max() <= 1.0
    assert rms((samples - 1.98 * chirp(16000))[50:-50]) < 0.01


def test_blocks_are_small_and_make_up_the_whole(tmp_path: Path) -> None:
    file = write_audio(tmp_path / "a.flac", chirp(48000, 10), 48000, codec="flac")
    blocks = list(audio_blocks(file))
    assert max(map(len, blocks)) < 16000
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(file))


def test_another_rate_on_request(tmp_path: Path) -> None:
    file = write_audio(tmp_path / "a.flac", chirp(44100), 44100, codec="flac")
    samples = np.concatenate(list(audio_blocks(file, sample_rate=48000)))
    assert rms((samples - chirp(48000))[50:-50]) < 1e-3


@pytest.mark.parametrize("late_s", [Fraction(1, 4), Fraction(-1, 3), Fraction(0)])
def test_alignment_to_the_first_picture(tmp_path: Path, late_s: Fraction) -> None:
    """Sound that starts after the pictures is preceded by silence; sound before them is cut off."""
    file = write_audio(
        tmp_path / "a.mkv",
        chirp(48000),
        48000,
        codec="pcm_s16le",
        start_s=max(late_s, Fraction(0)),
        pictures=gray_pictures(range(50)),
        pictures_start_s=max(-late_s, Fraction(0)),
    )
    assert lag(read_audio(file), chirp(16000)) == 0
    aligned = read_audio(file, align_to_video=True)
    late = round(late_s * 16000)
    assert abs(lag(aligned, chirp(16000)) - late) <= 16  # mkv rounds times to milliseconds
    assert abs(len(aligned) - (32000 + late)) <= 16
    assert not aligned[: max(0, late - 16)].any()


def test_alignment_without_video_changes_nothing(tmp_path: Path) -> None:
    file = write_audio(tmp_path / "a.flac", chirp(16000), 16000, codec="flac")
    np.testing.assert_array_equal(read_audio(file), read_audio(file, align_to_video=True))


def test_a_hole_is_silent_and_moves_nothing(tmp_path: Path) -> None:
    hole = (10240, 20480)
    file = write_audio(tmp_path / "a.mkv", chirp(16000), 16000, hole=hole)
    samples, truth = read_audio(file), chirp(16000)
    truth[slice(*hole)] = 0
    assert len(samples) == len(truth)
    moved = 16  # mkv rounds times to milliseconds
    assert rms(samples[: hole[0]] - truth[: hole[0]]) < 1e-3
    assert not samples[hole[0] + moved : hole[1] - moved].any()
    assert abs(lag(samples[hole[1] :], truth[hole[1] :])) <= moved


def test_broken_packets_in_the_middle_move_nothing(tmp_path: Path) -> None:
    file = write_audio(tmp_path / "a.mp4", chirp(16000, 8), 16000, codec="aac")
    data = bytearray(file.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 4000] = b"\xff" * 4000
    file.write_bytes(data)
    samples, truth = read_audio(file), chirp(16000, 8)
    assert abs(len(samples) - len(truth)) <= 1024
    assert lag(samples[-32000:], truth[len(truth) - len(samples) :][-32000:]) == 0
    assert rms(samples[-30000:-2000] - truth[len(samples) - 30000 : len(samples) - 2000]) < 0.05


def test_durations_that_are_rounded_trim_nothing_but_the_end(tmp_path: Path) -> None:
    """OBS and phones stamp AAC to the millisecond: frames of 1,024 samples that last 1,008 or 1,056."""
    t = np.arange(5 * 48000) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t).astype(np.float32)
    exact = write_audio(tmp_path / "a.mp4", tone, 48000, codec="aac")
    rounded = restamp(exact, tmp_path / "b.mp4", lambda _, time: Fraction(round(time * 1000), 1000))
    samples = np.concatenate(list(audio_blocks(rounded, sample_rate=48000)))
    heard = samples[4800:-4800]
    foretold = 2 * np.cos(2 * np.pi * 440 / 48000) * heard[1:-1] - heard[:-2]
    assert np.abs(heard[2:] - foretold).max() < 2e-3
    assert len(read_audio(exact)) == 80000
    assert abs(len(samples) - 240000) <= 1024


def test_the_case_of_rounded_durations(data_dir: Path) -> None:
    path = data_dir / "cases" / "obs_remux_tone.mp4"
    if not path.is_file():
        pytest.skip(f"no case: {path} is absent")
    samples = np.concatenate(list(audio_blocks(path, sample_rate=48000)))[4800:-4800]
    foretold = 2 * np.cos(2 * np.pi * 440 / 48000) * samples[1:-1] - samples[:-2]
    assert np.abs(samples[2:] - foretold).max() < 4e-3


def write_tracks(path: Path, tracks: list[tuple[np.ndarray, Disposition]]) -> Path:
    """16 kHz mono tracks with what the container says of each."""
    with av.open(str(path), "w") as container:
        streams = []
        for _, disposition in tracks:
            streams.append(container.add_stream("aac", rate=16000, layout="mono"))
            streams[-1].disposition = disposition
        for first in range(0, len(tracks[0][0]), 1024):
            for stream, (samples, _) in zip(streams, tracks, strict=True):
                frame = av.AudioFrame.from_ndarray(samples[None, first : first + 1024].copy(), "fltp", "mono")
                frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), first
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


NONE, DEFAULT = Disposition(0), Disposition.default


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize(
    ("dispositions", "chosen"),
    [
        ((NONE, NONE, NONE), 0),
        ((NONE, DEFAULT, NONE), 1),
        ((NONE, DEFAULT, DEFAULT), 1),
        ((Disposition.comment, NONE, NONE), 1),
        ((Disposition.visual_impaired | DEFAULT, NONE, NONE), 1),
        ((Disposition.comment, Disposition.hearing_impaired, Disposition.comment), 0),
    ],
)
def test_the_track_that_the_container_marks(
    tmp_path: Path, suffix: str, dispositions: tuple[Disposition, ...], chosen: int
) -> None:
    if suffix == "mp4" and any(disposition & ~DEFAULT for disposition in dispositions):
        pytest.skip("mp4 has no marks for these")
    gains = (0.25, 0.5, 1.0)
    tracks = [(gain * chirp(16000), disposition) for gain, disposition in zip(gains, dispositions, strict=True)]
    samples = read_audio(write_tracks(tmp_path / f"a.{suffix}", tracks))
    assert rms(samples) / rms(chirp(16000)) == pytest.approx(gains[chosen], rel=0.05)


def test_another_track_that_is_not_silent_is_named(tmp_path: Path) -> None:
    silence = np.zeros(32000, np.float32)
    tracks = [(silence, NONE), (silence, DEFAULT), (chirp(16000), NONE)]
    path = write_tracks(tmp_path / "a.mkv", tracks)
    with pytest.raises(InputError, match=r"is silent.*audio track 3 of the file is not silent") as caught:
        check_audible(read_audio(path), path)
    assert "\n" not in str(caught.value)
    path = write_tracks(tmp_path / "b.mkv", [(silence, NONE), (silence, DEFAULT)])
    with pytest.raises(InputError, match=r"wanted speech$"):
        check_audible(read_audio(path), path)


def test_damage_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    file = write_audio(tmp_path / "a.flac", chirp(16000, 8), 16000, codec="flac")
    assert len(read_audio(file, warn=said.append)) == 8 * 16000
    assert not said
    data = bytearray(write_audio(tmp_path / "b.mp4", chirp(16000, 8), 16000, codec="aac").read_bytes())
    middle = data.index(b"mdat") + 8000
    data[middle : middle + 4000] = b"\xff" * 4000
    (tmp_path / "b.mp4").write_bytes(data)
    read_audio(tmp_path / "b.mp4", warn=said.append)
    assert len(said) == 1 and "damaged" in said[0]


def test_remarks_are_logged_where_nobody_takes_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = write_audio(tmp_path / "a.wav", chirp(16000), 16000)
    assert len(read_audio(join(tmp_path / "b.wav", part, part))) == 64000
    assert [record.getMessage() for record in caplog.records if "b.wav" in record.getMessage()]


def test_real_speech(data_dir: Path) -> None:
    files = sorted((data_dir / "speech").iterdir())
    for file in files:
        samples = read_audio(file)
        check_audible(samples, file)
        assert 5 * 16000 < len(samples) < 120 * 16000
        assert np.abs(samples).max() <= 1.0


def test_a_missing_file_a_folder_and_a_text(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, this is no audio\n" * 50)
    (tmp_path / "notes.wav").write_text("hello, this is no audio\n" * 50)
    (tmp_path / "empty.wav").touch()
    for name, words in [
        ("absent.wav", "no such file"),
        (".", "is a folder"),
        ("notes.txt", "not a video or audio file"),
        ("notes.wav", "cannot be read"),
        ("empty.wav", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_video_without_audio(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", gray_pictures([50] * 5))
    with pytest.raises(InputError, match="no audio track"):
        read_audio(file)


def test_zero_length(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    with wave.open(str(file), "wb") as header_only:
        header_only.setparams((1, 2, 16000, 0, "NONE", ""))
    with pytest.raises(InputError, match="none of the audio"):
        read_audio(file)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float, rate: int) -> None:
    samples = chirp(rate)
    samples[1000] = bad
    file = write_audio(tmp_path / "a.wav", samples, rate, codec="pcm_f32le")
    with pytest.raises(InputError, match="NaN or infinite"):
        read_audio(file)


def test_silence_is_told_from_quiet_speech(tmp_path: Path) -> None:
    path = Path("speech.wav")
    check_audible(chirp(16000) * 0.001, path)
    for silent in (np.zeros(100, np.float32), chirp(16000) * 1e-4, np.zeros(0, np.float32)):
        with pytest.raises(InputError, match="silent"):
            check_audible(silent, path)

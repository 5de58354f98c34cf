import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from tango_rt.audio import audio_blocks, check_audible, read_audio
from tests.media_files import gray_pictures, write_audio, write_video


def chirp(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A sweep from 200 to 3,400 Hz, known exactly at every rate."""
    t = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * t + 800 * t * t))).astype(np.float32)


def lag(samples: np.ndarray, reference: np.ndarray) -> int:
    """By how many samples the first comes later than the second."""
    size = 2 * max(len(samples), len(reference))
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(reference, size))
    peak = int(np.argmax(np.fft.irfft(spectrum, size)))
    return peak if peak < size // 2 else peak - size


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


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
    with pytest.raises(InputError, match="not one sample"):
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

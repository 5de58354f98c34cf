"""Mono is about as loud as the loudest channel, whatever the channels do, and does not depend on how sound arrives."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler

from tango_rt.sound.audio import read_audio
from tango_rt.sound.downmix import Downmix
from tests.helpers.media_files import write_audio

RATE = 16000


def voice(seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    """Noise in syllables: float32 (n,), peak about 0.5."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    loudness = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t + seed)
    return (0.12 * loudness * rng.standard_normal(len(t))).astype(np.float32)


def mixed(channels: list[np.ndarray], layout: str = "stereo", cuts: tuple[int, ...] = (8000,)) -> np.ndarray:
    downmix = Downmix(AudioLayout(layout), RATE)
    sound = np.stack(channels, axis=1)
    out, at, n = [], 0, 0
    while at < len(sound):
        size = cuts[n % len(cuts)]
        out.append(downmix.push(sound[at : at + size]))
        at, n = at + size, n + 1
    return np.concatenate([*out, downmix.flush()])


def level_db(samples: np.ndarray, reference: np.ndarray) -> float:
    power, wanted = (float(np.mean(np.square(x, dtype=np.float64))) for x in (samples, reference))
    return 10 * np.log10(max(power, 1e-12) / wanted)


X, Y, QUIET = voice(), voice(seed=1), voice(seed=2) * 0.05
NOTHING = np.zeros_like(X)

CASES = {
    "opposite phases": ("stereo", [X, -X]),
    "opposite phases, one quieter": ("stereo", [0.5 * X, -X]),
    "left only": ("stereo", [X, NOTHING]),
    "right only, hiss on the left": ("stereo", [QUIET, X]),
    "two speakers": ("stereo", [X, Y]),
    "an offset on the other channel": ("stereo", [X, NOTHING + np.float32(0.3)]),
    "centre of 5.1": ("5.1", [NOTHING, NOTHING, X, NOTHING, NOTHING, NOTHING]),
    "centre of 5.1 with ambience": ("5.1", [QUIET, -QUIET, X, Y, QUIET, QUIET]),
    "centre of 7.1": ("7.1", [QUIET, QUIET, X, Y, NOTHING, NOTHING, NOTHING, NOTHING]),
    "right of 3.0": ("3.0", [NOTHING, X, NOTHING]),
    "behind in quad": ("quad", [QUIET, NOTHING, NOTHING, X]),
    "third of three without names": ("3 channels", [NOTHING, NOTHING, X]),
    "fourteenth of sixteen": ("16 channels", [NOTHING] * 13 + [X, NOTHING, NOTHING]),
    "left and centre, which FFmpeg does not mix": ("2 channels (FL+FC)", [NOTHING, X]),
    "front pair in opposite phases in 5.1": ("5.1", [X, -X, NOTHING, NOTHING, NOTHING, NOTHING]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_level_is_that_of_the_voice(name: str) -> None:
    layout, channels = CASES[name]
    whole = mixed(channels, layout)
    assert len(whole) == len(X)
    heard = whole - whole.mean()
    assert abs(level_db(heard, X)) < 3
    for second in range(4):
        part = slice(second * RATE, (second + 1) * RATE)
        assert abs(level_db(heard[part], X[part])) < 3
    for cuts in ((1000, 1, 77), (len(X),), (1601,)):
        np.testing.assert_array_equal(mixed(channels, layout, cuts), whole)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "quad"])
@pytest.mark.parametrize("likeness", [1.0, 0.9])
def test_channels_that_agree_are_mixed_as_ffmpeg_does(tmp_path: Path, layout: str, likeness: float) -> None:
    n_channels = AudioLayout(layout).nb_channels
    channels = [likeness * X + (1 - likeness) * voice(seed=3 + n) for n in range(n_channels)]
    if layout == "7.1":  # which PyAV cannot write
        assert level_db(mixed(channels, layout) - X, X) < (-80 if likeness == 1 else -15)
        return
    path = write_audio(tmp_path / "a.wav", np.stack(channels), RATE, codec="pcm_f32le", layout=layout)
    np.testing.assert_allclose(read_audio(path), mixed_by_ffmpeg(path), atol=1e-6)


def mixed_by_ffmpeg(path: Path) -> np.ndarray:
    resampler = AudioResampler("flt", "mono", RATE, options={"rematrix_maxval": "1"})
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


def test_what_changes_in_the_middle_is_followed_without_a_click() -> None:
    t = np.arange(8 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    sign = np.where(t < 4, 1, -1).astype(np.float32)
    for other in (tone * (t < 4), tone * sign, tone * (t % 2 < 1)):
        out = mixed([tone, other.astype(np.float32)])
        foretold = 2 * np.cos(2 * np.pi * 440 / RATE) * out[1:-1] - out[:-2]
        torn = np.abs(out[2:] - foretold)
        own = np.abs(other[2:] - 2 * np.cos(2 * np.pi * 440 / RATE) * other[1:-1] + other[:-2])
        assert torn[own < 1e-3].max() < 0.01  # where the channel itself does not break off
        assert abs(level_db(out[: 3 * RATE], tone[: 3 * RATE])) < 3
        assert abs(level_db(out[5 * RATE :], tone[5 * RATE :])) < 3


def test_two_people_on_a_channel_each_are_as_loud_as_they_were() -> None:
    turns = (np.arange(len(X)) // RATE) % 2 == 0
    out = mixed([X * turns, Y * ~turns])
    for second in range(4):
        part = slice(second * RATE + RATE // 4, (second + 1) * RATE - RATE // 4)
        assert abs(level_db(out[part], (X * turns + Y * ~turns)[part])) < 3


def test_gain_never_goes_beyond_full_scale() -> None:
    loud = np.sign(voice()) * np.float32(0.9)
    assert np.abs(mixed([loud, NOTHING])).max() <= 1
    both = np.where(np.arange(len(loud)) % (2 * RATE) < RATE, loud, 0).astype(np.float32)
    assert np.abs(mixed([loud, both])).max() <= 1.0 + 1e-6


def test_silence_and_mono_pass() -> None:
    assert not mixed([NOTHING, NOTHING]).any()
    np.testing.assert_array_equal(mixed([X], "mono"), X)


def test_opposite_phases_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    path = write_audio(tmp_path / "a.wav", np.stack([X, -X]), RATE, layout="stereo")
    np.testing.assert_allclose(read_audio(path, warn=said.append), X, atol=1e-3)
    assert len(said) == 1 and "opposite phases" in said[0]
    read_audio(write_audio(tmp_path / "b.wav", np.stack([X, QUIET]), RATE, layout="stereo"), warn=said.append)
    assert len(said) == 1


def test_cases_of_the_data_folder(data_dir: Path) -> None:
    cases = data_dir / "cases"
    if not cases.is_dir():
        pytest.skip(f"no cases: {cases} is absent")
    assert np.abs(read_audio(cases / "stereo_out_of_phase.wav", warn=lambda _: None)).max() > 0.05
    mono = read_audio(cases / "speech_mono_reference.flac")
    assert abs(level_db(read_audio(cases / "speech_in_centre_of_5.1.flac"), mono)) < 3

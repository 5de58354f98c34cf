"""Time stamps that wander, drift and leap: sound stays in step without clicks, and holes stay holes."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tango_rt.sound.audio import audio_blocks
from tango_rt.sound.steady import Steady
from tango_rt.sound.stretching import Stretcher
from tests.helpers.media_files import restamp, write_audio

FRAME_S = 1024 / 48000
N_FRAMES = 12_000  # 4 minutes
TRUE_S = np.arange(N_FRAMES) * FRAME_S


class Stamped:
    """Frames of 1,024 samples at 48 kHz with given stamps, as a decoder gives them."""

    piece = (1, 1)

    def __init__(self, stamps_s: np.ndarray, lone: bool = False) -> None:
        self.clock = SimpleNamespace(lone=lone)
        self._stamps_s = stamps_s

    def __iter__(self) -> Iterator[SimpleNamespace]:
        planar, mono = SimpleNamespace(name="fltp"), SimpleNamespace(name="mono")
        for stamp in self._stamps_s.tolist():
            yield SimpleNamespace(
                time=round(stamp, 3),  # as most containers round
                samples=1024,
                sample_rate=48000,
                duration=0,
                time_base=Fraction(1, 1000),
                format=planar,
                layout=mono,
            )


def placed(stamps_s: np.ndarray, lone: bool = False) -> tuple[np.ndarray, int]:
    """Where each frame comes out, in seconds, and how often the sound was torn: silence put in or samples left out."""
    out: list[float] = []
    now, n_torn = 0.0, -1
    for block in Steady(Stamped(stamps_s, lone), 16000):
        if block.start_s is not None:
            now, n_torn = block.start_s, n_torn + 1
        longer = 1 + block.stretch_s / (block.n_samples / 48000)
        for _ in block.frames:
            out.append(now)
            now += FRAME_S * longer
    return np.array(out), n_torn


def off_ms(stamps_s: np.ndarray, true_s: np.ndarray) -> tuple[float, int]:
    out, n_torn = placed(stamps_s)
    return float(1000 * np.abs(out - true_s).max()), n_torn


@pytest.mark.parametrize("ppm", [0, 30, -100, 500, -2000, 10_000])
def test_drift_is_followed_and_never_torn(ppm: int) -> None:
    true_s = TRUE_S * (1 + ppm / 1e6)
    off, n_torn = off_ms(true_s, true_s)
    assert n_torn == 0
    assert off < 36
    assert off < 12 or abs(ppm) > 1000


@pytest.mark.parametrize("jitter_s", [0.005, 0.015, 0.03])
@pytest.mark.parametrize("ppm", [0, 300])
def test_jitter_is_not_heard(jitter_s: float, ppm: int) -> None:
    true_s = TRUE_S * (1 + ppm / 1e6)
    noise = np.random.default_rng(1).uniform(-jitter_s, jitter_s, N_FRAMES)
    off, n_torn = off_ms(true_s + noise, true_s)
    assert n_torn == 0
    assert off < 15


def slowly_wandering() -> np.ndarray:
    """Noise that remembers half a second, within 30 ms."""
    steps = np.random.default_rng(2).normal(0, 0.006, N_FRAMES)
    levels = [0.0]
    for step in steps[1:].tolist():
        levels.append(float(np.clip(0.95 * levels[-1] + step, -0.03, 0.03)))
    return np.array(levels)


WANDERING = {
    "waves of 10 s": 0.03 * np.sin(2 * np.pi * TRUE_S / 10),
    "waves of 3 s and jitter": 0.03 * np.sin(2 * np.pi * TRUE_S / 3)
    + np.random.default_rng(3).uniform(-0.015, 0.015, N_FRAMES),
    "noise with a memory": slowly_wandering(),
    "late packets that come in a burst": np.maximum(0, 0.3 - 0.02 * (np.arange(N_FRAMES) % 400)),
    "a third of a second of wild stamps": np.where(np.arange(N_FRAMES) % 400 < 15, 0.3 - TRUE_S % 0.3, 0),
    "single bad stamps": np.where(np.arange(N_FRAMES) % 97 == 50, 0.2, 0.0),
}


@pytest.mark.parametrize("name", WANDERING)
def test_stamps_that_wander_never_tear_the_sound(name: str) -> None:
    off, n_torn = off_ms(TRUE_S + WANDERING[name], TRUE_S)
    assert n_torn == 0
    assert off < 31


@pytest.mark.parametrize(
    ("hole_s", "jitter_s"),
    [(FRAME_S, 0.0), (0.1, 0.0), (3.0, 0.0), (0.1, 0.015), (0.5, 0.03), (3.0, 0.03), (-0.06, 0.0)],
)
def test_holes_and_overlaps_are_found_where_they_are(hole_s: float, jitter_s: float) -> None:
    true_s = TRUE_S + hole_s * (np.arange(N_FRAMES) // 1000)
    noise = np.random.default_rng(4).uniform(-jitter_s, jitter_s, N_FRAMES)
    off, n_torn = off_ms(true_s + noise, true_s)
    assert n_torn == N_FRAMES // 1000 - 1
    assert off < (2 if jitter_s == 0 else 10)


def test_holes_close_to_each_other() -> None:
    holes = [(500, 0.1), (510, 0.3), (513, 0.05), (2000, 12.0)]
    true_s = TRUE_S + sum(size * (np.arange(N_FRAMES) >= n) for n, size in holes)
    off, n_torn = off_ms(true_s, true_s)
    assert n_torn == len(holes)
    assert off < 2


def test_a_lone_clock_that_starts_over_or_leaps_is_followed_by_its_samples() -> None:
    again = TRUE_S % 5  # every five seconds from 0
    out, n_torn = placed(again, lone=True)
    assert n_torn == 0
    np.testing.assert_allclose(out, TRUE_S, atol=0.03)
    leaping = TRUE_S + 1000 * (np.arange(N_FRAMES) // 3200)
    steady = Steady(Stamped(leaping, lone=True), 16000)
    assert sum(block.start_s is not None for block in steady) == 1
    assert steady.closed_s == pytest.approx(3000, abs=0.1)


def test_memory_is_bounded() -> None:
    steady = Steady(Stamped(TRUE_S), 16000)
    assert all(len(block.frames) < 60 and len(steady._ahead) < 60 and len(steady._past) < 60 for block in steady)


def roughness(samples: np.ndarray, tone_hz: int = 440, rate: int = 48000) -> float:
    """How far a steady tone is from what two samples before foretell: a click stands out."""
    a = samples[rate // 10 : -rate // 10]
    return float(np.abs(a[2:] - 2 * np.cos(2 * np.pi * tone_hz / rate) * a[1:-1] + a[:-2]).max())


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("tone")

    def write(suffix: str) -> Path:
        t = np.arange(12 * 48000) / 48000
        sound = 0.5 * np.sin(2 * np.pi * 440 * t).astype(np.float32)
        return write_audio(folder / f"tone.{suffix}", sound, 48000, codec="libopus" if suffix == "webm" else "aac")

    return write


def rounded(time: Fraction) -> Fraction:
    return Fraction(round(time * 1000), 1000)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
@pytest.mark.parametrize("kind", ["rounded", "jitter", "waves", "drift"])
def test_a_steady_tone_stays_steady(tmp_path: Path, tone: Callable[[str], Path], suffix: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    stamp: dict[str, Callable[[str, Fraction], Fraction]] = {
        "rounded": lambda _, t: rounded(t),
        "jitter": lambda _, t: t + Fraction(int(rng.integers(20, 81)), 1000),
        "waves": lambda _, t: t + Fraction(round(50 + 30 * np.sin(float(t))), 1000),
        "drift": lambda _, t: t * Fraction(1005, 1000),
    }
    source = tone("webm" if suffix == "webm" else "mp4")
    path = restamp(source, tmp_path / f"a.{suffix}", stamp[kind])
    samples = np.concatenate(list(audio_blocks(path, 48000, warn=lambda _: None)))
    assert roughness(samples) < 0.003
    loudest = np.abs(samples[4800:-4800])
    assert loudest[: len(loudest) // 240 * 240].reshape(-1, 240).max(axis=1).min() > 0.4  # and nowhere silent
    assert len(samples) / 48000 == pytest.approx(12.06 if kind == "drift" else 12.0, abs=0.08)


def test_the_case_of_the_data_folder(data_dir: Path) -> None:
    path = data_dir / "cases" / "tone_jitter_15ms.mkv"
    if not path.is_file():
        pytest.skip(f"no case: {path} is absent")
    assert roughness(np.concatenate(list(audio_blocks(path, 48000)))) < 0.004


def test_stretching_is_smooth_exact_and_the_same_in_any_pieces() -> None:
    rate = 16000
    tone = np.sin(2 * np.pi * 440 * np.arange(5 * rate) / rate).astype(np.float32)
    plans = [(rate, 0), (rate, 40), (rate, 0), (rate, -80), (rate, 0)]
    whole = stretched(tone, plans, [len(tone)])
    assert len(whole) == len(tone) - 40
    np.testing.assert_array_equal(whole[:rate], tone[:rate])
    np.testing.assert_array_equal(whole[2 * rate + 40 : 3 * rate + 40], tone[2 * rate : 3 * rate])
    np.testing.assert_array_equal(whole[-rate:], tone[-rate:])
    assert roughness(whole, rate=rate) < 2e-3
    for cuts in ([1, 7, 100], [5000], [333, 16000, 2]):
        np.testing.assert_array_equal(stretched(tone, plans, cuts), whole)


def stretched(samples: np.ndarray, plans: list[tuple[int, int]], cuts: list[int]) -> np.ndarray:
    stretcher = Stretcher()
    for plan in plans:
        stretcher.plan(*plan)
    out, at, n = [], 0, 0
    while at < len(samples):
        size = cuts[n % len(cuts)]
        out.append(stretcher.push(samples[at : at + size]))
        at, n = at + size, n + 1
    return np.concatenate([*out, stretcher.flush(cut=False)])

"""The drawn presenter: always the same, never jumping, moved by her speech, and a person to the real estimator."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from engine.errors import InputError
from engine.timebase import FPS, SAMPLE_RATE, frame_count
from tango_rt.characters.estimator import PoseEstimator
from tango_rt.demo.anatomy import ALONG, N_ARM, PALM, WRIST, arm_cones, find_elbow
from tango_rt.demo.gestures import Motion, hear, perform
from tango_rt.demo.postures import GESTURES, POSTURES, REST
from tango_rt.demo.presenter import REFERENCE_SPEECH, TARGET_SPEECH, Studio, presenter_frames
from tango_rt.demo.raster import CONE_FIELDS, Limbs, Palette
from tango_rt.models.folder import ensure_models

PAUSE_DB = -45.0
# Fingertips of people who gesture reach some 3 m/s: 70 units a frame. The wrist alone is half as fast.
WRIST_STEP, TIP_STEP, TIP_JERK = 36.0, 80.0, 22.0


def decoded(path: Path) -> np.ndarray:
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return decoded(REFERENCE_SPEECH)


@pytest.fixture(scope="module")
def motion(reference: np.ndarray) -> Motion:
    return perform(hear(reference))


def silences_s(speech: np.ndarray) -> list[float]:
    """Lengths of the stretches of silence, the obvious way."""
    hop = SAMPLE_RATE // 100
    lengths, run = [], 0
    for start in range(0, len(speech) - hop, hop):
        loud = np.sqrt(np.mean(speech[start : start + hop] ** 2)) > 10 ** (PAUSE_DB / 20)
        if loud and run:
            lengths.append(run / 100)
        run = 0 if loud else run + 1
    return [*lengths, run / 100]


@pytest.mark.parametrize(("path", "seconds"), [(REFERENCE_SPEECH, (75, 90)), (TARGET_SPEECH, (20, 27))])
def test_speech_is_small_loud_enough_and_pauses(path: Path, seconds: tuple[int, int]) -> None:
    speech = decoded(path)
    assert path.stat().st_size < 400_000
    assert seconds[0] <= len(speech) / SAMPLE_RATE <= seconds[1]
    assert 0.3 < np.abs(speech).max() < 1.0
    pauses = [pause for pause in silences_s(speech) if pause >= 0.5]
    assert len(pauses) >= 5
    assert max(pauses) <= 1.8
    assert np.mean(speech**2) ** 0.5 > 0.03


def test_phrases_are_where_the_sound_is(reference: np.ndarray) -> None:
    sound = hear(reference)
    assert len(sound.phrases) >= 12
    assert all(a < b for a, b in sound.phrases)
    assert all(after[0] - before[1] > 0.29 for before, after in pairwise(sound.phrases))
    for start, end in sound.phrases:
        assert np.abs(reference[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]).max() > 0.02
    assert all(any(a <= t <= b + 0.1 for a, b in sound.phrases) for t in sound.accents)


def test_a_click_is_an_accent() -> None:
    speech = np.zeros(3 * SAMPLE_RATE, np.float32)
    burst = slice(int(1.5 * SAMPLE_RATE), int(1.8 * SAMPLE_RATE))
    speech[burst] = 0.3 * np.sin(np.arange(burst.stop - burst.start) * 2 * np.pi * 220 / SAMPLE_RATE)
    sound = hear(speech)
    assert sound.phrases == [pytest.approx((1.5, 1.79), abs=0.02)]
    assert sound.accents == pytest.approx([1.55], abs=0.06)
    assert sound.open[:FPS].max() == 0
    assert sound.open[int(1.65 * FPS)] > 0.5


def test_motion_is_a_function_of_speech_and_seed(reference: np.ndarray, motion: Motion) -> None:
    again, other = perform(hear(reference)), perform(hear(reference), seed=1)
    for field in ("arms", "lift", "sway", "breath", "head", "face"):
        assert np.array_equal(getattr(motion, field), getattr(again, field))
    assert not np.array_equal(motion.arms, other.arms)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_joint_jumps(reference: np.ndarray, seed: int) -> None:
    motion = perform(hear(reference), seed)
    joints = np.array(
        [
            [arm_cones(pair[i], 2 * i - 1, sway, lift, 1.0)[1] for i in (0, 1)]
            for pair, sway, lift in zip(motion.arms, motion.sway, motion.lift, strict=True)
        ]
    )  # (n, 2, 8, 2)
    step = np.linalg.norm(np.diff(joints, axis=0), axis=-1)
    assert step[:, :, :3].max() < WRIST_STEP
    assert step.max() < TIP_STEP
    assert np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).max() < TIP_JERK
    assert np.abs(np.diff(motion.head, axis=0)).max() < 0.05
    assert np.abs(np.diff(motion.sway)).max() < 2.0


def test_hands_rest_in_pauses_and_move_in_speech(reference: np.ndarray, motion: Motion) -> None:
    away = np.linalg.norm(motion.arms[:, :, WRIST] - REST[WRIST], axis=2).max(axis=1)
    at_rest = away < 35
    assert at_rest[: FPS // 3].all()
    assert at_rest[-5:].all()
    assert 0.12 < at_rest.mean() < 0.5
    assert np.count_nonzero(np.diff(at_rest.astype(int)) == 1) >= 8
    sound = hear(reference)
    speaking = np.zeros(len(away), bool)
    for start, end in sound.phrases:
        speaking[int(start * FPS) : int(end * FPS)] = True
    assert away[speaking].mean() > 1.5 * away[~speaking].mean()


def test_mouth_follows_the_voice_and_eyes_blink(reference: np.ndarray, motion: Motion) -> None:
    lid, mouth = motion.face[:, 0], motion.face[:, 2]
    energy = [np.sqrt(np.mean(part**2)) for part in np.array_split(reference, len(mouth))]
    assert np.corrcoef(mouth, energy)[0, 1] > 0.6
    assert mouth.max() > 0.7
    blinks = np.count_nonzero((lid[1:] > 0.9) & (lid[:-1] <= 0.9))
    assert 0.15 < blinks / (len(lid) / FPS) < 0.8
    assert np.mean(lid < 0.2) > 0.7


@pytest.mark.parametrize("n_samples", [1, 534, SAMPLE_RATE])
def test_she_rests_through_silence(n_samples: int) -> None:
    silent = perform(hear(np.zeros(n_samples, np.float32)))
    assert silent.arms.shape == (frame_count(n_samples), 2, N_ARM)
    assert np.allclose(silent.arms[:, :, WRIST], REST[WRIST])


def test_every_gesture_can_be_reached() -> None:
    assert {name for g in GESTURES for step in g.steps for name in step if name} | {"rest"} == set(POSTURES)
    for arm in POSTURES.values():
        assert np.linalg.norm(arm[ALONG]) == pytest.approx(1)
        assert abs(arm[ALONG] @ arm[PALM]) < 0.85


def test_arm_bones_keep_their_length(rng: np.random.Generator) -> None:
    shoulder = np.array([100.0, 350.0, 0.0])
    lengths = []
    for _ in range(200):
        elbow, wrist = find_elbow(shoulder, shoulder + rng.uniform(-300, 300, 3), rng.uniform(-1, 1))
        lengths.append((np.linalg.norm(elbow - shoulder), np.linalg.norm(wrist - elbow)))
    assert np.ptp(lengths, axis=0) == pytest.approx([0, 0], abs=1e-6)


def naive_depth(cone: np.ndarray, x: float, y: float) -> float:
    """Highest point of many spheres strung along the axis of a cone, over (x, y)."""
    t = np.linspace(0, 1, 1001)[:, None]
    sphere = cone[0:4] + (cone[4:8] - cone[0:4]) * t
    lift2 = sphere[:, 3] ** 2 - (x - sphere[:, 0]) ** 2 - (y - sphere[:, 1]) ** 2
    return float(np.max(np.where(lift2 > 0, sphere[:, 2] + np.sqrt(np.maximum(lift2, 0)), -np.inf)))


def test_the_nearest_cone_is_seen(rng: np.random.Generator) -> None:
    """Two cones across each other: each pixel has the colour of the one that the naive depths put in front."""
    colours = np.zeros((5, 256, 3), np.float32)
    colours[0, :, 0] = colours[1, :, 1] = 255
    limbs = Limbs(48, 48, Palette(colours, np.ones((64, 64), np.float32)))
    for _ in range(8):
        cones = np.zeros((2, CONE_FIELDS), np.float32)
        cones[:, [0, 1, 4, 5]] = rng.uniform(8, 40, (2, 4))
        cones[:, [2, 6]] = rng.uniform(-20, 20, (2, 2))
        cones[:, [3, 7]] = rng.uniform(4, 9, (2, 2))
        cones[1, 8] = 1
        picture = np.zeros((48, 48, 3), np.uint8)
        limbs.draw(picture, cones)
        for y, x in rng.integers(0, 48, (60, 2)):
            depth = [naive_depth(cone, x + 0.5, y + 0.5) for cone in cones]
            corners = [naive_depth(c, x + i, y + j) for c in cones for i in (0, 1) for j in (0, 1)]
            if np.isfinite(corners).all() and abs(depth[0] - depth[1]) > 2:
                assert picture[y, x].argmax() == int(depth[1] > depth[0])
            if np.isneginf([*corners, *depth]).all():
                assert picture[y, x].max() == 0


def test_pictures_repeat_and_flow() -> None:
    speech = decoded(TARGET_SPEECH)[: 2 * SAMPLE_RATE]
    first = list(presenter_frames(speech, height=240))
    second = list(presenter_frames(speech, height=240))
    assert len(first) == frame_count(len(speech))
    assert all(picture.shape == (240, 320, 3) and picture.dtype == np.uint8 for picture in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.ptp([picture.mean() for picture in first]) < 4
    assert max(np.abs(a.astype(int) - b).mean() for a, b in pairwise(first)) < 6


@pytest.mark.parametrize(
    ("speech", "height"),
    [
        (np.zeros((2, 100), np.float32), 720),
        (np.zeros(0, np.float32), 720),
        (np.zeros(100), 720),
        (np.full(100, np.nan, np.float32), 720),
        (np.zeros(100, np.float32), 100),
        (np.zeros(100, np.float32), 721),
    ],
)
def test_bad_input_is_named(speech: np.ndarray, height: int) -> None:
    with pytest.raises(InputError, match="want"):
        presenter_frames(speech, height=height)


def test_the_estimator_takes_her_for_a_person(reference: np.ndarray) -> None:
    """60 moments of the whole speech, each seen alone: harder than the tracking that the build does."""
    motion, studio = perform(hear(reference)), Studio(720)
    found = np.zeros(3)
    moments = np.linspace(0, len(motion.sway) - 1, 60).astype(int).tolist()
    estimator = PoseEstimator(ensure_models())
    for frame in moments:
        estimator.restart()
        pose = estimator.process(studio.draw(motion, frame))
        found += [pose.body_found, *pose.hands_found]
    body, left, right = found / len(moments)
    assert body >= 0.95
    assert left >= 0.80
    assert right >= 0.80

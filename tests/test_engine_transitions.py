"""Transition blenders: kernels against their naive twins, and what must hold for any two takes."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.blending.arms import arm_guide
from engine.blending.blender import Take
from engine.blending.fades import Crossfade, HardCut
from engine.blending.kernels import bones as bone_kernels
from engine.blending.kernels import correspondence, pictures
from engine.blending.morph import Flow
from engine.errors import InputError
from engine.skeleton import LEFT_ELBOW, LEFT_HAND, LEFT_SHOULDER, LEFT_WRIST, N_JOINTS, RIGHT_SHOULDER
from tests.helpers import naive_blend as naive

FLOW = Flow()
ARMS = Flow(arms=True)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture that flow can hold on to."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    return np.clip((smooth - smooth.mean()) * 5 + 128, 0, 255).astype(np.uint8)


def take(frames: np.ndarray, confidence: float = 0.0) -> Take:
    n = len(frames)
    joints = np.zeros((n, N_JOINTS, 2), np.float32)
    joints[:, LEFT_SHOULDER], joints[:, RIGHT_SHOULDER] = (60, 30), (20, 30)
    joints[:, LEFT_ELBOW], joints[:, LEFT_WRIST] = (65, 50), (60, 70)
    joints[:, LEFT_HAND] = (60, 70)
    joints[:, LEFT_HAND.start + 9] = (60, 78)
    return Take(frames, joints, np.full((n, N_JOINTS), confidence, np.float32), np.ones((n, 2), bool))


def still(picture: np.ndarray, n: int) -> np.ndarray:
    return np.repeat(picture[None], n, axis=0)


def shifted(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = picture.shape[:2]
    step = np.float32([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(picture, step, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def difference(a: np.ndarray, b: np.ndarray, border: int = 12) -> float:
    gap = np.abs(a.astype(float) - b)
    return float(gap[..., border:-border, border:-border, :].mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 7))
def test_grid_kernels_equal_their_twins(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    flow, back = rng.normal(0, 2, (2, height, width, 2)).astype(np.float32)
    moved, trust = flow * np.float32(0.3), rng.random((height, width), np.float32)
    np.testing.assert_allclose(correspondence.agreement(flow, back, 1.0), naive.agreement(flow, back, 1.0), atol=1e-4)
    for reverse in (False, True):
        total = np.zeros((height, width, 7), np.float32)
        correspondence.splat(flow, moved, trust, 0.7, reverse, total)
        np.testing.assert_allclose(total, naive.splat(flow, moved, trust, 0.7, reverse), atol=1e-4)
    total += np.float32(0.1)
    coarse = correspondence.pool(total, 4)
    np.testing.assert_allclose(coarse.sum() * 16, total.sum(), rtol=1e-4)
    np.testing.assert_allclose(
        correspondence.settle(total, coarse, 4, 0.02), naive.settle(total, coarse, 4, 0.02), rtol=1e-3, atol=1e-3
    )
    field, unlike = rng.normal(0, 1, (height, width, 6)).astype(np.float32), trust * 120
    chosen = pictures.select(field, unlike, flow[..., 0], 0.3, np.array([2, 3], np.float32))
    np.testing.assert_allclose(chosen[..., :4], field[..., :4] * [2, 3, 2, 3], rtol=1e-5)
    np.testing.assert_allclose(chosen[..., 4], naive.select(field, unlike, flow[..., 0], 0.3), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14), st.booleans())
def test_render_equals_its_twin(seed: int, height: int, width: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b, under = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    x0, y0 = (0, 0) if whole else (int(rng.integers(width)), int(rng.integers(height)))
    x1, y1 = (width, height) if whole else (int(rng.integers(x0, width)) + 1, int(rng.integers(y0, height)) + 1)
    field = rng.normal(0, 3, (4, 5, 5)).astype(np.float32)
    field[..., 4] = rng.random((4, 5))
    field[:2, :2, :4] = 0
    out = under.copy()
    pictures.render(a, b, field, (x0, y0, x1, y1), 3, out)
    wanted = naive.render(a, b, field, (x0, y0, x1, y1), 3, under)
    # Offsets under 0.03 px and weights within 0.004 of 0 or 1 are rounded, which moves a harsh edge by a few levels.
    assert np.abs(out.astype(int) - wanted).max() <= 9
    assert np.abs(out.astype(int) - wanted).mean() <= 0.5


def test_skin_equals_its_twin(rng: np.random.Generator) -> None:
    bones = rng.uniform(2, 18, (4, 4, 2)).astype(np.float32)
    half_width = np.array([2, 3, 1.5, 2.5], np.float32)
    for got, wanted in zip(
        bone_kernels.skin(bones, half_width, 20, 17), naive.skin(bones, half_width, 20, 17), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=2e-3)


@pytest.mark.parametrize("options", [FLOW, ARMS])
@pytest.mark.parametrize("size", [(96, 128), (121, 87)])
def test_identical_takes_come_back(options: Flow, size: tuple[int, int]) -> None:
    frames = np.stack([shifted(texture(*size), k, 0) for k in range(8)])
    same = take(frames, 1.0)
    assert np.abs(options.draw(same, same).astype(int) - frames).max() <= 1
    before = after = take(still(frames[0], 4), 1.0)
    assert np.abs(options.draw(before, after).astype(int) - frames[0]).max() <= 1


@pytest.mark.parametrize("step", [(6.0, 0.0), (0.0, -4.0), (3.0, 5.0)])
def test_sync_places_a_shifted_picture_in_between(step: tuple[float, float]) -> None:
    picture = texture(128, 160)
    out = FLOW.draw(take(still(picture, 8)), take(still(shifted(picture, *step), 8)))
    for k, frame in enumerate(out, start=1):
        assert difference(frame, shifted(picture, step[0] * k / 9, step[1] * k / 9)) < 2.5
    faded = Crossfade().draw(take(still(picture, 8)), take(still(shifted(picture, *step), 8)))
    assert difference(out[3], shifted(picture, step[0] * 4 / 9, step[1] * 4 / 9)) < 0.3 * difference(
        faded[3], shifted(picture, step[0] * 4 / 9, step[1] * 4 / 9)
    )


def test_gap_follows_acceleration() -> None:
    """Position 18 sin(0.09 t), a swing that slows down: the straight path is off by a pixel, the cubic one is not."""
    picture = texture(128, 192)
    way = np.array([18 * np.sin(0.09 * t) for t in range(16)])
    frames = np.stack([shifted(picture, x, 0) for x in way])
    out = FLOW.draw(take(frames[:4]), take(frames[12:]))
    straight = [shifted(picture, way[3] + (way[12] - way[3]) * k / 9, 0) for k in range(1, 9)]
    assert difference(out, frames[4:12], 20) < 0.6 * difference(np.stack(straight), frames[4:12], 20)


@pytest.mark.parametrize("arms", [False, True])
def test_takes_in_reverse_give_frames_in_reverse(arms: bool) -> None:
    options = Flow(arms=arms)
    picture = texture(112, 128)
    a = np.stack([shifted(picture, 0.5 * k, 0) for k in range(8)])
    b = np.stack([shifted(picture, 4 - 0.5 * k, 3) for k in range(8)])
    there = options.draw(take(a, 1.0), take(b, 1.0))
    back = options.draw(take(b[::-1], 1.0), take(a[::-1], 1.0))
    assert difference(there, back[::-1]) < 1.0


def test_weight_of_b_grows_with_time() -> None:
    field, unlike = np.zeros((1, 3, 6), np.float32), np.array([[0, 32, 96]], np.float32)
    scale, seen = np.ones(2, np.float32), np.zeros((1, 3), np.float32)
    weights = np.stack([pictures.select(field, unlike, seen, k / 9, scale)[0, :, 4] for k in range(1, 9)])
    assert (np.diff(weights, axis=0) > 0).all()
    np.testing.assert_allclose(weights[:, 0], np.arange(1, 9) / 9, atol=1e-6)
    np.testing.assert_allclose(weights + weights[::-1], 1, atol=1e-6)
    assert weights[2, 2] < 0.02 < 0.98 < weights[5, 2], "unlike things are not mixed"


def test_no_second_hand() -> None:
    """A bright disc here in one take, there in the other, on the same ground: no frame shows two faint ones."""
    ground = texture(160, 160) // 3
    a, b = ground.copy(), ground.copy()
    cv2.circle(a, (40, 80), 12, (250, 220, 200), -1)
    cv2.circle(b, (120, 80), 12, (250, 220, 200), -1)
    out = FLOW.draw(take(still(a, 8)), take(still(b, 8)))
    for k in (0, 1, 2, 5, 6, 7):
        bright = (out[k, ..., 0] > 200).sum()
        ghost = ((out[k, ..., 0] > 110) & (out[k, ..., 0] < 190)).sum()
        assert bright > 300 and ghost < 150, (k, bright, ghost)


def test_strangers_get_a_short_fade_in_the_middle() -> None:
    a, b = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    out = FLOW.draw(take(still(a, 8)), take(still(b, 8)))
    assert all((out[k] == a).all() for k in range(3)) and all((out[k] == b).all() for k in range(5, 8))
    gap = FLOW.draw(take(still(a, 4)), take(still(b, 4)))
    np.testing.assert_array_equal(gap, out)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (17, 9), (64, 31)])
def test_odd_sizes_and_black_frames(height: int, width: int) -> None:
    black = np.zeros((8, height, width, 3), np.uint8)
    for options in (FLOW, ARMS):
        assert not options.draw(take(black), take(black)).any()
        assert options.draw(take(black[:4], 1.0), take(black[:4], 1.0)).shape == black.shape


def test_work_stays_in_the_box_of_the_person() -> None:
    picture = texture(160, 200)
    moved = picture.copy()
    moved[40:90, 30:80] = shifted(picture, 3, 0)[40:90, 30:80]
    surface = np.zeros((8, 96), np.uint64)
    surface[:, 12:27] = sum(1 << column for column in range(10, 26))
    a, b = (replace(take(still(p, 8)), surface=surface) for p in (picture, moved))
    out = FLOW.draw(a, b)
    np.testing.assert_array_equal(out[:, :, 130:], still(picture, 8)[:, :, 130:])
    assert (out[3] != picture).any()


def test_arms_carry_the_hand_where_the_bones_go() -> None:
    pose = take(np.zeros((1, 100, 100, 3), np.uint8), 1.0)
    joints = pose.joints[0].copy()
    joints[[*range(LEFT_HAND.start, LEFT_HAND.stop), LEFT_WRIST]] -= (0, 30)
    guide = arm_guide(pose.joints[0], pose.confidence[0], joints, pose.confidence[0], (100, 100))
    assert guide is not None
    np.testing.assert_allclose(guide.flow[80, 60], (0, -30), atol=1.5)
    np.testing.assert_allclose(guide.flow[34, 22], 0, atol=1e-3)
    assert guide.belongs[80, 60] > 0.9 and guide.belongs[95, 95] == 0
    unsure = np.zeros(N_JOINTS, np.float32)
    assert arm_guide(pose.joints[0], unsure, joints, unsure, (100, 100)) is None
    assert arm_guide(pose.joints[0], pose.confidence[0], pose.joints[0], pose.confidence[0], (100, 100)) is None


def test_cut_and_crossfade() -> None:
    a, b = still(np.full((8, 8, 3), 30, np.uint8), 8), still(np.full((8, 8, 3), 210, np.uint8), 8)
    assert HardCut().draw(take(a), take(b))[:, 0, 0, 0].tolist() == [30] * 4 + [210] * 4
    assert HardCut().draw(take(a[:4]), take(b[:4]))[:, 0, 0, 0].tolist() == [30] * 4 + [210] * 4
    faded = Crossfade().draw(take(a), take(b))[:, 0, 0, 0]
    assert faded.tolist() == [30 + 20 * k for k in range(1, 9)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: replace(t, frames=t.frames[:7]), "same shape"),
        (lambda t: replace(t, frames=t.frames.astype(np.float32)), "float32"),
        (lambda t: replace(t, joints=t.joints[..., :1]), "joints"),
        (lambda t: replace(t, surface=np.zeros((8, 4), np.uint64)), "surface"),
    ],
)
def test_bad_takes_are_refused(spoil: Callable[[Take], Take], message: str) -> None:
    good = take(np.zeros((8, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=message):
        FLOW.draw(good, spoil(good))
    with pytest.raises(InputError, match="same shape"):
        Crossfade().draw(good, replace(good, frames=good.frames[:4]))
    with pytest.raises(InputError, match="flow_points"):
        Flow(flow_points=1000).draw(good, good)

"""Transition blenders: kernels against their naive twins, and what must hold for any two takes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.blending.arms import arm_guide
from engine.blending.blender import Blender, Take
from engine.blending.fades import Crossfade, HardCut
from engine.blending.kernels import bones as bone_kernels
from engine.blending.kernels import correspondence, pictures
from engine.blending.morph import Flow
from engine.blending.planes import reduced_rgb, split
from engine.blending.render import render
from engine.errors import InputError
from engine.skeleton import LEFT_ELBOW, LEFT_HAND, LEFT_SHOULDER, LEFT_WRIST, N_JOINTS, RIGHT_SHOULDER
from tango_rt.video.gop import GopDecoder, GopEncoder
from tango_rt.video.reader import VideoReader
from tests.helpers import naive_blend as naive
from tests.helpers.moving_pictures import HEIGHT, WIDTH

FLOW = Flow()
ARMS = Flow(arms=True)
SIZES = [(64, 96), (90, 62), (86, 130)]  # height and width of pictures: portrait, and no multiple of 4


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture that flow can hold on to, RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    return np.clip((smooth - smooth.mean()) * 5 + 128, 0, 255).astype(np.uint8)


def planes(frames: np.ndarray) -> np.ndarray:
    """RGB frames as decoders give them, uint8 (n, H * 3 / 2, W)."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420) for frame in frames])


def take(frames: np.ndarray, confidence: float = 0.0) -> Take:
    """Of 4 or 8 frames."""
    n = len(frames)
    joints = np.zeros((n, N_JOINTS, 2), np.float32)
    joints[:, LEFT_SHOULDER], joints[:, RIGHT_SHOULDER] = (60, 30), (20, 30)
    joints[:, LEFT_ELBOW], joints[:, LEFT_WRIST] = (65, 50), (60, 70)
    joints[:, LEFT_HAND] = (60, 70)
    joints[:, LEFT_HAND.start + 9] = (60, 78)
    nodes = np.split(frames, n // 4)
    return Take(nodes, joints, np.full((n, N_JOINTS), confidence, np.float32), np.ones((n, 2), bool))


def drawn(blender: Blender, before: Take, after: Take) -> np.ndarray:
    return np.concatenate(list(blender.draw(before, after)))


def luma(frames: np.ndarray) -> np.ndarray:
    return frames[..., : frames.shape[-2] * 2 // 3, :]


def still(picture: np.ndarray, n: int) -> np.ndarray:
    return np.repeat(picture[None], n, axis=0)


def held(picture: np.ndarray, n: int = 8) -> Take:
    """An RGB picture that stands still."""
    return take(planes(still(picture, n)))


def shifted(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = picture.shape[:2]
    step = np.float32([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(picture, step, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def difference(a: np.ndarray, b: np.ndarray, border: int = 12) -> float:
    """Mean difference of luma."""
    gap = np.abs(luma(a).astype(float) - luma(b))
    return float(gap[..., border:-border, border:-border].mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-6)))


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
    seen = flow[..., 0]
    np.testing.assert_allclose(pictures.select(trust * 120, seen, 0.3), naive.select(trust * 120, seen, 0.3), atol=1e-5)
    a, b = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    wanted = naive.mix(a, b, trust)
    pictures.mix(a, b, trust)
    assert np.abs(a - wanted).max() <= 1 and (a == wanted).mean() > 0.9


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 11), st.integers(1, 11), st.booleans())
def test_render_equals_its_twin(seed: int, half_height: int, half_width: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = 2 * half_height, 2 * half_width
    a, b, under = rng.integers(0, 256, (3, height * 3 // 2, width), dtype=np.uint8)
    x0, y0 = (0, 0) if whole else (2 * int(rng.integers(half_width)), 2 * int(rng.integers(half_height)))
    x1, y1 = (width, height) if whole else (int(rng.integers(x0, width)) // 2 * 2 + 2, y0 + 2)
    offsets = rng.normal(0, 3, (4, 5, 4)).astype(np.float32)
    weight = rng.random((4, 5), np.float32)
    column, row = np.arange(5, dtype=np.float32), np.arange(4, dtype=np.float32)[:, None]
    places = np.stack(
        np.broadcast_arrays((column + 0.5) * (x1 - x0) / 5 + x0 - 0.5, (row + 0.5) * (y1 - y0) / 4 + y0 - 0.5)
    )
    places = places.transpose(1, 2, 0).astype(np.float32)
    out = under.copy()
    render(a, b, (places + offsets[..., :2], places + offsets[..., 2:]), weight, (x0, y0, x1, y1), out)
    wanted = naive.render(*(split(f).y for f in (a, b)), offsets, weight, (x0, y0, x1, y1), split(under).y)
    # Offsets next to half of 1/32 px are rounded either way, which moves a harsh edge by a few levels.
    assert np.abs(split(out).y - wanted).max() <= 16 and np.abs(split(out).y - wanted).mean() <= 1.5
    half_box = tuple(v // 2 for v in (x0, y0, x1, y1))
    for one, other, got, below in zip(*(split(f)[1:] for f in (a, b, out, under)), strict=True):
        wanted = naive.render(one, other, offsets / 2, weight, half_box, below, naive.linear)
        assert np.abs(got - wanted).max() <= 12 and np.abs(got - wanted).mean() <= 1.5


@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (200, 60, 30), (20, 180, 90), (10, 20, 240)])
def test_reduced_pictures_have_the_colours_of_the_decoder(rgb: tuple[int, int, int]) -> None:
    encoder = GopEncoder(WIDTH, HEIGHT)
    packets = encoder.encode(np.broadcast_to(np.array(rgb, np.uint8), (4, HEIGHT, WIDTH, 3)))
    decoder = GopDecoder(encoder.extradata, WIDTH, HEIGHT)
    small = reduced_rgb(split(decoder.decode_i420(packets)[0]), (WIDTH // 4, HEIGHT // 4))
    assert np.abs(small.astype(int) - decoder.decode(packets)[0, 0, 0]).max() <= 2


def test_skin_equals_its_twin(rng: np.random.Generator) -> None:
    bones = rng.uniform(2, 18, (4, 4, 2)).astype(np.float32)
    half_width = np.array([2, 3, 1.5, 2.5], np.float32)
    for got, wanted in zip(
        bone_kernels.skin(bones, half_width, 20, 17), naive.skin(bones, half_width, 20, 17), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=2e-3)


@pytest.mark.parametrize("options", [FLOW, ARMS])
@pytest.mark.parametrize("size", SIZES)
def test_identical_takes_come_back(options: Flow, size: tuple[int, int]) -> None:
    frames = planes(np.stack([shifted(texture(*size), k, 0) for k in range(8)]))
    same = take(frames, 1.0)
    assert np.abs(drawn(options, same, same).astype(int) - frames).max() <= 1
    standing = take(still(frames[0], 4), 1.0)
    assert np.abs(drawn(options, standing, standing).astype(int) - frames[0]).max() <= 1


@pytest.mark.parametrize("step", [(6.0, 0.0), (0.0, -4.0), (3.0, 5.0)])
def test_sync_places_a_shifted_picture_in_between(step: tuple[float, float]) -> None:
    picture = texture(128, 160)
    truth = planes(np.stack([shifted(picture, step[0] * k / 9, step[1] * k / 9) for k in range(10)]))
    before, after = take(still(truth[0], 8)), take(still(truth[9], 8))
    out, faded = drawn(FLOW, before, after), drawn(Crossfade(), before, after)
    for k in range(8):
        assert difference(out[k], truth[k + 1]) < 2.0
        assert psnr(split(out[k]).u[6:-6, 6:-6], split(truth[k + 1]).u[6:-6, 6:-6]) > 40
    assert difference(out[3], truth[4]) < 0.3 * difference(faded[3], truth[4])


def test_known_motion_is_drawn_far_better_than_by_a_crossfade() -> None:
    """A textured disc that turns and moves before a still ground: 6 dB, and no softer than the truth."""
    ground, disc = texture(160, 200, 1), texture(160, 200, 2)
    inside = np.zeros((160, 200, 1), np.float32)
    cv2.circle(inside, (70, 80), 45, 1.0, -1)
    inside = cv2.GaussianBlur(inside, (0, 0), 1)[..., None]
    frames = []
    for t in range(28):  # before 0..8 and after 18..26, at twice the speed: the truth is every second frame
        move = cv2.getRotationMatrix2D((70, 80), 0.9 * t, 1.0) + np.array([[0, 0, 1.5 * t], [0, 0, 0.3 * t]])
        over, share = (cv2.warpAffine(each, move, (200, 160), flags=cv2.INTER_CUBIC) for each in (disc, inside))
        frames.append(ground + share[..., None] * (over.astype(float) - ground))
    clip = planes(np.stack(frames).clip(0, 255).astype(np.uint8))
    before, after, truth = take(clip[1:9]), take(clip[10:18]), clip[2:18:2]
    out, faded = drawn(FLOW, before, after), drawn(Crossfade(), before, after)
    assert psnr(luma(out), luma(truth)) > psnr(luma(faded), luma(truth)) + 6
    detail = [np.abs(np.diff(luma(each).astype(float), axis=-1)).mean() for each in (out, truth)]
    assert detail[0] > 0.93 * detail[1]


@pytest.mark.parametrize("blender", [FLOW, ARMS, Crossfade(), HardCut()])
def test_the_first_half_needs_the_first_nodes_alone(blender: Blender) -> None:
    frames = planes(np.stack([shifted(texture(96, 128), 0.7 * k, 0) for k in range(16)]))
    before, after = take(frames[:8], 1.0), take(frames[8:], 1.0)
    whole = drawn(blender, before, after)

    class Nodes(list[np.ndarray]):
        """Counts what is read."""

        n_read = 0

        def __getitem__(self, k: int) -> np.ndarray:  # type: ignore[override]
            self.n_read = max(self.n_read, k + 1)
            return super().__getitem__(k)

    counted = [replace(side, nodes=Nodes(side.nodes)) for side in (before, after)]
    halves = blender.draw(*counted)
    np.testing.assert_array_equal(next(halves), whole[:4])
    assert [side.nodes.n_read for side in counted] == [1, 1]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(next(halves), whole[4:])
    assert next(halves, None) is None


def test_gap_follows_acceleration() -> None:
    """Position 18 sin(0.09 t), a swing that slows down: the straight path is off by a pixel, the cubic one is not."""
    picture = texture(128, 192)
    way = np.array([18 * np.sin(0.09 * t) for t in range(16)])
    frames = planes(np.stack([shifted(picture, x, 0) for x in way]))
    out = drawn(FLOW, take(frames[:4]), take(frames[12:]))
    straight = planes(np.stack([shifted(picture, way[3] + (way[12] - way[3]) * k / 9, 0) for k in range(1, 9)]))
    assert difference(out, frames[4:12], 20) < 0.6 * difference(straight, frames[4:12], 20)


@pytest.mark.parametrize("arms", [False, True])
def test_takes_in_reverse_give_frames_in_reverse(arms: bool) -> None:
    options = Flow(arms=arms)
    picture = texture(112, 128)
    a = planes(np.stack([shifted(picture, 0.5 * k, 0) for k in range(8)]))
    b = planes(np.stack([shifted(picture, 4 - 0.5 * k, 3) for k in range(8)]))
    there = drawn(options, take(a, 1.0), take(b, 1.0))
    back = drawn(options, take(b[::-1], 1.0), take(a[::-1], 1.0))
    assert difference(there, back[::-1]) < 1.0


def test_weight_of_b_grows_with_time() -> None:
    unlike, seen = np.array([[0, 32, 96]], np.float32), np.zeros((1, 3), np.float32)
    weights = np.stack([pictures.select(unlike, seen, k / 9)[0] for k in range(1, 9)])
    assert (np.diff(weights, axis=0) > 0).all()
    np.testing.assert_allclose(weights[:, 0], np.arange(1, 9) / 9, atol=1e-6)
    np.testing.assert_allclose(weights + weights[::-1], 1, atol=1e-6)
    assert weights[2, 2] < 0.02 < 0.98 < weights[5, 2], "unlike things are not mixed"


@pytest.mark.parametrize("colour", [(250, 220, 200), (160, 20, 60)])
def test_no_second_hand(colour: tuple[int, int, int]) -> None:
    """A disc here in one take, there in the other, on the same ground: no frame shows two faint ones. The second is as
    bright as the ground and only of another colour."""
    ground = texture(160, 160) // 3
    a, b = ground.copy(), ground.copy()
    cv2.circle(a, (40, 80), 12, colour, -1)
    cv2.circle(b, (120, 80), 12, colour, -1)
    out = drawn(FLOW, held(a), held(b))
    # Axes from the ground to the disc: 1 is the disc, what lies in between is a ghost.
    there, here = (
        planes(still(np.full((2, 2, 3), c, np.uint8), 1))[0].reshape(-1)[[0, 4, 5]] for c in (colour, (42,) * 3)
    )
    way = there.astype(float) - here
    for k in (0, 1, 2, 5, 6, 7):
        one = split(out[k])
        point = np.stack([one.y[::2, ::2], one.u, one.v], axis=-1).astype(float) - here
        share = point @ way / (way @ way)
        clear, ghost = (share > 0.75).sum(), ((share > 0.4) & (share < 0.6)).sum()
        assert clear > 75 and ghost < 38, (k, clear, ghost)


def test_strangers_get_a_short_fade_in_the_middle() -> None:
    a, b = planes(np.stack([texture(240, 320, seed) for seed in (1, 2)]))
    out = drawn(FLOW, take(still(a, 8)), take(still(b, 8)))
    assert all((out[k] == a).all() for k in range(3)) and all((out[k] == b).all() for k in range(5, 8))
    gap = drawn(FLOW, take(still(a, 4)), take(still(b, 4)))
    np.testing.assert_array_equal(gap, out)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 4), (18, 10), (64, 30)])
def test_tiny_and_black_frames(height: int, width: int) -> None:
    black = planes(np.zeros((8, height, width, 3), np.uint8))
    for options in (FLOW, ARMS):
        np.testing.assert_array_equal(drawn(options, take(black), take(black)), black)
        assert drawn(options, take(black[:4], 1.0), take(black[:4], 1.0)).shape == black.shape


def test_work_stays_in_the_box_of_the_person() -> None:
    picture = texture(160, 200)
    moved = picture.copy()
    moved[40:90, 30:80] = shifted(picture, 3, 0)[40:90, 30:80]
    surface = np.zeros((8, 96), np.uint64)
    surface[:, 12:27] = sum(1 << column for column in range(10, 26))
    a, b = (replace(held(p), surface=surface) for p in (picture, moved))
    out = drawn(FLOW, a, b)
    wanted = planes(picture[None])[0]
    for k in range(8):
        for got, same in zip(split(out[k]), split(wanted), strict=True):
            np.testing.assert_array_equal(got[:, got.shape[1] * 13 // 20 :], same[:, got.shape[1] * 13 // 20 :])
    assert (out[3] != wanted).any()


def test_a_camera_that_has_moved_moves_everything() -> None:
    """The person's box is a part of the picture, but the ground has moved, too: its corners are where they belong."""
    picture = texture(160, 200)
    surface = np.zeros((8, 96), np.uint64)
    surface[:, 12:27] = sum(1 << column for column in range(10, 26))
    a, b = (replace(held(p), surface=surface) for p in (picture, shifted(picture, 9, 0)))
    out, truth = drawn(FLOW, a, b), planes(np.stack([shifted(picture, k, 0) for k in range(1, 9)]))
    corner = (slice(None), slice(110, 150), slice(140, 180))
    assert psnr(out[corner], truth[corner]) > psnr(drawn(Crossfade(), a, b)[corner], truth[corner]) + 10


def test_arms_carry_the_hand_where_the_bones_go() -> None:
    pose = take(np.zeros((4, 150, 100), np.uint8), 1.0)
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
    a, b = (np.full((8, 12, 8), level, np.uint8) for level in (30, 210))
    assert drawn(HardCut(), take(a), take(b))[:, 0, 0].tolist() == [30] * 4 + [210] * 4
    assert drawn(HardCut(), take(a[:4]), take(b[:4]))[:, 0, 0].tolist() == [30] * 4 + [210] * 4
    assert drawn(Crossfade(), take(a), take(b))[:, 0, 0].tolist() == [30 + 20 * k for k in range(1, 9)]
    assert drawn(Crossfade(), take(a[:4]), take(b[:4]))[:, 0, 0].tolist() == [30 + 20 * k for k in range(1, 9)]


def test_real_clips_come_out_nearer_to_the_truth_than_a_crossfade(data_dir: Path) -> None:
    """Speech at double speed: half of the frames are never seen by the blender."""
    with VideoReader(data_dir / "video" / "woman_grey_coat_seated_10s.mp4", 256) as reader:
        clip = planes(np.stack([frame for frame, _ in zip(reader, range(60), strict=False)]))
    gains = []
    for start in range(0, 40, 8):
        before, after = take(clip[start + 1 : start + 9]), take(clip[start + 10 : start + 18])
        truth = clip[start + 2 : start + 18 : 2]
        gains.append(psnr(drawn(FLOW, before, after), truth) - psnr(drawn(Crossfade(), before, after), truth))
    assert np.mean(gains) > 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: replace(t, nodes=t.nodes[:1]), "nodes"),
        (lambda t: replace(t, nodes=[t.nodes[0], t.nodes[1][:3]]), "expected 4"),
        (lambda t: replace(t, nodes=[n.astype(np.float32) for n in t.nodes]), "float32"),
        (lambda t: replace(t, nodes=[n[:, :, :31] for n in t.nodes]), "W even"),
        (lambda t: replace(t, nodes=[n[:, :-2] for n in t.nodes]), "H and W"),
        (lambda t: replace(t, joints=t.joints[..., :1]), "joints"),
        (lambda t: replace(t, surface=np.zeros((8, 4), np.uint64)), "surface"),
    ],
)
def test_bad_takes_are_refused(spoil: Callable[[Take], Take], message: str) -> None:
    good = take(np.zeros((8, 48, 32), np.uint8))
    with pytest.raises(InputError, match=message):
        drawn(FLOW, spoil(good), spoil(good) if message in ("float32", "W even", "H and W") else good)
    for blender in (Crossfade(), HardCut(), FLOW):
        with pytest.raises(InputError, match="expected 1 or 2"):
            drawn(blender, good, replace(good, nodes=good.nodes[:1]))
        with pytest.raises(InputError, match="same shape"):
            drawn(blender, take(np.zeros((4, 48, 32), np.uint8)), take(np.zeros((4, 48, 34), np.uint8)))
    with pytest.raises(InputError, match="flow_points"):
        drawn(Flow(flow_points=1000), good, good)

"""Motion vectors against a slow twin, at clip borders, and in degenerate poses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from engine.features.motion import axis_angle_to_matrix, motion_vectors, smplx_motion_vectors, velocities
from engine.skeleton import LEFT_ELBOW, LEFT_HAND, LEFT_SHOULDER, LEFT_WRIST, N_JOINTS, PARENTS, RIGHT_SHOULDER
from tests.helpers.naive_motion import motion_of_clip

CHAIN = np.array([-1, -1, 0, 2, 1, 4])


def smooth_joints(rng: np.random.Generator, n_frames: int, n_joints: int) -> np.ndarray:
    steps = rng.normal(0, 4, (n_frames, n_joints, 3))
    return (rng.normal(0, 100, (1, n_joints, 3)) + np.cumsum(steps, axis=0)).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(n_frames=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_equals_the_slow_twin(n_frames: int, seed: int) -> None:
    joints = smooth_joints(np.random.default_rng(seed), n_frames, len(CHAIN))
    vectors = motion_vectors(joints, CHAIN, 50.0, np.array([0, n_frames]), coincident=())
    root = joints[:, :2].mean(axis=1)
    sides = [1 if np.mean(joints[:, joint, 0] - root[:, 0]) >= 0 else -1 for joint in range(len(CHAIN))]
    expected = motion_of_clip(joints.astype(np.float64), CHAIN.tolist(), 50.0, sides)
    np.testing.assert_allclose(vectors[..., :6], expected[..., :6], atol=2e-4, rtol=1e-4)
    # a bone that folds back on its parent's turns by nearly pi, about an axis that hangs on the last digit: left out
    rows = expected[..., 6:12].reshape(n_frames, -1, 2, 3)
    trace = rows[..., 0, 0] + rows[..., 1, 1] + np.cross(rows[..., 0, :], rows[..., 1, :])[..., 2]
    steady = (trace > -0.9).all(axis=0)
    np.testing.assert_allclose(vectors[:, steady, 6:12], expected[:, steady, 6:12], atol=2e-4)
    turns, wanted = (Rotation.from_rotvec(v[:, steady, 12:].reshape(-1, 3) / 30) for v in (vectors, expected))
    slow = wanted.magnitude() < 0.45 * np.pi
    assert (turns.inv() * wanted).magnitude()[slow].max(initial=0) < 1e-3


def test_nothing_crosses_a_clip_border(rng: np.random.Generator) -> None:
    joints = smooth_joints(rng, 20, N_JOINTS)
    joints[12:] += 500
    whole = motion_vectors(joints, PARENTS, 100.0, np.array([0, 12, 20]))
    first = motion_vectors(joints[:12], PARENTS, 100.0, np.array([0, 12]))
    np.testing.assert_array_equal(whole[:12, :, 3:6], first[..., 3:6])
    np.testing.assert_allclose(whole[12, :, 3:6], (whole[13, :, :3] - whole[12, :, :3]) * 30, rtol=1e-4, atol=1e-3)


def test_moving_and_scaling_the_picture_changes_nothing(rng: np.random.Generator) -> None:
    joints = smooth_joints(rng, 8, N_JOINTS)
    clips = np.array([0, 8])
    np.testing.assert_allclose(
        motion_vectors(joints, PARENTS, 80.0, clips),
        motion_vectors(joints * 2 + np.float32(300), PARENTS, 160.0, clips),
        atol=5e-3,
    )


def test_turning_forearm_has_the_angular_velocity_of_the_turn() -> None:
    angle = 2.0 * np.arange(10) / 30
    joints = np.zeros((10, N_JOINTS, 3), np.float32)
    joints[:, LEFT_SHOULDER], joints[:, RIGHT_SHOULDER] = (50, 0, 0), (-50, 0, 0)
    joints[:, LEFT_ELBOW] = (100, 0, 0)
    joints[:, LEFT_WRIST] = joints[:, LEFT_ELBOW]
    joints[:, LEFT_WRIST, :2] += 50 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    joints[:, LEFT_HAND] = joints[:, LEFT_WRIST, None] + np.array([0, 10, 0], np.float32)
    vectors = motion_vectors(joints, PARENTS, 100.0, np.array([0, 10]))
    np.testing.assert_allclose(vectors[:, LEFT_WRIST, 12:], np.tile([0, 0, 2.0], (10, 1)), atol=1e-3)
    # the hand's own wrist stands for the same point: no bone, no turn
    np.testing.assert_allclose(vectors[:, LEFT_HAND.start, 6:12], np.tile([1, 0, 0, 0, 1, 0], (10, 1)), atol=1e-6)


def test_points_in_one_place_and_bones_that_fold_back_stay_rotations() -> None:
    joints = np.zeros((3, 4, 3), np.float32)
    joints[:, 0], joints[:, 1] = (10, 0, 0), (-10, 0, 0)
    joints[:, 2] = (20, 0, 0)
    joints[:, 3] = (15, 0, 0)  # folds back by pi
    vectors = motion_vectors(joints, np.array([-1, -1, 0, 2]), 20.0, np.array([0, 3]), coincident=())
    rows = vectors[..., 6:12].reshape(-1, 2, 3)
    np.testing.assert_allclose(rows @ rows.transpose(0, 2, 1), np.tile(np.eye(2), (len(rows), 1, 1)), atol=1e-6)
    np.testing.assert_allclose(vectors[:, 3, 6:9], np.tile([-1, 0, 0], (3, 1)), atol=1e-6)
    same_place = motion_vectors(np.zeros((2, 4, 3), np.float32), np.array([-1, -1, 0, 2]), 20.0, np.array([0, 2]), ())
    assert np.isfinite(same_place).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_start_frames": np.array([0, 3])}, "ascend from 0 to 4"),
        ({"clip_start_frames": np.array([1, 4])}, "ascend from 0 to 4"),
        ({"clip_start_frames": np.array([0, 2, 2, 4])}, "ascend from 0 to 4"),
        ({"unit_px": 0.0}, "positive length"),
        ({"joints": np.full((4, N_JOINTS, 3), np.nan, np.float32)}, "finite"),
        ({"joints": np.zeros((4, 3, 3), np.float32)}, "shape"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, object], message: str) -> None:
    given_arguments = {
        "joints": np.zeros((4, N_JOINTS, 3), np.float32),
        "parents": PARENTS,
        "unit_px": 100.0,
        "clip_start_frames": np.array([0, 4]),
    }
    with pytest.raises(ValueError, match=message):
        motion_vectors(**(given_arguments | change))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_rotation_matrices_equal_scipys(vector: list[float]) -> None:
    np.testing.assert_allclose(
        axis_angle_to_matrix(np.array(vector)), Rotation.from_rotvec(vector).as_matrix(), atol=2e-6
    )


def test_velocities_of_a_line_are_its_slope() -> None:
    np.testing.assert_allclose(velocities(np.arange(6.0)[:, None] / 30), np.ones((6, 1)), rtol=1e-5)
    np.testing.assert_array_equal(velocities(np.ones((1, 2))), np.zeros((1, 2)))


def test_smplx_vectors_want_equal_shapes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        smplx_motion_vectors(np.zeros((4, 55, 3)), np.zeros((5, 165)))

"""Descriptors of motion: mirrors, scale, clip boundaries, what was lost."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS, body_descriptors, joint_speeds, mirror
from engine.features.recording import Recording
from engine.skeleton import LEFT_HAND, LEFT_SHOULDER, LEFT_WRIST, N_JOINTS, NOSE, RIGHT_WRIST
from tests.helpers.fakes_recording import UNIT_PX, at_ease, moved_by, recording_of, restless, unseen
from tests.helpers.mirrored import in_a_mirror

COLUMN = {name: place for place, name in enumerate((*BODY_COLUMNS, *MOUTH_COLUMNS))}


def somebody(rng: np.random.Generator, mouth: bool = True) -> Recording:
    """Two clips; every joint was lost for a while, each at another time."""
    shape = np.cumsum(rng.normal(0, 0.02, (240, 2)), axis=0).astype(np.float32) if mouth else None
    recording = recording_of(restless(240, rng), (25, 35), mouth=shape)
    for joint in range(N_JOINTS):
        start = int(rng.integers(0, 220))
        recording = unseen(recording, slice(start, start + 15), [joint])
    return recording


@pytest.mark.parametrize("mouth", [False, True])
def test_mirrored_is_what_a_mirror_shows(rng: np.random.Generator, mouth: bool) -> None:
    recording = somebody(rng)
    descriptors = body_descriptors(recording, mouth)
    assert descriptors.shape == (240, len(BODY_COLUMNS) + 4 * mouth) and descriptors.dtype == np.float32
    np.testing.assert_array_equal(mirror(mirror(descriptors)), descriptors)
    assert np.abs(mirror(descriptors) - descriptors).max() > 0.1
    np.testing.assert_allclose(body_descriptors(in_a_mirror(recording), mouth), mirror(descriptors), atol=1e-4)


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_size_and_place_in_the_picture_do_not_matter(rng: np.random.Generator, scale: float) -> None:
    near = somebody(rng)
    far = replace(near, joints=near.joints * np.float32(scale) + 77, unit_px=near.unit_px * scale)
    np.testing.assert_allclose(body_descriptors(far), body_descriptors(near), atol=2e-3)


def test_nothing_crosses_a_clip_boundary(rng: np.random.Generator) -> None:
    recording = recording_of(restless(240, rng), (25, 35))
    before = body_descriptors(recording)
    jump = recording.joints.copy()
    jump[100:] += 400
    np.testing.assert_allclose(body_descriptors(replace(recording, joints=jump)), before, atol=2e-3)
    # backwards it has the same speeds, so the usual one stays
    jump[100:] = jump[100:][::-1]
    turned = body_descriptors(replace(recording, joints=jump))
    np.testing.assert_allclose(turned[:100], before[:100], atol=2e-3)
    assert np.abs(turned[100:] - before[100:]).max() > 0.5


def test_columns_are_centred_within_their_clip(rng: np.random.Generator) -> None:
    descriptors = body_descriptors(recording_of(restless(240, rng), (25, 35)))
    for clip in (slice(0, 100), slice(100, 240)):
        np.testing.assert_allclose(descriptors[clip].mean(axis=0), 0, atol=1e-5)


def test_what_was_lost_is_average(rng: np.random.Generator) -> None:
    joints = restless(240, rng)
    joints[60:90, LEFT_WRIST] += 300  # what the tracker made up
    joints[60:90, LEFT_HAND] += 300
    lost = unseen(recording_of(joints), slice(60, 90), [LEFT_WRIST, *range(LEFT_HAND.start, LEFT_HAND.stop)])
    descriptors = body_descriptors(lost)
    left = [place for name, place in COLUMN.items() if name.startswith(("left_wrist", "left_fingers"))]
    right = [place for name, place in COLUMN.items() if name.startswith(("right_wrist", "right_fingers"))]
    assert len(left) == len(right) == 5
    assert not descriptors[60:90, left].any()
    assert descriptors[60:90, right].all(axis=1).mean() > 0.9
    nobody = body_descriptors(unseen(recording_of(joints), slice(None)), mouth=True)
    others = [place for name, place in COLUMN.items() if name != "root.speed"]
    assert not nobody[:, others].any()


def test_what_moves_is_told_from_what_does_not(rng: np.random.Generator) -> None:
    joints = at_ease(240)
    joints[:, LEFT_WRIST, 1] -= 50 * np.sin(np.arange(240) / 9)  # up first: y points down
    descriptors = body_descriptors(recording_of(joints))
    assert {name for name in BODY_COLUMNS if np.ptp(descriptors[:, COLUMN[name]]) > 0.1} == {
        "left_wrist.speed",
        "left_wrist.rise",
        "left_wrist.rise_size",
        "left_wrist.height",
    }
    height, rise = descriptors[:, COLUMN["left_wrist.height"]], descriptors[:, COLUMN["left_wrist.rise"]]
    np.testing.assert_allclose(height, 0.5 * np.sin(np.arange(240) / 9), atol=0.05)
    assert np.corrcoef(np.gradient(height), rise)[0, 1] > 0.99


def test_a_statue_has_nothing_to_tell() -> None:
    assert not body_descriptors(recording_of(at_ease(80)), mouth=True).any()


def test_a_mouth_that_opens(rng: np.random.Generator) -> None:
    shape = np.stack([np.sin(np.arange(240) / 7), np.zeros(240)], axis=1).astype(np.float32)
    descriptors = body_descriptors(recording_of(at_ease(240), (30, 30), mouth=shape), mouth=True)
    np.testing.assert_array_equal(
        np.ptp(descriptors, axis=0) > 0.1, np.isin(list(COLUMN), ["mouth.opening", "mouth.opening_rate"])
    )
    assert descriptors[:, COLUMN["mouth.opening"]].std() == pytest.approx(1, abs=0.1)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.floats(0, 6),
    st.floats(0, 1),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_always_finite_and_bounded(seed: int, clips: list[int], size: float, lost: float, mouth: bool) -> None:
    rng = np.random.default_rng(seed)
    n = 4 * sum(clips)
    joints = rng.normal(0, 10**size, (n, N_JOINTS, 3)).astype(np.float32)
    shape = rng.normal(0, 10**size, (n, 2)).astype(np.float32) if mouth else None
    recording = recording_of(joints, clips, mouth=shape)
    recording = replace(recording, confidence=(rng.uniform(size=(n, N_JOINTS)) > lost).astype(np.float32))
    descriptors = body_descriptors(recording, mouth=True)
    assert np.isfinite(descriptors).all() and np.abs(descriptors).max() <= 10


def test_speeds_are_shoulder_widths_a_second() -> None:
    speed = joint_speeds(moved_by(np.full(80, 0.02)), np.array([0, 20]), UNIT_PX)
    np.testing.assert_allclose(speed[:, [LEFT_WRIST, RIGHT_WRIST, NOSE]], 0.6, rtol=1e-3)
    assert not speed[:, LEFT_SHOULDER].any()

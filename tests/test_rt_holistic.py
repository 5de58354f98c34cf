"""The port of MediaPipe Holistic: geometry and rules against obvious twins, the whole against the package itself."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pose_parity import compare, frames_of, ported
from engine.errors import BackendError
from tango_rt.characters.holistic.body import BodyTracker, refine_by_heat
from tango_rt.characters.holistic.detection import (
    BODY,
    FACE,
    FACE_FULL_RANGE,
    DetectorSpec,
    anchor_centres,
    detect,
    merge_overlapping,
    whole_frame,
)
from tango_rt.characters.holistic.regions import Region, TrackingLimits, angle_between, region_from_axis, wrap_angle
from tango_rt.characters.holistic.runner import open_network

REFERENCE = Path(__file__).parent / "helpers" / "pose_of_the_presenter.npz"

sides = st.floats(1, 400)
places = st.floats(-100, 700)
turns = st.floats(-math.pi, math.pi)
regions = st.builds(Region, places, places, sides, sides, turns)


@pytest.mark.slow
def test_the_port_finds_what_the_package_finds() -> None:
    """40 frames of the drawn presenter; the reference is MediaPipe 0.10.14's own (benchmarks/pose_parity.py)."""
    with np.load(REFERENCE) as reference:
        figures = compare(dict(reference), ported(frames_of("presenter", 40)))
    assert figures["body"] < 0.005 and figures["left"] < 0.005 and figures["right"] < 0.005
    for side in ("left", "right"):
        assert abs(figures[f"{side}_found"] - figures[f"{side}_found_by_reference"]) <= 0.025
    assert figures["mask_iou"] > 0.99
    assert figures["mouth_r"] > 0.99


@given(regions, st.floats(0, 1), st.floats(0, 1))
def test_a_point_of_a_crop_lies_where_trigonometry_puts_it(region: Region, across: float, down: float) -> None:
    right, below = (across - 0.5) * region.width, (down - 0.5) * region.height
    x = region.x + right * math.cos(region.turn) - below * math.sin(region.turn)
    y = region.y + right * math.sin(region.turn) + below * math.cos(region.turn)
    placed = region.project(np.array([[across * 256, down * 256, 8.0]]), 256)[0]
    np.testing.assert_allclose(placed, [x, y, 8.0 * region.width / 256], atol=1e-6)


def test_a_crop_shows_the_region_upright() -> None:
    frame = np.zeros((200, 300, 3), np.uint8)
    cv2.circle(frame, (150, 60), 6, (255, 255, 255), -1)  # above the centre
    crop = Region(150, 100, 100, 100, turn=math.pi / 2).crop(frame, 50, lowest=-1.0)
    assert crop.shape == (1, 50, 50, 3) and crop.dtype == np.float32
    assert crop.min() == -1 and crop.max() == 1
    bright = np.argwhere(crop[0, :, :, 0] > 0).mean(axis=0)
    np.testing.assert_allclose(bright, [25, 5], atol=1)  # a quarter turn clockwise brings it to the left


@given(regions, st.floats(0.5, 4), st.floats(-1, 1))
def test_a_square_moves_along_its_own_vertical(region: Region, scale: float, shift: float) -> None:
    square = region.squared(scale, shift)
    assert square.width == square.height == pytest.approx(scale * max(region.width, region.height))
    moved = np.array([square.x - region.x, square.y - region.y])
    np.testing.assert_allclose(
        moved, shift * region.height * np.array([-math.sin(region.turn), math.cos(region.turn)]), atol=1e-6
    )


@given(st.floats(-50, 50))
def test_angles_wrap_to_one_turn(angle: float) -> None:
    assert -math.pi - 1e-9 <= wrap_angle(angle) <= math.pi + 1e-9
    assert math.cos(wrap_angle(angle)) == pytest.approx(math.cos(angle), abs=1e-6)


def test_an_upright_axis_is_not_turned() -> None:
    assert angle_between(np.array([5.0, 9.0]), np.array([5.0, 2.0]), 90) == 0
    region = region_from_axis(np.array([5.0, 9.0]), np.array([12.0, 9.0]), 90)
    assert region.width == 14 and region.turn == pytest.approx(math.pi / 2)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"x": 119.0}, True),
        ({"x": 121.0}, False),
        ({"width": 139.0}, True),
        ({"width": 141.0}, False),
        ({"turn": math.radians(39)}, True),
        ({"turn": math.radians(41)}, False),
        ({"turn": math.radians(-359)}, True),
    ],
)
def test_a_followed_region_is_kept_while_it_agrees(change: dict[str, float], kept: bool) -> None:
    fresh = Region(100, 100, 100, 100)
    limits = TrackingLimits(turn_degrees=40, shift=0.2, scale=0.4, margin=-0.1)
    tracked = Region(**{**vars(fresh), **change})
    assert fresh.keeps(tracked, np.array([[100.0, 100.0]]), limits) is kept
    outside = np.array([[100.0, 100.0], [100.0, 146.0]])  # the fresh region less a tenth ends at 145
    assert not fresh.keeps(fresh, outside, limits)


@pytest.mark.parametrize(("spec", "n"), [(BODY, 2254), (FACE, 896), (FACE_FULL_RANGE, 2304)])
def test_anchors_tile_the_picture(spec: DetectorSpec, n: int) -> None:
    centres = anchor_centres(spec)
    assert len(centres) == n
    assert centres.min() > 0 and centres.max() < 1
    np.testing.assert_allclose(centres.mean(axis=0), 0.5)
    np.testing.assert_allclose(centres[0], 0.5 * spec.strides[0] / spec.size)


def test_a_planted_detection_is_found_where_it_is() -> None:
    spec = DetectorSpec(64, (8,), anchors_per_layer=1)
    raw, score = np.zeros((1, 64, 6), np.float32), np.full((1, 64, 1), -9, np.float32)
    score[0, 27] = 9  # row 3, column 3: centre (28, 28)
    raw[0, 27] = [4, 0, 16, 8, -2, 1]  # box 4 to the right, 16 x 8; a key point 2 to the left, 1 down
    frame = np.zeros((128, 128, 3), np.uint8)
    found = detect(lambda _: [raw, score], spec, frame, whole_frame(frame))
    np.testing.assert_allclose(found, [[[48, 48], [80, 64], [52, 58]]])
    score[:] = -9
    assert len(detect(lambda _: [raw, score], spec, frame, whole_frame(frame))) == 0


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[1, 0], b[1, 0]) - max(a[0, 0], b[0, 0])
    height = min(a[1, 1], b[1, 1]) - max(a[0, 1], b[0, 1])
    shared = max(width, 0) * max(height, 0)
    area = sum((box[1, 0] - box[0, 0]) * (box[1, 1] - box[0, 1]) for box in (a, b))
    return float(shared / (area - shared))


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3, st.floats(0.05, 0.5)), min_size=1, max_size=12))
def test_overlapping_boxes_are_merged_as_one_by_one(boxes: list[tuple[float, float, float, float]]) -> None:
    boxes.sort(key=lambda box: -box[2])
    points = np.array([[[x, y], [x + side, y + side], [x, y]] for x, y, _, side in boxes])
    score = np.array([box[2] for box in boxes]) + 0.5
    left = list(range(len(boxes)))
    expected = []
    while left:
        near = [k for k in left if k == left[0] or overlap(points[k], points[left[0]]) > 0.3]
        expected.append(sum(score[k] * points[k] for k in near) / sum(score[k] for k in near))
        left = [k for k in left if k not in near]
    np.testing.assert_allclose(merge_overlapping(points, score), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_heat_moves_landmarks_as_a_loop_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-20, 276, (12, 5))
    heat = rng.normal(-3, 3, (64, 64, 12)).astype(np.float32)
    expected = points.copy()
    for k, (x, y) in enumerate((points[:, :2] / 4).astype(int)):
        if not (0 <= x < 64 and 0 <= y < 64):
            continue
        cells = [(r, c) for r in range(y - 4, y + 5) for c in range(x - 4, x + 5) if 0 <= r < 64 and 0 <= c < 64]
        weights = np.array([1 / (1 + np.exp(-float(heat[r, c, k]))) for r, c in cells])
        if weights.max() >= 0.5:
            expected[k, :2] = 4 * (weights @ np.array([(c, r) for r, c in cells])) / weights.sum()
    refine_by_heat(points, heat)
    np.testing.assert_allclose(points, expected, atol=1e-6)


class Planted:
    """Networks of a body that stands in the middle of a frame of 256 x 256; counts what is asked."""

    def __init__(self) -> None:
        self.n_detections = 0
        self.presence = 1.0

    def detector(self, _: np.ndarray) -> list[np.ndarray]:
        self.n_detections += 1
        raw, score = np.zeros((1, 2254, 12), np.float32), np.full((1, 2254, 1), -9, np.float32)
        k = int(np.argmin(np.linalg.norm(anchor_centres(BODY) - 0.5, axis=1)))
        score[0, k] = 9
        raw[0, k, 2:4] = 100
        raw[0, k, 7] = -80  # the second key point lies above the first one
        return [raw, score]

    def landmarks(self, _: np.ndarray) -> list[np.ndarray]:
        points = np.full((1, 39, 5), 128, np.float32)
        points[0, 34, 1] = 30
        cold = np.full((1, 64, 64, 39), -9, np.float32)
        return [points, np.float32([[self.presence]]), np.zeros((1, 256, 256, 1), np.float32), cold, np.zeros(1)]


def test_a_body_is_searched_once_then_followed_until_it_is_lost() -> None:
    planted = Planted()
    tracker = BodyTracker(planted.detector, planted.landmarks)
    frame = np.zeros((256, 256, 3), np.uint8)
    for _ in range(3):
        body = tracker(frame)
        assert body is not None and body.landmarks.shape == (33, 4) and body.mask.shape == (256, 256)
    assert planted.n_detections == 1
    planted.presence = 0.2
    assert tracker(frame) is None
    planted.presence = 1.0
    assert tracker(frame) is not None and planted.n_detections == 2
    tracker.reset()
    assert tracker(frame) is not None and planted.n_detections == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_landmarks_that_are_no_numbers_are_no_body(value: float) -> None:
    planted = Planted()

    def broken(picture: np.ndarray) -> list[np.ndarray]:
        outputs = planted.landmarks(picture)
        outputs[0][0, 3, 1] = value
        return outputs

    assert BodyTracker(planted.detector, broken)(np.zeros((64, 64, 3), np.uint8)) is None


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pose.tflite"
    with pytest.raises(BackendError, match=r"pose\.tflite"):
        open_network(file)
    file.write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(BackendError, match=r"pose\.tflite"):
        open_network(file)

"""Clothes and light are part of what a cut costs; gestures are not part of appearance."""

import numpy as np

from engine.features.appearance import COLUMNS, N_CELLS, ROWS, coarse_colours, slow_colours
from engine.motion_graph.graph import GraphOptions, build_graph


def test_cells_are_mean_colours() -> None:
    frame = np.zeros((ROWS * 10, COLUMNS * 10, 3), np.uint8)
    frame[10:20, 70:80] = (200, 100, 50)
    frame[0:10, 0:5] = 100
    cells = coarse_colours(frame).reshape(ROWS, COLUMNS, 3)
    assert cells[1, 7].tolist() == [200, 100, 50]
    assert cells[0, 0].tolist() == [50, 50, 50]
    assert cells.sum() == 350 + 150


def test_a_gesture_is_smoothed_away_and_clips_are_not_mixed() -> None:
    cells = np.full((240, N_CELLS, 3), 40, np.uint8)
    cells[50:56] = 200
    cells[120:] = 220
    slow = slow_colours(cells, np.array([0, 30, 60]))
    still = slow_colours(np.full((120, N_CELLS, 3), 40, np.uint8), np.array([0, 30]))
    assert np.abs(slow[:120] - still).max() < 0.08
    assert np.ptp(slow[120:]) < 1e-6 + np.ptp(slow[120])
    assert slow[119, 0, 0] < 0.3 and slow[120, 0, 0] > 0.8


def test_equal_poses_in_other_clothes_are_no_cut() -> None:
    """Two clips of one motion: every cut across is free by pose, and none is admitted if the colours differ."""
    half = np.random.default_rng(0).uniform(0, 5, (1, 20, 3)) + np.sin(np.arange(160) / 9)[:, None, None]
    joints = np.concatenate([half, half]).astype(np.float32)
    surface = np.ones((320, 4), np.uint64)
    clip_start = np.array([0, 40, 80])
    colours = np.zeros((320, N_CELLS, 3), np.float32)
    colours[160:, :, 0] = 0.4

    def crossing(appearance: np.ndarray | None) -> np.ndarray:
        graph, _ = build_graph(joints, surface, clip_start, np.ones(20), 5.0, GraphOptions(), appearance=appearance)
        across = (graph.sources < 40) != (graph.indices < 40)
        return graph.kind[across], graph.distance[across]

    kinds, _ = crossing(None)
    assert len(kinds) > 100
    kinds, distances = crossing(colours)
    assert set(kinds.tolist()) == {2}
    assert distances.min() > 0.4 * GraphOptions().appearance_weight * 0.99

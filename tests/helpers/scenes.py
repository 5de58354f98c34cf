"""Drawn speakers before textured walls, as cameras take them."""

from collections.abc import Iterator

import cv2
import numpy as np

HEIGHT, WIDTH = 180, 320


class Scene:
    """A drawn speaker before a textured wall."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(60, 200, (9, 16, 3)).astype(np.float32)
        self._wall = cv2.resize(coarse, (WIDTH + 200, HEIGHT), interpolation=cv2.INTER_CUBIC)
        self._coat = [int(value) for value in rng.integers(0, 90, 3)]
        self._noise = np.random.default_rng(seed + 100)

    def frame(self, sway: float, hand: float, pan: int = 0) -> np.ndarray:
        picture = self._wall[:, 50 + pan : 50 + pan + WIDTH].copy()
        x = WIDTH / 2 + 20 * sway
        for row in range(70, HEIGHT, 8):
            cv2.rectangle(picture, (int(x - 45), row), (int(x + 45), row + 3), self._coat, -1)
            cv2.rectangle(picture, (int(x - 45), row + 4), (int(x + 45), row + 7), (230, 230, 230), -1)
        cv2.circle(picture, (int(x), 45), 22, (150, 120, 100), -1)
        cv2.circle(picture, (int(x + 60 * np.cos(hand)), int(110 + 60 * np.sin(hand))), 11, (160, 125, 100), -1)
        noisy = picture + self._noise.normal(0, 1.5, picture.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    def frames(self, n_frames: int, start: int = 0, pan_px: int = 0) -> Iterator[np.ndarray]:
        """Swaying, gesturing up to half a turn in a third of a second."""
        for t in range(start, start + n_frames):
            pan = min(pan_px * max(0, t - start - n_frames // 2), 140)
            yield self.frame(np.sin(t / 12), 1.5 * np.sin(t / 3), pan)

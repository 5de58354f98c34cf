"""Small pictures that move, without edges that an encoder would blur."""

import numpy as np

WIDTH, HEIGHT = 96, 64


def moving_frames(n_frames: int, seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth coloured waves that move, uint8 (n, height, width, 3)."""
    rng = np.random.default_rng(seed)
    wave, phase = rng.uniform(0.05, 0.2, (2, 3)), rng.uniform(0, 6, 3)
    t, y, x = np.ogrid[:n_frames, :height, :width]
    bands = [np.sin(wave[0, c] * (x + 2 * t) + wave[1, c] * y + phase[c]) for c in range(3)]
    return np.stack([np.broadcast_to(127 + 100 * band, (n_frames, height, width)) for band in bands], -1).astype(
        np.uint8
    )

"""How the bones of an arm move the points around them."""

import math

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["skin"]


@njit(fastmath=FASTMATH)
def skin(bones: np.ndarray, half_width: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rigid motion of bones spread over their surroundings.

    `bones` is float32 (n, 4, 2): both ends in A, both ends in B. Returns the flow, float32 (h, w, 2), and how far each
    point belongs to a bone, float32 (h, w) in 0..1.
    """
    flow = np.zeros((height, width, 2), np.float32)
    belongs = np.zeros((height, width), np.float32)
    n = len(bones)
    for y in range(height):
        for x in range(width):
            sum_w = sum_u = sum_v = best = 0.0
            for i in range(n):
                ax, ay = bones[i, 1, 0] - bones[i, 0, 0], bones[i, 1, 1] - bones[i, 0, 1]
                bx, by = bones[i, 3, 0] - bones[i, 2, 0], bones[i, 3, 1] - bones[i, 2, 1]
                la, lb = max(math.sqrt(ax * ax + ay * ay), 1e-3), max(math.sqrt(bx * bx + by * by), 1e-3)
                dx, dy = x - bones[i, 0, 0], y - bones[i, 0, 1]
                along = (dx * ax + dy * ay) / la
                across = (dy * ax - dx * ay) / la
                # From the nearest point of the bone, which may be as short as a point.
                nearest = min(max(along, 0.0), la) / la
                off_x, off_y = dx - nearest * ax, dy - nearest * ay
                w = math.exp(-0.5 * (off_x * off_x + off_y * off_y) / (half_width[i] * half_width[i]))
                if w < 0.01:
                    continue
                best = max(best, w)
                w = w * w * w
                # The direction of a foreshortened bone is unknown.
                if min(la, lb) < half_width[i]:
                    px, py = bones[i, 2, 0] + dx, bones[i, 2, 1] + dy
                else:
                    stretch = min(max(lb / la, 0.7), 1.4)
                    px = bones[i, 2, 0] + (stretch * along * bx - across * by) / lb
                    py = bones[i, 2, 1] + (stretch * along * by + across * bx) / lb
                sum_w += w
                sum_u += w * (px - x)
                sum_v += w * (py - y)
            if sum_w > 0:
                flow[y, x, 0] = sum_u / sum_w
                flow[y, x, 1] = sum_v / sum_w
                belongs[y, x] = min(best * 1.65, 1.0)
    return flow, belongs

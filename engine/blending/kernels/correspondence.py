"""From two flows to one correspondence: do they agree, and where do they meet at an instant between the pictures?"""

import math

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["N_CHANNELS", "agreement", "pool", "settle", "splat"]

# Channels of the correspondence field of `splat`: where to read picture A (2), where to read picture B (2), visible in
# A, visible in B.
N_CHANNELS = 6
# Weight of a vector that its counterpart contradicts: it still fills points that nothing else reaches.
_FLOOR = 0.02


@njit(fastmath=FASTMATH)
def _bilinear(field: np.ndarray, x: float, y: float, channel: int) -> float:
    height, width = field.shape[0], field.shape[1]
    x = min(max(x, 0.0), width - 1.0)
    y = min(max(y, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    top = field[y0, x0, channel] * (1 - fx) + field[y0, x1, channel] * fx
    low = field[y1, x0, channel] * (1 - fx) + field[y1, x1, channel] * fx
    return top * (1 - fy) + low * fy


@njit(fastmath=FASTMATH)
def agreement(forward: np.ndarray, backward: np.ndarray, slack_px: float) -> np.ndarray:
    """How well `backward` undoes `forward` at every point, float32 (h, w) in 0..1; both flows float32 (h, w, 2)."""
    height, width = forward.shape[0], forward.shape[1]
    out = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            u, v = forward[y, x, 0], forward[y, x, 1]
            px, py = x + u, y + v
            du = u + _bilinear(backward, px, py, 0)
            dv = v + _bilinear(backward, px, py, 1)
            # A vector that leaves the box has no counterpart.
            outside = max(max(-px, px - (width - 1)), max(-py, py - (height - 1)))
            tolerance = slack_px + 0.05 * math.sqrt(u * u + v * v)
            error = (du * du + dv * dv) / (tolerance * tolerance)
            if outside > 0:
                error += (outside / slack_px) ** 2
            out[y, x] = math.exp(-0.5 * error)
    return out


@njit(fastmath=FASTMATH)
def splat(
    flow: np.ndarray,
    moved: np.ndarray,
    trust: np.ndarray,
    weight: float,
    reverse: bool,
    total: np.ndarray,
) -> None:
    """Carry the vectors of one picture to an instant between the two, adding to `total`.

    Parameters
    ----------
    flow: float32 (h, w, 2), to the other picture.
    moved: float32 (h, w, 2), the displacement at the instant.
    trust: float32 (h, w), agreement of the two flows: is the point visible in the other picture?
    weight: nearness in time of this picture.
    reverse: the flow runs from B to A.
    total: float32 (h, w, 7), weighted sums of the field's channels, then the sum of weights.
    """
    height, width = trust.shape
    for y in range(height):
        for x in range(width):
            mx, my = moved[y, x, 0], moved[y, x, 1]
            px, py = x + mx, y + my
            if px <= -1 or py <= -1 or px >= width or py >= height:
                continue
            x0, y0 = math.floor(px), math.floor(py)
            fx, fy = px - x0, py - y0
            seen = trust[y, x]
            base = weight * (_FLOOR + seen)
            rx, ry = flow[y, x, 0] - mx, flow[y, x, 1] - my
            for corner in range(4):
                cx, cy = x0 + (corner & 1), y0 + (corner >> 1)
                if cx < 0 or cy < 0 or cx >= width or cy >= height:
                    continue
                w = base * (fx if corner & 1 else 1 - fx) * (fy if corner >> 1 else 1 - fy)
                total[cy, cx, 6] += w
                if reverse:
                    total[cy, cx, 0] += w * rx
                    total[cy, cx, 1] += w * ry
                    total[cy, cx, 2] -= w * mx
                    total[cy, cx, 3] -= w * my
                    total[cy, cx, 4] += w * seen
                    total[cy, cx, 5] += w
                else:
                    total[cy, cx, 0] -= w * mx
                    total[cy, cx, 1] -= w * my
                    total[cy, cx, 2] += w * rx
                    total[cy, cx, 3] += w * ry
                    total[cy, cx, 4] += w
                    total[cy, cx, 5] += w * seen


@njit(fastmath=FASTMATH)
def pool(total: np.ndarray, block: int) -> np.ndarray:
    """Sums over blocks of `block` x `block` points, divided by the size of a full block."""
    height, width, channels = total.shape
    rows, columns = -(-height // block), -(-width // block)
    out = np.zeros((rows, columns, channels), np.float32)
    for y in range(height):
        for x in range(width):
            for channel in range(channels):
                out[y // block, x // block, channel] += total[y, x, channel]
    return out / np.float32(block * block)


@njit(fastmath=FASTMATH)
def settle(total: np.ndarray, coarse: np.ndarray, block: int, share: float) -> np.ndarray:
    """Weighted means from sums: over a point's 3 x 3 neighbourhood and, with weight `share`, over the coarse blocks
    around it.
    """
    height, width, channels = total.shape
    rows, columns = coarse.shape[0], coarse.shape[1]
    out = np.empty((height, width, channels - 1), np.float32)
    value = np.empty(channels, np.float32)
    for y in range(height):
        gy = min(max((y + 0.5) / block - 0.5, 0.0), rows - 1.0)
        j0 = int(gy)
        j1 = min(j0 + 1, rows - 1)
        fy = np.float32(gy - j0)
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            gx = min(max((x + 0.5) / block - 0.5, 0.0), columns - 1.0)
            i0 = int(gx)
            i1 = min(i0 + 1, columns - 1)
            fx = np.float32(gx - i0)
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            for channel in range(channels):
                top = coarse[j0, i0, channel] + fx * (coarse[j0, i1, channel] - coarse[j0, i0, channel])
                low = coarse[j1, i0, channel] + fx * (coarse[j1, i1, channel] - coarse[j1, i0, channel])
                edge = total[above, x, channel] + total[below, x, channel]
                edge += total[y, left, channel] + total[y, right, channel]
                corner = total[above, left, channel] + total[above, right, channel]
                corner += total[below, left, channel] + total[below, right, channel]
                near = np.float32(0.25) * total[y, x, channel]
                near += np.float32(0.125) * edge + np.float32(0.0625) * corner
                value[channel] = near + np.float32(share) * (top + fy * (low - top))
            scale = np.float32(1) / max(value[channels - 1], np.float32(1e-12))
            for channel in range(channels - 1):
                out[y, x, channel] = value[channel] * scale
    return out

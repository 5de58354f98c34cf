"""Kernels of the transition blenders: consistency of two flows, their meeting at an instant, and the final picture.

The work is done on two rasters. On the *grid*, a reduced raster of the work box, flows are measured and carried to the
instant of the wanted frame; only the last step, `render`, touches the pixels of the two pictures. Grid kernels measure in
grid pixels.
"""

import math

import numpy as np
from numba import njit

from engine.kernels import FASTMATH

__all__ = ["N_CHANNELS", "agreement", "pool", "render", "settle", "splat"]

# Channels of the correspondence field of `splat`: where to read picture A, where to read picture B, seen by A, seen by B.
N_CHANNELS = 6
_FLOOR = 0.02  # weight of a vector that its counterpart contradicts: it still fills places that nothing else reaches


@njit(cache=True, fastmath=FASTMATH)
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


@njit(cache=True, fastmath=FASTMATH)
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
            # A vector that leaves the box has no counterpart to ask.
            outside = max(max(-px, px - (width - 1)), max(-py, py - (height - 1)))
            tolerance = slack_px + 0.05 * math.sqrt(u * u + v * v)
            error = (du * du + dv * dv) / (tolerance * tolerance)
            if outside > 0:
                error += (outside / slack_px) ** 2
            out[y, x] = math.exp(-0.5 * error)
    return out


@njit(cache=True, fastmath=FASTMATH)
def splat(
    flow: np.ndarray,
    moved: np.ndarray,
    trust: np.ndarray,
    front: np.ndarray,
    weight: float,
    reverse: bool,
    total: np.ndarray,
) -> None:
    """Carry the vectors of one picture to an instant between the two, adding to `total`.

    Parameters
    ----------
    flow: float32 (h, w, 2), to the other picture.
    moved: float32 (h, w, 2), the part of the way that is done at the instant.
    trust: float32 (h, w), agreement of the two flows: is the point seen in the other picture?
    front: float32 (h, w), at least 1: what lies in front wins over what lies behind.
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
            x0, y0 = int(math.floor(px)), int(math.floor(py))
            fx, fy = px - x0, py - y0
            seen = trust[y, x]
            base = weight * (_FLOOR + seen) * front[y, x]
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


@njit(cache=True, fastmath=FASTMATH)
def pool(total: np.ndarray, block: int) -> np.ndarray:
    """Means over blocks of `block` points a side, the last row and column of blocks over what is left of them."""
    height, width, channels = total.shape
    rows, columns = -(-height // block), -(-width // block)
    out = np.zeros((rows, columns, channels), np.float32)
    for y in range(height):
        for x in range(width):
            for channel in range(channels):
                out[y // block, x // block, channel] += total[y, x, channel]
    return out / np.float32(block * block)


@njit(cache=True, fastmath=FASTMATH)
def settle(total: np.ndarray, coarse: np.ndarray, block: int, share: float) -> np.ndarray:
    """Weighted means from sums: of a point's 3 x 3 neighbourhood and, by `share`, of its surroundings at `block` times the size."""
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


@njit(cache=True, fastmath=FASTMATH, inline="always")
def _cubic(f: float) -> tuple[float, float, float, float]:
    """Catmull-Rom weights of four neighbours; sharper than bilinear, and exact at whole pixels."""
    return (
        f * (-0.5 + f * (1.0 - 0.5 * f)),
        1.0 + f * f * (-2.5 + 1.5 * f),
        f * (0.5 + f * (2.0 - 1.5 * f)),
        f * f * (-0.5 + 0.5 * f),
    )


@njit(cache=True, fastmath=FASTMATH)
def _sample(image: np.ndarray, x: float, y: float, out: np.ndarray) -> None:
    height, width = image.shape[0], image.shape[1]
    x = min(max(x, 0.0), width - 1.0)
    y = min(max(y, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    fx, fy = x - x0, y - y0
    if fx == 0.0 and fy == 0.0:
        for channel in range(3):
            out[channel] = image[y0, x0, channel]
        return
    wx = _cubic(fx)
    wy = _cubic(fy)
    red = green = blue = 0.0
    if x0 >= 1 and y0 >= 1 and x0 < width - 2 and y0 < height - 2:
        for i in range(4):
            yi = y0 + i - 1
            r = g = b = 0.0
            for j in range(4):
                xj = x0 + j - 1
                r += wx[j] * image[yi, xj, 0]
                g += wx[j] * image[yi, xj, 1]
                b += wx[j] * image[yi, xj, 2]
            red += wy[i] * r
            green += wy[i] * g
            blue += wy[i] * b
    else:
        for i in range(4):
            yi = min(max(y0 + i - 1, 0), height - 1)
            for j in range(4):
                xj = min(max(x0 + j - 1, 0), width - 1)
                w = wx[j] * wy[i]
                red += w * image[yi, xj, 0]
                green += w * image[yi, xj, 1]
                blue += w * image[yi, xj, 2]
    out[0], out[1], out[2] = red, green, blue


@njit(cache=True, fastmath=FASTMATH)
def render(
    a: np.ndarray,
    b: np.ndarray,
    field: np.ndarray,
    box: tuple[int, int, int, int],
    soft_px: int,
    out: np.ndarray,
) -> None:
    """Write the morph of a and b into the box of `out`, which holds their cross-fade.

    `field` is float32 (h, w, 5) on the grid: offsets in picture pixels at which to read a and b, and the weight of b. The
    morph fades into what `out` holds over the last `soft_px` pixels of the box, except along the edges of the picture.
    """
    height, width = out.shape[0], out.shape[1]
    x_start, y_start, x_stop, y_stop = box
    grid_h, grid_w = field.shape[0], field.shape[1]
    step_x, step_y = grid_w / (x_stop - x_start), grid_h / (y_stop - y_start)
    value = np.empty(5, np.float32)
    colour_a = np.empty(3, np.float32)
    colour_b = np.empty(3, np.float32)
    for y in range(y_start, y_stop):
        gy = min(max((y - y_start + 0.5) * step_y - 0.5, 0.0), grid_h - 1.0)
        j0 = int(gy)
        j1 = min(j0 + 1, grid_h - 1)
        fy = np.float32(gy - j0)
        inside_y = soft_px
        if y_start > 0:
            inside_y = min(inside_y, y - y_start)
        if y_stop < height:
            inside_y = min(inside_y, y_stop - 1 - y)
        for x in range(x_start, x_stop):
            gx = min(max((x - x_start + 0.5) * step_x - 0.5, 0.0), grid_w - 1.0)
            i0 = int(gx)
            i1 = min(i0 + 1, grid_w - 1)
            fx = np.float32(gx - i0)
            for channel in range(5):
                top = field[j0, i0, channel] + fx * (field[j0, i1, channel] - field[j0, i0, channel])
                low = field[j1, i0, channel] + fx * (field[j1, i1, channel] - field[j1, i0, channel])
                value[channel] = top + fy * (low - top)
            weight = value[4]
            if weight < 0.996:
                _sample(a, x + value[0], y + value[1], colour_a)
            if weight > 0.004:
                _sample(b, x + value[2], y + value[3], colour_b)
            if weight >= 0.996:
                weight = np.float32(1)
            elif weight <= 0.004:
                weight = np.float32(0)
            inside = inside_y
            if x_start > 0:
                inside = min(inside, x - x_start)
            if x_stop < width:
                inside = min(inside, x_stop - 1 - x)
            share = np.float32(1) if inside >= soft_px else np.float32((inside + 0.5) / (soft_px + 0.5))
            for channel in range(3):
                if weight == 0:
                    mixed = colour_a[channel]
                elif weight == 1:
                    mixed = colour_b[channel]
                else:
                    mixed = colour_a[channel] + weight * (colour_b[channel] - colour_a[channel])
                if share < 1:
                    mixed = out[y, x, channel] + share * (mixed - out[y, x, channel])
                out[y, x, channel] = np.uint8(min(max(mixed + 0.5, 0.0), 255.0))


@njit(cache=True, fastmath=FASTMATH)
def skin(bones: np.ndarray, half_width: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rigid motion of bones spread over their surroundings.

    `bones` is float32 (n, 4, 2): both ends in A, both ends in B. Returns the flow, float32 (h, w, 2), and how much a point
    belongs to a bone, float32 (h, w) in 0..1.
    """
    flow = np.zeros((height, width, 2), np.float32)
    belongs = np.zeros((height, width), np.float32)
    n = len(bones)
    for y in range(height):
        for x in range(width):
            sum_w = sum_u = sum_v = best = np.float32(0)
            for i in range(n):
                ax, ay = bones[i, 1, 0] - bones[i, 0, 0], bones[i, 1, 1] - bones[i, 0, 1]
                bx, by = bones[i, 3, 0] - bones[i, 2, 0], bones[i, 3, 1] - bones[i, 2, 1]
                la, lb = max(math.sqrt(ax * ax + ay * ay), 1e-3), max(math.sqrt(bx * bx + by * by), 1e-3)
                dx, dy = x - bones[i, 0, 0], y - bones[i, 0, 1]
                along = (dx * ax + dy * ay) / la
                across = (dy * ax - dx * ay) / la
                past = max(max(-along, along - la), 0.0)
                w = math.exp(-0.5 * (past * past + across * across) / (half_width[i] * half_width[i]))
                if w < 0.01:
                    continue
                best = max(best, w)
                w = w * w * w
                # Foreshortened bones say nothing about their own direction.
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

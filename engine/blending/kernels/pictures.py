"""From a correspondence to the picture: which of the two pictures is shown where, and the morph itself."""

import math

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["render", "select"]

# Grey levels between which averaging turns into choosing, then into choosing abruptly, and the powers of the odds that
# this adds: a power of 5 leaves 25 % of the other picture in the two middle frames, one of 9 leaves 12 %. Small
# differences change gradually, because a quick change looks like a jump; large ones quickly, because any mixture looks
# like a ghost.
_LIKE, _UNLIKE, _FOREIGN = 16.0, 48.0, 96.0
_DECISION, _HASTE = 4.0, 4.0
_STILL_PX = 0.03
_FAR_PX = 16_384  # more than any offset


@njit(fastmath=FASTMATH)
def _smooth_step(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


@njit(fastmath=FASTMATH)
def select(field: np.ndarray, unlike: np.ndarray, seen: np.ndarray, time: float, scale: np.ndarray) -> np.ndarray:
    """Weight of B at every point, from its nearness in time and from the visibility in both pictures.

    Log odds of B are those of `time` plus `seen`. Where the two pictures look `unlike` (grey levels), the odds of time
    are raised to a power: a mixture of two different things looks like a ghost, so the picture nearer in time wins.

    Returns float32 (h, w, 5): offsets into A and into B times `scale` (x, y), and the weight.
    """
    height, width = unlike.shape
    out = np.empty((height, width, 5), np.float32)
    odds_of_time = math.log(time / (1 - time))
    for y in range(height):
        for x in range(width):
            power = 1.0
            power += _DECISION * _smooth_step((unlike[y, x] - _LIKE) / (_UNLIKE - _LIKE))
            power += _HASTE * _smooth_step((unlike[y, x] - _UNLIKE) / (_FOREIGN - _UNLIKE))
            odds = power * odds_of_time + seen[y, x]
            out[y, x, 0] = field[y, x, 0] * scale[0]
            out[y, x, 1] = field[y, x, 1] * scale[1]
            out[y, x, 2] = field[y, x, 2] * scale[0]
            out[y, x, 3] = field[y, x, 3] * scale[1]
            out[y, x, 4] = 1 / (1 + math.exp(-odds))
    return out


@njit(fastmath=FASTMATH)
def _cubic(f: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Catmull-Rom weights of four neighbours; sharper than bilinear, and exact at whole pixels."""
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    return (
        f * (f * (one - half * f) - half),
        one + f * f * (np.float32(1.5) * f - np.float32(2.5)),
        f * (half + f * (two - np.float32(1.5) * f)),
        f * f * (half * f - half),
    )


@njit(fastmath=FASTMATH)
def _dot(flat: np.ndarray, k: np.uint64, w: tuple[np.float32, ...]) -> np.float32:
    # With unsigned indices, Numba omits the check for negative ones.
    return (
        w[0] * np.float32(flat[k])
        + w[1] * np.float32(flat[k + np.uint64(3)])
        + w[2] * np.float32(flat[k + np.uint64(6)])
        + w[3] * np.float32(flat[k + np.uint64(9)])
    )


@njit(fastmath=FASTMATH)
def _near_border(
    flat: np.ndarray, height: int, width: int, x0: int, y0: int, fx: np.float32, fy: np.float32, channel: int
) -> np.float32:
    wx, wy = _cubic(fx), _cubic(fy)
    total = np.float32(0)
    for i in range(4):
        yi = min(max(y0 + i - 1, 0), height - 1)
        for j in range(4):
            xj = min(max(x0 + j - 1, 0), width - 1)
            total += wy[i] * wx[j] * np.float32(flat[(yi * width + xj) * 3 + channel])
    return total


@njit(fastmath=FASTMATH)
def _sample(
    flat: np.ndarray, height: int, width: int, x: int, dx: np.float32, y: int, dy: np.float32
) -> tuple[np.float32, np.float32, np.float32]:
    """Colour of a picture at (x + dx, y + dy), with replicated border; `flat` is uint8 (height * width * 3,)."""
    # Truncating a number that is certainly positive is the cheapest floor.
    whole_x, whole_y = int(dx + np.float32(_FAR_PX)) - _FAR_PX, int(dy + np.float32(_FAR_PX)) - _FAR_PX
    x0, y0 = x + whole_x, y + whole_y
    fx, fy = dx - np.float32(whole_x), dy - np.float32(whole_y)
    if x0 >= 1 and y0 >= 1 and x0 < width - 2 and y0 < height - 2:
        k1 = np.uint64((y0 * width + x0) * 3)
        if fx == 0 and fy == 0:
            return (
                np.float32(flat[k1]),
                np.float32(flat[k1 + np.uint64(1)]),
                np.float32(flat[k1 + np.uint64(2)]),
            )
        wx, wy = _cubic(fx), _cubic(fy)
        stride = np.uint64(width * 3)
        k1 -= np.uint64(3)
        k0, k2 = k1 - stride, k1 + stride
        k3 = k2 + stride
        one, two = np.uint64(1), np.uint64(2)
        return (
            wy[0] * _dot(flat, k0, wx)
            + wy[1] * _dot(flat, k1, wx)
            + wy[2] * _dot(flat, k2, wx)
            + wy[3] * _dot(flat, k3, wx),
            wy[0] * _dot(flat, k0 + one, wx)
            + wy[1] * _dot(flat, k1 + one, wx)
            + wy[2] * _dot(flat, k2 + one, wx)
            + wy[3] * _dot(flat, k3 + one, wx),
            wy[0] * _dot(flat, k0 + two, wx)
            + wy[1] * _dot(flat, k1 + two, wx)
            + wy[2] * _dot(flat, k2 + two, wx)
            + wy[3] * _dot(flat, k3 + two, wx),
        )
    return (
        _near_border(flat, height, width, x0, y0, fx, fy, 0),
        _near_border(flat, height, width, x0, y0, fx, fy, 1),
        _near_border(flat, height, width, x0, y0, fx, fy, 2),
    )


@njit(fastmath=FASTMATH)
def _byte(value: np.float32) -> np.uint8:
    return np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))


@njit(fastmath=FASTMATH)
def render(
    a: np.ndarray,
    b: np.ndarray,
    field: np.ndarray,
    box: tuple[int, int, int, int],
    soft_px: int,
    out: np.ndarray,
) -> None:
    """Write the morph of a and b into the box of `out`, which holds their crossfade.

    `field` is float32 (h, w, 5) on the grid: offsets in picture pixels at which to read a and b, and the weight of b.
    The morph fades into the content of `out` over the last `soft_px` pixels of the box, except along the edges of the
    picture. All pictures are uint8 (height, width, 3) and contiguous.
    """
    height, width = out.shape[0], out.shape[1]
    x_start, y_start, x_stop, y_stop = box
    grid_h, grid_w = field.shape[0], field.shape[1]
    step_x, step_y = grid_w / (x_stop - x_start), grid_h / (y_stop - y_start)
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    row = np.empty((grid_w, 5), np.float32)
    still, one, zero, last = np.float32(_STILL_PX), np.float32(1), np.float32(0), np.uint64(grid_w - 1)
    for y in range(y_start, y_stop):
        gy = min(max((y - y_start + 0.5) * step_y - 0.5, 0.0), grid_h - 1.0)
        j0 = int(gy)
        j1 = min(j0 + 1, grid_h - 1)
        fy = np.float32(gy - j0)
        for i in range(grid_w):
            for channel in range(5):
                row[i, channel] = field[j0, i, channel] + fy * (field[j1, i, channel] - field[j0, i, channel])
        inside_y = soft_px
        if y_start > 0:
            inside_y = min(inside_y, y - y_start)
        if y_stop < height:
            inside_y = min(inside_y, y_stop - 1 - y)
        for x in range(x_start, x_stop):
            gx = min(max((x - x_start + 0.5) * step_x - 0.5, 0.0), grid_w - 1.0)
            i0 = np.uint64(gx)
            i1 = min(i0 + np.uint64(1), last)
            fx = np.float32(gx - np.float64(i0))
            ax = row[i0, 0] + fx * (row[i1, 0] - row[i0, 0])
            ay = row[i0, 1] + fx * (row[i1, 1] - row[i0, 1])
            bx = row[i0, 2] + fx * (row[i1, 2] - row[i0, 2])
            by = row[i0, 3] + fx * (row[i1, 3] - row[i0, 3])
            weight = row[i0, 4] + fx * (row[i1, 4] - row[i0, 4])
            # Still pixels, most of a picture, are copied: sharper than any interpolation.
            if abs(ax) < still and abs(ay) < still:
                ax = ay = zero
            if abs(bx) < still and abs(by) < still:
                bx = by = zero
            if weight < np.float32(0.004):
                red, green, blue = _sample(flat_a, height, width, x, ax, y, ay)
            elif weight > np.float32(0.996):
                red, green, blue = _sample(flat_b, height, width, x, bx, y, by)
            else:
                red_a, green_a, blue_a = _sample(flat_a, height, width, x, ax, y, ay)
                red_b, green_b, blue_b = _sample(flat_b, height, width, x, bx, y, by)
                red = red_a + weight * (red_b - red_a)
                green = green_a + weight * (green_b - green_a)
                blue = blue_a + weight * (blue_b - blue_a)
            inside = inside_y
            if x_start > 0:
                inside = min(inside, x - x_start)
            if x_stop < width:
                inside = min(inside, x_stop - 1 - x)
            if inside < soft_px:
                kept = one - np.float32((inside + 0.5) / (soft_px + 0.5))
                red += kept * (np.float32(out[y, x, 0]) - red)
                green += kept * (np.float32(out[y, x, 1]) - green)
                blue += kept * (np.float32(out[y, x, 2]) - blue)
            out[y, x, 0] = _byte(red)
            out[y, x, 1] = _byte(green)
            out[y, x, 2] = _byte(blue)

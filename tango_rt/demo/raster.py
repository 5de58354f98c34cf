"""A small software renderer: tapered limbs with true depth, and flat paintings laid over each other.

Limbs are cones between two spheres ("rounded cones"), kept at twice the picture's resolution in a depth buffer and
shaded on the way down, so that fingers cover each other as real ones do. Paintings (head, clothes) are pasted through a
map that may shift every pixel by its own relief, which turns a flat face a little to the side.
"""

from typing import NamedTuple

import cv2
import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["CONE_FIELDS", "CUFF", "FINGER", "LIGHT", "NAIL", "SKIN", "SLEEVE", "Limbs", "Palette", "paste"]

SUBPIXELS = 2
# From the upper left front; x right, y down, z towards the viewer.
LIGHT = (-0.42, -0.58, 0.70)
# ax ay az ar bx by bz br: the two spheres; material; blend: depth within which skin melts into its neighbours; open:
# no cap at b; dx dy dz: on fingers towards the back of the hand; on an upper sleeve (dx, dy) is the side that fades
# into the jacket, divided by the radius.
CONE_FIELDS = 14
SLEEVE, CUFF, SKIN, FINGER, NAIL = range(5)
_AWAY, FAR = np.float32(-1e6), np.float32(1e9)


class Palette(NamedTuple):
    """colours: of the five materials under light 0..255, float32 (5, 256, 3); folds: of sleeves, float32 (64, 64)."""

    colours: np.ndarray
    folds: np.ndarray


class Limbs:
    """Draws limbs onto pictures of one size; keeps the depth buffer between them."""

    def __init__(self, height: int, width: int, palette: Palette) -> None:
        shape = (height * SUBPIXELS, width * SUBPIXELS)
        self._palette = palette
        self._depth = np.full(shape, _AWAY, np.float32)
        self._owner = np.full(shape, -1, np.int16)
        self._normal = np.zeros((*shape, 3), np.float32)

    def draw(self, picture: np.ndarray, cones: np.ndarray) -> None:
        """Draw cones, float32 (n, CONE_FIELDS) in pixels, onto a picture, uint8 (H, W, 3), which is changed."""
        if cones.dtype != np.float32 or cones.ndim != 2 or cones.shape[1] != CONE_FIELDS:
            raise ValueError(f"cones: got {cones.dtype} {cones.shape}, want float32 (n, {CONE_FIELDS})")
        height, width = picture.shape[:2]
        reach = np.maximum(cones[:, 3], cones[:, 7])[:, None, None] + 2
        ends = cones[:, [0, 1, 4, 5]].reshape(-1, 2, 2)
        x0, y0 = np.clip(np.floor((ends - reach).min(axis=(0, 1))).astype(int), 0, [width, height])
        x1, y1 = np.clip(np.ceil((ends + reach).max(axis=(0, 1))).astype(int), 0, [width, height])
        axes = _axes(cones)
        buffers = self._depth, self._owner, self._normal
        _rasterise(cones, axes, *buffers)
        _resolve(picture, x0, y0, x1, y1, cones, axes, *self._palette, *buffers)


def paste(
    picture: np.ndarray,
    painting: np.ndarray,
    inverse: np.ndarray,
    shadow: np.ndarray,
    relief: np.ndarray | None = None,
    turn: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Lay a painting over a picture.

    picture: uint8 (H, W, 3), changed. painting: uint8 (h, w, 4), colours multiplied by alpha.
    inverse: float64 (2, 3), picture (x, y, 1) -> painting (x, y).
    shadow: uint8 (H, W), darkness thrown onto the painting; 0 means none.
    relief: float32 (h, w), nearness to the viewer; a pixel of relief r is looked up at (x, y) - turn * r.
    """
    height, width = picture.shape[:2]
    h, w = painting.shape[:2]
    forward = cv2.invertAffineTransform(inverse)
    corners = forward @ np.array([[0, w, w, 0], [0, 0, h, h], [1, 1, 1, 1]])
    x0, y0 = np.clip(np.floor(corners.min(axis=1)).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(corners.max(axis=1)).astype(int) + 1, 0, [width, height])
    local = inverse.copy()
    local[:, 2] += inverse[:, :2] @ [x0, y0]
    size = (int(x1 - x0), int(y1 - y0))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if relief is None:
        _blend(picture, cv2.warpAffine(painting, local, size, flags=flags), int(x0), int(y0), shadow)
        return
    near = cv2.warpAffine(relief, local, size, flags=flags)
    x = np.arange(size[0], dtype=np.float32)
    y = np.arange(size[1], dtype=np.float32)[:, None]
    (a, b, c), (d, e, f) = local.astype(np.float32)
    map_x = a * x + (b * y + c) - np.float32(turn[0]) * near
    map_y = d * x + (e * y + f) - np.float32(turn[1]) * near
    _blend(picture, cv2.remap(painting, map_x, map_y, cv2.INTER_LINEAR), int(x0), int(y0), shadow)


@njit(fastmath=FASTMATH)
def _blend(picture, layer, x0, y0, shadow):  # type: ignore[no-untyped-def]
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            rest = np.uint32(255) - layer[y, x, 3]
            if rest == 255:
                continue
            light = np.uint32(256) - shadow[y0 + y, x0 + x]
            for c in range(3):
                below = picture[y0 + y, x0 + x, c] * rest
                picture[y0 + y, x0 + x, c] = np.uint8((layer[y, x, c] * light + below + 128) >> 8)


def _axes(cones: np.ndarray) -> np.ndarray:
    """What every look at a cone needs, float32 (n, 4): a, b, c of the place t = a sqrt(k) + b c1 + c, and 1 / length.

    The nearest point of a rounded cone under a pixel maximises z(t) + sqrt(g(t)) over its axis, where the quadratic
    g(t) = c0 + 2 c1 t + c2 t^2 is the squared lift above the axis, and k = c1^2 - c0 c2. That is concave, so the free
    optimum clamped to [0, 1] is exact. A cone seen from its end (c2 >= 0) is drawn as the nearer of its spheres.
    """
    dx, dy, dz, dr = (cones[:, 4:8] - cones[:, 0:4]).astype(np.float64).T
    c2 = dr * dr - dx * dx - dy * dy
    is_sidelong = c2 < -1e-3
    c2 = np.where(is_sidelong, c2, -1.0)
    a = np.where(is_sidelong, -dz / (np.sqrt(dz * dz - c2) * c2), 0.0)
    b = np.where(is_sidelong, -1 / c2, 0.0)
    c = np.where(~is_sidelong & (dz > 0), 1.0, 0.0)
    return np.stack([a, b, c, 1 / np.sqrt(dx * dx + dy * dy + 1)], axis=1).astype(np.float32)


@njit(fastmath=FASTMATH)
def _nearest(qx, qy, ar, dx, dy, dr, a, b, c, end):  # type: ignore[no-untyped-def]
    """Place on the axis and squared lift above it; negative where the pixel misses the cone or looks past its end."""
    miss, one = np.float32(-1), np.float32(1)
    c0 = ar * ar - qx * qx - qy * qy
    c1 = ar * dr + qx * dx + qy * dy
    c2 = dr * dr - dx * dx - dy * dy
    k = c1 * c1 - c0 * c2
    if k <= 0:
        if b != 0:
            return miss, miss
        k = -k
    t = a * np.sqrt(k) + b * c1 + c
    if t > one:
        if t > end:
            return miss, miss
        t = one
    elif t < 0:
        t = one - one
    return t, c0 + t * (c1 + c1 + c2 * t)


@njit(fastmath=FASTMATH)
def _rasterise(cones, axes, depth, owner, normal):  # type: ignore[no-untyped-def]
    height, width = depth.shape[0] // SUBPIXELS, depth.shape[1] // SUBPIXELS
    zero, half, one, pitch = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1 / SUBPIXELS)
    for n in range(cones.shape[0]):
        ax, ay, az, ar = cones[n, 0], cones[n, 1], cones[n, 2], cones[n, 3]
        dx, dy, dz, dr = cones[n, 4] - ax, cones[n, 5] - ay, cones[n, 6] - az, cones[n, 7] - ar
        a, b, c = axes[n, 0], axes[n, 1], axes[n, 2]
        blend = cones[n, 9]
        is_cloth = cones[n, 8] < SKIN
        end = one if cones[n, 10] > 0 else FAR
        reach = max(ar, ar + dr) + np.float32(1.5)
        y0 = max(0, int(min(ay, ay + dy) - reach))
        y1 = min(height, int(max(ay, ay + dy) + reach) + 1)
        for y in range(y0, y1):
            left, right = min(ax, ax + dx) - reach, max(ax, ax + dx) + reach
            if abs(dy) > 1:
                # Only the strip along the axis: the box of a slanting limb is mostly air.
                middle = ax + (np.float32(y) + half - ay) * dx / dy
                strip = reach * np.sqrt(dx * dx + dy * dy) / abs(dy) + 1
                left, right = max(left, middle - strip), min(right, middle + strip)
            for x in range(max(0, int(left)), min(width, int(right) + 1)):
                t = g = zero
                is_inside = False
                if is_cloth:
                    # Well inside a sleeve one look serves all four subpixels.
                    t, g = _nearest(np.float32(x) + half - ax, np.float32(y) + half - ay, ar, dx, dy, dr, a, b, c, end)
                    is_inside = t < np.float32(0.97) and g > np.float32(0.1) * ar * ar
                for sub in range(SUBPIXELS * SUBPIXELS):
                    sy, sx = y * SUBPIXELS + sub // SUBPIXELS, x * SUBPIXELS + sub % SUBPIXELS
                    qx, qy = (np.float32(sx) + half) * pitch - ax, (np.float32(sy) + half) * pitch - ay
                    if not is_inside:
                        t, g = _nearest(qx, qy, ar, dx, dy, dr, a, b, c, end)
                        if g <= 0:
                            continue
                    lift = np.sqrt(g)
                    z = az + t * dz + lift
                    old = depth[sy, sx]
                    if z < old - blend:
                        continue
                    if is_cloth:
                        depth[sy, sx] = z
                        owner[sy, sx] = n
                        continue
                    mix = one
                    if z < old + blend and cones[owner[sy, sx], 8] >= SKIN:
                        mix = half + half * (z - old) / blend
                        z = old + (z - old) * mix + blend * mix * (one - mix)
                    keep, shrink = one - mix, mix / (ar + t * dr)
                    normal[sy, sx, 0] = normal[sy, sx, 0] * keep + (qx - t * dx) * shrink
                    normal[sy, sx, 1] = normal[sy, sx, 1] * keep + (qy - t * dy) * shrink
                    normal[sy, sx, 2] = normal[sy, sx, 2] * keep + lift * shrink
                    depth[sy, sx] = z
                    if mix > half:
                        owner[sy, sx] = n


@njit(fastmath=FASTMATH)
def _lit(nx, ny, nz, tone):  # type: ignore[no-untyped-def]
    """Index 0..255 into a material's colours; rims seen at a glancing angle are darker."""
    light = nx * np.float32(LIGHT[0]) + ny * np.float32(LIGHT[1]) + nz * np.float32(LIGHT[2])
    edge = np.float32(1) - nz
    level = (light * np.float32(0.5) + np.float32(0.5)) * tone - np.float32(0.22) * edge * edge * edge
    return min(255, max(0, np.int32(level * np.float32(255))))


@njit(fastmath=FASTMATH)
def _unseamed(seam, t):  # type: ignore[no-untyped-def]
    """Opacity of an upper sleeve: its shoulder fades into the jacket on the side of the seam."""
    fade = min(np.float32(1), max(np.float32(0), seam * np.float32(1.25) + np.float32(0.4375)))
    return np.float32(1) - fade * min(np.float32(1), max(np.float32(0), np.float32(2.3) - t * np.float32(6.5)))


@njit(fastmath=FASTMATH)
def _resolve(picture, x0, y0, x1, y1, cones, axes, colours, folds, depth, owner, normal):  # type: ignore[no-untyped-def]
    """Shade and average the subpixels onto the picture, and empty the buffers."""
    # One flat loop on scalars: handing arrays to a function costs more here than all the shading.
    zero, half, one, pitch = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1 / SUBPIXELS)
    height, width = depth.shape
    for y in range(y0, y1):
        for x in range(x0, x1):
            sy, sx = y * SUBPIXELS, x * SUBPIXELS
            first = owner[sy, sx]
            is_plain = first == owner[sy + 1, sx + 1] == owner[sy, sx + 1] == owner[sy + 1, sx]
            if is_plain and first < 0:
                continue
            share = one if is_plain else pitch * pitch
            red = green = blue = covered = zero
            for sub in range(1 if is_plain else SUBPIXELS * SUBPIXELS):
                yy, xx = sy + sub // SUBPIXELS, sx + sub % SUBPIXELS
                n = owner[yy, xx]
                if n < 0:
                    continue
                # Something nearer close by takes light away: the line between fingers, the shade under a hand.
                here = depth[yy, xx] + np.float32(4)
                taken = max(zero, depth[max(0, yy - 3), xx] - here)
                taken += max(zero, depth[min(height - 1, yy + 3), xx] - here)
                taken += max(zero, depth[yy, max(0, xx - 3)] - here)
                taken += max(zero, depth[yy, min(width - 1, xx + 3)] - here)
                tone = one - np.float32(0.015) * min(taken, np.float32(16))
                kind = int(cones[n, 8])
                opacity = share
                if kind != SKIN:
                    ax, ay, ar = cones[n, 0], cones[n, 1], cones[n, 3]
                    dx, dy, dr = cones[n, 4] - ax, cones[n, 5] - ay, cones[n, 7] - ar
                    qx, qy = (np.float32(xx) + half) * pitch - ax, (np.float32(yy) + half) * pitch - ay
                    t, g = _nearest(qx, qy, ar, dx, dy, dr, axes[n, 0], axes[n, 1], axes[n, 2], FAR)
                if kind < SKIN:
                    shrink = one / (ar + t * dr)
                    nx, ny, nz = (qx - t * dx) * shrink, (qy - t * dy) * shrink, np.sqrt(max(g, zero)) * shrink
                    if cones[n, 11] != 0:
                        opacity *= _unseamed(qx * cones[n, 11] + qy * cones[n, 12], t)
                    across = (qx * dy - qy * dx) * shrink * axes[n, 3]
                    tone *= folds[np.int32(t * np.float32(63)), np.int32(across * np.float32(31) + np.float32(31.5))]
                else:
                    nx, ny, nz = normal[yy, xx, 0], normal[yy, xx, 1], normal[yy, xx, 2]
                    size = one / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-9))
                    nx, ny, nz = nx * size, ny * size, nz * size
                    if kind == FINGER and t > np.float32(0.3) and t < np.float32(0.95):
                        on_back = nx * cones[n, 11] + ny * cones[n, 12] + nz * cones[n, 13]
                        if on_back > np.float32(0.8):
                            kind = NAIL
                level = _lit(nx, ny, nz, tone)
                red += colours[kind, level, 0] * opacity
                green += colours[kind, level, 1] * opacity
                blue += colours[kind, level, 2] * opacity
                covered += opacity
            below = one - covered
            picture[y, x, 0] = np.uint8(picture[y, x, 0] * below + red + half)
            picture[y, x, 1] = np.uint8(picture[y, x, 1] * below + green + half)
            picture[y, x, 2] = np.uint8(picture[y, x, 2] * below + blue + half)
    depth[y0 * SUBPIXELS : y1 * SUBPIXELS, x0 * SUBPIXELS : x1 * SUBPIXELS] = _AWAY
    owner[y0 * SUBPIXELS : y1 * SUBPIXELS, x0 * SUBPIXELS : x1 * SUBPIXELS] = -1

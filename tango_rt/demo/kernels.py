"""Numba kernels of the software renderer: which limb is nearest, how it is lit, and paintings; they check nothing."""

from typing import Any, NamedTuple

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = [
    "AWAY",
    "CUFF",
    "FINGER",
    "LIGHT",
    "NAIL",
    "SKIN",
    "SLEEVE",
    "SUBPIXELS",
    "Box",
    "Buffers",
    "Palette",
    "blend",
    "rasterise",
    "resolve",
]

SUBPIXELS = 2
# From the upper left front; x right, y down, z towards the viewer.
LIGHT = (-0.42, -0.58, 0.70)
SLEEVE, CUFF, SKIN, FINGER, NAIL = range(5)
AWAY, FAR = np.float32(-1e6), np.float32(1e9)


class Palette(NamedTuple):
    """colours: of the five materials under light 0..255, float32 (5, 256, 3); folds: of sleeves, float32 (64, 64)."""

    colours: np.ndarray
    folds: np.ndarray


class Buffers(NamedTuple):
    """What is nearest in each subpixel: depth float32 (h, w), owner int16 (h, w), the cone or -1, and normal float32
    (h, w, 3)."""

    depth: np.ndarray
    owner: np.ndarray
    normal: np.ndarray


class Box(NamedTuple):
    """Pixels x0 .. x1 - 1 and y0 .. y1 - 1."""

    x0: int
    y0: int
    x1: int
    y1: int


@njit(fastmath=FASTMATH)
def blend(picture: np.ndarray, layer: np.ndarray, x0: int, y0: int, shadow: np.ndarray) -> None:
    """Lay a painting, uint8 (h, w, 4), over the picture at (x0, y0), darker where there is shadow, uint8 (H, W)."""
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            rest = np.uint32(255) - layer[y, x, 3]
            if rest == 255:
                continue
            light = np.uint32(256) - shadow[y0 + y, x0 + x]
            for c in range(3):
                below = picture[y0 + y, x0 + x, c] * rest
                picture[y0 + y, x0 + x, c] = np.uint8((layer[y, x, c] * light + below + 128) >> 8)


@njit(fastmath=FASTMATH)
def _nearest(
    qx: np.float32,
    qy: np.float32,
    ar: np.float32,
    dx: np.float32,
    dy: np.float32,
    dr: np.float32,
    a: np.float32,
    b: np.float32,
    c: np.float32,
    end: np.float32,
) -> tuple[np.float32, np.float32]:
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
def rasterise(cones: np.ndarray, axes: np.ndarray, buffers: Buffers) -> None:
    """Write the nearest of the cones into the subpixels; axes as raster.Limbs makes them."""
    depth, owner, normal = buffers.depth, buffers.owner, buffers.normal
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
def _lit(nx: np.float32, ny: np.float32, nz: np.float32, tone: np.float32) -> Any:
    """Index 0..255 into a material's colours; rims seen at a glancing angle are darker."""
    light = nx * np.float32(LIGHT[0]) + ny * np.float32(LIGHT[1]) + nz * np.float32(LIGHT[2])
    edge = np.float32(1) - nz
    level = (light * np.float32(0.5) + np.float32(0.5)) * tone - np.float32(0.22) * edge * edge * edge
    return min(255, max(0, np.int32(level * np.float32(255))))


@njit(fastmath=FASTMATH)
def _unseamed(seam: np.float32, t: np.float32) -> np.float32:
    """Opacity of an upper sleeve: its shoulder fades into the jacket on the side of the seam."""
    fade = min(np.float32(1), max(np.float32(0), seam * np.float32(1.25) + np.float32(0.4375)))
    return np.float32(1) - fade * min(np.float32(1), max(np.float32(0), np.float32(2.3) - t * np.float32(6.5)))


@njit(fastmath=FASTMATH)
def resolve(
    picture: np.ndarray, box: Box, cones: np.ndarray, axes: np.ndarray, palette: Palette, buffers: Buffers
) -> None:
    """Shade and average the subpixels of a box onto the picture, and empty the buffers there."""
    x0, y0, x1, y1 = box.x0, box.y0, box.x1, box.y1
    colours, folds = palette.colours, palette.folds
    depth, owner, normal = buffers.depth, buffers.owner, buffers.normal
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
    depth[y0 * SUBPIXELS : y1 * SUBPIXELS, x0 * SUBPIXELS : x1 * SUBPIXELS] = AWAY
    owner[y0 * SUBPIXELS : y1 * SUBPIXELS, x0 * SUBPIXELS : x1 * SUBPIXELS] = -1

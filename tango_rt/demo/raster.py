"""A small software renderer: tapered limbs with real depth, and layers of flat paintings.

Limbs are cones between two spheres ("rounded cones"), drawn at twice the picture's resolution with a depth buffer and
shaded when downsampled, so that fingers occlude each other like real ones. Paintings (head, clothes) are pasted through
a map that may shift every pixel by its own relief, which turns a flat face a little to the side.
"""

import cv2
import numpy as np

from tango_rt.demo.kernels import (
    AWAY,
    CUFF,
    FINGER,
    LIGHT,
    NAIL,
    SKIN,
    SLEEVE,
    SUBPIXELS,
    Box,
    Buffers,
    Palette,
    blend,
    rasterise,
    resolve,
)

__all__ = ["CONE_FIELDS", "CUFF", "FINGER", "LIGHT", "NAIL", "SKIN", "SLEEVE", "Limbs", "Palette", "paste"]

# ax ay az ar bx by bz br: the two spheres; material; blend: depth within which skin melts into its neighbours; open:
# no cap at b; dx dy dz: on fingers towards the back of the hand; on an upper sleeve (dx, dy) is the side that fades
# into the jacket, divided by the radius.
CONE_FIELDS = 14


class Limbs:
    """Draws limbs onto pictures of one size; reuses the depth buffer."""

    def __init__(self, height: int, width: int, palette: Palette) -> None:
        shape = (height * SUBPIXELS, width * SUBPIXELS)
        self._palette = palette
        self._buffers = Buffers(
            depth=np.full(shape, AWAY, np.float32),
            owner=np.full(shape, -1, np.int16),
            normal=np.zeros((*shape, 3), np.float32),
        )

    def draw(self, picture: np.ndarray, cones: np.ndarray) -> None:
        """Draw cones, float32 (n, CONE_FIELDS) in pixels, onto a picture, uint8 (H, W, 3), in place."""
        if cones.dtype != np.float32 or cones.ndim != 2 or cones.shape[1] != CONE_FIELDS:
            raise ValueError(f"cones: found {cones.dtype} {cones.shape}, wanted float32 (n, {CONE_FIELDS})")
        height, width = picture.shape[:2]
        reach = np.maximum(cones[:, 3], cones[:, 7])[:, None, None] + 2
        ends = cones[:, [0, 1, 4, 5]].reshape(-1, 2, 2)
        x0, y0 = np.clip(np.floor((ends - reach).min(axis=(0, 1))).astype(int), 0, [width, height])
        x1, y1 = np.clip(np.ceil((ends + reach).max(axis=(0, 1))).astype(int), 0, [width, height])
        axes = _axes(cones)
        rasterise(cones, axes, self._buffers)
        resolve(picture, Box(int(x0), int(y0), int(x1), int(y1)), cones, axes, self._palette, self._buffers)


def paste(
    picture: np.ndarray,
    painting: np.ndarray,
    inverse: np.ndarray,
    shadow: np.ndarray,
    relief: np.ndarray | None = None,
    turn: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Blend a painting over a picture.

    picture: uint8 (H, W, 3), changed in place. painting: uint8 (h, w, 4), colours multiplied by alpha.
    inverse: float64 (2, 3), picture (x, y, 1) -> painting (x, y).
    shadow: uint8 (H, W), darkness on the painting; 0 means none.
    relief: float32 (h, w), nearness to the viewer; a pixel of relief r is sampled at (x, y) - turn * r.
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
        blend(picture, cv2.warpAffine(painting, local, size, flags=flags), int(x0), int(y0), shadow)
        return
    near = cv2.warpAffine(relief, local, size, flags=flags)
    x = np.arange(size[0], dtype=np.float32)
    y = np.arange(size[1], dtype=np.float32)[:, None]
    (a, b, c), (d, e, f) = local.astype(np.float32)
    map_x = a * x + (b * y + c) - np.float32(turn[0]) * near
    map_y = d * x + (e * y + f) - np.float32(turn[1]) * near
    blend(picture, cv2.remap(painting, map_x, map_y, cv2.INTER_LINEAR), int(x0), int(y0), shadow)


def _axes(cones: np.ndarray) -> np.ndarray:
    """Constants per cone, float32 (n, 4): a, b, c of the position t = a sqrt(k) + b c1 + c, and 1 / length.

    The nearest point of a rounded cone under a pixel maximises z(t) + sqrt(g(t)) over its axis, where the quadratic
    g(t) = c0 + 2 c1 t + c2 t^2 is the squared height above the axis, and k = c1^2 - c0 c2. That is concave, so the free
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

"""Brushes: smooth outlines, soft masks, and shading that makes flat shapes look round. Used before the first frame."""

import cv2
import numpy as np

from tango_rt.demo.raster import LIGHT

__all__ = ["Canvas", "points", "ramp", "rgb", "spline"]


def rgb(code: str) -> np.ndarray:
    """'aabbcc' -> float32 (3,)."""
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32)


def points(text: str) -> np.ndarray:
    """'x,y x,y ...' -> float64 (n, 2)."""
    return np.array([pair.split(",") for pair in text.split()], np.float64)


def spline(p: np.ndarray, closed: bool = True, steps: int = 12) -> np.ndarray:
    """Catmull-Rom curve through points (n, 2), float64 (n * steps, 2)."""
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


class Canvas:
    """A float painting with transparency, addressed in units.

    low, high: corners in units; scale: pixels per unit. `colour` is float32 (h, w, 3), multiplied by `alpha` (h, w).
    """

    def __init__(self, low: tuple[float, float], high: tuple[float, float], scale: float) -> None:
        self.low, self.scale = np.array(low, np.float64), scale
        width, height = (round((b - a) * scale) for a, b in zip(low, high, strict=True))
        self.colour = np.zeros((height, width, 3), np.float32)
        self.alpha = np.zeros((height, width), np.float32)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        self.x, self.y = (x + 0.5) / scale + low[0], (y + 0.5) / scale + low[1]

    def shape(self, outline: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Mask 0..1 of a closed outline (n, 2), float32 (h, w); blur in units."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        cv2.fillPoly(mask, [self._pixels(outline)], 255, cv2.LINE_AA, 4)
        return self.soften(mask.astype(np.float32) / 255, blur)

    def line(self, curve: np.ndarray, width: float, blur: float = 0.0) -> np.ndarray:
        """Mask 0..1 of a stroke along an open curve (n, 2); width and blur in units."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        thickness = max(1, round(width * self.scale))
        cv2.polylines(mask, [self._pixels(curve)], False, 255, thickness, cv2.LINE_AA, 4)
        return self.soften(mask.astype(np.float32) / 255, blur)

    def soften(self, mask: np.ndarray, blur: float) -> np.ndarray:
        """Gaussian blur with a standard deviation in units."""
        return cv2.GaussianBlur(mask, (0, 0), blur * self.scale) if blur > 0 else mask

    def spot(self, centre: tuple[float, float], radius: tuple[float, float]) -> np.ndarray:
        """Soft round mask: exp(-d^2) around a centre, radii in units."""
        return np.exp(-(((self.x - centre[0]) / radius[0]) ** 2) - ((self.y - centre[1]) / radius[1]) ** 2)

    def rounded(self, mask: np.ndarray, radius: float, extra: np.ndarray | float = 0.0) -> np.ndarray:
        """Light 0..1 on a shape with an edge rounded by `radius` units, plus an extra height in units."""
        inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / self.scale
        rest = 1 - np.minimum(inside / radius, 1)
        height = self.soften(radius * np.sqrt(1 - rest * rest), radius * 0.16) + np.float32(extra)
        slope_y, slope_x = np.gradient(height, 1 / self.scale)
        dot = -slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]
        return 0.5 + 0.5 * dot / np.sqrt(slope_x**2 + slope_y**2 + 1)

    def lay(self, mask: np.ndarray, colour: np.ndarray) -> None:
        """Paint a colour, float32 (3,) or (h, w, 3), through a mask."""
        m = mask[..., None]
        self.colour += (colour - self.colour) * m
        self.alpha += (1 - self.alpha) * mask

    def tint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        """Multiply what is there by colour / 255 through a mask; bare canvas stays bare."""
        self.colour *= 1 + (colour / 255 - 1) * mask[..., None]

    def finished(self, scale: float) -> np.ndarray:
        """The painting as uint8 (h, w, 4) at another scale (pixels per unit), colours multiplied by alpha."""
        size = [round(n * scale / self.scale) for n in (self.alpha.shape[1], self.alpha.shape[0])]
        whole = np.dstack([self.colour, self.alpha * 255])
        return np.clip(cv2.resize(whole, size, interpolation=cv2.INTER_AREA) + 0.5, 0, 255).astype(np.uint8)

    def _pixels(self, curve: np.ndarray) -> np.ndarray:
        return np.round(((curve - self.low) * self.scale - 0.5) * 16).astype(np.int32)


def ramp(light: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Light (h, w) -> colour (h, w, 3) through three stops (3, 3): at 0, 0.6 and 1, like the shading of limbs."""
    grid = np.array([0.0, 0.6, 1.0])
    return np.stack([np.interp(light, grid, stops[:, c]) for c in range(3)], axis=-1).astype(np.float32)

"""The kernels of engine.blending.kernels written the obvious way: one point after the other, in float64."""

import math
from collections.abc import Callable

import numpy as np

__all__ = ["agreement", "linear", "mix", "render", "select", "settle", "skin", "splat"]


def bilinear(field: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = field.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    top = field[y0, x0] * (1 - (x - x0)) + field[y0, x1] * (x - x0)
    low = field[y1, x0] * (1 - (x - x0)) + field[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + low * (y - y0)


def agreement(forward: np.ndarray, backward: np.ndarray, slack: float) -> np.ndarray:
    height, width = forward.shape[:2]
    out = np.empty((height, width))
    for y, x in np.ndindex(height, width):
        way = forward[y, x].astype(float)
        px, py = x + way[0], y + way[1]
        rest = np.linalg.norm(way + bilinear(backward, px, py)) / (slack + 0.05 * np.linalg.norm(way))
        outside = max(-px, px - width + 1, -py, py - height + 1, 0)
        out[y, x] = np.exp(-(rest**2 + (outside / slack) ** 2) / 2)
    return out


def splat(flow: np.ndarray, moved: np.ndarray, trust: np.ndarray, weight: float, reverse: bool) -> np.ndarray:
    height, width = trust.shape
    total = np.zeros((height, width, 7))
    for y, x in np.ndindex(height, width):
        done, rest = moved[y, x].astype(float), (flow[y, x] - moved[y, x]).astype(float)
        seen = float(trust[y, x])
        here, there = [*-done, *rest, 1, seen, 1], [*rest, *-done, seen, 1, 1]
        for cy, cx in np.ndindex(height, width):
            tent = max(0, 1 - abs(cx - x - done[0])) * max(0, 1 - abs(cy - y - done[1]))
            total[cy, cx] += tent * weight * (0.02 + seen) * np.array(there if reverse else here)
    return total


def settle(total: np.ndarray, coarse: np.ndarray, block: int, share: float) -> np.ndarray:
    height, width, channels = total.shape
    padded = np.pad(total.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    out = np.empty((height, width, channels - 1))
    for y, x in np.ndindex(height, width):
        near = (padded[y : y + 3, x : x + 3] * kernel[..., None]).sum(axis=(0, 1))
        far = bilinear(coarse.astype(float), (x + 0.5) / block - 0.5, (y + 0.5) / block - 0.5)
        value = near + share * far
        out[y, x] = value[:-1] / max(value[-1], 1e-12)
    return out


def select(unlike: np.ndarray, seen: np.ndarray, time: float) -> np.ndarray:
    soft, quick = np.clip((unlike - 16) / 32, 0, 1), np.clip((unlike - 48) / 48, 0, 1)
    power = 1 + 4 * soft**2 * (3 - 2 * soft) + 4 * quick**2 * (3 - 2 * quick)
    odds_of_b = (time / (1 - time)) ** power * np.exp(seen)
    return odds_of_b / (1 + odds_of_b)


def mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    out = np.empty(a.shape)
    for y, x in np.ndindex(a.shape):
        out[y, x] = math.floor((1 - weight[y, x]) * float(a[y, x]) + weight[y, x] * float(b[y, x]) + 0.5)
    return out


def cubic(f: float) -> np.ndarray:
    """Weights of four neighbours: the cubic convolution kernel with a = -3/4 at distances f + 1, f, 1 - f, 2 - f."""

    def kernel(d: float) -> float:
        d = abs(d)
        if d <= 1:
            return 1.25 * d**3 - 2.25 * d**2 + 1
        return -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3 if d < 2 else 0.0

    return np.array([kernel(f + 1), kernel(f), kernel(1 - f), kernel(2 - f)])


def linear(f: float) -> np.ndarray:
    return np.array([0, 1 - f, f, 0])


def sample(plane: np.ndarray, x: float, y: float, weights: Callable[[float], np.ndarray]) -> float:
    """At the nearest 1/32 of a pixel; what is beyond the border looks like the border."""
    height, width = plane.shape
    x, y = round(x * 32) / 32, round(y * 32) / 32
    x0, y0 = math.floor(x), math.floor(y)
    columns = np.clip(np.arange(x0 - 1, x0 + 3), 0, width - 1)
    rows = np.clip(np.arange(y0 - 1, y0 + 3), 0, height - 1)
    around = plane[np.ix_(rows, columns)].astype(float)
    return float(np.clip(weights(y - y0) @ around @ weights(x - x0), 0, 255))


def render(
    a: np.ndarray,
    b: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    box: tuple[int, int, int, int],
    under: np.ndarray,
    weights: Callable[[float], np.ndarray] = cubic,
) -> np.ndarray:
    """One plane. `offsets` (h, w, 4) into a and b, and `weight`, are of a raster over the box; in pixels."""
    x0, y0, x1, y1 = box
    height, width = weight.shape
    out = under.astype(float)
    for y in range(y0, y1):
        for x in range(x0, x1):
            at = (x - x0 + 0.5) * width / (x1 - x0) - 0.5, (y - y0 + 0.5) * height / (y1 - y0) - 0.5
            ax, ay, bx, by = bilinear(offsets.astype(float), *at)
            share = bilinear(weight[..., None].astype(float), *at)[0]
            one, other = sample(a, x + ax, y + ay, weights), sample(b, x + bx, y + by, weights)
            out[y, x] = (1 - share) * one + share * other
    return out


def skin(bones: np.ndarray, half_width: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    flow, belongs = np.zeros((height, width, 2)), np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        weights, ways = [], []
        for (p0, p1, q0, q1), half in zip(bones.astype(float), half_width, strict=True):
            point = np.array([x, y]) - p0
            length_p, length_q = np.linalg.norm(p1 - p0), np.linalg.norm(q1 - q0)
            e, f = (p1 - p0) / length_p, (q1 - q0) / length_q
            along, across = point @ e, point @ [-e[1], e[0]]
            distance = math.hypot(max(-along, along - length_p, 0), across)
            weight = math.exp(-0.5 * (distance / half) ** 2)
            if weight < 0.01:
                continue
            stretch = min(max(length_q / length_p, 0.7), 1.4)
            turned = stretch * along * f + across * np.array([-f[1], f[0]])
            target = q0 + (point if min(length_p, length_q) < half else turned)
            weights.append(weight)
            ways.append(target - [x, y])
        if weights:
            flow[y, x] = np.average(ways, axis=0, weights=np.power(weights, 3))
            belongs[y, x] = min(max(weights) * 1.65, 1)
    return flow, belongs

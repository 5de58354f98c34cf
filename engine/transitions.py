"""Transitions: the 8 frames around a cut, drawn from real frames on both sides."""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from engine.arms import arm_flow
from engine.errors import InputError
from engine.flow import FlowPair, flow_pair, hermite, measure
from engine.kernels.blend import N_CHANNELS, pool, render, settle, splat

__all__ = ["TRANSITION_FRAMES", "BlendOptions", "Take", "blend_gap", "blend_sync"]

TRANSITION_FRAMES = 8
CONTEXT_FRAMES = 4


@dataclass(frozen=True)
class Take:
    frames: np.ndarray
    joints: np.ndarray
    confidence: np.ndarray
    hands_found: np.ndarray
    surface: np.ndarray | None = None


@dataclass(frozen=True)
class BlendOptions:
    blender: Literal["flow", "crossfade", "cut"] = "flow"
    arms: bool = False
    flow_points: int = 120_000
    front_gain: float = 0.5
    sharpen: float = 7.0
    disagree_low: float = 8.0
    disagree_high: float = 24.0
    temporal: bool = True
    spread: int = 3
    vis_gain: float = 1.0
    vis_blur: float = 2.0
    vis_sharp: float = 0.0
    side: float = 3.0
    seeding: bool = True
    region: float = 0.5
    arm_front: float = 10.0
    switch: bool = True
    switch_area: float = 2.0
    late_cost: float = 0.1
    hermite: float = 1.0
    soft_px: int = 16


@dataclass
class Grid:
    box: tuple[int, int, int, int]
    size: tuple[int, int]  # width, height
    scale: tuple[float, float]

    def shrink(self, frame):
        x0, y0, x1, y1 = self.box
        return cv2.resize(frame[y0:y1, x0:x1], self.size, interpolation=cv2.INTER_AREA)


def weights():
    return [k / (TRANSITION_FRAMES + 1) for k in range(1, TRANSITION_FRAMES + 1)]


def crossfade(a, b, t):
    return cv2.addWeighted(a, 1 - t, b, t, 0)


def work_box(a: Take, b: Take, options) -> tuple[int, int, int, int]:
    h, w = a.frames.shape[1:3]
    lo = np.array([w, h], float)
    hi = np.zeros(2)
    for take in (a, b):
        j = take.joints[take.confidence > 0.3]
        if len(j):
            lo = np.minimum(lo, j.min(0)); hi = np.maximum(hi, j.max(0))
        if take.surface is not None:
            bits = ((take.surface[:, :, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(bool)
            bits = bits[:, :48] | bits[:, 48:]
            any_ = bits.any(0)
            ys, xs = np.nonzero(any_)
            if len(ys):
                lo = np.minimum(lo, [xs.min() * w / 64, ys.min() * h / 48])
                hi = np.maximum(hi, [(xs.max() + 1) * w / 64, (ys.max() + 1) * h / 48])
    if hi[0] <= lo[0]:
        return 0, 0, w, h
    m = 0.05 * max(hi - lo) + options.soft_px
    x0, y0 = np.maximum(lo - m, 0).astype(int)
    x1, y1 = np.minimum(hi + m, [w, h]).astype(int)
    if x1 - x0 < 16 or y1 - y0 < 16:
        return 0, 0, w, h
    return int(x0), int(y0), int(x1), int(y1)


def make_grid(box, options):
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    s = min(1.0, (options.flow_points / (w * h)) ** 0.5)
    gw, gh = max(16, round(w * s)), max(16, round(h * s))
    return Grid(box, (gw, gh), (w / gw, h / gh))


def front(flow, gain):
    bg = np.median(flow[::8, ::8].reshape(-1, 2), axis=0)
    d = flow - bg
    return (1 + gain * np.minimum(np.sqrt(d[..., 0] ** 2 + d[..., 1] ** 2), 20)).astype(np.float32)


def meet(pair: FlowPair, moved_a, moved_b, t, options, guide=None):
    h, w = pair.trust_a.shape
    total = np.zeros((h, w, N_CHANNELS + 1), np.float32)
    t = t**options.side / (t**options.side + (1 - t) ** options.side)
    za, zb = front(pair.forward, options.front_gain), front(pair.backward, options.front_gain)
    if guide and options.arm_front:
        za, zb = 1 + options.arm_front * guide[0][1], 1 + options.arm_front * guide[1][1]
    splat(pair.forward, moved_a, pair.trust_a, za, 1 - t, False, total)
    splat(pair.backward, moved_b, pair.trust_b, zb, t, True, total)
    coarse = cv2.GaussianBlur(pool(total, 8), (0, 0), 1.5)
    return settle(total, coarse, 8, 0.02)


def disagreement(field, sa, sb, options):
    h, w = field.shape[:2]
    gx, gy = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    wa = cv2.remap(sa, gx + field[..., 0], gy + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    wb = cv2.remap(sb, gx + field[..., 2], gy + field[..., 3], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.absdiff(wa, wb).max(axis=2).astype(np.float32)


def switch_times(ds, options, sigma):
    n = TRANSITION_FRAMES + 1
    cost = np.array([np.maximum(d - options.disagree_low, 0).mean() for d in ds])
    mid = (cost[:-1] + cost[1:]) / 2
    at = (np.arange(1, TRANSITION_FRAMES) + 0.5) / n
    mid = (mid + 0.05) * (1 + options.late_cost * (np.abs(at - 0.5) * n))
    w = np.exp(-(mid / mid.min() - 1) / 0.1)
    return float((w * at).sum() / w.sum())


def weigh(field, d, s, t, options):
    d = cv2.GaussianBlur(d, (0, 0), 2.0)
    if options.spread:
        n = 2 * options.spread + 1
        d = cv2.GaussianBlur(cv2.dilate(d, np.ones((n, n), np.uint8)), (0, 0), options.spread)
    d = np.clip((d - options.disagree_low) / (options.disagree_high - options.disagree_low), 0, 1)
    d = d * d * (3 - 2 * d)
    time = np.log(t / (1 - t)) * (1 + options.sharpen * d)
    if s is not None:
        time -= np.log(s / (1 - s)) * (options.sharpen * d)
    vis = np.log((field[..., 5] + 0.05) / (field[..., 4] + 0.05))
    if options.vis_blur:
        vis = cv2.GaussianBlur(vis, (0, 0), options.vis_blur)
    odds = time + options.vis_gain * vis
    return 1 / (1 + np.exp(-odds))


def finish_all(fields, smalls, pictures, grid, options, sigma, out):
    ds = [disagreement(f, sa, sb, options) for f, (sa, sb) in zip(fields, smalls)]
    s = switch_times(ds, options, sigma) if options.switch else None
    for k, t in enumerate(weights()):
        w = weigh(fields[k], ds[k], s, t, options)
        render(*pictures[k], to_render(fields[k], w, grid), grid.box, options.soft_px, out[k])


def to_render(field, weight, grid):
    out = np.empty(field.shape[:2] + (5,), np.float32)
    out[..., 0] = field[..., 0] * grid.scale[0]
    out[..., 1] = field[..., 1] * grid.scale[1]
    out[..., 2] = field[..., 2] * grid.scale[0]
    out[..., 3] = field[..., 3] * grid.scale[1]
    out[..., 4] = weight
    return out


def region_sigma(a, grid, options):
    return options.region * 0.13 * float(np.linalg.norm(a.joints[0, 11] - a.joints[0, 12])) / grid.scale[0]


def arm_guide(a, i, b, j, grid):
    to_grid = lambda p: ((p[0] + 0.5 - grid.box[0]) / grid.scale[0] - 0.5, (p[1] + 0.5 - grid.box[1]) / grid.scale[1] - 0.5)
    sh = max(np.linalg.norm(a.joints[i, 11] - a.joints[i, 12]), np.linalg.norm(b.joints[j, 11] - b.joints[j, 12])) / grid.scale[0]
    pa = a.joints[i], a.confidence[i], a.hands_found[i]
    pb = b.joints[j], b.confidence[j], b.hands_found[j]
    f = arm_flow(pa, pb, grid.size, to_grid, sh)
    if f is None:
        return None
    return f, arm_flow(pb, pa, grid.size, to_grid, sh)


def gray(p):
    return cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)


def blend_sync(a: Take, b: Take, options=BlendOptions()):
    if options.blender == "cut":
        return np.concatenate([a.frames[:4], b.frames[4:]])
    out = np.stack([crossfade(x, y, t) for x, y, t in zip(a.frames, b.frames, weights())])
    if options.blender == "crossfade":
        return out
    grid = make_grid(work_box(a, b, options), options)
    fields, smalls = [], []
    seed = None
    guide = None
    for k, t in enumerate(weights()):
        sa, sb = grid.shrink(a.frames[k]), grid.shrink(b.frames[k])
        if options.arms:
            guide = arm_guide(a, k, b, k, grid)
        pair, raw = flow_pair(gray(sa), gray(sb), seed, guide, options.seeding, region_sigma(a, grid, options))
        if options.temporal:
            seed = raw
        f = meet(pair, np.float32(t) * pair.forward, np.float32(1 - t) * pair.backward, t, options, guide)
        fields.append(f); smalls.append((sa, sb))
    finish_all(fields, smalls, list(zip(a.frames, b.frames)), grid, options, region_sigma(a, grid, options) * options.switch_area, out)
    return out


def follow(field, flow):
    h, w = flow.shape[:2]
    gx, gy = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(field, gx + flow[..., 0], gy + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blend_gap(before: Take, after: Take, options=BlendOptions()):
    if options.blender == "cut":
        return np.concatenate([np.repeat(before.frames[-1:], 4, 0), np.repeat(after.frames[:1], 4, 0)])
    fa, fb = before.frames[-1], after.frames[0]
    out = np.stack([crossfade(fa, fb, t) for t in weights()])
    if options.blender == "crossfade":
        return out
    grid = make_grid(work_box(before, after, options), options)
    sa, sb = grid.shrink(fa), grid.shrink(fb)
    ga, gb = gray(sa), gray(sb)
    guide = arm_guide(before, -1, after, 0, grid) if options.arms else None
    pair, _ = flow_pair(ga, gb, None, guide, options.seeding, region_sigma(before, grid, options))
    va = -measure(ga, gray(grid.shrink(before.frames[-3]))) / 2
    vb = measure(gb, gray(grid.shrink(after.frames[2]))) / 2
    n = TRANSITION_FRAMES + 1
    ca, cb = options.hermite * pair.trust_a[..., None], options.hermite * pair.trust_b[..., None]
    a_start = ca * va + (1 - ca) * pair.forward / n
    a_end = ca * follow(vb, pair.forward) + (1 - ca) * pair.forward / n
    fields, smalls = [], []
    b_start = -cb * vb + (1 - cb) * pair.backward / n
    b_end = -cb * follow(va, pair.backward) + (1 - cb) * pair.backward / n
    for k, t in enumerate(weights()):
        f = meet(pair, hermite(pair.forward, a_start, a_end, t, n), hermite(pair.backward, b_start, b_end, 1 - t, n), t, options, guide)
        fields.append(f); smalls.append((sa, sb))
    finish_all(fields, smalls, [(fa, fb)] * 8, grid, options, region_sigma(before, grid, options) * options.switch_area, out)
    return out

"""Transitions: the 8 frames around a cut, drawn from real frames on both sides.

*Sync*: the take before the cut continues after it, and the take after it starts before it, so 8 pairs of real frames
exist and frame k morphs one pair. *Gap*: only 4 frames on each side exist, and the 8 frames between them are
interpolated along cubic paths.

The morph moves both pictures to where things are at the wanted instant. Where they then agree, they are averaged; where
they do not (a hand open in one and closed in the other), the one nearer in time is shown, so that no second hand shines
through. If the two takes have nothing in common (other clothes, another shot), nothing is morphed: there is a short
fade in the middle of the 8 frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from engine.blending.arms import arm_guide
from engine.blending.blender import DEFAULT_BLENDER, TRANSITION_FRAMES, Blender, Take
from engine.blending.fades import FADE_WEIGHTS, fade
from engine.blending.flow import FlowPair, Guide, carry, flow_pair, hermite, measure, warp
from engine.blending.kernels.pictures import render, select
from engine.errors import InputError
from engine.skeleton import LEFT_HAND, N_JOINTS, RIGHT_HAND
from engine.timebase import FRAMES_PER_NODE

__all__ = ["Flow"]

_STEPS = TRANSITION_FRAMES + 1
_TIMES = FADE_WEIGHTS
# The fade if the takes cannot be morphed: only frames 4 and 5 are mixed.
_SHORT_FADE = tuple(min(max((k - 3) / 3, 0.0), 1.0) for k in range(1, _STEPS))

# Cuts within a scene match in 0.39 to 0.99 of their area, with other clothes in at most 0.17, other people in 0.03.
_MIN_TRUST = 0.25
_MASK_SHAPE = (48, 64)
_SURE = 0.3  # confidence of joints that the work box must contain
_MARGIN = 0.05  # of the box's longer side
_SOFT_PX = 16
_MIN_SIDE_PX = 16
# Mean difference outside the box, grey levels: five cuts of a clip with a pan gave 1.5 to 3.3, one across the pan 17.
_OTHER_BACKGROUND = 6.0
_THUMBNAIL = 96
_VELOCITY_SHARE = 0.8  # of the measured velocities in the paths across a gap


@dataclass(frozen=True)
class Flow(Blender):
    """Morphs along dense optical flow."""

    name = DEFAULT_BLENDER
    version = 1
    samples = "sync"

    # Let the joints guide arms and hands where flow fails. Hands then move instead of fading, but drag bits of the
    # background along; off by default, because benchmarks/bench_transitions.py measures 0.2 to 0.4 dB less with it.
    arms: bool = False
    flow_points: int = 100_000  # at most, of the raster that flow is measured on: time and detail of hands grow with it

    @property
    def settings(self) -> str:
        """Spelt as in the keys of existing caches."""
        return f"BlendOptions(blender='flow', arms={self.arms}, flow_points={self.flow_points})"

    def draw(self, before: Take, after: Take) -> np.ndarray:
        if len(before.frames) == TRANSITION_FRAMES:
            return _morph_sync(before, after, self)
        return _morph_gap(before, after, self)


@dataclass(frozen=True)
class _Grid:
    """The work box and its reduced raster."""

    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in picture pixels
    size: tuple[int, int]  # width, height in grid pixels

    @property
    def scale(self) -> np.ndarray:
        """Picture pixels per grid pixel, x and y."""
        x0, y0, x1, y1 = self.box
        return np.array([(x1 - x0) / self.size[0], (y1 - y0) / self.size[1]], np.float32)

    def reduce(self, frame: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = self.box
        return cv2.resize(frame[y0:y1, x0:x1], self.size, interpolation=cv2.INTER_AREA)

    def points(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels + np.float32(0.5) - np.array(self.box[:2], np.float32)) / self.scale - np.float32(0.5)


def _morph_sync(a: Take, b: Take, options: Flow) -> np.ndarray:
    """Frame k (1..8) morphs frame k of a into frame k of b with weight k/9."""
    _check(a, b, TRANSITION_FRAMES, options)
    grid = _grid(a, b, options)
    small_a, small_b = ([grid.reduce(frame) for frame in take.frames] for take in (a, b))
    pairs: list[FlowPair] = []
    for k in range(TRANSITION_FRAMES):
        seeds = pairs[-1].raw if pairs else None
        guides = _guides(a, k, b, k, grid) if options.arms else None
        pairs.append(flow_pair(_grey(small_a[k]), _grey(small_b[k]), seeds, guides))
    if np.mean([pair.trust for pair in pairs]) < _MIN_TRUST:
        return fade(a.frames, b.frames, _SHORT_FADE)
    out = fade(a.frames, b.frames, _TIMES)
    for k, (pair, time) in enumerate(zip(pairs, _TIMES, strict=True)):
        field = carry(pair, np.float32(time) * pair.forward, np.float32(1 - time) * pair.backward, time)
        mixed = _mix(field, small_a[k], small_b[k], time, grid)
        frame_a, frame_b = (np.ascontiguousarray(take.frames[k]) for take in (a, b))
        render(frame_a, frame_b, mixed, grid.box, _SOFT_PX, out[k])
    return out


def _morph_gap(before: Take, after: Take, options: Flow) -> np.ndarray:
    """The frames between the last one of `before` and the first of `after`; the others give the velocities."""
    _check(before, after, FRAMES_PER_NODE, options)
    a, b = np.ascontiguousarray(before.frames[-1]), np.ascontiguousarray(after.frames[0])
    many_a, many_b = (np.broadcast_to(frame, (TRANSITION_FRAMES, *frame.shape)) for frame in (a, b))
    grid = _grid(before, after, options)
    small_a, small_b = grid.reduce(a), grid.reduce(b)
    guides = _guides(before, -1, after, 0, grid) if options.arms else None
    pair = flow_pair(_grey(small_a), _grey(small_b), None, guides)
    if pair.trust < _MIN_TRUST:
        return fade(many_a, many_b, _SHORT_FADE)
    out = fade(many_a, many_b, _TIMES)
    for k, (moved_a, moved_b) in enumerate(_gap_paths(before, after, pair, grid)):
        field = carry(pair, moved_a, moved_b, _TIMES[k])
        mixed = _mix(field, small_a, small_b, _TIMES[k], grid)
        render(a, b, mixed, grid.box, _SOFT_PX, out[k])
    return out


def _gap_paths(before: Take, after: Take, pair: FlowPair, grid: _Grid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Displacements from A and B at each of the 8 instants: cubic, with velocities over two frames on each side."""
    a, b = before.frames[-1], after.frames[0]
    velocity_a = measure(_grey(grid.reduce(a)), _grey(grid.reduce(before.frames[-3]))) / np.float32(-2)
    velocity_b = measure(_grey(grid.reduce(b)), _grey(grid.reduce(after.frames[2]))) / np.float32(2)
    ends = []
    for flow, trust, here, there in (
        (pair.forward, pair.trust_a, velocity_a, velocity_b),
        (pair.backward, pair.trust_b, -velocity_b, -velocity_a),
    ):
        # An unconfirmed vector has no known velocity at its other end: its path is straight.
        straight, share = flow / np.float32(_STEPS), np.float32(_VELOCITY_SHARE) * trust[..., None]
        ends.append([straight + share * (velocity - straight) for velocity in (here, warp(there, flow))])
    (start_a, end_a), (start_b, end_b) = ends
    for time in _TIMES:
        yield (
            hermite(pair.forward, start_a, end_a, time, _STEPS),
            hermite(pair.backward, start_b, end_b, 1 - time, _STEPS),
        )


def _mix(field: np.ndarray, small_a: np.ndarray, small_b: np.ndarray, time: float, grid: _Grid) -> np.ndarray:
    """From the correspondence field to the input of `render`: offsets in picture pixels and the weight of B."""
    warped_a = warp(small_a, np.ascontiguousarray(field[..., 0:2]))
    warped_b = warp(small_b, np.ascontiguousarray(field[..., 2:4]))
    unlike = cv2.absdiff(warped_a, warped_b).max(axis=2).astype(np.float32)
    # Neighbours decide together: a hand is taken from one take or the other, never in pieces.
    unlike = cv2.GaussianBlur(unlike, (0, 0), 2.0)
    unlike = cv2.GaussianBlur(cv2.dilate(unlike, np.ones((7, 7), np.uint8)), (0, 0), 3.0)
    seen = np.log((field[..., 5] + np.float32(0.05)) / (field[..., 4] + np.float32(0.05)))
    return select(field, unlike, cv2.GaussianBlur(seen, (0, 0), 2.0), time, grid.scale)


def _grid(a: Take, b: Take, options: Flow) -> _Grid:
    x0, y0, x1, y1 = box = _work_box(a, b)
    width, height = x1 - x0, y1 - y0
    scale = min(1.0, (options.flow_points / (width * height)) ** 0.5)
    return _Grid(box, (max(_MIN_SIDE_PX, round(width * scale)), max(_MIN_SIDE_PX, round(height * scale))))


def _work_box(a: Take, b: Take) -> tuple[int, int, int, int]:
    """Box of the person in both takes; the whole picture if nobody is found or the backgrounds differ (camera move)."""
    height, width = a.frames.shape[1:3]
    points = [take.joints[take.confidence > _SURE] for take in (a, b)]
    points += [_surface_corners(take.surface, width, height) for take in (a, b) if take.surface is not None]
    found = np.concatenate(points)
    if not len(found):
        return 0, 0, width, height
    low, high = found.min(axis=0), found.max(axis=0)
    margin = _MARGIN * float((high - low).max()) + _SOFT_PX
    x0, y0 = (int(v) for v in np.maximum(low - margin, 0))
    x1, y1 = (int(v) for v in np.minimum(high + margin, [width, height]))
    if x1 - x0 < _MIN_SIDE_PX or y1 - y0 < _MIN_SIDE_PX or _background_differs(a, b, (x0, y0, x1, y1)):
        return 0, 0, width, height
    return x0, y0, x1, y1


def _surface_corners(surface: np.ndarray, width: int, height: int) -> np.ndarray:
    """Corners of the smallest box around the mask and the hand boxes: float32 (2, 2), or (0, 2) if both are empty."""
    rows, columns = _MASK_SHAPE
    words = np.bitwise_or.reduce(surface, axis=0)
    words = words[:rows] | words[rows:]
    cells = (words[:, None] >> np.arange(columns, dtype=np.uint64)) & np.uint64(1)
    y, x = np.nonzero(cells)
    if not len(x):
        return np.zeros((0, 2), np.float32)
    cell = np.array([width / columns, height / rows], np.float32)
    return np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]], np.float32) * cell


def _background_differs(a: Take, b: Take, box: tuple[int, int, int, int]) -> bool:
    height, width = a.frames.shape[1:3]
    size = (min(width, _THUMBNAIL), min(height, _THUMBNAIL))
    thumbnails = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in (a.frames[-1], b.frames[0])]
    difference = cv2.absdiff(*thumbnails).max(axis=2).astype(np.float32)
    x0, y0, x1, y1 = box
    x_ratio, y_ratio = size[0] / width, size[1] / height
    outside = np.ones(difference.shape, bool)
    outside[int(y0 * y_ratio) : int(y1 * y_ratio) + 1, int(x0 * x_ratio) : int(x1 * x_ratio) + 1] = False
    return bool(outside.any()) and float(difference[outside].mean()) > _OTHER_BACKGROUND


def _guides(a: Take, i: int, b: Take, j: int, grid: _Grid) -> tuple[Guide, Guide] | None:
    pose_a, pose_b = ((grid.points(take.joints[n]), _confidence(take, n)) for take, n in ((a, i), (b, j)))
    forward = arm_guide(*pose_a, *pose_b, grid.size)
    backward = arm_guide(*pose_b, *pose_a, grid.size)
    return None if forward is None or backward is None else (forward, backward)


def _confidence(take: Take, frame: int) -> np.ndarray:
    confidence = take.confidence[frame].copy()
    for hand, found in zip((LEFT_HAND, RIGHT_HAND), take.hands_found[frame], strict=True):
        if not found:
            confidence[hand] = 0
    return confidence


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _check(a: Take, b: Take, n_frames: int, options: Flow) -> None:
    if options.flow_points < 1024:
        raise InputError(f"flow_points is {options.flow_points}; expected at least 1024")
    if a.frames.shape != b.frames.shape:
        raise InputError(f"takes have frames {a.frames.shape} and {b.frames.shape}; expected the same shape")
    for take in (a, b):
        frames = take.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) != n_frames:
            raise InputError(f"frames are {frames.dtype} {frames.shape}; expected uint8 ({n_frames}, H, W, 3)")
        for name, array, shape in (
            ("joints", take.joints, (n_frames, N_JOINTS, 2)),
            ("confidence", take.confidence, (n_frames, N_JOINTS)),
            ("hands_found", take.hands_found, (n_frames, 2)),
            ("surface", take.surface, (n_frames, 2 * _MASK_SHAPE[0])),
        ):
            if array is not None and array.shape != shape:
                raise InputError(f"{name} is {array.shape}; expected {shape}")

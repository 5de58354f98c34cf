"""Transitions: the 8 frames around a cut, drawn from real frames on both sides.

*Sync*: the take before the cut continues after it, and the take after it starts before it, so 8 pairs of real frames
exist and frame k morphs one pair. *Gap*: only 4 frames on each side exist, and the 8 frames between them are
interpolated along cubic paths.

The morph moves both pictures to where things are at the wanted instant. Where they then agree, they are averaged; where
they do not (a hand open in one and closed in the other), the one nearer in time is shown, so that no second hand shines
through. If the two takes have nothing in common (other clothes, another shot), nothing is morphed: there is a short
fade in the middle of the 8 frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engine.blending.arms import arm_guide
from engine.blending.blender import DEFAULT_BLENDER, TRANSITION_FRAMES, Blender, Take
from engine.blending.fades import FADE_WEIGHTS, fade, half_of, paired
from engine.blending.flow import FlowPair, Flows, Guides, carry, flow_pair, hermite, measure, measure_both, warp
from engine.blending.kernels.pictures import select
from engine.blending.render import render
from engine.blending.work_box import MASK_SHAPE, Grid, work_grid
from engine.errors import InputError
from engine.skeleton import LEFT_HAND, N_JOINTS, RIGHT_HAND
from engine.timebase import FRAMES_PER_NODE

__all__ = ["Flow"]

_STEPS = TRANSITION_FRAMES + 1
_TIMES = FADE_WEIGHTS
# The fade if the takes cannot be morphed: only frames 4 and 5 are mixed.
_SHORT_FADE = tuple(min(max((k - 3) / 3, 0.0), 1.0) for k in range(1, _STEPS))

# Any two moments of a scene match in 0.38 to 0.97 of their area, other people in at most 0.08. Other clothes: at most
# 0.17, on a raster of 100,000 points.
_MIN_TRUST = 0.25
# The frames of each half whose flow is measured; that of the others lies between those of their neighbours. The first
# half ends with a measured one, so that it can be drawn without the second.
_MEASURED = (0, 3), (1, 3)
_VELOCITY_SHARE = 0.8  # of the measured velocities in the paths across a gap


@dataclass(frozen=True)
class Flow(Blender):
    """Morphs along dense optical flow."""

    name = DEFAULT_BLENDER
    version = 2
    samples = "sync"
    pixels = "planes"

    # Let the joints guide arms and hands where flow fails. Hands then move instead of fading, but drag bits of the
    # background along; off by default, because benchmarks/bench_transitions.py measures 0.2 to 0.4 dB less with it.
    arms: bool = False
    flow_points: int = 25_000  # at most, of the raster that flow is measured on: time and detail of hands grow with it

    @property
    def settings(self) -> str:
        return f"arms={self.arms}, flow_points={self.flow_points}"

    def draw(self, before: Take, after: Take) -> Iterator[np.ndarray]:
        _check(before, after, self)
        return _morph_gap(before, after, self) if len(before.nodes) == 1 else _morph_sync(before, after, self)


def _morph_sync(before: Take, after: Take, options: Flow) -> Iterator[np.ndarray]:
    """Frame k (1..8) morphs frame k of before into frame k of after with weight k/9."""
    grid: Grid | None = None
    last: Flows | None = None
    matched = True
    for half, (a, b) in enumerate(paired(before, after)):
        grid = grid or work_grid(before, after, a[-1], b[0], options.flow_points)
        if matched:
            frames = range(half * FRAMES_PER_NODE, (half + 1) * FRAMES_PER_NODE)
            guides = [_guides(before, k, after, k, grid) if options.arms else None for k in frames]
            small_a, small_b = ([grid.reduce(frame) for frame in side] for side in (a, b))
            flows = _measured(small_a, small_b, guides, half, last)
            pairs, last = [flow_pair(*each) for each in zip(flows, guides, strict=True)], flows[-1]
            # the second half follows the first, which has been seen by then
            matched = half == 1 or bool(np.mean([pair.trust for pair in pairs]) >= _MIN_TRUST)
        if not matched:
            yield fade(a, b, half_of(_SHORT_FADE, half))
            continue
        out = fade(a, b, half_of(_TIMES, half))
        for k, (pair, time) in enumerate(zip(pairs, half_of(_TIMES, half), strict=True)):
            field = carry(pair, np.float32(time) * pair.forward, np.float32(1 - time) * pair.backward, time)
            render(a[k], b[k], *_placed(field, small_a[k], small_b[k], time, grid), grid.box, out[k])
        yield out


def _measured(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    guides: Sequence[Guides | None],
    half: int,
    last: Flows | None,
) -> list[Flows]:
    """Flows of the 4 pairs of a half; `last` are those of the pair before it."""
    known = {-1: last} if last else {}
    for k in _MEASURED[half]:
        known[k] = last = measure_both(_grey(a[k]), _grey(b[k]), last, guides[k])
    return [known[k] if k in known else _between(known, k) for k in range(FRAMES_PER_NODE)]


def _between(known: Mapping[int, Flows], k: int) -> Flows:
    before, after = max(n for n in known if n < k), min(n for n in known if n > k)
    share = (k - before) / (after - before)
    forward, backward = (
        cv2.addWeighted(one, 1 - share, other, share, 0) for one, other in zip(known[before], known[after], strict=True)
    )
    return forward, backward


def _morph_gap(before: Take, after: Take, options: Flow) -> Iterator[np.ndarray]:
    """The frames between the last one of `before` and the first of `after`; the others give the velocities."""
    a, b = before.nodes[0][-1], after.nodes[0][0]
    grid = work_grid(before, after, a, b, options.flow_points)
    small_a, small_b = grid.reduce(a), grid.reduce(b)
    guides = _guides(before, -1, after, 0, grid) if options.arms else None
    pair = flow_pair(measure_both(_grey(small_a), _grey(small_b), None, guides), guides)
    matched = pair.trust >= _MIN_TRUST
    paths = _gap_paths(before, after, pair, grid)
    for half, sides in enumerate(paired(before, after)):
        out = fade(*sides, half_of(_TIMES if matched else _SHORT_FADE, half))
        for frame, time in zip(out, half_of(_TIMES, half), strict=True):
            if matched:
                field = carry(pair, *next(paths), time)
                render(a, b, *_placed(field, small_a, small_b, time, grid), grid.box, frame)
        yield out


def _gap_paths(before: Take, after: Take, pair: FlowPair, grid: Grid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Displacements from A and B at each of the 8 instants: cubic, with velocities over two frames on each side."""
    past, a = (_grey(grid.reduce(before.nodes[0][k])) for k in (-3, -1))
    b, future = (_grey(grid.reduce(after.nodes[0][k])) for k in (0, 2))
    velocity_a = measure(a, past) / np.float32(-2)
    velocity_b = measure(b, future) / np.float32(2)
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


def _placed(
    field: np.ndarray, small_a: np.ndarray, small_b: np.ndarray, time: float, grid: Grid
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """From the correspondence field to what `render` reads: places in both pictures, and the weight of B.

    Towards the rim of the box both turn into those of a crossfade, which is what lies around it.
    """
    offsets_a, offsets_b = field[..., 0:2], field[..., 2:4]
    red, green, blue = cv2.split(cv2.absdiff(warp(small_a, offsets_a), warp(small_b, offsets_b)))
    difference = cv2.max(cv2.max(red, green), blue).astype(np.float32)
    # Neighbours decide together: a hand is taken from one take or the other, never in pieces.
    spread = cv2.dilate(cv2.GaussianBlur(difference, (0, 0), 2.0), np.ones((7, 7), np.uint8))
    unlike = cv2.GaussianBlur(spread, (0, 0), 3.0)
    seen = np.log((field[..., 5] + np.float32(0.05)) / (field[..., 4] + np.float32(0.05)))
    weight = select(unlike, cv2.GaussianBlur(seen, (0, 0), 2.0), time)
    start = np.float32(time)
    return (grid.read(offsets_a), grid.read(offsets_b)), start + grid.inside * (weight - start)


def _guides(a: Take, i: int, b: Take, j: int, grid: Grid) -> Guides | None:
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


def _check(a: Take, b: Take, options: Flow) -> None:
    if options.flow_points < 1024:
        raise InputError(f"flow_points is {options.flow_points}; expected at least 1024")
    next(paired(a, b))  # refuses takes that do not fit together
    for take in (a, b):
        frames = take.nodes[0]
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1] % 3 or frames.shape[2] % 2:
            raise InputError(
                f"frames are {frames.dtype} {frames.shape}; expected uint8 (4, H * 3 / 2, W), H and W even"
            )
        n_frames = len(take.nodes) * FRAMES_PER_NODE
        for name, array, shape in (
            ("joints", take.joints, (n_frames, N_JOINTS, 2)),
            ("confidence", take.confidence, (n_frames, N_JOINTS)),
            ("hands_found", take.hands_found, (n_frames, 2)),
            ("surface", take.surface, (n_frames, 2 * MASK_SHAPE[0])),
        ):
            if array is not None and array.shape != shape:
                raise InputError(f"{name} is {array.shape}; expected {shape}")

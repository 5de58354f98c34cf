"""Dense optical flow between two pictures: measured both ways, judged by its agreement, repaired where it fails, and
followed.

Flow is Dense Inverse Search (Kroeger et al., ECCV 2016) from OpenCV: other methods are within 0.35 dB of it in our use
and cost 3 to 270 times as much. A seed is one more candidate for every DIS patch on every level, so a bad seed does no
harm.

All flows are float32 (h, w, 2), x and y, in pixels of the pictures given.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from engine.blending.kernels.correspondence import N_CHANNELS, agreement, pool, settle, splat

__all__ = ["FlowPair", "Flows", "Guide", "Guides", "carry", "flow_pair", "hermite", "measure", "measure_both", "warp"]

_SLACK_PX = 1.0  # disagreement of the two flows that is one standard deviation of their noise
_PATCH_STRIDE_PX = 4  # the preset's 3 takes two thirds longer and is no better
_BLOCK = 8  # points that no trusted vector reaches are filled from a raster this much coarser
_BLOCK_SIGMA = 1.5
_FILL_SHARE = 0.02
# Splatted vectors of the picture nearer in time win early: a hand that cannot be matched must not be torn between two
# flows.
_NEARNESS_POWER = 3.0


@dataclass(frozen=True)
class Guide:
    """A second opinion on the flow, for regions where dense matching fails; from evidence other than pixels."""

    flow: np.ndarray  # float32 (h, w, 2)
    belongs: np.ndarray  # float32 (h, w) 0..1: weight of the guide at a point
    reach_px: float  # matching is judged over Gaussian regions of this standard deviation


Flows = tuple[np.ndarray, np.ndarray]
"""From A to B, and from B to A."""
Guides = tuple[Guide, Guide]


@dataclass(frozen=True)
class FlowPair:
    """Flow both ways between pictures A and B, and how well each vector is confirmed by the other flow."""

    forward: np.ndarray  # float32 (h, w, 2), A to B
    backward: np.ndarray  # float32 (h, w, 2), B to A
    trust_a: np.ndarray  # float32 (h, w) 0..1: the point of A is seen in B
    trust_b: np.ndarray

    @property
    def trust(self) -> float:
        """Share of the two pictures that was matched, 0..1."""
        return float(self.trust_a.mean() + self.trust_b.mean()) / 2


def measure(a: np.ndarray, b: np.ndarray, seed: np.ndarray | None = None) -> np.ndarray:
    """DIS flow from a to b, uint8 (h, w) both."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # Variational refinement would take as long as all the rest, and gains nothing that can be seen. Down to the pixels
    # of these pictures, which the preset leaves out: without it, faces of hard cuts are seen double.
    dis.setVariationalRefinementIterations(0)
    dis.setFinestScale(0)
    dis.setPatchStride(_PATCH_STRIDE_PX)
    # OpenCV overwrites the seed with its result; without a seed it accepts None, which its type stubs do not know.
    start: Any = None if seed is None else seed.copy()
    return dis.calc(a, b, start)


def measure_both(a: np.ndarray, b: np.ndarray, seeds: Flows | None = None, guides: Guides | None = None) -> Flows:
    """Flow from a to b and from b to a, grey pictures, uint8 (h, w).

    `seeds` are the flows of a similar pair (the frames just before); `guides` are used where matching fails.
    """
    starts: list[np.ndarray | None] = list(seeds) if seeds else [None, None]
    if guides:
        starts = [_seeded(start, guide) for start, guide in zip(starts, guides, strict=True)]
    return measure(a, b, starts[0]), measure(b, a, starts[1])


def flow_pair(flows: Flows, guides: Guides | None = None) -> FlowPair:
    """Flows as measured, judged by their agreement and repaired where they fail."""
    forward, backward = flows
    trust_a = agreement(forward, backward, _SLACK_PX)
    trust_b = agreement(backward, forward, _SLACK_PX)
    guide_a, guide_b = guides or (None, None)
    return FlowPair(_repair(forward, trust_a, guide_a), _repair(backward, trust_b, guide_b), trust_a, trust_b)


def _seeded(start: np.ndarray | None, guide: Guide) -> np.ndarray:
    base = np.zeros_like(guide.flow) if start is None else start
    return np.where((guide.belongs > 0.4)[..., None], guide.flow, base)


def _repair(flow: np.ndarray, trust: np.ndarray, guide: Guide | None) -> np.ndarray:
    """Replace untrusted vectors by the trusted ones around them: unmatched points move with their surroundings."""
    height, width = trust.shape
    small = (max(1, width // _BLOCK), max(1, height // _BLOCK))
    weight = trust + np.float32(1e-3)
    own = cv2.split(flow)  # NumPy is slow on the two numbers of a vector
    packed = cv2.merge([own[0] * weight, own[1] * weight, weight])
    packed = cv2.resize(packed, small, interpolation=cv2.INTER_AREA)
    packed = cv2.GaussianBlur(packed, (0, 0), _BLOCK_SIGMA)
    *sums, total = cv2.split(cv2.resize(packed, (width, height), interpolation=cv2.INTER_LINEAR))
    around = [each / total for each in sums]
    if guide is not None:
        around = [here + guide.belongs * (led - here) for here, led in zip(around, cv2.split(guide.flow), strict=True)]
        trust = _regional(trust, guide)
    return cv2.merge([here + trust * (vector - here) for here, vector in zip(around, own, strict=True)])


def _regional(trust: np.ndarray, guide: Guide) -> np.ndarray:
    """Trust per region under the guide: a half-matched hand would tear, so it counts as matched or not at all."""
    inside = cv2.GaussianBlur(guide.belongs, (0, 0), guide.reach_px) + np.float32(1e-3)
    mean = cv2.GaussianBlur(guide.belongs * trust, (0, 0), guide.reach_px) / inside
    verdict = np.clip((mean - np.float32(0.3)) / np.float32(0.4), 0, 1)
    return trust + guide.belongs * (verdict - trust)


def hermite(flow: np.ndarray, start: np.ndarray, end: np.ndarray, share: float, steps: int) -> np.ndarray:
    """Displacement at `share` (0..1) of a cubic path: `flow` is the whole, `start` and `end` velocities per step."""
    done = np.float32(share * share * (3 - 2 * share)) * flow
    done += np.float32(steps * share * (1 - share) ** 2) * start
    done -= np.float32(steps * share * share * (1 - share)) * end
    return done


def carry(pair: FlowPair, moved_a: np.ndarray, moved_b: np.ndarray, time: float) -> np.ndarray:
    """Bring both flows to an instant between the pictures, A at time 0 and B at time 1.

    `moved_a` and `moved_b` are the displacements from A and from B at that instant. Returns the correspondence field,
    float32 (h, w, 6): offsets at which to read A and B, and how visible the point is in A and in B.
    """
    near_a, near_b = (1 - time) ** _NEARNESS_POWER, time**_NEARNESS_POWER
    total = np.zeros((*pair.trust_a.shape, N_CHANNELS + 1), np.float32)
    splat(pair.forward, moved_a, pair.trust_a, near_a / (near_a + near_b), False, total)
    splat(pair.backward, moved_b, pair.trust_b, near_b / (near_a + near_b), True, total)
    coarse = cv2.GaussianBlur(pool(total, _BLOCK), (0, 0), _BLOCK_SIGMA)
    return settle(total, coarse, _BLOCK, _FILL_SHARE)


def warp(picture: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Read a picture or a flow at every point plus its offset, bilinearly; the border is replicated outwards."""
    height, width = offsets.shape[:2]
    column, row = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(
        picture,
        offsets[..., 0] + column,
        offsets[..., 1] + row,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )

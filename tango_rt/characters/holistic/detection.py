"""MediaPipe's single-shot detectors: boxes and key points around anchors, decoded and merged."""

from dataclasses import dataclass
from functools import cache
from itertools import groupby

import cv2
import numpy as np

from tango_rt.characters.holistic.regions import Region
from tango_rt.characters.holistic.runner import Network

__all__ = ["BODY", "FACE", "FACE_FULL_RANGE", "DetectorSpec", "detect", "sigmoid", "whole_frame"]

_MIN_OVERLAP = 0.3  # intersection over union at which two boxes are one


@dataclass(frozen=True)
class DetectorSpec:
    """Geometry of a detector."""

    size: int  # side of the network's input, pixels
    strides: tuple[int, ...]  # of each layer, pixels
    anchors_per_layer: int = 2  # per cell; the second one has an interpolated scale
    min_score: float = 0.5


BODY = DetectorSpec(224, (8, 16, 32, 32, 32))
FACE = DetectorSpec(128, (8, 16, 16, 16))
FACE_FULL_RANGE = DetectorSpec(192, (4,), anchors_per_layer=1, min_score=0.6)


def detect(network: Network, spec: DetectorSpec, frame: np.ndarray, region: Region) -> np.ndarray:
    """Detections in a region of an RGB frame, best first: float64 (n, 2 + k, 2), pixels of the frame.

    The first two points of each are the corners of its box, the others its k key points.
    """
    raw, scores = network(region.crop(frame, spec.size, -1.0, cv2.BORDER_CONSTANT))
    anchors = anchor_centres(spec)
    score = sigmoid(scores.reshape(-1).astype(np.float64))
    likely = np.flatnonzero(score >= spec.min_score)
    likely = likely[np.argsort(-score[likely], kind="stable")]
    if not len(likely):
        return np.empty((0, 2, 2))
    raw = raw.reshape(len(anchors), -1)[likely].astype(np.float64).reshape(len(likely), -1, 2) / spec.size
    anchor = anchors[likely]
    centre, half = raw[:, 0] + anchor, raw[:, 1] / 2
    corners = np.stack([centre - half, centre + half], axis=1)
    merged = merge_overlapping(np.concatenate([corners, raw[:, 2:] + anchor[:, None]], axis=1), score[likely])
    matrix = region.to_frame(spec.size)
    projected: np.ndarray = merged * spec.size @ matrix[:, :2].T + matrix[:, 2]
    return projected


@cache
def anchor_centres(spec: DetectorSpec) -> np.ndarray:
    """float64 (n, 2): x, y as fractions of the picture, layers of the same stride together, row by row."""
    centres = []
    for stride, layers in groupby(spec.strides):
        cells = spec.size // stride
        rows, columns = np.mgrid[:cells, :cells]
        layer = np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5
        centres.append(np.repeat(layer, spec.anchors_per_layer * len(list(layers)), axis=0) / cells)
    return np.concatenate(centres)


def merge_overlapping(points: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Non-maximum suppression that averages overlapping boxes, weighted by score; points (n, 2 + k, 2), best first."""
    found = []
    left = np.arange(len(points))
    while len(left):
        low, high = points[left, 0], points[left, 1]
        shared = np.clip(np.minimum(high, high[0]) - np.maximum(low, low[0]), 0, None).prod(axis=1)
        area = (high - low).prod(axis=1)
        near = shared > _MIN_OVERLAP * (area + area[0] - shared)
        near[0] = True
        found.append(np.average(points[left[near]], axis=0, weights=score[left[near]]))
        left = left[~near]
    return np.array(found)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    result: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -80, 80)))
    return result


def whole_frame(frame: np.ndarray) -> Region:
    """The square around the whole picture."""
    height, width = frame.shape[:2]
    side = max(height, width)
    return Region(width / 2, height / 2, side, side)

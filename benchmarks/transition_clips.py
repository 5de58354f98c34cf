"""Tracked clips for benchmarks of transitions: frames, the person in them, and takes for blenders."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from engine.blending.blender import Blender, Take
from engine.cores import usable_cores
from engine.timebase import FRAMES_PER_NODE
from tango_rt.characters.source import track_source
from tango_rt.video.reader import VideoReader

__all__ = ["FULL_HEIGHT_PX", "HEIGHT_PX", "Clip", "drawn", "read_clip"]

HEIGHT_PX = 512
FULL_HEIGHT_PX = 720


@dataclass(frozen=True)
class Clip:
    """A tracked clip; all arrays are per frame, pixels are those of `frames`."""

    name: str
    frames: np.ndarray  # uint8 (F, H, W, 3), H and W even
    joints: np.ndarray
    confidence: np.ndarray
    hands_found: np.ndarray
    hand_boxes: np.ndarray
    surface: np.ndarray
    shots: np.ndarray  # (F,) number of the shot
    shoulder_px: float

    def take(self, frames: np.ndarray) -> Take:
        return Take(
            [_planes(self.frames[node]) for node in np.split(frames, len(frames) // FRAMES_PER_NODE)],
            self.joints[frames],
            self.confidence[frames],
            self.hands_found[frames],
            self.surface[frames],
        )

    def person(self, frame: int) -> np.ndarray:
        words = self.surface[frame, :48]
        cells = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(np.uint8)
        mask = cv2.resize(cells * 255, self.frames.shape[2:0:-1], interpolation=cv2.INTER_LINEAR)
        return cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 127

    def hands(self, frame: int) -> np.ndarray:
        mask = np.zeros(self.frames.shape[1:3], bool)
        for x0, y0, x1, y1 in np.maximum(self.hand_boxes[frame], 0).astype(int):
            mask[y0:y1, x0:x1] = True
        return mask


def read_clip(path: Path, height_px: int = HEIGHT_PX, most: int | None = None) -> Clip:
    """Decode and track a clip, or its first `most` frames; tracking is cached where builds of characters cache it."""
    source = track_source(path, FULL_HEIGHT_PX, None, usable_cores())
    with VideoReader(path, FULL_HEIGHT_PX) as reader:
        full = reader.info.height
        frames = np.stack([_reduce(frame, height_px) for frame in islice(reader, most)])
    track, scale = source.track, np.float32(min(1.0, height_px / full))
    shots = np.zeros(source.n_frames, int)
    shots[list(source.shots)] = 1
    return Clip(
        path.stem,
        frames[: source.n_frames],
        track.joints[:most, :, :2] * scale,
        track.confidence[:most],
        track.hands_found[:most],
        track.hand_boxes[:most] * scale,
        track.surface[:most],
        np.cumsum(shots)[:most],
        track.shoulder_px * float(scale),
    )


def _planes(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420) for frame in frames])


def _reduce(frame: np.ndarray, height_px: int) -> np.ndarray:
    """To at most this height, and to colours that planes can hold: the truth then is what blenders could draw."""
    height, width = frame.shape[:2]
    if height > height_px:
        frame = cv2.resize(frame, (2 * round(width * height_px / height / 2), height_px), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), cv2.COLOR_YUV2RGB_I420)


def drawn(blender: Blender, before: Take, after: Take) -> list[np.ndarray]:
    """The 8 frames of a transition, RGB."""
    planes = [frame for half in blender.draw(before, after) for frame in half]
    return [cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420) for frame in planes]

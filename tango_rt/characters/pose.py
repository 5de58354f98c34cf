"""Finds a person's body and hands in video frames with the networks of MediaPipe Holistic, in several processes.

Frames go to the workers in blocks of fixed length. Every block starts with a fresh tracker that has seen the last
frames of the block before, so the results depend on the frames alone, not on the number of workers. A fresh tracker
is still a few pixels off one that has kept running: that difference is measured at the seam, added to the new poses
and faded out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from engine.skeleton import LEFT_SHOULDER, RIGHT_SHOULDER
from tango_rt.characters.estimator import MASK_COLUMNS, MASK_ROWS, PoseEstimator, RawPose, shrink
from tango_rt.characters.pose_workers import Block, Workers
from tango_rt.characters.subject import Subject

__all__ = ["BLOCK_FRAMES", "MASK_COLUMNS", "MASK_ROWS", "PoseEstimator", "RawPose", "estimate_poses"]

BLOCK_FRAMES = 60
_WARM_UP_FRAMES = 3
_FADE_FRAMES = 20
_MAX_SEAM = 0.1  # shoulder widths; a larger difference is an error of one tracker and is not carried over


def estimate_poses(
    frames: Iterable[np.ndarray],
    n_workers: int,
    *,
    subject: Subject | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[RawPose]:
    """Yields a RawPose for every frame, in order; the same for every n_workers.

    Args:
        frames: RGB, uint8, shape (height, width, 3), all of one size; up to n_workers + 1 blocks of 60 are read ahead.
        n_workers: processes (at least 1); each needs about 0.5 GB.
        subject: whom to follow if several people are in the picture.
        progress: called with the number of frames done, after every frame.

    Raises:
        BackendError: a worker died or failed.
    """
    n_done = 0
    last: RawPose | None = None
    for poses in _tracked_blocks(frames, max(1, n_workers), subject):
        if last is not None:
            poses = _fade_seam(last, poses[0], poses[1:])
        last = poses[-1]
        for pose in poses:
            n_done += 1
            if progress is not None:
                progress(n_done)
            yield pose


def _tracked_blocks(frames: Iterable[np.ndarray], n_workers: int, subject: Subject | None) -> Iterator[list[RawPose]]:
    """Poses block by block; all but the first begin with a second pose for the last frame of the block before."""
    finished: dict[int, list[RawPose]] = {}
    next_block = 0
    with Workers(n_workers) as workers:
        for number, block in enumerate(_blocks(frames, subject, workers.slot)):
            while not workers.idle:
                finished.update(workers.collect())
            workers.submit(number, block)
            while next_block in finished:
                yield finished.pop(next_block)
                next_block += 1
        while workers.busy or finished:
            if next_block not in finished:
                finished.update(workers.collect())
                continue
            yield finished.pop(next_block)
            next_block += 1


def _fade_seam(last: RawPose, again: RawPose, poses: list[RawPose]) -> list[RawPose]:
    """Poses shifted, by less and less, by how two trackers differ: `last` and `again` are their poses of one frame."""
    shoulder_px = np.linalg.norm(last.body[LEFT_SHOULDER, :2] - last.body[RIGHT_SHOULDER, :2])

    def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        apart = one[:, :3] - other[:, :3]
        far = ~(np.linalg.norm(apart[:, :2], axis=1) <= _MAX_SEAM * shoulder_px)  # true for NaN, too
        return np.where(far[:, None], np.float32(0), apart)

    body = difference(last.body, again.body)
    left = difference(last.left_hand, again.left_hand)
    right = difference(last.right_hand, again.right_hand)
    faded = list(poses)
    for k, pose in enumerate(poses[:_FADE_FRAMES]):
        weight = np.float32(1 - (k + 1) / (_FADE_FRAMES + 1))
        moved = pose.body.copy()
        moved[:, :3] += weight * body
        faded[k] = replace(
            pose,
            body=moved,
            left_hand=pose.left_hand + weight * left,
            right_hand=pose.right_hand + weight * right,
        )
    return faded


def _blocks(
    frames: Iterable[np.ndarray], subject: Subject | None, slot_for: Callable[[int], tuple[int, np.ndarray]]
) -> Iterator[Block]:
    """Write reduced frames into slots, block by block; the last frames of a block are the warm-up of the next."""
    block: Block | None = None
    pictures = warm_up = np.empty(0, np.uint8)
    for index, frame in enumerate(frames):
        small = shrink(frame)
        if block is None:
            slot, memory = slot_for((_WARM_UP_FRAMES + BLOCK_FRAMES) * small.size)
            pictures = memory.reshape(-1, *small.shape)
            pictures[: len(warm_up)] = warm_up.reshape(-1, *small.shape)
            block = Block(slot, small.shape, frame.shape[:2], len(warm_up), 0)
        at = block.n_warm_up + block.n_frames
        pictures[at] = small
        if subject is not None:
            subject.hide_others(pictures[at], index)
        block = replace(block, n_frames=block.n_frames + 1)
        if block.n_frames == BLOCK_FRAMES:
            warm_up = pictures[at + 1 - _WARM_UP_FRAMES : at + 1].copy()
            yield block
            block = None
    if block is not None:
        yield block

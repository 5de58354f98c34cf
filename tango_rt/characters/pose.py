"""Finds a person's body and hands in video frames: MediaPipe Holistic, in as many processes as cores.

Frames go to the workers in blocks of fixed length, through shared memory. Every block starts with a fresh tracker that has seen the last
frames of the block before, so the results depend on the frames alone, not on how many workers there are.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from engine.errors import BackendError
from engine.skeleton import N_BODY, N_HAND
from tango_rt.characters.mediapipe_models import open_holistic, quiet, shrink
from tango_rt.characters.subject import Subject

__all__ = ["MASK_COLUMNS", "MASK_ROWS", "PoseEstimator", "RawPose", "estimate_poses"]

MASK_ROWS, MASK_COLUMNS = 48, 64
_BLOCK_FRAMES = 60
_WARM_UP_FRAMES = 3


@dataclass(frozen=True)
class RawPose:
    """What was found in one frame; rows of NaN where nothing was.

    body is float32, shape (33, 4): x, y, z in pixels of the frame (z from the hips), visibility 0..1. left_hand and right_hand
    are float32, shape (21, 3): x, y, z in pixels (z from the hand's wrist). person_mask is uint64, shape (48,): one word a row
    of a 48 x 64 grid over the picture, bit 0 the leftmost column.
    """

    body: np.ndarray
    left_hand: np.ndarray
    right_hand: np.ndarray
    person_mask: np.ndarray

    @property
    def body_found(self) -> bool:
        return not np.isnan(self.body[0, 0])

    @property
    def hands_found(self) -> tuple[bool, bool]:
        """Left, right."""
        return not np.isnan(self.left_hand[0, 0]), not np.isnan(self.right_hand[0, 0])


class PoseEstimator:
    """Tracks one person through frames given in order; slow to open, to be closed after use (`with`)."""

    def __init__(self) -> None:
        with quiet():
            self._holistic = open_holistic()

    def __enter__(self) -> "PoseEstimator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def process(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> RawPose:
        """Finds the person in the next RGB frame, uint8, shape (height, width, 3).

        size (height, width) gives the picture in whose pixels the result is wanted, if the frame is a smaller copy of it.
        """
        height, width = size or frame.shape[:2]
        with quiet():
            found = self._holistic.process(shrink(frame))
        scale = np.array([width, height, width], np.float32)
        return RawPose(
            _landmarks(found.pose_landmarks, N_BODY, scale, visibility=True),
            _landmarks(found.left_hand_landmarks, N_HAND, scale),
            _landmarks(found.right_hand_landmarks, N_HAND, scale),
            _mask_words(found.segmentation_mask),
        )

    def restart(self) -> None:
        """Forgets the frames seen so far: the next one is treated as the first."""
        with quiet():
            self._holistic.reset()

    def close(self) -> None:
        self._holistic.close()


def estimate_poses(
    frames: Iterable[np.ndarray],
    n_workers: int,
    *,
    subject: Subject | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[RawPose]:
    """Yields a RawPose for every frame, in order; equal for every n_workers.

    Args:
        frames: RGB, uint8, shape (height, width, 3), all of one size; read ahead by at most n_workers + 1 blocks of 60.
        n_workers: processes (at least 1); each takes about 0.5 GB.
        subject: whom to follow, where several people are in the picture.
        progress: called with the number of frames done, after every frame.

    Raises:
        BackendError: a worker died or failed.
    """
    n_done = 0
    for block in _estimate_blocks(frames, max(1, n_workers), subject):
        for pose in block:
            n_done += 1
            if progress is not None:
                progress(n_done)
            yield pose


def _estimate_blocks(
    frames: Iterable[np.ndarray], n_workers: int, subject: Subject | None
) -> Iterator[list[RawPose]]:
    finished: dict[int, list[RawPose]] = {}
    next_block = 0
    with _Workers(n_workers) as workers:
        for number, block in enumerate(_blocks(frames, subject, workers.slot)):
            while not workers.idle:
                finished.update(workers.collect())
            workers.submit(number, block)
            while next_block in finished:
                yield finished.pop(next_block)
                next_block += 1
        while workers.busy:
            finished.update(workers.collect())
        while next_block in finished:
            yield finished.pop(next_block)
            next_block += 1


@dataclass(frozen=True)
class _Block:
    """A filled slot of shared memory: n_warm_up frames to be seen only, then n_frames to be answered."""

    slot: int
    shape: tuple[int, int, int]
    size: tuple[int, int]
    n_warm_up: int
    n_frames: int


def _blocks(
    frames: Iterable[np.ndarray], subject: Subject | None, slot_for: Callable[[int], tuple[int, np.ndarray]]
) -> Iterator[_Block]:
    """Writes reduced frames into slots, block by block; the last frames of a block are the warm-up of the next."""
    block: _Block | None = None
    pictures = warm_up = np.empty(0, np.uint8)
    for index, frame in enumerate(frames):
        small = shrink(frame)
        if block is None:
            slot, memory = slot_for((_WARM_UP_FRAMES + _BLOCK_FRAMES) * small.size)
            pictures = memory.reshape(-1, *small.shape)
            pictures[: len(warm_up)] = warm_up.reshape(-1, *small.shape)
            block = _Block(slot, small.shape, frame.shape[:2], len(warm_up), 0)
        at = block.n_warm_up + block.n_frames
        pictures[at] = small
        if subject is not None:
            subject.hide_others(pictures[at], index)
        block = replace(block, n_frames=block.n_frames + 1)
        if block.n_frames == _BLOCK_FRAMES:
            warm_up = pictures[at + 1 - _WARM_UP_FRAMES : at + 1].copy()
            yield block
            block = None
    if block is not None:
        yield block


class _Workers:
    """Processes that track blocks of frames, and the shared memory through which they get them.

    There is one slot more than there are workers, so that the next block is filled while all are busy. The memory has no name
    in the file system: nothing is left behind, however the processes end.
    """

    def __init__(self, n_workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._n_workers = n_workers
        self._slots: list[Any] = []
        self._free: list[int] = []
        self._processes: dict[Connection, SpawnProcess] = {}
        self.idle: list[Connection] = []
        self.busy: dict[Connection, tuple[int, int]] = {}

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        for connection, process in self._processes.items():
            if kind is None and not self.busy:
                connection.send(None)
            else:
                process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()

    def slot(self, n_bytes: int) -> tuple[int, np.ndarray]:
        """Number and memory of a slot that is free: uint8, shape (n_bytes,). The first call starts the workers."""
        if not self._slots:
            self._start(n_bytes)
        slot = self._free.pop()
        return slot, np.frombuffer(self._slots[slot], np.uint8)

    def _start(self, n_bytes: int) -> None:
        self._slots = [self._context.RawArray("B", n_bytes) for _ in range(self._n_workers + 1)]
        self._free = list(range(len(self._slots)))
        for _ in range(self._n_workers):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_work, args=(theirs, self._slots), daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process
            self.idle.append(ours)

    def submit(self, number: int, block: _Block) -> None:
        """Hands a block to a worker that is idle."""
        connection = self.idle.pop()
        self.busy[connection] = (number, block.slot)
        try:
            connection.send(block)
        except BrokenPipeError:
            raise self._death(connection) from None

    def collect(self) -> Iterator[tuple[int, list[RawPose]]]:
        """Waits for at least one block to be done; yields number and poses of all that are."""
        for connection in wait(list(self.busy)):
            assert isinstance(connection, Connection)
            try:
                answer = connection.recv()
            except (EOFError, ConnectionResetError):
                raise self._death(connection) from None
            if isinstance(answer, str):
                raise BackendError(f"pose tracking failed: {answer}")
            number, slot = self.busy.pop(connection)
            self._free.append(slot)
            self.idle.append(connection)
            yield number, answer

    def _death(self, connection: Connection) -> BackendError:
        process = self._processes[connection]
        process.join()
        return BackendError(
            f"a pose tracking process ended unexpectedly (exit code {process.exitcode}): "
            "each needs about 0.5 GB of free memory; try fewer workers"
        )


def _work(connection: Connection, slots: list[Any]) -> None:
    # Ctrl-C reaches the whole process group: the parent ends its workers, they are not to print tracebacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # for good, and not only around calls: the libraries also write from threads of their own
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        with PoseEstimator() as estimator:
            while (block := connection.recv()) is not None:
                connection.send(_track_block(estimator, block, slots[block.slot]))
    except EOFError:
        pass  # the parent is gone
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def _track_block(estimator: PoseEstimator, block: _Block, slot: Any) -> list[RawPose]:
    pictures = np.frombuffer(slot, np.uint8).reshape(-1, *block.shape)
    estimator.restart()
    poses = [estimator.process(picture, block.size) for picture in pictures[: block.n_warm_up + block.n_frames]]
    return poses[block.n_warm_up :]


def _landmarks(found: Any, n_points: int, scale: np.ndarray, visibility: bool = False) -> np.ndarray:
    if found is None:
        return np.full((n_points, 4 if visibility else 3), np.nan, np.float32)
    points = np.array([(point.x, point.y, point.z) for point in found.landmark], np.float32) * scale
    if not visibility:
        return points
    seen = np.array([[point.visibility] for point in found.landmark], np.float32)
    return np.hstack([points, seen])


def _mask_words(mask: np.ndarray | None) -> np.ndarray:
    """Words of a person mask, float32 0..1, shape (height, width): a cell counts if more than half of it is the person."""
    if mask is None:
        return np.zeros(MASK_ROWS, np.uint64)
    cells = cv2.resize(mask, (MASK_COLUMNS, MASK_ROWS), interpolation=cv2.INTER_AREA) > 0.5
    return np.packbits(cells, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)

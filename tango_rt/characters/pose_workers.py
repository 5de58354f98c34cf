"""Processes that track blocks of frames, and the shared memory through which they get them."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from engine.errors import BackendError
from tango_rt.characters.estimator import PoseEstimator, RawPose
from tango_rt.interrupts import hold_interrupts
from tango_rt.models.folder import ensure_models

__all__ = ["Block", "Workers"]


@dataclass(frozen=True)
class Block:
    """A filled slot of shared memory: the last n_warm_up frames of the block before, then n_frames.

    Poses are wanted of the last warm-up frame and of all that follow.
    """

    slot: int
    shape: tuple[int, int, int]
    size: tuple[int, int]
    n_warm_up: int
    n_frames: int


class Workers:
    """A pool for use in a `with`: ended normally it lets its processes go, by an exception or half-way it kills them.

    There is one slot more than there are workers, so that the next block is filled while all are busy. The memory has
    no name in the file system: nothing is left behind, however the processes end.
    """

    def __init__(self, n_workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._n_workers = n_workers
        self._slots: list[Any] = []
        self._free: list[int] = []
        self._processes: dict[Connection, SpawnProcess] = {}
        self.idle: list[Connection] = []
        self.busy: dict[Connection, tuple[int, int]] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
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
            try:
                self._start(n_bytes)
            except OSError as error:
                raise BackendError(
                    f"the processes that track poses cannot be started ({error.strerror or error}): they share memory, "
                    "in /dev/shm or a folder for temporary files that can be written"
                ) from error
        slot = self._free.pop()
        return slot, np.frombuffer(self._slots[slot], np.uint8)

    def _start(self, n_bytes: int) -> None:
        models = ensure_models()  # once, and not by every process
        self._slots = [self._context.RawArray("B", n_bytes) for _ in range(self._n_workers + 1)]
        self._free = list(range(len(self._slots)))
        with hold_interrupts():
            for _ in range(self._n_workers):
                ours, theirs = self._context.Pipe()
                process = self._context.Process(target=_work, args=(theirs, self._slots, models), daemon=True)
                process.start()
                theirs.close()
                self._processes[ours] = process
                self.idle.append(ours)

    def submit(self, number: int, block: Block) -> None:
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


def _work(connection: Connection, slots: list[Any], models: Path) -> None:
    cv2.setNumThreads(1)
    try:
        estimator = PoseEstimator(models)
        while (block := connection.recv()) is not None:
            connection.send(_track_block(estimator, block, slots[block.slot]))
    except EOFError:
        pass  # the parent is gone
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def _track_block(estimator: PoseEstimator, block: Block, slot: Any) -> list[RawPose]:
    pictures = np.frombuffer(slot, np.uint8).reshape(-1, *block.shape)
    estimator.restart()
    poses = [estimator.process(picture, block.size) for picture in pictures[: block.n_warm_up + block.n_frames]]
    return poses[max(0, block.n_warm_up - 1) :]

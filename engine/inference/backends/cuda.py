"""The few CUDA calls that a network needs, through cuda-bindings: a stream, buffers, copies, recorded graphs."""

import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import BackendError
from engine.inference.machine import cuda_reason, cuda_runtime

__all__ = ["Cuda", "CudaGraph", "is_frozen"]

_GIB = float(1 << 30)


class CudaGraph:
    """Recorded launches of a stream; freed by `close` or when nobody holds it any longer."""

    def __init__(self, runtime: Any, executable: Any) -> None:
        self.executable = executable
        self._free = weakref.finalize(self, runtime.cudaGraphExecDestroy, executable)

    def close(self) -> None:
        self._free()


class Cuda:
    """A stream and what is allocated for it; freed by `close` or when nobody holds it any longer.

    Copies and launches are only queued: their memory must stay as it is until `synchronize`. Every call raises
    BackendError with what CUDA says.
    """

    def __init__(self, backend: str) -> None:
        """Raises BackendError where cuda-bindings, which the extra of `backend` brings, or a GPU are missing."""
        self._runtime = cuda_runtime(backend)
        self._owned = contextlib.ExitStack()
        # work of others on the default stream must not wait for ours, nor ours for theirs
        self._stream = self._ask("make a stream", "cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        self._owned.callback(self._runtime.cudaStreamDestroy, self._stream)
        self._free = weakref.finalize(self, self._owned.close)

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    def device_buffer(self, n_bytes: int) -> int:
        """Address of memory on the GPU. Raises BackendError where there is not enough of it."""
        error, address = self._runtime.cudaMalloc(max(1, n_bytes))
        if error == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
            self._runtime.cudaGetLastError()  # else the next launch would report it once more
            raise BackendError(
                f"the GPU is out of memory: {n_bytes / _GIB:.2f} GiB were asked for, {self.free_memory()}; close what "
                "else uses it or take a smaller profile"
            )
        self._check("allocate memory", error)
        self._owned.callback(self._runtime.cudaFree, address)
        return int(address)

    def host_buffer(self, n_bytes: int) -> np.ndarray:
        """Page-locked memory of this machine, uint8, shape (n_bytes,); not to be touched after `close`."""
        address = self._ask(
            f"lock {n_bytes} bytes of memory", "cudaHostAlloc", max(1, n_bytes), self._runtime.cudaHostAllocDefault
        )
        self._owned.callback(self._runtime.cudaFreeHost, address)
        return np.asarray(_Memory(int(address), n_bytes))

    def clear(self, address: int, n_bytes: int) -> None:
        """Fill memory on the GPU with zeros."""
        self._ask("clear memory", "cudaMemsetAsync", address, 0, n_bytes, self._stream)

    def upload(self, address: int, host: np.ndarray) -> None:
        """Copy a host buffer, or the first part of one, to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._ask("copy to the GPU", "cudaMemcpyAsync", address, _address(host), host.nbytes, kind, self._stream)

    def download(self, host: np.ndarray, address: int) -> None:
        """Fill a host buffer, or the first part of one, from the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._ask("copy from the GPU", "cudaMemcpyAsync", _address(host), address, host.nbytes, kind, self._stream)

    def record(self, launches: Callable[[], None]) -> CudaGraph | None:
        """Record what `launches` puts on the stream, without running it; None where CUDA or the caller refuses that."""
        runtime = self._runtime
        # only calls of this thread can spoil the recording: other sessions may open and run meanwhile
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._ask("record", "cudaStreamBeginCapture", self._stream, mode)
        refused = False
        try:
            launches()
        except BackendError:
            refused = True
        finally:  # the stream must not stay in this state, whatever happens
            error, graph = runtime.cudaStreamEndCapture(self._stream)
        executable = None
        if error == runtime.cudaError_t.cudaSuccess and not refused:
            error, executable = runtime.cudaGraphInstantiate(graph, 0)
        if graph is not None and int(graph):
            runtime.cudaGraphDestroy(graph)
        if refused or error != runtime.cudaError_t.cudaSuccess:
            runtime.cudaGetLastError()
            return None
        return CudaGraph(runtime, executable)

    def launch(self, graph: CudaGraph) -> None:
        """Run what was recorded once more."""
        self._ask("launch a graph", "cudaGraphLaunch", graph.executable, self._stream)

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        self._ask("run a network", "cudaStreamSynchronize", self._stream)

    def free_memory(self) -> str:
        """As "1.20 of 23.68 GiB are free"."""
        error, free, total = self._runtime.cudaMemGetInfo()
        known = error == self._runtime.cudaError_t.cudaSuccess
        return f"{free / _GIB:.2f} of {total / _GIB:.2f} GiB are free" if known else "how much is free is unknown"

    def close(self) -> None:
        """Free everything; nothing of it may be used any longer."""
        self._free()

    def _ask(self, purpose: str, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._runtime, name)(*arguments)
        self._check(purpose, error)
        return values[0] if values else None

    def _check(self, purpose: str, error: Any) -> None:
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA could not {purpose}: {cuda_reason(self._runtime, error)}")


def is_frozen(array: np.ndarray) -> bool:
    """Whether nobody can write to an array: it is read-only, and so is all that it is a view of.

    Who marks an array as read-only promises not to change it by views that were taken before.
    """
    shown: Any = array
    while isinstance(shown, np.ndarray):
        if shown.flags.writeable:
            return False
        shown = shown.base
    return shown is None  # memory that is not NumPy's may change


@dataclass(frozen=True)
class _Memory:
    """Memory by its address, for NumPy to look at."""

    address: int
    n_bytes: int

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.n_bytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}


def _address(host: np.ndarray) -> int:
    return int(host.__array_interface__["data"][0])

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
    """Recorded launches of a stream; freed by `close` or when garbage-collected."""

    def __init__(self, runtime: Any, executable: Any) -> None:
        self.executable = executable
        self._free = weakref.finalize(self, runtime.cudaGraphExecDestroy, executable)

    def close(self) -> None:
        self._free()


class Cuda:
    """A stream and the memory allocated for it; freed by `close` or when garbage-collected.

    Copies and launches are only queued: their memory must not change until `synchronize`. Every call raises
    BackendError with CUDA's message.
    """

    def __init__(self, backend: str) -> None:
        """Raises BackendError if there is no GPU or cuda-bindings (in the extra of `backend`) are missing."""
        self._runtime = cuda_runtime(backend)
        self._owned = contextlib.ExitStack()
        # our work and work on the default stream must not wait for each other
        self._stream = self._ask("create a stream", "cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        self._owned.callback(self._runtime.cudaStreamDestroy, self._stream)
        self._free = weakref.finalize(self, self._owned.close)

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    def device_buffer(self, n_bytes: int) -> int:
        """Address of new memory on the GPU. Raises BackendError if there is not enough."""
        error, address = self._runtime.cudaMalloc(max(1, n_bytes))
        if error == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
            self._runtime.cudaGetLastError()  # else the next launch would report it again
            raise BackendError(
                f"the GPU is out of memory: {n_bytes / _GIB:.2f} GiB needed, {self.free_memory()}; close other "
                "programs that use it, or use a smaller profile"
            )
        self._check("allocate memory", error)
        self._owned.callback(self._runtime.cudaFree, address)
        return int(address)

    def host_buffer(self, n_bytes: int) -> np.ndarray:
        """Page-locked host memory, uint8, shape (n_bytes,); must not be used after `close`."""
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
        """Record the work that `launches` queues, without running it; None if CUDA or `launches` refuses."""
        runtime = self._runtime
        # only calls of this thread can invalidate the recording: other sessions may open and run meanwhile
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._ask("record", "cudaStreamBeginCapture", self._stream, mode)
        refused = False
        try:
            launches()
        except BackendError:
            refused = True
        finally:  # always end the capture
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
        """Replay a recording."""
        self._ask("launch a graph", "cudaGraphLaunch", graph.executable, self._stream)

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        self._ask("run a network", "cudaStreamSynchronize", self._stream)

    def free_memory(self) -> str:
        """For example "1.20 of 23.68 GiB are free"."""
        error, free, total = self._runtime.cudaMemGetInfo()
        known = error == self._runtime.cudaError_t.cudaSuccess
        return f"{free / _GIB:.2f} of {total / _GIB:.2f} GiB are free" if known else "free memory unknown"

    def close(self) -> None:
        """Free the stream and all its memory, which must not be used afterwards."""
        self._free()

    def _ask(self, purpose: str, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._runtime, name)(*arguments)
        self._check(purpose, error)
        return values[0] if values else None

    def _check(self, purpose: str, error: Any) -> None:
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA could not {purpose}: {cuda_reason(self._runtime, error)}")


def is_frozen(array: np.ndarray) -> bool:
    """Whether an array cannot be written to: it and every array that it is a view of are read-only.

    Marking an array read-only is a promise not to change it through views taken earlier.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None  # memory not owned by NumPy may change


@dataclass(frozen=True)
class _Memory:
    """Memory at an address, as NumPy's array interface."""

    address: int
    n_bytes: int

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.n_bytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}


def _address(host: np.ndarray) -> int:
    return int(host.__array_interface__["data"][0])

"""CUDA and TensorRT without a GPU: memory of this machine stands for the GPU's, NumPy computes the engines.

Work that is queued on a stream is done when somebody waits for the stream, not before. Addresses have to lie in live
memory of the right side, a recorded graph may only run while nobody has changed the context that it was recorded from.
"""

import enum
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from engine.inference.manifest import GraphSpec

Function = Callable[..., tuple[np.ndarray, ...]]
GPU = "NVIDIA Fake 9000"
DRIVER = "580.65.06"
_DTYPES = {"float32": "FLOAT", "int32": "INT32", "int64": "INT64", "bool": "BOOL", "float64": "DOUBLE"}


class CudaError(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureInvalidated = 901


class Handle:
    """Stands for cudaStream_t, cudaGraph_t and the like."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


@dataclass
class Stream:
    queue: list[Callable[[], None]] = field(default_factory=list)
    recording: list[Callable[[], None]] | None = None
    spoilt: bool = False


class FakeCuda(ModuleType):
    """cuda.bindings.runtime with one GPU of `n_bytes`."""

    cudaError_t = CudaError
    cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"])
    cudaStreamCaptureMode = enum.IntEnum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self, n_bytes: int = 1 << 30, n_gpus: int = 1) -> None:
        super().__init__("cuda.bindings.runtime")
        self.n_bytes, self.n_gpus = n_bytes, n_gpus
        self.capability = (9, 0)
        self.device: dict[int, np.ndarray] = {}
        self.host: dict[int, np.ndarray] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.uploads: list[int] = []  # sizes in bytes
        self.launches = 0
        self.fail_next_wait = False
        self._lock = threading.RLock()
        self._handles = 0

    @property
    def owned(self) -> tuple[int, ...]:
        """How many of everything that has to be given back there are."""
        return len(self.device), len(self.host), len(self.streams), len(self.graphs), len(self.executables)

    def view(self, memory: dict[int, np.ndarray], address: int, n_bytes: int) -> np.ndarray:
        for start, block in memory.items():
            if start <= address and address + n_bytes <= start + block.size:
                return block[address - start :][:n_bytes]
        raise AssertionError(f"{n_bytes} bytes at {address} are not in live memory of that side")

    def put(self, stream: Any, work: Callable[[], None]) -> None:
        found = self.streams[int(stream)]
        (found.queue if found.recording is None else found.recording).append(work)

    def cudaGetDeviceCount(self) -> tuple[CudaError, int | None]:
        return (CudaError.cudaSuccess, self.n_gpus) if self.n_gpus else (CudaError.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[CudaError, Any]:
        major, minor = self.capability
        return CudaError.cudaSuccess, SimpleNamespace(name=GPU.encode() + b"\0\0", major=major, minor=minor)

    def cudaDriverGetVersion(self) -> tuple[CudaError, int]:
        return CudaError.cudaSuccess, 13010

    def cudaGetErrorString(self, error: CudaError) -> tuple[CudaError, bytes]:
        return CudaError.cudaSuccess, error.name.removeprefix("cudaError").lower().encode()

    def cudaGetErrorName(self, error: CudaError) -> tuple[CudaError, bytes]:
        return CudaError.cudaSuccess, error.name.encode()

    def cudaGetLastError(self) -> tuple[CudaError]:
        return (CudaError.cudaSuccess,)

    def cudaMemGetInfo(self) -> tuple[CudaError, int, int]:
        return CudaError.cudaSuccess, self._free_bytes(), self.n_bytes

    def cudaMalloc(self, n_bytes: int) -> tuple[CudaError, int | None]:
        with self._lock:
            for stream in self.streams.values():
                stream.spoilt = stream.recording is not None
            if n_bytes > self._free_bytes():
                return CudaError.cudaErrorMemoryAllocation, None
            return CudaError.cudaSuccess, self._allocate(self.device, n_bytes)

    def cudaHostAlloc(self, n_bytes: int, flags: int) -> tuple[CudaError, int]:
        with self._lock:
            return CudaError.cudaSuccess, self._allocate(self.host, n_bytes)

    def cudaFree(self, address: int) -> tuple[CudaError]:
        self.device.pop(address)[:] = 0xCD
        return (CudaError.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[CudaError]:
        self.host.pop(address)
        return (CudaError.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[CudaError, Handle]:
        assert flags == self.cudaStreamNonBlocking
        return CudaError.cudaSuccess, self._handle(self.streams, Stream())

    def cudaStreamDestroy(self, stream: Any) -> tuple[CudaError]:
        del self.streams[int(stream)]
        return (CudaError.cudaSuccess,)

    def cudaMemsetAsync(self, address: int, value: int, n_bytes: int, stream: Any) -> tuple[CudaError]:
        self.put(stream, lambda: self.view(self.device, address, n_bytes).fill(value))
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, n_bytes: int, kind: Any, stream: Any) -> tuple[CudaError]:
        up = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        sides = (self.device, self.host) if up else (self.host, self.device)
        if up:
            self.uploads.append(n_bytes)

        def copy() -> None:
            self.view(sides[0], to, n_bytes)[:] = self.view(sides[1], source, n_bytes)

        self.put(stream, copy)
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[CudaError]:
        with self._lock:
            found = self.streams[int(stream)]
            if found.recording is not None:
                found.spoilt = True
                return (CudaError.cudaErrorStreamCaptureInvalidated,)
            if self.fail_next_wait:
                self.fail_next_wait = False
                found.queue.clear()
                return (CudaError.cudaErrorLaunchFailure,)
            while found.queue:
                found.queue.pop(0)()
            return (CudaError.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[CudaError]:
        self.streams[int(stream)].recording = []
        self.streams[int(stream)].spoilt = False
        return (CudaError.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[CudaError, Handle | None]:
        found = self.streams[int(stream)]
        recorded, found.recording = found.recording, None
        assert recorded is not None
        if found.spoilt:
            return CudaError.cudaErrorStreamCaptureInvalidated, None
        return CudaError.cudaSuccess, self._handle(self.graphs, recorded)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[CudaError, Handle]:
        return CudaError.cudaSuccess, self._handle(self.executables, self.graphs[int(graph)])

    def cudaGraphDestroy(self, graph: Any) -> tuple[CudaError]:
        del self.graphs[int(graph)]
        return (CudaError.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: Any) -> tuple[CudaError]:
        del self.executables[int(executable)]
        return (CudaError.cudaSuccess,)

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> tuple[CudaError]:
        self.launches += 1
        for work in self.executables[int(executable)]:
            self.put(stream, work)
        return (CudaError.cudaSuccess,)

    def _free_bytes(self) -> int:
        return self.n_bytes - sum(block.size for block in self.device.values())

    def _allocate(self, memory: dict[int, np.ndarray], n_bytes: int) -> int:
        block = np.full(n_bytes, 0xAB, np.uint8)  # nothing is zero by chance
        address = int(block.__array_interface__["data"][0])
        memory[address] = block
        return address

    def _handle(self, table: dict[int, Any], value: Any) -> Handle:
        self._handles += 1
        table[self._handles] = value
        return Handle(self._handles)


def fake_nvml() -> ModuleType:
    """cuda.bindings.nvml."""
    nvml: Any = ModuleType("cuda.bindings.nvml")
    nvml.init_v2 = nvml.shutdown = lambda: None
    nvml.system_get_driver_version = lambda: DRIVER
    return nvml


def engine_bytes(
    spec: GraphSpec, sizes: Mapping[str, tuple[int, int, int]], version: str = "10.13.2.6", gpu: str = GPU
) -> bytes:
    """An engine file of the fake library."""
    tensors = [
        {"name": t.name, "dtype": _DTYPES[t.dtype], "shape": list(t.shape), "input": t in spec.inputs}
        for t in (*spec.inputs, *spec.outputs)
    ]
    content = {"name": spec.name, "tensors": tensors, "sizes": sizes, "version": version, "gpu": gpu}
    return b"plan" + json.dumps(content).encode()


class FakeTensorRt(ModuleType):
    """tensorrt, or tensorrt_rtx_bindings; `functions` compute the engines by their names."""

    ExecutionContextAllocationStrategy = enum.Enum("ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"])
    TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
    TensorLocation = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
    DataType = enum.Enum("DataType", list(_DTYPES.values()))

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING"])

        def log(self, severity: Any, msg: str) -> None: ...

    def __init__(self, cuda: FakeCuda, functions: Mapping[str, Function], rtx: bool = False) -> None:
        super().__init__("tensorrt_rtx_bindings" if rtx else "tensorrt")
        self.__version__ = "1.7.1.116" if rtx else "10.13.2.6"
        self.cuda, self.functions = cuda, functions
        self.can_be_recorded = True
        self.out_of_memory = False
        self.out_of_memory_later = False
        self.says_sizes = True
        self.enqueued = 0
        self.contexts: list[Any] = []
        self.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=lambda buffer: self._engine(log, buffer))
        if rtx:
            self.CudaGraphStrategy = enum.Enum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"])
            self.DynamicShapesKernelSpecializationStrategy = enum.Enum("Specialization", ["LAZY", "EAGER"])

    def _engine(self, log: Any, buffer: Any) -> "FakeEngine | None":
        log.log(self.ILogger.Severity.WARNING, "not worth a word")
        content = bytes(memoryview(buffer))
        if not content.startswith(b"plan"):
            reason = "Serialization assertion magicTagRead == kMAGIC_TAG failed.\n"
        elif (plan := json.loads(content[4:]))["version"] != self.__version__:
            reason = f"not compatible with this version, expecting {self.__version__} got {plan['version']}"
        elif plan["gpu"] != GPU:
            reason = "generated on an incompatible device"
        elif self.out_of_memory:
            reason = "Error Code 2: OutOfMemory"
        else:
            return FakeEngine(self, log, plan)
        log.log(self.ILogger.Severity.ERROR, reason)
        return None


class FakeEngine:
    """tensorrt.ICudaEngine."""

    device_memory_size_v2 = 1000

    def __init__(self, library: FakeTensorRt, log: Any, plan: dict[str, Any]) -> None:
        self.library, self.log, self.plan = library, log, plan
        self.tensors = {tensor["name"]: tensor for tensor in plan["tensors"]}
        self.num_io_tensors = len(self.tensors)
        self.contexts = 0

    def get_tensor_name(self, at: int) -> str:
        return list(self.tensors)[at]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.library.DataType[self.tensors[name]["dtype"]]

    def get_tensor_location(self, name: str) -> Any:
        return self.library.TensorLocation[self.tensors[name].get("location", "DEVICE")]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        shape = self.tensors[name]["shape"]
        sizes = self.plan["sizes"]
        return [tuple(size if isinstance(size, int) else sizes[size][at] for size in shape) for at in range(3)]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(
            set_execution_context_allocation_strategy=lambda strategy: None,
            create_runtime_cache=object,
            set_runtime_cache=lambda cache: True,
        )

    def create_execution_context(self, how: Any) -> "FakeContext | None":
        if self.library.out_of_memory_later:
            self.log.log(self.library.ILogger.Severity.ERROR, "Error Code 2: OutOfMemory")
            return None
        context = FakeContext(self, how)
        self.contexts += 1
        self.library.contexts.append(context)
        return context


class FakeContext:
    """tensorrt.IExecutionContext."""

    def __init__(self, engine: FakeEngine, how: Any) -> None:
        self.engine, self.how = engine, how
        self.active_optimization_profile = 0 if engine.contexts == 0 else -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)
        self.changes = 0

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.active_optimization_profile = profile
        return True

    def set_device_memory(self, address: int, n_bytes: int) -> None:
        self.changes += 1
        self.memory = address, n_bytes

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.changes += 1
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        self.shapes[name] = shape
        return len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.changes += 1
        self.addresses[name] = address
        return name in self.engine.tensors

    def infer_shapes(self) -> list[str]:
        inputs = [name for name, tensor in self.engine.tensors.items() if tensor["input"]]
        return [name for name in inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.infer_shapes() or not self.engine.library.says_sizes:
            return self.engine.get_tensor_shape(name)
        inputs = [np.zeros(shape, np.float32) for shape in self.shapes.values()]
        found = dict(
            zip(self._outputs(), self.engine.library.functions[self.engine.plan["name"]](*inputs), strict=True)
        )
        return tuple(found[name].shape)

    def execute_async_v3(self, stream: int) -> bool:
        library = self.engine.library
        recording = library.cuda.streams[stream].recording is not None
        assert self.active_optimization_profile == 0 and not self.infer_shapes()
        assert self.addresses.keys() == self.engine.tensors.keys()
        if recording and not library.can_be_recorded:
            self.engine.log.log(library.ILogger.Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        changes = self.changes

        def compute() -> None:
            assert self.changes == changes, "the context was changed since this was put on the stream"
            self._compute()

        library.enqueued += 1
        library.cuda.put(stream, compute)
        return True

    def _outputs(self) -> list[str]:
        return [name for name, tensor in self.engine.tensors.items() if not tensor["input"]]

    def _compute(self) -> None:
        cuda = self.engine.library.cuda
        cuda.view(cuda.device, *self.memory).fill(0xEE)  # it may write there what it likes
        inputs = [self._array(name, shape) for name, shape in self.shapes.items()]
        outputs = self.engine.library.functions[self.engine.plan["name"]](*(array.copy() for array in inputs))
        for name, array in zip(self._outputs(), outputs, strict=True):
            self._array(name, array.shape)[...] = array

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        cuda = self.engine.library.cuda
        names = {trt: numpy for numpy, trt in _DTYPES.items()}
        dtype = np.dtype(names[self.engine.tensors[name]["dtype"]])
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return cuda.view(cuda.device, self.addresses[name], n_bytes).view(dtype).reshape(shape)

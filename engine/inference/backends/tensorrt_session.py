"""TensorRT 10.x and 11.x and TensorRT-RTX: a compiled engine on its own stream, buffers allocated once.

A context, its addresses and a recorded CUDA graph are kept for each set of shapes, because a graph is only valid while
the context that it was recorded from does not change. All contexts of a session share one block of memory for
activations, because they run one after the other.
"""

import contextlib
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.errors import ArtifactError, BackendError
from engine.inference.backends.cuda import Cuda, CudaGraph, is_frozen
from engine.inference.backends.tensorrt_engine import check_engine, compile_command, read_engine
from engine.inference.backends.tensorrt_library import error_log, load
from engine.inference.manifest import GraphSpec, Profile, TensorSpec
from engine.inference.session import RunOptions, check_inputs, failed_run, one_line

__all__ = ["TensorRtSession"]

MAX_SHAPES = 8  # sets of shapes that stay warm; opening one costs 10 ms or more

_log = logging.getLogger(__name__)

Shape = tuple[int, ...]


@dataclass
class _Buffer:
    """Memory of one input or output, on both sides, as large as the profile allows."""

    tensor: TensorSpec
    device: int
    host: np.ndarray  # uint8
    held: np.ndarray | None = None  # the read-only array that is now on the GPU

    def view(self, shape: Shape) -> np.ndarray:
        dtype = np.dtype(self.tensor.dtype)
        return self.host[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


@dataclass
class _Shaped:
    """The engine at one set of input shapes."""

    context: Any
    outputs: tuple[Shape, ...]
    graph: CudaGraph | None = None


class TensorRtSession:
    """A compiled engine; implements engine.inference.session.Session.

    An input that is the same read-only array object as in the previous call (`array.setflags(write=False)`, also on
    arrays that it is a view of) is on the GPU already and not copied again.
    """

    def __init__(self, file: Path, spec: GraphSpec, options: RunOptions, backend: str) -> None:
        """Opens and warms the engine.

        Raises BackendError if the library or a GPU is missing or the GPU has too little memory, ArtifactError for a
        file that is not an engine for this GPU and version, or not for this network and profile.
        """
        if not options.compiled:
            raise ArtifactError(f"{file} is not an engine: {backend} runs the output of {compile_command(backend)}")
        self.spec = spec
        self._backend = backend
        self._options = options
        self._lock = threading.Lock()
        self._shaped: OrderedDict[tuple[Shape, ...], _Shaped] = OrderedDict()
        self._inputs: list[_Buffer] = []
        self._outputs: list[_Buffer] = []
        self._profile: Profile = {}
        self._engine: Any = None
        self._config: Any = None
        self._trt = load(backend)
        self._errors = error_log(self._trt)
        self._cuda = Cuda(backend)
        try:
            self._open(file)
        except RuntimeError as error:  # raised by the library's bindings
            self.close()
            raise BackendError(f"network {spec.name} cannot be opened by {backend}: {one_line(error)}") from error
        except BaseException:
            self.close()
            raise

    @property
    def n_graphs(self) -> int:
        """Number of recorded CUDA graphs; TensorRT-RTX manages its own."""
        return sum(shaped.graph is not None for shaped in self._shaped.values())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See engine.inference.session.Session."""
        check_inputs(self.spec, inputs, self._profile)
        with self._lock:
            if self._engine is None:
                raise ValueError(f"the session of network {self.spec.name} is closed")
            try:
                return self._run(inputs)
            except (BackendError, RuntimeError) as error:  # RuntimeError: raised by the library's bindings
                for buffer in self._inputs:
                    buffer.held = None
                with contextlib.suppress(BackendError):  # host buffers must not be written while they are read
                    self._cuda.synchronize()
                raise failed_run(self.spec, inputs, error) from error

    def close(self) -> None:
        """See engine.inference.session.Session."""
        with self._lock:
            for shaped in self._shaped.values():
                _close(shaped)
            self._shaped.clear()
            self._inputs = self._outputs = []
            self._engine = self._config = None
            self._cuda.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shaped = self._at(tuple(inputs[buffer.tensor.name].shape for buffer in self._inputs))
        for buffer in self._inputs:
            self._upload(buffer, inputs[buffer.tensor.name])
        if shaped.graph is not None:
            self._cuda.launch(shaped.graph)
        else:
            self._enqueue(shaped)
        views = [buffer.view(shape) for buffer, shape in zip(self._outputs, shaped.outputs, strict=True)]
        for buffer, view in zip(self._outputs, views, strict=True):
            self._cuda.download(view, buffer.device)
        self._cuda.synchronize()
        return {buffer.tensor.name: view.copy() for buffer, view in zip(self._outputs, views, strict=True)}

    def _upload(self, buffer: _Buffer, array: np.ndarray) -> None:
        if array is buffer.held:
            return
        buffer.held = None
        view = buffer.view(array.shape)
        np.copyto(view, array)
        self._cuda.upload(buffer.device, view)
        if is_frozen(array):
            buffer.held = array

    def _open(self, file: Path) -> None:
        self._engine = read_engine(file, self._backend, self._cuda)
        self._profile = check_engine(self._engine, file, self.spec, self._options.profile, self._backend)
        self._config = self._runtime_config()
        self._recording = self._options.cuda_graphs and self._config is None
        self._memory_bytes = int(self._engine.device_memory_size_v2)
        self._memory = self._cuda.device_buffer(self._memory_bytes)
        _, usual, most = (self._shapes(at) for at in range(3))
        self._inputs = [self._buffer(*pair) for pair in zip(self.spec.inputs, most, strict=True)]
        context, outputs = self._context(most)
        self._outputs = [self._buffer(*pair) for pair in zip(self.spec.outputs, outputs, strict=True)]
        self._shaped[most] = self._warm(context, outputs)
        self._at(usual)

    def _shapes(self, at: int) -> tuple[Shape, ...]:
        """Shapes of all inputs at the smallest (0), usual (1) or largest (2) sizes of the profile."""
        return tuple(
            tuple(self._profile[size][at] if isinstance(size, str) else size for size in tensor.shape)
            for tensor in self.spec.inputs
        )

    def _buffer(self, tensor: TensorSpec, shape: Shape) -> _Buffer:
        n_bytes = math.prod(shape) * np.dtype(tensor.dtype).itemsize
        buffer = _Buffer(tensor, self._cuda.device_buffer(n_bytes), self._cuda.host_buffer(n_bytes))
        self._cuda.clear(buffer.device, n_bytes)  # a warm-up reads it
        return buffer

    def _runtime_config(self) -> Any:
        """For TensorRT-RTX, which compiles kernels and records CUDA graphs itself; None for TensorRT."""
        if not hasattr(self._trt, "CudaGraphStrategy"):
            return None
        strategies = self._trt.CudaGraphStrategy
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = (
            strategies.WHOLE_GRAPH_CAPTURE if self._options.cuda_graphs else strategies.DISABLED
        )
        # compile while opening, not during the first frames
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.set_runtime_cache(config.create_runtime_cache())  # one for the contexts of all shapes
        return config

    def _context(self, shapes: tuple[Shape, ...]) -> tuple[Any, tuple[Shape, ...]]:
        """A context with these input shapes, and the shapes of its outputs."""
        user_managed = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(user_managed if self._config is None else self._config)
        if context is None:
            raise self._failed("prepare it")
        context.set_device_memory(self._memory, self._memory_bytes)
        # only the first context of an engine starts with a profile
        if context.active_optimization_profile != 0 and not context.set_optimization_profile_async(
            0, self._cuda.stream
        ):
            raise self._failed("choose its profile")
        for buffer, shape in zip(self._inputs, shapes, strict=True):
            fits = context.set_input_shape(buffer.tensor.name, shape)
            if not fits or not context.set_tensor_address(buffer.tensor.name, buffer.device):
                raise self._failed(f"take {buffer.tensor.name} as {list(shape)}")
        outputs = tuple(tuple(context.get_tensor_shape(tensor.name)) for tensor in self.spec.outputs)
        if context.infer_shapes() or any(size < 0 for shape in outputs for size in shape):
            raise self._failed("say how large its outputs are before it is run")
        return context, outputs

    def _at(self, shapes: tuple[Shape, ...]) -> _Shaped:
        """The warm engine at these shapes; the least recently used one is closed to make room."""
        if shapes in self._shaped:
            self._shaped.move_to_end(shapes)
            return self._shaped[shapes]
        while len(self._shaped) >= MAX_SHAPES:
            _close(self._shaped.popitem(last=False)[1])
        self._shaped[shapes] = self._warm(*self._context(shapes))
        return self._shaped[shapes]

    def _warm(self, context: Any, outputs: tuple[Shape, ...]) -> _Shaped:
        shaped = _Shaped(context, outputs)
        for buffer in self._outputs:
            if not context.set_tensor_address(buffer.tensor.name, buffer.device):
                raise self._failed(f"write {buffer.tensor.name}")
        self._enqueue(shaped)  # the first run allocates, which a recording must not
        self._cuda.synchronize()
        if self._recording:
            shaped.graph = self._cuda.record(lambda: self._enqueue(shaped))
            if shaped.graph is None:
                self._recording = False
                _log.warning("network %s cannot be recorded as a CUDA graph, running without", self.spec.name)
        return shaped

    def _enqueue(self, shaped: _Shaped) -> None:
        if not shaped.context.execute_async_v3(self._cuda.stream):
            raise self._failed("run it")

    def _failed(self, purpose: str) -> BackendError:
        reason = self._errors.take() or "no reason given"
        if "memory" in reason.lower():
            reason = f"{reason} ({self._cuda.free_memory()})"
        return BackendError(f"network {self.spec.name}: {self._backend} could not {purpose}: {reason}")


def _close(shaped: _Shaped) -> None:
    if shaped.graph is not None:
        shaped.graph.close()
    shaped.context = shaped.graph = None

"""A network in ONNX Runtime: in float32 on the CPU, in the types of the graph on a GPU."""

import contextlib
import io
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.errors import ArtifactError, BackendError
from engine.inference.backends.cuda import is_frozen
from engine.inference.backends.libraries import import_onnxruntime
from engine.inference.manifest import GraphSpec
from engine.inference.session import RunOptions, check_inputs, check_names, failed_run, one_line
from engine.inference.target import Precision

__all__ = ["OnnxRuntimeSession"]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_FATAL = 4  # log level: everything below reaches the caller as an exception

_log = logging.getLogger(__name__)


class OnnxRuntimeSession:
    """A network in ONNX Runtime; implements engine.inference.session.Session.

    On a GPU, an input that is the same read-only array object as in the previous call is not copied again.
    """

    def __init__(self, file: Path, spec: GraphSpec, options: RunOptions, on_gpu: bool = False) -> None:
        """Raises BackendError if it is not installed or lacks the precision, ArtifactError for a damaged file."""
        self.spec = spec
        self._profile = options.profile
        self._session: Any = _open(file, options, on_gpu)
        self.provider: str = self._session.get_providers()[0]  # CPU or CUDA
        if self.provider == CPU and options.precision != "fp32":
            raise BackendError(
                f"onnxruntime computes only in fp32 on a CPU, not in {options.precision}: use openvino or a GPU"
            )
        found = [tensor.name for tensor in (*self._session.get_inputs(), *self._session.get_outputs())]
        check_names(file, spec, found)
        self._binding = DeviceBinding(self._session, spec) if self.provider == CUDA else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See engine.inference.session.Session."""
        session, binding = self._session, self._binding
        if session is None:
            raise ValueError(f"the session of network {self.spec.name} is closed")
        check_inputs(self.spec, inputs, self._profile)
        names = [tensor.name for tensor in self.spec.outputs]
        feeds = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        try:
            outputs = session.run(names, feeds) if binding is None else binding.run(feeds)
        except Exception as error:  # the library's own errors have no common base
            raise failed_run(self.spec, inputs, error) from error
        return dict(zip(names, outputs, strict=True))

    def close(self) -> None:
        """See engine.inference.session.Session."""
        self._session = self._binding = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DeviceBinding:
    """Inputs and outputs of a session kept in the same device memory as long as shapes do not change."""

    def __init__(self, session: Any, spec: GraphSpec, device: str = "cuda") -> None:
        self._session = session
        self._device = device
        self._outputs = [tensor.name for tensor in spec.outputs]
        self._lock = threading.Lock()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._values: dict[str, Any] = {}
        self._held: dict[str, np.ndarray] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in the order of the spec, as copies."""
        with self._lock:
            held, self._held = self._held, {}  # hold nothing if an upload or a run fails
            shapes = {name: array.shape for name, array in feeds.items()}
            if shapes != self._shapes:
                self._shapes, held = {}, {}
                self._bind(feeds)
                self._shapes = shapes
            for name, array in feeds.items():
                if held.get(name) is not array:
                    self._values[name].update_inplace(array)
            self._session.run_with_iobinding(self._binding)
            found = [self._values[name].numpy() for name in self._outputs]
            # on the CPU, numpy() returns a view, not a copy
            outputs = [array if array.flags.owndata else array.copy() for array in found]
            self._held = {name: array for name, array in feeds.items() if is_frozen(array)}
            return outputs

    def _bind(self, feeds: Mapping[str, np.ndarray]) -> None:
        onnxruntime = import_onnxruntime()
        self._binding = self._session.io_binding()
        self._values = {}
        for name, array in feeds.items():
            allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            self._values[name] = allocate(list(array.shape), array.dtype.type, self._device, 0)
            self._values[name].update_inplace(array)
            self._binding.bind_ortvalue_input(name, self._values[name])
        for name in self._outputs:
            self._binding.bind_output(name, self._device, 0)
        # one run without recording finds the sizes of the outputs
        unrecorded = onnxruntime.RunOptions()
        unrecorded.add_run_config_entry("gpu_graph_id", "-1")
        self._session.run_with_iobinding(self._binding, unrecorded)
        for name, value in zip(self._outputs, self._binding.get_outputs(), strict=True):
            self._values[name] = value
        self._binding.clear_binding_outputs()
        for name in self._outputs:
            self._binding.bind_ortvalue_output(name, self._values[name])


def _on_gpu(precision: Precision, cuda_graph: bool = False) -> list[Any]:
    """Execution providers of a session: the GPU before the CPU."""
    # TensorFloat32 has only 10 bits of mantissa, less than fp32 promises
    settings = {"use_tf32": int(precision != "fp32"), "enable_cuda_graph": int(cuda_graph)}
    return [(CUDA, {name: str(value) for name, value in settings.items()}), CPU]


def _open(file: Path, options: RunOptions, on_gpu: bool) -> Any:
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = options.n_threads
    settings.inter_op_num_threads = 1
    # spinning threads would take cores from the rest of a live session
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if options.compiled:  # already optimised when it was compiled
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    pinned = bool(options.profile) and all(least == most for least, _, most in (options.profile or {}).values())
    providers: list[Any] = [CPU]
    if on_gpu:
        providers = _on_gpu(options.precision)
        if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: CUDA and cuDNN from NVIDIA's packages
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
        if options.cuda_graphs and pinned:
            try:
                recording = _on_gpu(options.precision, cuda_graph=True)
                return onnxruntime.InferenceSession(str(file), settings, providers=recording)
            except Exception as error:  # it refuses if any node has to run on the CPU
                _log.warning("%s cannot be recorded as a CUDA graph, running without: %s", file.name, one_line(error))
    try:
        return onnxruntime.InferenceSession(str(file), settings, providers=providers)
    except Exception as error:  # the library's own errors have no common base
        advice = ": run 'tango-export compile --backend onnxruntime'" if options.compiled else ""
        raise ArtifactError(f"{file} is not a network that onnxruntime can open ({one_line(error)}){advice}") from error

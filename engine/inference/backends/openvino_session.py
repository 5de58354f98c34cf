"""A network in OpenVINO on the CPU: in float32, or internally in a low precision that the CPU supports."""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.errors import ArtifactError
from engine.inference.backends.libraries import import_openvino, shared_core
from engine.inference.manifest import GraphSpec
from engine.inference.session import RunOptions, check_inputs, check_names, failed_run, one_line
from engine.inference.target import Precision

__all__ = ["HINTS", "OpenVinoSession", "read_onnx"]

HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoSession:
    """A network in OpenVINO; implements engine.inference.session.Session."""

    def __init__(self, file: Path, spec: GraphSpec, options: RunOptions) -> None:
        """The CPU must support the precision. Raises BackendError without the library, ArtifactError for a bad file."""
        self.spec = spec
        self._profile = options.profile
        self._compiled, self._content = _open(file, options)  # the content must live as long as the network
        known = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
        ports = (*self._compiled.inputs, *self._compiled.outputs)
        # a port also has the names of tensors that are merely passed on to it
        check_names(file, spec, {name for port in ports for name in port.names & known or port.names})
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()  # a request holds the state of a single run

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See engine.inference.session.Session."""
        check_inputs(self.spec, inputs, self._profile)
        feeds = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        with self._lock:
            if self._compiled is None:
                raise ValueError(f"the session of network {self.spec.name} is closed")
            try:
                self._request.infer(feeds, share_inputs=True)
                names = [tensor.name for tensor in self.spec.outputs]
                return {name: self._request.get_tensor(name).data.copy() for name in names}
            except Exception as error:  # the library's own errors have no common base
                raise failed_run(self.spec, inputs, error) from error

    def close(self) -> None:
        """See engine.inference.session.Session."""
        with self._lock:
            self._request = self._compiled = None
            self._content = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_onnx(file: Path) -> Any:
    """The network of an ONNX file; errors are the library's own, which have no common base."""
    import_openvino()
    from openvino.frontend import FrontEndManager

    # read_model tries other formats if a file is not ONNX, and their readers write to the terminal
    onnx = FrontEndManager().load_by_framework("onnx")
    return onnx.convert(onnx.load(str(file)))


def _open(file: Path, options: RunOptions) -> tuple[Any, Any]:
    """The compiled network, and the file's content if the network goes on reading from it."""
    openvino, core = import_openvino(), shared_core()
    settings = {
        # needed for imports too: without it the network runs in bfloat16 if the CPU supports that
        "INFERENCE_PRECISION_HINT": HINTS[options.precision],
        "INFERENCE_NUM_THREADS": options.n_threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        if options.compiled:
            # mapped, not read: the weights are used in place; "c" because it requires writable memory
            content = openvino.Tensor(np.memmap(file, np.uint8, "c"), shared_memory=True)
            return core.import_model(content, "CPU", settings), content
        return core.compile_model(read_onnx(file), "CPU", settings), None
    except Exception as error:  # the library's own errors have no common base
        if options.compiled:
            raise ArtifactError(
                f"{file} is not a network that openvino {openvino.__version__} compiled for this CPU "
                f"({one_line(error)}): run 'tango-export compile --backend openvino'"
            ) from error
        raise ArtifactError(f"{file} is not a network that openvino can open: {one_line(error)}") from error

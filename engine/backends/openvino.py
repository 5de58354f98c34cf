"""OpenVINO on the CPU: float32, or bfloat16 inside where the CPU has it."""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.errors import ArtifactError, BackendError
from engine.manifest import GraphSpec
from engine.session import Precision, check_inputs, check_names, failed_run, missing_package, one_line

__all__ = ["OpenVinoSession"]

_HINTS: dict[Precision, str] = {"float32": "f32", "bf16": "bf16"}


class OpenVinoSession:
    """A network in OpenVINO; satisfies engine.session.Session."""

    def __init__(self, model: Path, spec: GraphSpec, precision: Precision, n_threads: int) -> None:
        """Raises BackendError where it is not installed or the CPU lacks bfloat16, ArtifactError for a damaged file."""
        self.spec = spec
        self._compiled: Any = _open(model, precision, n_threads)
        known = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
        ports = (*self._compiled.inputs, *self._compiled.outputs)
        # a port also has the names of what is merely passed on to it
        check_names(model, spec, {name for port in ports for name in port.names & known or port.names})
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()  # a request holds the state of one run

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See engine.session.Session."""
        if self._compiled is None:
            raise ValueError(f"the session of network {self.spec.name} is closed")
        check_inputs(self.spec, inputs)
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            with self._lock:
                self._request.infer(feeds, share_inputs=True)
                names = [tensor.name for tensor in self.spec.outputs]
                return {name: self._request.get_tensor(name).data.copy() for name in names}
        except Exception as error:  # the library's own errors have no common base
            raise failed_run(self.spec, inputs, error) from error

    def close(self) -> None:
        """See engine.session.Session."""
        self._request = self._compiled = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(model: Path, precision: Precision, n_threads: int) -> Any:
    try:
        import openvino
        from openvino.frontend import FrontEndManager
    except ModuleNotFoundError as error:
        raise missing_package("openvino", error) from error
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise BackendError("this CPU has no bfloat16: use precision float32")
    options = {
        # without the hint it takes bfloat16 wherever the CPU has it
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": n_threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        # read_model tries other formats on what is no ONNX, and they write to the terminal
        onnx = FrontEndManager().load_by_framework("onnx")
        return core.compile_model(onnx.convert(onnx.load(str(model))), "CPU", options)
    except Exception as error:  # the library's own errors have no common base
        raise ArtifactError(f"{model} is no network that openvino can open: {one_line(error)}") from error

"""ONNX Runtime on the CPU, in float32."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.errors import ArtifactError, BackendError
from engine.manifest import GraphSpec
from engine.session import Precision, check_inputs, check_names, failed_run, missing_package, one_line

__all__ = ["OnnxRuntimeSession"]

_FATAL = 4  # of its log levels: everything else reaches the caller as an exception


class OnnxRuntimeSession:
    """A network in ONNX Runtime; satisfies engine.session.Session."""

    def __init__(self, model: Path, spec: GraphSpec, precision: Precision, n_threads: int) -> None:
        """Raises BackendError where it is not installed or asked for bf16, ArtifactError for a damaged file."""
        if precision != "float32":
            raise BackendError(f"onnxruntime computes in float32 on a CPU, not in {precision}: --backend openvino does")
        self.spec = spec
        self._session: Any = _open(model, n_threads)
        found = [tensor.name for tensor in (*self._session.get_inputs(), *self._session.get_outputs())]
        check_names(model, spec, found)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See engine.session.Session."""
        if self._session is None:
            raise ValueError(f"the session of network {self.spec.name} is closed")
        check_inputs(self.spec, inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            return dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:  # the library's own errors have no common base
            raise failed_run(self.spec, inputs, error) from error

    def close(self) -> None:
        """See engine.session.Session."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(model: Path, n_threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_package("onnxruntime", error) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    # threads that wait by spinning take the cores from everything else of a live session
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own errors have no common base
        raise ArtifactError(f"{model} is no network that onnxruntime can open: {one_line(error)}") from error

"""OpenVINO on the CPU: the compiled network as a blob exported by the library.

A blob holds shapes, but neither precision nor threads: both must be given again on import.
"""

from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, BackendError
from engine.inference.backends.libraries import import_openvino, shared_core
from engine.inference.backends.openvino_session import HINTS, read_onnx
from engine.inference.session import one_line
from export.compilers.job import CompileJob, out_of_memory

__all__ = ["compile_openvino"]


def compile_openvino(job: CompileJob) -> dict[str, Path]:
    """See export.compilers.compile_network."""
    openvino, core = import_openvino(), shared_core()
    job.tell(f"{job.spec.name}: read")
    network = _read(job)
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[job.key.precision],
        "PERFORMANCE_HINT": str(job.key.options["performance_hint"]),
    }
    engine = job.folder / f"{job.spec.name}.engine"
    try:
        _narrow(job, network, openvino)
        job.tell(f"{job.spec.name}: compile")
        blob = core.compile_model(network, "CPU", options).export_model()
    except MemoryError as error:
        raise out_of_memory(job) from error
    except Exception as error:  # the library's own errors have no common base
        raise BackendError(f"network {job.spec.name}: openvino cannot build it: {one_line(error)}") from error
    with engine.open("wb") as file:
        file.write(blob.getbuffer())
    return {engine.name: engine}


def _read(job: CompileJob) -> Any:
    from openvino.frontend import OpConversionFailure

    try:
        return read_onnx(job.source)
    except OpConversionFailure as error:
        raise BackendError(f"network {job.spec.name}: openvino lacks an operator: {one_line(error)}") from error
    except Exception as error:  # the library's own errors have no common base
        raise ArtifactError(f"{job.source} is not a network that openvino can read: {one_line(error)}") from error


def _narrow(job: CompileJob, network: Any, openvino: Any) -> None:
    """Restrict the shapes to the profile: fixed sizes compile to faster code."""
    if not job.key.shapes:
        return
    shapes = {}
    for tensor in job.spec.inputs:
        sizes = []
        for size in tensor.shape:
            least, most = (size, size) if isinstance(size, int) else job.key.shapes[size][::2]
            sizes.append(openvino.Dimension(least, most))
        shapes[tensor.name] = openvino.PartialShape(sizes)
    network.reshape(shapes)

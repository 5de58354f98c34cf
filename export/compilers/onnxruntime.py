"""ONNX Runtime: saves the network as optimised for this machine, so that this is not repeated at every start."""

from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, BackendError
from engine.inference.backends.libraries import import_onnxruntime
from engine.inference.session import one_line
from export.compilers.job import CompileJob, out_of_memory

__all__ = ["compile_onnxruntime"]

MAX_EMBEDDED_BYTES = 1 << 30  # larger networks get a second file for their weights
MIN_BESIDE_BYTES = 1 << 10
_FATAL = 4  # log level: everything else reaches the caller as an exception


def compile_onnxruntime(job: CompileJob) -> dict[str, Path]:
    """See export.compilers.compile_network."""
    onnxruntime = import_onnxruntime()
    on_gpu = bool(job.key.machine.gpu)
    source = _typed(job)
    engine = job.folder / f"{job.spec.name}.engine"
    weights = job.folder / f"{engine.name}.data"
    options = _options(onnxruntime, engine)
    # weight files next to the source would be expected next to the engine
    if job.spec.weights or source.stat().st_size > MAX_EMBEDDED_BYTES:
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights.name)
        least = str(MIN_BESIDE_BYTES)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", least)
    providers = ["CPUExecutionProvider"]
    job.tell(f"{job.spec.name}: optimise")
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CUDAExecutionProvider"] * on_gpu + providers)
    except MemoryError as error:
        raise out_of_memory(job) from error
    except Exception as error:  # the library's own errors have no common base
        raise _failure(job, error) from error
    return {file.name: file for file in (engine, weights) if file.exists()}


def _typed(job: CompileJob) -> Path:
    if job.key.precision == "fp32":
        return job.source
    from export.precision import typed_model

    job.tell(f"{job.spec.name}: types")
    return typed_model(job.source, job.folder / f"{job.spec.name}.onnx", job.key.precision, job.spec).file


def _options(onnxruntime: Any, engine: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(engine)
    # the file is ONNX, whatever its suffix
    options.add_session_config_entry("session.save_model_format", "ONNX")
    options.intra_op_num_threads = 1  # nothing is run
    return options


def _failure(job: CompileJob, error: Exception) -> BackendError | ArtifactError:
    said = one_line(error)
    if "INVALID_PROTOBUF" in said or "No graph was found" in said:
        return ArtifactError(f"{job.source} is not a network that onnxruntime can open: {said}")
    if "not a registered function/op" in said or "NOT_IMPLEMENTED" in said:
        return BackendError(f"network {job.spec.name}: onnxruntime lacks an operator: {said}")
    return BackendError(f"network {job.spec.name}: onnxruntime cannot build it: {said}")

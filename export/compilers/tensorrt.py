"""TensorRT 10.x and 11.x and TensorRT-RTX, through polygraphy, with the back end's own module.

Networks are strongly typed: types are those in the ONNX file (export.precision), not chosen by builder flags.
"""

import contextlib
import logging
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import ArtifactError, BackendError
from engine.extras import not_installed
from engine.inference.backends.tensorrt_library import error_log, load
from engine.inference.session import one_line
from export.compilers.job import CompileJob, out_of_memory

__all__ = ["compile_tensorrt"]

_UNSUPPORTED = re.compile(r"parsing node number \d+ \[([\w.:]+)")  # how its ONNX parser names an operator
_MEMORY = re.compile(r"out ?of ?memory|bad_alloc|cannot allocate", re.IGNORECASE)


def compile_tensorrt(job: CompileJob) -> dict[str, Path]:
    """See export.compilers.compile_network."""
    if any(isinstance(size, str) for tensor in job.spec.inputs for size in tensor.shape) and not job.key.shapes:
        raise ArtifactError(
            f"network {job.spec.name} has no profile, but {job.key.backend} needs one: make the bundle again with "
            "'tango-export bundle'"
        )
    library = load(job.key.backend)
    loaders = _polygraphy(job.key.backend, library)
    engine = job.folder / f"{job.spec.name}.engine"
    with _failures(job, library):
        monitor = _monitor(job, library)
        with _quiet():
            network = loaders.NetworkFromOnnxPath(str(_typed(job)), strongly_typed=_must_say_typed(library))
            config = loaders.CreateConfig(**_settings(job, loaders, monitor))
            build = loaders.EngineBytesFromNetwork(network, config, save_timing_cache=_timing_cache(job))
            with _interruptible(monitor):
                content = build()
        with engine.open("wb") as file:
            file.write(memoryview(content))
    return {engine.name: engine}


def _typed(job: CompileJob) -> Path:
    """The ONNX file with the requested types."""
    if job.key.precision == "fp32":
        return job.source
    from export.precision import typed_model

    job.tell(f"{job.spec.name}: types")
    return typed_model(job.source, job.folder / f"{job.spec.name}.onnx", job.key.precision, job.spec).file


def _settings(job: CompileJob, loaders: Any, monitor: Any) -> dict[str, Any]:
    """Arguments for polygraphy's CreateConfig."""
    options = job.key.options
    cache = _timing_cache(job)
    return {
        "profiles": [_profile(job, loaders)],
        "tf32": options["tf32"],
        "builder_optimization_level": options.get("optimization_level"),
        "load_timing_cache": cache if cache and Path(cache).exists() else None,
        "progress_monitor": monitor,
    }


def _profile(job: CompileJob, loaders: Any) -> Any:
    profile = loaders.Profile()
    for tensor in job.spec.inputs:
        if any(isinstance(size, str) for size in tensor.shape):
            shapes = [
                tuple(job.key.shapes[size][bound] if isinstance(size, str) else size for size in tensor.shape)
                for bound in range(3)
            ]
            profile.add(tensor.name, *shapes)
    return profile


def _timing_cache(job: CompileJob) -> str | None:
    """None for TensorRT-RTX, which times nothing when it builds."""
    return str(job.timing_cache) if job.timing_cache and job.key.backend == "tensorrt" else None


def _must_say_typed(library: Any) -> bool:
    """Whether strong typing must be requested: versions without any other kind may lack the flag."""
    return hasattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _polygraphy(backend: str, library: ModuleType) -> Any:
    """polygraphy's loaders, set up for this library and for the log shared by all its objects."""
    try:
        from polygraphy import config
        from polygraphy.logger import G_LOGGER

        G_LOGGER.use_python_logging_system = True
        G_LOGGER.colors = False
        logging.getLogger("Polygraphy").addHandler(logging.NullHandler())  # quiet unless the application configures it
        is_rtx = backend == "tensorrt-rtx"
        if "polygraphy.backend.trt" in sys.modules and bool(config.USE_TENSORRT_RTX) != is_rtx:
            raise BackendError(
                f"this process has already built for the other TensorRT: build for {backend} in a new process"
            )
        config.USE_TENSORRT_RTX = is_rtx  # read once, when the loaders are imported
        if is_rtx:
            # the name that polygraphy imports; the packages on the index use another
            sys.modules.setdefault("tensorrt_rtx", library)
        from polygraphy.backend import trt as loaders
        from polygraphy.backend.trt import util
    except ModuleNotFoundError as error:
        raise not_installed(str(error.name), "export") from error
    util.TRT_LOGGER = error_log(library)
    return loaders


def _monitor(job: CompileJob, library: Any) -> Any:
    """Reports the builder's phases, and ends the build on an interrupt."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.interrupted: BaseException | None = None

        def interrupt(self, error: BaseException) -> None:
            self.interrupted = error

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                job.tell(f"{job.spec.name}: {phase_name[:60].lower()}")
            except BaseException as error:  # no exception may pass through the library's own code
                self.interrupt(error)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self.interrupted is None  # False ends the build

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


@contextlib.contextmanager
def _interruptible(monitor: Any) -> Iterator[None]:
    """An interrupt ends the build at its next step.

    As an exception it would be raised in whichever callback is running, usually the log, and be lost.
    """
    taken = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.default_int_handler:
                taken[number] = signal.signal(number, lambda *_: monitor.interrupt(KeyboardInterrupt()))
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        if monitor.interrupted is not None:
            raise monitor.interrupted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # polygraphy always sets a timing cache, and closes it in the style of older versions
        warnings.filterwarnings("ignore", "Use Deprecated in TensorRT-RTX", DeprecationWarning)
        warnings.filterwarnings("ignore", "Context managers for TensorRT", DeprecationWarning)
        yield


@contextlib.contextmanager
def _failures(job: CompileJob, library: Any) -> Iterator[None]:
    """Errors of polygraphy and of the library as one line that names the network."""
    from polygraphy.exception import PolygraphyException

    log = error_log(library)
    log.take()
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(job) from error
    except (PolygraphyException, RuntimeError) as error:
        said = log.take()
        name, backend = job.spec.name, job.key.backend
        if _MEMORY.search(f"{said} {error}"):
            raise out_of_memory(job) from error
        if operator := _UNSUPPORTED.search(said):
            raise BackendError(
                f"network {name}: {backend} {job.key.backend_version} does not support operator {operator[1]} "
                f"as used there: {_reason(said)}"
            ) from error
        if "MODEL_DESERIALIZE_FAILED" in said:
            raise ArtifactError(f"{job.source} is not an ONNX file that {backend} can read") from error
        raise BackendError(f"network {name}: {backend} cannot build it: {said or one_line(error)}") from error


def _reason(said: str) -> str:
    """The end of the parser's message, which gives the reason."""
    return said.rpartition("ERROR: ")[2][:200]

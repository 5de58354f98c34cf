"""TensorRT 10.x and 11.x and TensorRT-RTX, by one path: polygraphy, with the module that the back end is.

Networks are strongly typed: types are those of the ONNX file (export.precision), no builder flag decides any.
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

_UNSUPPORTED = re.compile(r"parsing node number \d+ \[([\w.:]+)")  # as its ONNX parser names an operator
_MEMORY = re.compile(r"out ?of ?memory|bad_alloc|cannot allocate", re.IGNORECASE)


def compile_tensorrt(job: CompileJob) -> dict[str, Path]:
    """See export.compilers.compile_network."""
    if any(isinstance(size, str) for tensor in job.spec.inputs for size in tensor.shape) and not job.key.shapes:
        raise ArtifactError(
            f"network {job.spec.name} has no profile, {job.key.backend} needs one: make the bundle again with "
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
    """The ONNX file with the types that are wanted."""
    if job.key.precision == "fp32":
        return job.source
    from export.precision import typed_model

    job.tell(f"{job.spec.name}: types")
    return typed_model(job.source, job.folder / f"{job.spec.name}.onnx", job.key.precision, job.spec).file


def _settings(job: CompileJob, loaders: Any, monitor: Any) -> dict[str, Any]:
    """What polygraphy's CreateConfig takes."""
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
    """TensorRT-RTX times nothing when it builds: its cache is an empty shell."""
    return str(job.timing_cache) if job.timing_cache and job.key.backend == "tensorrt" else None


def _must_say_typed(library: Any) -> bool:
    """Versions that know no other networks may have no word for it."""
    return hasattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _polygraphy(backend: str, library: ModuleType) -> Any:
    """polygraphy's loaders, speaking to this library and to the log that all its objects share."""
    try:
        from polygraphy import config
        from polygraphy.logger import G_LOGGER

        G_LOGGER.use_python_logging_system = True
        G_LOGGER.colors = False
        logging.getLogger("Polygraphy").addHandler(logging.NullHandler())  # quiet unless somebody listens
        is_rtx = backend == "tensorrt-rtx"
        if "polygraphy.backend.trt" in sys.modules and bool(config.USE_TENSORRT_RTX) != is_rtx:
            raise BackendError(f"this process has built for the other TensorRT: build for {backend} in another one")
        config.USE_TENSORRT_RTX = is_rtx  # read once, when the loaders are imported
        if is_rtx:
            # the name under which polygraphy asks for it; the packages of the index call it otherwise
            sys.modules.setdefault("tensorrt_rtx", library)
        from polygraphy.backend import trt as loaders
        from polygraphy.backend.trt import util
    except ModuleNotFoundError as error:
        raise not_installed(str(error.name), "export") from error
    util.TRT_LOGGER = error_log(library)
    return loaders


def _monitor(job: CompileJob, library: Any) -> Any:
    """Tells of the builder's phases, and ends the build where that is interrupted."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.interrupted: BaseException | None = None

        def interrupt(self, error: BaseException) -> None:
            self.interrupted = error

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                job.tell(f"{job.spec.name}: {phase_name[:60].lower()}")
            except BaseException as error:  # nothing may pass through the library's own code
                self.interrupt(error)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self.interrupted is None  # False ends the build

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


@contextlib.contextmanager
def _interruptible(monitor: Any) -> Iterator[None]:
    """An interrupt ends the build at its next step.

    As an exception it would be raised in whatever of ours the library calls just then, its log as a rule, and be lost.
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
        # polygraphy sets a timing cache whether or not one is wanted, and closes it as older versions liked it
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
                f"network {name}: {backend} {job.key.backend_version} has no operator {operator[1]} as it is used "
                f"there: {_reason(said)}"
            ) from error
        if "MODEL_DESERIALIZE_FAILED" in said:
            raise ArtifactError(f"{job.source} is no ONNX file that {backend} can read") from error
        raise BackendError(f"network {name}: {backend} cannot build it: {said or one_line(error)}") from error


def _reason(said: str) -> str:
    """The end of what the parser says, where the reason is."""
    return said.rpartition("ERROR: ")[2][:200]

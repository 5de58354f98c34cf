"""The networks of one bundle as one back end runs them; engine.inference.choice decides which."""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from engine.cores import usable_cores
from engine.inference.backends import REFERENCE, open_graph
from engine.inference.choice import Choice, NetworkOptions, choose
from engine.inference.engine_key import content_digest, engine_precision
from engine.inference.engine_sets import profile_of
from engine.inference.manifest import Bundle
from engine.inference.session import RunOptions, Session
from engine.inference.target import Target

__all__ = ["NetworkOptions", "Networks"]


class Networks:
    """Networks, opened on first use and then kept; any number of threads may share them.

    target: what runs them. reason: why it was chosen, in one line. engine_key: identity of all engines, "" if the ONNX
    files are run. report_sha256: of the report about these engines, "" if there is none.
    """

    def __init__(self, bundle: Bundle, choice: Choice, n_threads: int | None = None, cuda_graphs: bool = True) -> None:
        """Run a choice without checking it again; `open` chooses."""
        self.bundle = bundle
        self.target = choice.target
        self.reason = choice.reason
        self.report_sha256 = choice.report_sha256
        digests = {graph: engine.digest for graph, engine in choice.engines.items()}
        self.engine_key = content_digest(digests) if digests else ""
        self._engines = choice.engines
        self._n_threads = usable_cores() if n_threads is None else n_threads
        self._cuda_graphs = cuda_graphs
        self._sessions: dict[str, Session] = {}
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def open(cls, bundle: Bundle | Path, options: NetworkOptions | None = None) -> "Networks":
        """Choose what runs the networks; each is opened on first use. Raises as engine.inference.choice.choose.

        The content of engines is checked here, that of ONNX files when they are opened.
        """
        options = options or NetworkOptions()
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, choose(opened, options), options.n_threads, options.cuda_graphs)

    @classmethod
    def from_onnx(cls, bundle: Bundle, backend: str = REFERENCE, n_threads: int | None = None) -> "Networks":
        """The ONNX files in fp32, ignoring engines: the reference that engines are compared with."""
        target = Target(backend, profile=profile_of(bundle, None))
        return cls(bundle, Choice(target, f"{backend} fp32 from ONNX"), n_threads)

    def session(self, graph: str) -> Session:
        """An open network; the caller must not close it.

        Raises ArtifactError if the bundle has none of this name or its file is damaged, BackendError if it does not fit
        on the device, ValueError after `close`.
        """
        with self._lock:
            if self._closed:
                raise ValueError(f"the networks of {self.bundle.folder} are closed")
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one network; see Session.run."""
        session = self._sessions.get(graph)  # without the lock: another network may be opening for a minute
        return (session or self.session(graph)).run(inputs)

    def close(self) -> None:
        """Close all networks."""
        with self._lock:
            self._closed = True
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, graph: str) -> Session:
        spec = self.bundle.graph(graph)
        engine = self._engines.get(graph)
        if engine is None:
            options = RunOptions(engine_precision(spec, self.target.precision), self._n_threads)
            return open_graph(self.bundle.model(graph), spec, self.target.backend, options)
        options = RunOptions(
            precision=engine.key.precision,
            n_threads=self._n_threads,
            profile=engine.key.shapes or None,
            compiled=True,
            cuda_graphs=self._cuda_graphs,
        )
        return open_graph(engine.file, spec, self.target.backend, options)

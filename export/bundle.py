"""Recipe -> bundle: export, compare with torch in every available back end, hash, and only then put in place."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.cores import usable_cores
from engine.errors import BackendError
from engine.folders import atomic_folder
from engine.inference.backends import BACKENDS, REFERENCE, Backend
from engine.inference.manifest import MANIFEST, Bundle, FileSpec, GraphSpec, bundle_sha256, file_spec
from engine.inference.report import Gate
from engine.inference.session import RunOptions
from export.onnx_export import OPSET, Graph, export_graph
from export.parity import TOLERANCE, compare, torch_outputs
from export.shared_weights import SharedWeights

__all__ = ["BundleOptions", "Recipe", "write_bundle"]


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made of. `graphs` may be a generator: each is exported before the next is requested."""

    name: str
    graphs: Iterable[Graph]
    config: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    licence: str = "not stated"  # of the weights


@dataclass(frozen=True)
class BundleOptions:
    """How a bundle is written."""

    tolerance: Gate = TOLERANCE  # of every output against torch
    progress: bool = True  # on a terminal


def write_bundle(recipe: Recipe, output: Path, options: BundleOptions | None = None) -> dict[str, Any]:
    """Write a bundle folder, all or nothing; an older bundle of this name is replaced once the new one is complete.

    Returns a summary for JSON. Raises BackendError with the figures if a network does not agree with torch within
    the tolerance, InputError if `output` is something other than a bundle.
    """
    options = options or BundleOptions()
    started = time.perf_counter()
    config = json.loads(json.dumps(recipe.config, allow_nan=False))  # as it will be read back: no tuples
    graphs: dict[str, GraphSpec] = {}
    with atomic_folder(output, MANIFEST, "a bundle") as folder:
        weights = SharedWeights(folder)
        with _progress(options) as tell:
            for graph in recipe.graphs:
                _expect_new(graph.name, graphs)
                graphs[graph.name] = _write_graph(graph, folder, weights, options.tolerance, tell)
                del graph  # the next one needs the memory
        for name, content in recipe.files.items():
            _expect_new(name, {file for spec in graphs.values() for file in (spec.file, *spec.weights)})
            (folder / name).write_bytes(content)
        bundle = _write_manifest(replace(recipe, config=config), folder, graphs)
    return _summary(bundle, output, time.perf_counter() - started)


def _write_graph(
    graph: Graph, folder: Path, weights: SharedWeights, tolerance: Gate, tell: Callable[[str], None]
) -> GraphSpec:
    tell(f"{graph.name}: export")
    model = folder / f"{graph.name}.onnx"
    spec = export_graph(graph, model, weights)
    tell(f"{graph.name}: run in torch")
    expected = torch_outputs(graph)
    parity: dict[str, Any] = {}
    for backend in _backends():
        tell(f"{graph.name}: compare with torch in {backend.name}")
        with backend.open(model, spec, RunOptions(n_threads=usable_cores())) as session:
            report = compare(session, graph, tolerance, expected)
        if not report.passed:
            raise BackendError(
                f"graph {graph.name} does not agree with torch in {backend.name} (wanted {tolerance}): {report}"
            )
        parity[backend.name] = {"version": backend.version(), **report.to_dict()}
    return replace(spec, parity=parity)


def _backends() -> list[Backend]:
    """All that can run ONNX files here, and the reference even if it is not installed."""
    opening = [backend for backend in BACKENDS.values() if "fp32" in backend.onnx_precisions]
    return [backend for backend in opening if backend.name == REFERENCE or backend.why_not_runnable() is None]


def _write_manifest(recipe: Recipe, folder: Path, graphs: dict[str, GraphSpec]) -> Bundle:
    files: dict[str, FileSpec] = {path.name: file_spec(path) for path in sorted(folder.iterdir())}
    versions = {**{package: version(package) for package in ("torch", "onnx", "onnxscript")}, "opset": str(OPSET)}
    bundle = Bundle(
        folder=folder,
        name=recipe.name,
        sha256=bundle_sha256(files, recipe.config),
        config=recipe.config,
        graphs=graphs,
        files=files,
        licence=recipe.licence,
        versions=versions,
    )
    (folder / MANIFEST).write_text(json.dumps(bundle.to_dict(), indent=1), "utf-8")
    return Bundle.open(folder)  # check that it can be read: a bad bundle never replaces a good one


def _summary(bundle: Bundle, output: Path, took_s: float) -> dict[str, Any]:
    return {
        "bundle": str(output),
        "name": bundle.name,
        "sha256": bundle.sha256,
        "bytes": sum(spec.bytes for spec in bundle.files.values()),
        "took_s": round(took_s, 2),
        "graphs": {
            name: {
                "bytes": sum(bundle.files[file].bytes for file in (graph.file, *graph.weights)),
                "parity": dict(graph.parity),
            }
            for name, graph in bundle.graphs.items()
        },
    }


def _expect_new(name: str, taken: Iterable[str]) -> None:
    if name in taken or name == MANIFEST:
        raise ValueError(f"a bundle cannot hold two things called {name}")


@contextmanager
def _progress(options: BundleOptions) -> Iterator[Callable[[str], None]]:
    """A progress line on a terminal; nothing elsewhere."""
    with tqdm(unit=" steps", leave=False, disable=None if options.progress else True) as bar:

        def tell(step: str) -> None:
            bar.set_description(step)
            bar.update()

        yield tell

"""Writes a bundle as an NVIDIA Triton model repository, for serving its networks elsewhere.

    BUNDLE_GRAPH/config.pbtxt     inputs and outputs, profile, warm-up, identity (Triton's model configuration)
    BUNDLE_GRAPH/1/model.onnx     the network of the bundle with its weights, or as optimised by ONNX Runtime
    BUNDLE_GRAPH/1/model.plan     the engine, for TensorRT
    repository.json               what it was made from; Triton reads folders only

Files are hard links if the disk is the same. Batches are part of the shapes (max_batch_size 0): networks have their own
batch axes, if any. Triton's back ends determine what can be served how (SERVED).
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, InputError
from engine.folders import atomic_folder
from engine.inference.backends import REFERENCE
from engine.inference.engine_sets import EngineSet, read_set, resolve_profile
from engine.inference.engines import Engine, engine_precision, engines_folder
from engine.inference.manifest import Bundle, GraphSpec, Profile, TensorSpec
from engine.inference.target import PRECISIONS, Precision, Target

__all__ = ["MARKER", "write_triton"]

MARKER = "repository.json"
VERSION = "1"
_TYPES = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}


@dataclass(frozen=True)
class Served:
    """How Triton serves the engines of a back end."""

    runner: str  # lines of config.pbtxt that choose the back end
    placement: str  # of its instance group
    engine: str  # file name of a compiled network
    onnx: tuple[Precision, ...] = ()  # precisions served as the portable ONNX file, others as compiled
    held_to: tuple[Precision, ...] = PRECISIONS  # precisions that can be enforced
    scalars: bool = True  # inputs without axes are supported
    parameters: Mapping[str, str] = field(default_factory=dict)


SERVED: Mapping[str, Served] = {
    # the server optimises float32 for itself
    "onnxruntime": Served('platform: "onnxruntime_onnx"', "kind: KIND_AUTO", "model.onnx", onnx=("fp32",)),
    # it reads IR and ONNX, not compiled networks; it has no setting for float32 and would silently use bf16 if the CPU
    # supports it, so float32 networks are not served by it
    "openvino": Served(
        'backend: "openvino"\ndefault_model_filename: "model.onnx"',
        "kind: KIND_CPU",
        "model.onnx",
        onnx=PRECISIONS,
        held_to=("bf16",),
        scalars=False,
        parameters={"HINT_BF16": "YES", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"},
    ),
    # an engine of ours holds one profile
    "tensorrt": Served('platform: "tensorrt_plan"', 'kind: KIND_GPU profile: [ "0" ]', "model.plan"),
}
"""By back end; Triton supports no other."""


@dataclass(frozen=True)
class _Model:
    """A network in the repository: the back end that runs it there, and its files by their names there."""

    name: str
    spec: GraphSpec
    backend: str
    profile: Profile
    files: Mapping[str, Path]
    parameters: Mapping[str, str]


def write_triton(bundle: Bundle | Path, output: Path, target: Target, engines: Path | None = None) -> dict[str, Any]:
    """Write a model repository, all or nothing; an older one at `output` is replaced.

    engines: folder of the compiled networks, None: inside the bundle. Returns the content of repository.json, and its
    place. Raises InputError if Triton cannot serve the target or `output` is something else, ArtifactError if a
    network is not compiled for this machine, was changed or failed its verification.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    _check_served(bundle, target)
    target = resolve_profile(bundle, target)
    models = _models(bundle, read_set(bundle, engines_folder(bundle, engines), target))
    summary = {
        "bundle": bundle.name,
        "sha256": bundle.sha256,
        "backend": target.backend,
        "precision": target.precision,
        "profile": target.profile,
        "models": {model.name: {"backend": model.backend, **model.parameters} for model in models},
    }
    with atomic_folder(output, MARKER, "a Triton model repository of ours") as folder:
        for model in models:
            (folder / model.name / VERSION).mkdir(parents=True)
            (folder / model.name / "config.pbtxt").write_text("".join(_config(model)), "ascii")
            for name, source in model.files.items():
                _link(source, folder / model.name / VERSION / name)
        (folder / MARKER).write_text(json.dumps(summary, indent=1), "utf-8")
    return {"output": str(output), **summary}


def _check_served(bundle: Bundle, target: Target) -> None:
    """Raises InputError for what Triton cannot run, or not in this precision."""
    served = SERVED.get(target.backend)
    if served is None:
        raise InputError(f"Triton has no back end for {target.backend}: --backend {_any_of(SERVED)}")
    if target.precision not in served.held_to:
        raise InputError(
            f"Triton's back end for {target.backend} cannot be restricted to {target.precision}: "
            f"--precision {_any_of(served.held_to)} or another backend"
        )
    for spec in bundle.graphs.values():
        scalars = [tensor.name for tensor in spec.inputs if not tensor.shape]
        if scalars and not served.scalars and engine_precision(spec, target.precision) in served.held_to:
            takes_them = _any_of(name for name, other in SERVED.items() if other.scalars)
            raise InputError(
                f"Triton's back end for {target.backend} takes no scalars, as input {scalars[0]} of network "
                f"{spec.name} is: --backend {takes_them}"
            )


def _any_of(names: Iterable[str]) -> str:
    """Like "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _models(bundle: Bundle, compiled: EngineSet) -> list[_Model]:
    target = compiled.target
    models = []
    for graph, spec in bundle.graphs.items():
        computed = engine_precision(spec, target.precision)
        parameters = {"bundle": bundle.name, "precision": computed, "profile": target.profile}
        parameters["network_sha256"] = bundle.graph_sha256(graph)
        # networks in a precision that the server's back end cannot enforce run on the reference back end
        runs = target.backend if computed in SERVED[target.backend].held_to else REFERENCE
        parameters |= SERVED[runs].parameters
        if computed in SERVED[runs].onnx:
            files = _onnx_files(bundle, graph)
        else:
            engine = _engine(bundle, compiled, graph)
            files = _engine_files(engine, SERVED[runs].engine)
            parameters["engine_sha256"] = engine.digest
        if compiled.report is not None:
            parameters["report_sha256"] = compiled.report.sha256
        profile = spec.profiles.get(target.profile, {})
        models.append(_Model(f"{bundle.name}_{graph}", spec, runs, profile, files, parameters))
    return models


def _engine(bundle: Bundle, compiled: EngineSet, graph: str) -> Engine:
    """Raises ArtifactError if the set must not be used; one that could not be verified here is accepted for GPUs."""
    if compiled.report is not None and compiled.report.passed is False:
        raise ArtifactError(f"the {compiled.target} engines of {bundle.folder} are not served: {compiled.state}")
    if compiled.miss:
        target = compiled.target
        raise ArtifactError(
            f"network {graph} of {bundle.folder} has no {compiled.target} engine to serve ({compiled.miss}): "
            f"run 'tango-export compile {bundle.folder} --backend {target.backend} --precision {target.precision}'"
        )
    return compiled.engines[graph]


def _onnx_files(bundle: Bundle, graph: str) -> dict[str, Path]:
    """Weights keep their names: the network refers to them."""
    weights = {name: bundle.file(name) for name in bundle.graph(graph).weights}
    return {**weights, "model.onnx": bundle.model(graph)}


def _engine_files(engine: Engine, named: str) -> dict[str, Path]:
    others = {name: engine.file.with_name(name) for name in engine.files if name != engine.file.name}
    return {**others, named: engine.file}


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, place)


def _config(model: _Model) -> Iterator[str]:
    """Lines of config.pbtxt: protobuf text format of Triton's ModelConfig."""
    yield f"name: {_text(model.name)}\n"
    yield f"{SERVED[model.backend].runner}\n"
    yield "max_batch_size: 0\n"
    for way, tensors in (("input", model.spec.inputs), ("output", model.spec.outputs)):
        for tensor in tensors:
            yield f"{way} {{ name: {_text(tensor.name)} data_type: {_TYPES[tensor.dtype]} {_dims(tensor)} }}\n"
    yield f"instance_group {{ count: 1 {SERVED[model.backend].placement} }}\n"
    for key, value in model.parameters.items():
        yield f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}\n"
    if model.profile or not _symbols(model.spec):
        yield from _warmup(model)


def _dims(tensor: TensorSpec) -> str:
    """Triton needs at least one axis in a request, and reshapes for the network."""
    if not tensor.shape:
        return "dims: [ 1 ] reshape { }"
    return f"dims: [ {', '.join(str(size) if isinstance(size, int) else '-1' for size in tensor.shape)} ]"


def _warmup(model: _Model) -> Iterator[str]:
    """One request of the usual sizes, so that a model is ready only after it has run."""
    yield 'model_warmup { name: "usual" batch_size: 1\n'
    for tensor in model.spec.inputs:
        sizes = [size if isinstance(size, int) else model.profile[size][1] for size in tensor.shape] or [1]
        # zero is the only integer that is valid for every input: indices are bounded
        data = "random_data" if tensor.dtype.startswith("float") else "zero_data"
        fields = f"data_type: {_TYPES[tensor.dtype]} dims: [ {', '.join(map(str, sizes))} ] {data}: true"
        yield f"  inputs {{ key: {_text(tensor.name)} value {{ {fields} }} }}\n"
    yield "}\n"


def _symbols(spec: GraphSpec) -> set[str]:
    return {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}


def _text(text: str) -> str:
    """A string in the text format; anything but plain ASCII as octal bytes, because manifests are untrusted."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in "\"'\\" else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'

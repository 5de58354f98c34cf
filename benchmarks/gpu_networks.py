"""What is measured: networks with made-up weights, their inputs, and the same in torch.

Torch runs the modules as their libraries build them, with fused attention, and AuMoCLIP's speech trunk once (the
release computes it twice): a quicker rival than the published code.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.inference.manifest import GraphSpec, TensorSpec

__all__ = ["CASES", "Case", "Runner", "TorchRunner", "bundle_at", "case_inputs", "modules"]

SEED = 5
TIMESTEP = 519  # in the middle of a run
VALUE = np.float32(0.5)  # standard deviation of images, latents, features


@dataclass(frozen=True)
class Case:
    """Networks that run one after the other, at the usual sizes of a profile of their bundle.

    resident: inputs that stay the same from call to call, as a reference does over a clip: they are on the device.
    roofline_ms: at 790 TFLOP/s in bf16 (SPEC of AnimateAnyone, section 7), None where the SPEC has none.
    """

    name: str
    bundle: str
    graphs: tuple[str, ...]
    profile: int = 0  # its place in the bundle
    changing: tuple[str, ...] | None = None  # inputs that are new in every call; all where None
    roofline_ms: float | None = None
    most_calls: int = 1000
    n_pauses: int = 3


CASES = {
    case.name: case
    for case in (
        Case("mini", "mini", ("audio", "motion")),
        Case("window", "full", ("speech", "text", "audio")),
        Case("denoiser-512", "acinterp", ("denoiser",), 0, ("latents", "timestep"), 24.8, 200, 1),
        Case("denoiser-768", "acinterp", ("denoiser",), 1, ("latents", "timestep"), 69.8, 100, 1),
    )
}


class Runner(Protocol):
    """What runs networks, for example engine.inference.networks.Networks."""

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


class TorchRunner:
    """Torch behind the same interface: arrays in host memory in, float32 out; networks that keep float32 do so.

    Read-only arrays that were given before are on the device already, as in our own sessions.
    """

    def __init__(self, networks: Mapping[str, tuple[Any, Any]], device: str, precision: str, mode: str = "") -> None:
        """networks: (module, export.onnx_export.Graph) by name. mode: of torch.compile, "" for eager."""
        import torch

        self._torch, self._device = torch, torch.device(device)
        low = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        self._dtypes = {name: torch.float32 if graph.keep_fp32 else low for name, (_, graph) in networks.items()}
        self._graphs = {name: graph for name, (_, graph) in networks.items()}
        self._held: dict[int, tuple[np.ndarray, Any]] = {}
        self._modules = {}
        for name, (module, _) in networks.items():
            placed = module.to(self._device, self._dtypes[name]).eval()
            self._modules[name] = torch.compile(placed, mode=mode) if mode else placed

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._torch.inference_mode():
            tensors = [self._tensor(inputs[name], self._dtypes[graph]) for name in self._graphs[graph].inputs]
            outputs = self._modules[graph](*tensors)
            return {
                name: tensor.float().cpu().numpy()
                for name, tensor in zip(self._graphs[graph].outputs, outputs, strict=True)
            }

    def close(self) -> None:
        self._modules.clear()
        self._held.clear()
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _tensor(self, array: np.ndarray, dtype: Any) -> Any:
        if id(array) in self._held:
            return self._held[id(array)][1]
        tensor = self._torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device)
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if not array.flags.writeable:
            self._held[id(array)] = array, tensor  # the array too: its id must not be given to another
        return tensor


def modules(case: Case, small: bool) -> dict[str, tuple[Any, Any]]:
    """(module, Graph) of a case's networks by name, on the CPU."""
    graphs = {graph.name: graph for graph in _graphs(_recipe(case.bundle, small).graphs, case.graphs)}
    plain = {name: graph.module for name, graph in graphs.items()}
    if case.bundle == "full":  # what is exported has its attention and convolutions rearranged, slower for torch
        published = _published(small)
        plain = {"speech": published.speech(), "text": published.text(), "audio": published.audio()}
    return {name: (plain[name], graphs[name]) for name in case.graphs}


def bundle_at(folder: Path, name: str, small: bool) -> dict[str, Any]:
    """Write a bundle of just the networks that the cases need; the summary of export.bundle.write_bundle."""
    from export.bundle import BundleOptions, write_bundle

    wanted = tuple(dict.fromkeys(graph for case in CASES.values() if case.bundle == name for graph in case.graphs))
    recipe = _recipe(name, small)
    return write_bundle(replace(recipe, graphs=_graphs(recipe.graphs, wanted)), folder, BundleOptions(progress=False))


def case_inputs(case: Case, graph: Any, other_sizes: bool = False) -> dict[str, np.ndarray]:
    """Inputs of one network by name, equal in every process; `graph`: a GraphSpec or an export.onnx_export.Graph.

    At the usual sizes; with other_sizes at half of each, or the least where that is more.
    """
    tensors = graph.inputs if isinstance(graph, GraphSpec) else _tensors(graph)
    profile = tuple(graph.profiles.values())[case.profile]
    sizes = {symbol: max(least, usual // 2) if other_sizes else usual for symbol, (least, usual, _) in profile.items()}
    return {tensor.name: _array(tensor, sizes, case) for tensor in tensors}


def _array(tensor: TensorSpec, sizes: Mapping[str, int], case: Case) -> np.ndarray:
    shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
    generator = np.random.default_rng([SEED, zlib.crc32(tensor.name.encode())])
    if tensor.name == "timestep":
        array = np.array(TIMESTEP, tensor.dtype).reshape(shape)
    elif tensor.dtype.startswith("float"):
        array = (VALUE * generator.standard_normal(shape, np.float32)).astype(tensor.dtype)
    else:
        array = generator.integers(0, tensor.below or 1, shape).astype(tensor.dtype)
    array.setflags(write=case.changing is None or tensor.name in case.changing)
    return array


def _tensors(graph: Any) -> Iterator[TensorSpec]:
    for name, example in graph.inputs.items():
        symbols = graph.dynamic.get(name, {})
        shape = tuple(symbols.get(axis, size) for axis, size in enumerate(example.shape))
        yield TensorSpec(name, str(example.dtype).removeprefix("torch."), shape, graph.below.get(name))


def _graphs(graphs: Any, wanted: Sequence[str]) -> Iterator[Any]:
    """The requested ones; none is built after the last of them."""
    left = set(wanted)
    for graph in graphs:
        if graph.name in left:
            left.remove(graph.name)
            yield graph
        if not left:
            return


def _recipe(bundle: str, small: bool) -> Any:
    if bundle == "mini":
        from export.recipes import mini

        return mini.make_recipe(_mini_checkpoint())
    if bundle == "full":
        from export.recipes import full

        return full.make_recipe(_published(small))
    from export.recipes.acinterp import random_recipe

    return random_recipe(SEED, "small" if small else "full")


def _published(small: bool) -> Any:
    from transformers import BertConfig, Wav2Vec2Config

    from export.checkpoints import Sizes
    from export.models.aumoclip import AuMoCLIPConfig
    from export.recipes.full import random_published

    if not small:
        return random_published(SEED)
    speech = Wav2Vec2Config(
        num_hidden_layers=1,
        intermediate_size=64,
        conv_dim=(16,) * 6 + (512,),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=16,
    )
    text = BertConfig(num_hidden_layers=1, intermediate_size=64, vocab_size=64)
    return random_published(SEED, Sizes(AuMoCLIPConfig(width=64, hidden=96), speech, text))


def _mini_checkpoint() -> Any:
    import torch

    from export.models.mini import AuMoMini, MiniConfig
    from export.training.checkpoint import Checkpoint

    torch.manual_seed(SEED)
    config = MiniConfig()
    weights = AuMoMini(config).state_dict()
    return Checkpoint(config, False, {}, [], 0, weights, weights, {})

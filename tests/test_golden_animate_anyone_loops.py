"""Loops and the whole pipeline of engine.blending.denoise and engine.blending.acinterp against what the public
AnimateAnyone computed.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

from diffusers import AutoencoderKL  # noqa: E402
from torch import nn  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

from engine.blending.acinterp import Interpolator, background_flow, clip_pixels  # noqa: E402
from engine.blending.denoise import DenoiseOptions, Denoisers, Priors, denoise  # noqa: E402
from engine.inference.backends import open_graph  # noqa: E402
from engine.inference.manifest import GraphSpec, TensorSpec  # noqa: E402
from engine.inference.session import Session  # noqa: E402
from export.models.acinterp import Denoiser, Guider, GuiderConfig, ReferenceNetwork, UNetConfig  # noqa: E402
from export.onnx_export import Graph, export_graph  # noqa: E402
from export.recipes.acinterp import make_recipe  # noqa: E402
from export.shared_weights import SharedWeights  # noqa: E402
from tests.helpers.fakes_session import FunctionSession  # noqa: E402

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden")) / "animate_anyone"
LOOPS, FRAMES = 1e-3, 2e-3  # SPEC section 1
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no goldens: {GOLDEN} is absent"),
]


def _folded(clip: np.ndarray) -> np.ndarray:
    """(1, C, f, h, w) -> (f, C, h, w)."""
    return np.ascontiguousarray(clip[0].transpose(1, 0, 2, 3))


@dataclass(frozen=True)
class Case:
    """One reduced-size case; stands for export.acinterp_checkpoints.ACInterpParts, but may lack VAE and encoder."""

    name: str
    licence = "made for tests"

    def arrays(self, kind: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{self.name}_{kind}.npz") as data:
            return {name: data[name] for name in data.files}

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((GOLDEN / f"{self.name}_config.json").read_text())

    def graphs(self) -> dict[str, Graph]:
        """What a bundle would be made of."""
        return {graph.name: graph for graph in make_recipe(self, "small").graphs}  # type: ignore[arg-type]

    def image_encoder(self) -> nn.Module:
        if not self.config["pipeline"]:
            return nn.Identity()
        config = CLIPVisionConfig(**self.config["pipeline"]["clip_config"])
        return self._filled(CLIPVisionModelWithProjection(config), "clip_vision")

    def vae(self) -> nn.Module:
        if not self.config["pipeline"]:
            return nn.Identity()
        return self._filled(AutoencoderKL(**self.config["pipeline"]["vae_config"]), "vae")

    def reference(self) -> nn.Module:
        config = UNetConfig.from_dict(self.config["reference_unet_config"])
        return self._filled(ReferenceNetwork(config), "reference_unet")

    def denoiser(self) -> nn.Module:
        return self._filled(Denoiser(UNetConfig.from_dict(self.config["denoising_unet_config"])), "denoising_unet")

    def pose_guider(self) -> nn.Module:
        return self._guider("pose_guider")

    def background_guider(self) -> nn.Module:
        return self._guider("background_guider")

    def _guider(self, name: str) -> nn.Module:
        return self._filled(Guider(GuiderConfig.from_dict(self.config[f"{name}_config"])), name)

    def _filled(self, network: nn.Module, part: str) -> nn.Module:
        arrays = self.arrays(f"weights_{part}")
        network.load_state_dict({name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()})
        return network.eval().requires_grad_(False)


def _cases(kind: str) -> list[Any]:
    found = sorted(file.name.removesuffix(f"_{kind}.npz") for file in GOLDEN.glob(f"case*_{kind}.npz"))
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no case*_{kind}.npz in {GOLDEN}"))]
    return [pytest.param(Case(name), id=name) for name in found]


def _in_torch(graph: Graph) -> Session:
    """A module behind the seam to the hardware."""

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            # copies: what the reference network gave is read-only, of which torch warns
            return tuple(tensor.numpy() for tensor in graph.module(*map(torch.from_numpy, map(np.array, arrays))))

    inputs = []
    for name, example in graph.inputs.items():
        symbols = graph.dynamic.get(name, {})
        shape = tuple(symbols.get(axis, size) for axis, size in enumerate(example.shape))
        inputs.append(TensorSpec(name, str(example.numpy().dtype), shape))
    outputs = tuple(TensorSpec(name, "float32", ()) for name in graph.outputs)
    return FunctionSession(run, GraphSpec(graph.name, f"{graph.name}.onnx", tuple(inputs), outputs, {}))


class Sessions:
    """The networks of a case; satisfies engine.blending.acinterp.GraphRunner."""

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        self._sessions = sessions

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._sessions[graph].run(inputs)

    def denoisers(self) -> Denoisers:
        return Denoisers(self._sessions["denoiser"].run, self._sessions["denoiser_plain"].run)


def _check_loops(case: Case, networks: Sessions) -> None:
    inputs, loops = case.arrays("inputs"), case.arrays("loops")
    images = np.ascontiguousarray(inputs["pose_images_u8"].transpose(0, 3, 1, 2), np.float32) / 255
    flow = np.ascontiguousarray(inputs["background_flow_f_h_w_2"].transpose(0, 3, 1, 2))
    pose = networks.run("pose_guider", {"images": images})["features"]
    both = pose + networks.run("background_guider", {"flow": flow})["features"]
    reference = networks.run("reference", {"latents": inputs["in_ref_latents"], "embedding": inputs["in_clip_embed"]})
    places = np.array(case.config["prior_frame_indices"])
    known, noise = (_folded(inputs[name])[places] for name in ("in_prior_latents", "in_prior_noise"))
    middle = case.config["frames"] // 2
    forms = (
        ("none", "plain", "trajectory_frame0_and_mid", [0, middle], pose),
        ("clean", "acinterp_clean_replace", "trajectory_mid", [middle - 1, middle], both),
        ("noised", "acinterp_noised_replace", "trajectory_mid", [middle - 1, middle], both),
    )
    for form, name, shown, frames, features in forms:
        trajectory = loops[f"{name}_{shown}"]
        options = DenoiseOptions(len(trajectory), guidance=case.config["guidance_scale"], priors=form)  # type: ignore[arg-type]
        assert np.array_equal(options.timesteps(), loops[f"timesteps{len(trajectory)}"])
        steps: list[np.ndarray] = []
        final = denoise(
            networks.denoisers(),
            _folded(inputs["in_latents"]),
            features,
            reference,
            options,
            Priors(places, known, noise),
            progress=lambda _, latents, steps=steps: steps.append(latents.copy()),  # type: ignore[misc]
        )
        np.testing.assert_allclose(final, _folded(loops[f"{name}_final"]), rtol=0, atol=LOOPS, err_msg=name)
        for found, expected in zip(steps, trajectory, strict=True):
            np.testing.assert_allclose(found[frames], _folded(expected), rtol=0, atol=LOOPS, err_msg=name)


def _check_pipeline(case: Case, networks: Sessions, tolerance: float = FRAMES) -> None:
    golden, sizes = case.arrays("pipeline"), case.config["pipeline"]
    image = golden["ref_image_u8"]
    options = DenoiseOptions(sizes["steps"], guidance=sizes["guidance_scale"])
    interpolator = Interpolator(networks, sizes["height"], sizes["width"], options)
    np.testing.assert_allclose(clip_pixels(image), golden["clip_pixel_values"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(interpolator.latents([image]), golden["ref_latents"], rtol=0, atol=1e-4)
    steps: list[np.ndarray] = []
    n_frames = sizes["video_length"]
    latents = interpolator.animate(
        interpolator.reference(image),
        interpolator.features(golden["pose_images_u8"]),
        _folded(golden["initial_latents"]),
        progress=lambda _, latents: steps.append(latents[[0, n_frames // 2, n_frames - 1]].copy()),
    )
    for found, expected in zip(steps, golden["trajectory_frame0_mid_last"], strict=True):
        np.testing.assert_allclose(found, _folded(expected), rtol=0, atol=tolerance)
    np.testing.assert_allclose(latents, _folded(golden["final_latents"]), rtol=0, atol=tolerance)
    frames = interpolator.decode(latents)[[0, n_frames // 2, n_frames - 1]]
    np.testing.assert_allclose(frames, _folded(golden["video_frames_first_mid_last"]), rtol=0, atol=tolerance)


@pytest.fixture
def _frames(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Cases may have another number of frames than ACInterp."""
    return lambda n_frames: monkeypatch.setattr("export.recipes.acinterp.FRAMES", n_frames)


@pytest.mark.parametrize("case", _cases("loops"))
def test_loops(case: Case, _frames: Callable[[int], None]) -> None:
    _frames(case.config["frames"])
    graphs = case.graphs()
    _check_loops(case, Sessions({name: _in_torch(graph) for name, graph in graphs.items()}))


@pytest.mark.parametrize("case", _cases("pipeline"))
def test_pipeline(case: Case, _frames: Callable[[int], None]) -> None:
    _frames(case.config["frames"])
    _check_pipeline(case, Sessions({name: _in_torch(graph) for name, graph in case.graphs().items()}))


@pytest.mark.parametrize("case", _cases("inputs"))
def test_background_flow(case: Case) -> None:
    inputs = case.arrays("inputs")
    expected = inputs["background_flow_f_h_w_2"]
    found = background_flow(inputs["homographies"], *expected.shape[1:3])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2**-14)  # in steps of which the goldens are stored


@pytest.mark.slow
def test_exported_networks(_frames: Callable[[int], None], tmp_path: Path) -> None:
    """The loops of the case with the fewest layers, from ONNX files: to export more takes minutes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    cases = [found for value in _cases("loops") for found in value.values if found is not None]
    if not cases:
        pytest.skip(f"no case*_loops.npz in {GOLDEN}")
    case: Case = min(cases, key=lambda case: case.config["denoising_unet_config"]["layers_per_block"])
    _frames(case.config["frames"])
    graphs = case.graphs()
    weights = SharedWeights(tmp_path)
    sessions = {"denoiser_plain": _in_torch(graphs["denoiser_plain"])}  # half a minute less
    for name in ("pose_guider", "background_guider", "reference", "denoiser"):
        spec = export_graph(graphs[name], tmp_path / f"{name}.onnx", weights)
        sessions[name] = open_graph(tmp_path / f"{name}.onnx", spec, "onnxruntime")
    _check_loops(case, Sessions(sessions))

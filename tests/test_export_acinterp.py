"""ACInterp as a bundle: what its graphs are called and take, shared weights, pictures through every back end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("transformers")

from engine.blending.acinterp import FRAMES, GIVEN, Interpolator, background_flow  # noqa: E402
from engine.blending.denoise import DenoiseOptions  # noqa: E402
from engine.inference.manifest import Bundle, GraphSpec  # noqa: E402
from engine.inference.networks import Networks  # noqa: E402
from engine.inference.session import check_inputs  # noqa: E402
from export.onnx_export import Graph  # noqa: E402
from export.recipes.acinterp import SIZES_PX, random_recipe  # noqa: E402
from tests.helpers.fakes_acinterp import small_acinterp  # noqa: E402

GRAPHS = (
    "image_encoder",
    "vae_encoder",
    "vae_decoder",
    "pose_guider",
    "background_guider",
    "denoiser",
    "denoiser_plain",
    "reference",
)
SIZE = SIZES_PX["small"][0]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(small_acinterp(tmp_path_factory))


def _symbols(spec: GraphSpec) -> set[str]:
    return {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}


def _pictures(n: int, seed: int) -> np.ndarray:
    """Smooth noise: colours that change slowly."""
    coarse = np.random.default_rng(seed).random((n, 4, 4, 3))
    return (np.kron(coarse, np.ones((1, SIZE // 4, SIZE // 4, 1))) * 255).astype(np.uint8)


def test_the_recipe_has_the_tensors_of_the_published_blocks() -> None:
    """Keys, values and a vector of each of four transformers go from one graph to the other, by name and shape."""
    graphs = {graph.name: graph for graph in random_recipe(0, "small").graphs}
    assert tuple(graphs) == GRAPHS
    denoiser, reference = graphs["denoiser"], graphs["reference"]
    passed = list(denoiser.inputs)[3:]
    assert list(denoiser.inputs)[:3] == list(graphs["denoiser_plain"].inputs) == ["latents", "timestep", "features"]
    assert passed[:4] == ["keys_00", "values_00", "keys_01", "values_01"]
    assert passed[8:] == [f"vectors_{number:02}" for number in range(4)] and tuple(passed) == reference.outputs
    for asked, given in zip(denoiser.trials, reference.trials, strict=True):
        with torch.no_grad():
            outputs = reference.module(*given.values())
        assert [tuple(output.shape) for output in outputs] == [tuple(asked[name].shape) for name in passed]
    assert {graph.name for graph in graphs.values() if graph.share_weights} == set(GRAPHS[5:])


@pytest.mark.slow
def test_bundle_agrees_with_torch(bundle: Bundle) -> None:
    assert bundle.name == "acinterp" and tuple(bundle.graphs) == GRAPHS
    assert bundle.config == {"frames": 16, "given_frames": 4, "width": "small", "sizes_px": [128, 192]}
    assert bundle.profile_names == ("128", "192")
    for graph in bundle.graphs.values():
        for backend, record in graph.parity.items():
            for output in record["reached"].values():
                assert output["cosine"] >= 0.99999, (graph.name, backend)
                assert output["max_abs"] <= 1e-4 * max(1, output["scale"]), (graph.name, backend)


@pytest.mark.slow
def test_the_halves_of_guidance_share_their_weights(bundle: Bundle) -> None:
    denoiser, plain, reference = (bundle.graph(name) for name in GRAPHS[5:])
    assert set(denoiser.weights) <= set(plain.weights) and set(denoiser.weights) < set(reference.weights)
    shared = bundle.files[denoiser.weights[0]].bytes
    assert sum(bundle.files[file].bytes for file in plain.weights) - shared < shared / 100
    assert all(not bundle.graph(name).weights for name in GRAPHS[:5])


@pytest.mark.slow
def test_profiles_are_of_one_size_each(bundle: Bundle) -> None:
    for graph in bundle.graphs.values():
        for name, profile in graph.profiles.items():
            assert set(profile) == _symbols(graph)
            assert all(least == usual == most for least, usual, most in profile.values())
            sizes: dict[str, Any] = {symbol: bounds[0] for symbol, bounds in profile.items()}
            if "height" in sizes:
                assert sizes["height"] == sizes["width"] == int(name) // 8
            arrays = {
                tensor.name: np.zeros([sizes.get(size, size) for size in tensor.shape], tensor.dtype)  # type: ignore[call-overload]
                for tensor in graph.inputs
            }
            check_inputs(graph, arrays, profile)


class Recorded:
    """Networks that check every call against a profile."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        spec = self._networks.bundle.graph(graph)
        check_inputs(spec, inputs, spec.profiles[str(SIZE)])
        return self._networks.run(graph, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_frames_between_two_clips(bundle: Bundle, backend: Any) -> None:
    """Every call fits the profile; a seed decides; poses and background have an effect."""
    pytest.importorskip(backend)
    with Networks.from_onnx(bundle, backend, n_threads=1) as networks:
        interpolator = Interpolator(Recorded(networks), SIZE, SIZE, DenoiseOptions(steps=2))
        start, end = (interpolator.latents(_pictures(GIVEN, seed)) for seed in (0, 1))
        reference = interpolator.reference(_pictures(1, 0)[0])
        poses = _pictures(FRAMES, 2)
        flow = background_flow(np.stack([[[1, 0, n], [0, 1, 2 * n], [0, 0, 1]] for n in range(FRAMES)]), SIZE, SIZE)
        plain, moved = interpolator.features(poses), interpolator.features(poses, flow)
        frames = interpolator.interpolate(reference, start, end, plain, seed=5)
        assert frames.shape == (8, SIZE, SIZE, 3) and frames.dtype == np.uint8
        assert np.array_equal(frames, interpolator.interpolate(reference, start, end, plain, seed=5))
        assert not np.array_equal(frames, interpolator.interpolate(reference, start, end, plain, seed=6))
        assert not np.array_equal(frames, interpolator.interpolate(reference, start, end, moved, seed=5))


def _graphs() -> dict[str, Graph]:
    return {graph.name: graph for graph in random_recipe(0, "small").graphs}


@pytest.mark.slow
def test_equal_weights_are_written_alike(bundle: Bundle, tmp_path: Path) -> None:
    """The quickest graph once more: its file has the same bytes."""
    from export.onnx_export import export_graph

    export_graph(_graphs()["pose_guider"], tmp_path / "pose_guider.onnx")
    assert (tmp_path / "pose_guider.onnx").read_bytes() == bundle.model("pose_guider").read_bytes()

"""ACInterp's networks against the public AnimateAnyone networks: banks, calls, intermediate results and units."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

from diffusers import AutoencoderKL  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

from export.models.acinterp import Denoiser, Guider, GuiderConfig, ReferenceNetwork, UNetConfig, block_names  # noqa: E402
from export.models.acinterp.attention import Condition  # noqa: E402

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden")) / "animate_anyone"
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no goldens: {GOLDEN} is absent"),
]

# Largest absolute differences; float32 against float64 differs by 3e-6 (SPEC section 1).
TOLERANCE, FRAMES_TOLERANCE = 2e-4, 2e-3
CONSTRUCTED: dict[str, type[nn.Module]] = {
    "reference_unet": ReferenceNetwork,
    "denoising_unet": Denoiser,
    "pose_guider": Guider,
    "background_guider": Guider,
}


def _load(file: Path) -> dict[str, Tensor]:
    with np.load(file) as data:
        return {name: torch.from_numpy(data[name]) for name in data.files}


def _folded(clips: Tensor) -> Tensor:
    """(b, C, f, h, w) -> (b * f, C, h, w)."""
    return clips.transpose(1, 2).flatten(0, 1)


def _unfolded(rows: Tensor, frames: int) -> Tensor:
    return rows.unflatten(0, (-1, frames)).transpose(1, 2)


def _close(result: Tensor, expected: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    assert result.shape == expected.shape, what
    difference = float((result - expected).abs().max())
    assert difference <= tolerance, f"{what}: {difference:.1e}"


@dataclass(frozen=True)
class Case:
    """One reduced-size case: its networks with their weights, and the results of the calls that others build on."""

    config_file: Path

    def arrays(self, kind: str) -> dict[str, Tensor]:
        return _load(self.config_file.with_name(self.config_file.name.replace("config.json", f"{kind}.npz")))

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads(self.config_file.read_text())

    @cached_property
    def unet(self) -> UNetConfig:
        return UNetConfig.from_dict(self.config["denoising_unet_config"])

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self.arrays("inputs")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return self.arrays("outputs")

    @cached_property
    def units(self) -> dict[str, Tensor]:
        return self.arrays("units")

    def network(self, name: str, **changes: Any) -> Any:
        kind = GuiderConfig if name.endswith("guider") else UNetConfig
        config = replace(kind.from_dict(self.config[f"{name}_config"]), **changes)
        network = CONSTRUCTED[name](config)
        weights = {key: tensor.float() for key, tensor in self.arrays(f"weights_{name}").items()}
        network.load_state_dict({key: weights[key] for key in network.state_dict()} if changes else weights)
        return network.eval().requires_grad_(False)

    @cached_property
    def denoiser(self) -> Denoiser:
        return self.network("denoising_unet")

    @cached_property
    def image_stage(self) -> Denoiser:
        return self.network("denoising_unet", motion=None)

    @cached_property
    def reference(self) -> ReferenceNetwork:
        return self.network("reference_unet")

    @cached_property
    def pose(self) -> Tensor:
        images = self.inputs["pose_images_u8"].permute(0, 3, 1, 2) / 255
        return self.network("pose_guider")(images)

    @cached_property
    def background(self) -> Tensor:
        return self.network("background_guider")(self.inputs["background_flow_f_h_w_2"].permute(0, 3, 1, 2))

    @cached_property
    def bank(self) -> tuple[Tensor, ...]:
        """Of batch 1, with the image embedding."""
        return self.reference(self.inputs["in_ref_latents"], self.inputs["in_clip_embed"])

    def call(
        self,
        latents: Tensor | None = None,
        features: Tensor | None = None,
        bank: tuple[Tensor, ...] | None = None,
        embedding: bool = True,
        motion: bool = True,
    ) -> Tensor:
        """One clip through the denoiser, (1, 4, f, h, w)."""
        denoiser = self.denoiser if motion else self.image_stage
        latents = self.inputs["in_latents"] if latents is None else latents
        v = denoiser(
            _folded(latents),
            self.inputs["in_timestep"],
            features,
            denoiser.vectors(self.inputs["in_clip_embed"]) if embedding else None,
            denoiser.keys_values(bank) if bank is not None else None,
            frames=latents.shape[2],
        )
        return _unfolded(v, latents.shape[2])

    def guidance_halves(self, features: Tensor, bank: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([self.call(features=features, embedding=False), self.call(features=features, bank=bank)])

    def rounded_bank(self) -> tuple[Tensor, ...]:
        return tuple(stored.half().float() for stored in self.bank)


def _cases() -> list[Any]:
    found = sorted(GOLDEN.glob("case*_config.json"))
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no cases in {GOLDEN}"))]
    return [pytest.param(Case(file), id=file.name.removesuffix("_config.json")) for file in found]


@pytest.fixture(scope="module", params=_cases())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def _first_frames(n_frames: int, motion: bool) -> Callable[[Case], Tensor]:
    def call(case: Case) -> Tensor:
        latents = case.inputs["in_latents"][:, :, :n_frames]
        return case.call(latents, case.pose[:n_frames], case.bank, motion=motion)

    return call


VARIANTS: dict[str, Callable[[Case], Tensor]] = {
    "out_cfg_bank_fp32": lambda case: case.guidance_halves(case.pose, case.bank),
    "out_cfg_bank_fp32_pose_plus_background": lambda case: case.guidance_halves(case.pose + case.background, case.bank),
    "out_cfg_bank_fp16_as_pipeline": lambda case: case.guidance_halves(case.pose, case.rounded_bank()),
    "out_nocfg_bank_fp32": lambda case: case.call(features=case.pose, bank=case.bank),
    "out_nocfg_bank_fp32_without_pose": lambda case: case.call(bank=case.bank),
    "out_nocfg_bank_fp32_first_4_frames": _first_frames(4, motion=True),
    "out_nocfg_without_reference": lambda case: case.call(features=case.pose),
    "out_image_stage_no_motion": lambda case: case.call(features=case.pose, bank=case.bank, motion=False),
    "out_image_stage_no_motion_single_frame": _first_frames(1, motion=False),
}
NOT_USED = "out_groupnorm_over_frames_variant_not_used"


def test_every_variant_is_checked(case: Case) -> None:
    assert {name for name in case.outputs if name.startswith("out_")} == {*VARIANTS, NOT_USED}


@pytest.mark.parametrize("name", VARIANTS)
def test_denoiser_variants(case: Case, name: str) -> None:
    _close(VARIANTS[name](case), case.outputs[name], name)


def test_group_norms_are_per_frame(case: Case) -> None:
    v = case.call(features=case.pose, bank=case.bank)
    distance = float((v - case.outputs[NOT_USED]).abs().max())
    recorded = case.config["measured"]["effect_sizes_max_abs"][NOT_USED]
    assert distance == pytest.approx(recorded, abs=TOLERANCE) and distance > 100 * TOLERANCE


def test_guided_v(case: Case) -> None:
    without, with_condition = case.guidance_halves(case.pose, case.rounded_bank())
    guided = without + case.config["guidance_scale"] * (with_condition - without)
    _close(guided[None], case.outputs["guided_v"], "guided_v", TOLERANCE * case.config["guidance_scale"])


def test_guiders(case: Case) -> None:
    frames = case.config["frames"]
    _close(_unfolded(case.pose, frames), case.outputs["pose_guider_out"], "pose guider")
    some = _unfolded(case.background, frames)[:, :, [0, frames // 2, frames - 1]]
    _close(some, case.outputs["background_guider_out_frames_first_mid_last"], "background guider")


def test_bank(case: Case) -> None:
    embedding = case.inputs["in_clip_embed"]
    names = list(block_names(case.unet))
    assert names == case.config["bank_order"]
    both = torch.cat([torch.zeros_like(embedding), embedding])
    bank = case.reference(case.inputs["in_ref_latents"].expand(2, -1, -1, -1), both)
    expected = case.arrays("bank")
    for name, stored, alone in zip(names, bank, case.bank, strict=True):
        _close(stored, expected[name], name)
        _close(alone, expected[name][1:], f"{name}, batch 1")


def _seen(network: nn.Module, names: list[str], run: Callable[[], object]) -> dict[str, Tensor]:
    """Outputs of submodules during a run; of several outputs the first."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({name: output[0] if isinstance(output, tuple) else output})

    handles = [network.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _names(arrays: dict[str, Tensor], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]


def test_intermediates_of_the_reference_network(case: Case) -> None:
    expected = case.arrays("intermediates")
    names = _names(expected, "ref_inter.")
    latents, embedding = case.inputs["in_ref_latents"], case.inputs["in_clip_embed"]
    for half, given in enumerate((torch.zeros_like(embedding), embedding)):
        seen = _seen(case.reference, names, lambda given=given: case.reference(latents, given))
        for name in names:
            _close(seen[name], expected[f"ref_inter.{name}"][half : half + 1], name)


def test_intermediates_of_the_denoiser(case: Case) -> None:
    expected = case.arrays("intermediates")
    names = _names(expected, "den_inter.")
    frames, chosen = case.config["frames"], case.config["intermediates_frames"]
    halves = (
        lambda: case.call(features=case.pose, embedding=False),
        lambda: case.call(features=case.pose, bank=case.bank),
    )
    for half, run in enumerate(halves):
        seen = _seen(case.denoiser, names, run)
        for name in names:
            result = seen[name] if name == "time_embedding" else _unfolded(seen[name], frames)[:, :, chosen]
            _close(result, expected[f"den_inter.{name}"][half : half + 1], name)


def test_motion_modules(case: Case) -> None:
    modules = {
        "motion_down0": case.denoiser.get_submodule("down_blocks.0.motion_modules.0"),
        "motion_mid": case.denoiser.get_submodule("mid_block.motion_modules.0"),
    }
    runs = [name.removesuffix("_in") for name in case.units if name.startswith("motion_") and name.endswith("_in")]
    assert len(runs) >= 2
    for run in runs:
        clips = case.units[f"{run}_in"]
        module = next(module for prefix, module in modules.items() if run.startswith(prefix))
        result = module(_folded(clips), clips.shape[2])
        _close(_unfolded(result, clips.shape[2]), case.units[f"{run}_out"], run)


def test_residual_block(case: Case) -> None:
    clips, time = case.units["resnet_down1_in"], case.units["resnet_temb"]
    block = case.denoiser.get_submodule("down_blocks.1.resnets.0")
    result = block(_folded(clips), time.repeat_interleave(clips.shape[2], 0))
    _close(_unfolded(result, clips.shape[2]), case.units["resnet_down1_out"], "residual block")


def test_spatial_transformer(case: Case) -> None:
    clips, embedding = case.units["transformer_down0_in"], case.units["transformer_down0_enc"]
    transformer = case.denoiser.get_submodule("down_blocks.0.attentions.0")
    vector = case.denoiser.vectors(embedding)[0]
    result, _ = transformer(_folded(clips), Condition(vector))
    _close(_unfolded(result, clips.shape[2]), case.units["transformer_down0_out"], "transformer")


def test_resampling(case: Case) -> None:
    def resampled(name: str, clips: Tensor, *size: tuple[int, int]) -> Tensor:
        return _unfolded(case.denoiser.get_submodule(name)(_folded(clips), *size), clips.shape[2])

    units, up = case.units, "up_blocks.0.upsamplers.0"
    _close(resampled("down_blocks.0.downsamplers.0", units["downsample0_in"]), units["downsample0_out"], "down")
    _close(resampled(up, units["upsample0_in"]), units["upsample0_out"], "up")
    _close(resampled(up, units["upsample0_in"], (5, 6)), units["upsample0_out_forced_5x6"], "up to a size")


def test_time_embedding(case: Case) -> None:
    _close(case.denoiser.time_proj(case.units["time_in"]), case.units["time_proj"], "sinusoid")
    _close(case.denoiser.embedded(case.units["time_in"]), case.units["time_embedding"], "time embedding")


def test_latent_sizes_that_are_no_multiple_of_8(case: Case) -> None:
    clips = case.units["odd_in"]
    _close(case.call(clips), case.units["odd_out_without_reference"], "odd size")


def test_position_tables_equal_the_recorded_ones(case: Case) -> None:
    fresh = Denoiser(case.unet).state_dict()
    for name, table in case.arrays("weights_denoising_unet").items():
        if name.endswith("pos_encoder.pe"):
            torch.testing.assert_close(fresh[name], table, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["reference_unet", "denoising_unet", "pose_guider"])
def test_names_shapes_and_totals_of_the_published_sizes(name: str) -> None:
    facts = json.loads((GOLDEN / f"full_{name}.json").read_text())
    config = (GuiderConfig if name == "pose_guider" else UNetConfig).from_dict(facts["config"])
    assert config == (GuiderConfig() if name == "pose_guider" else replace(UNetConfig(), motion=config.motion))
    with torch.device("meta"):
        network = CONSTRUCTED[name](config)
    assert {key: list(tensor.shape) for key, tensor in network.state_dict().items()} == facts["state_dict"]
    assert sum(parameter.numel() for parameter in network.parameters()) == facts["total_parameters"]


@pytest.fixture
def pipeline(case: Case) -> dict[str, Tensor]:
    if not case.config["pipeline"]:
        pytest.skip("this case has no pipeline")
    return case.arrays("pipeline")


def _filled(network: nn.Module, weights: dict[str, Tensor]) -> Any:
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return network.eval().requires_grad_(False)


def test_image_encoder(case: Case, pipeline: dict[str, Tensor]) -> None:
    config = CLIPVisionConfig(**case.config["pipeline"]["clip_config"])
    encoder = _filled(CLIPVisionModelWithProjection(config), case.arrays("weights_clip_vision"))
    embeds = encoder(pipeline["clip_pixel_values"]).image_embeds
    _close(embeds, pipeline["clip_image_embeds"], "image embedding")


def test_vae(case: Case, pipeline: dict[str, Tensor]) -> None:
    vae = _filled(AutoencoderKL(**case.config["pipeline"]["vae_config"]), case.arrays("weights_vae"))
    scale = vae.config.scaling_factor
    assert scale == 0.18215
    latents = vae.encode(pipeline["ref_pixels"]).latent_dist.mean * scale
    _close(latents, pipeline["ref_latents"], "latents")
    frames = pipeline["final_latents"].shape[2]
    some = pipeline["final_latents"][:, :, [0, frames // 2, frames - 1]]
    pixels = (vae.decode(_folded(some) / scale).sample / 2 + 0.5).clamp(0, 1)
    _close(_unfolded(pixels, 3), pipeline["video_frames_first_mid_last"], "frames", FRAMES_TOLERANCE)

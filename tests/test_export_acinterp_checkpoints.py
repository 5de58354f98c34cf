"""ACInterp's weights: folders of public files, complete or refused in one line; made-up ones, of which all count."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

from torch import Tensor  # noqa: E402

from engine.errors import ArtifactError, InputError  # noqa: E402
from export.acinterp_checkpoints import ACInterpConfig, ACInterpParts, load_acinterp, random_acinterp  # noqa: E402
from export.models.acinterp import GuiderConfig, UNetConfig  # noqa: E402
from export.models.acinterp.parts import PARTS  # noqa: E402

FILES = {"reference": "reference_unet", "pose_guider": "pose_guider", "background_guider": "background_guider"}
GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden")) / "animate_anyone"
State = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def _no_grad(one_thread: None) -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def parts() -> ACInterpParts:
    return random_acinterp(0, "small")


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_part_of_the_small_model_has_an_effect(parts: ACInterpParts) -> None:
    frames = 4
    embedding = parts.image_encoder()(_noise(1, 1, 3, 224, 224)).image_embeds[:, None]
    vae = parts.vae()
    latents = vae.encode(_noise(2, 1, 3, 64, 64).clamp(-1, 1)).latent_dist.mean * vae.config.scaling_factor
    pose, background = (
        parts.pose_guider()(_noise(3, frames, 3, 64, 64)),
        parts.background_guider()(_noise(4, frames, 2, 64, 64)),
    )
    denoiser = parts.denoiser()
    vectors = denoiser.vectors(embedding)
    keys_values = denoiser.keys_values(parts.reference()(latents, embedding))
    noise, timestep = _noise(5, frames, 4, 8, 8), torch.tensor(519)
    v = denoiser(noise, timestep, pose + background, vectors, keys_values, frames)
    without = {
        "pose": denoiser(noise, timestep, background, vectors, keys_values, frames),
        "background": denoiser(noise, timestep, pose, vectors, keys_values, frames),
        "reference": denoiser(noise, timestep, pose + background, vectors, None, frames),
        "embedding": denoiser(noise, timestep, pose + background, None, keys_values, frames),
        "other frames": denoiser(noise, timestep, pose + background, vectors, keys_values, 1),
        "time": denoiser(noise, torch.tensor(0), pose + background, vectors, keys_values, frames),
    }
    for what, other in without.items():
        assert (other - v).abs().max() > 0.05, what
    for what, tensor in {
        "embedding": embedding,
        "latents": latents,
        "v": v,
        "pixels": vae.decode(latents).sample,
    }.items():
        assert 0.1 < tensor.std() < 3, f"{what}: {tensor.std():.2g}"


def test_made_up_weights_depend_on_the_seed_alone(parts: ACInterpParts) -> None:
    again, other = random_acinterp(0, "small"), random_acinterp(1, "small")
    name = "denoiser.down_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight"
    torch.testing.assert_close(again.tensors[name], parts.tensors[name], rtol=0, atol=0)
    assert (other.tensors[name] - parts.tensors[name]).abs().max() > 0.1
    same = name.replace("denoiser.", "reference.").replace("motion_modules.0.temporal_transformer", "attentions.0")
    assert (parts.tensors[same].squeeze() - parts.tensors[name]).abs().max() > 0.1


def test_the_full_width_has_the_published_number_of_parameters() -> None:
    file = GOLDEN / "full_parameter_counts.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    facts = json.loads(file.read_text())["facts"]
    config = random_acinterp(0, "full").config
    counted = {part: sum(p.numel() for p in config.empty(part).parameters()) for part in PARTS}
    named = {
        "image_encoder": "clip_vision_vit_l14_projection",
        "vae": "vae_sd_ft_mse",
        "reference": "reference_unet",
        "denoiser": "denoising_unet",
        "pose_guider": "pose_guider",
        "background_guider": "background_guider",
    }
    assert counted == {part: facts[name]["total_parameters"] for part, name in named.items()}


def _state(parts: ACInterpParts, part: str) -> State:
    return {name: parts.tensors[f"{part}.{name}"].clone() for name in parts.config.shapes(part)}


def _unet_json(config: UNetConfig) -> dict[str, object]:
    kinds = ["CrossAttn" * has + "Block" for has in config.attention]
    raw: dict[str, object] = {
        "in_channels": config.latent_channels,
        "out_channels": config.out_channels,
        "block_out_channels": config.channels,
        "layers_per_block": config.layers,
        "norm_num_groups": config.norm_groups,
        "norm_eps": config.norm_eps,
        "cross_attention_dim": config.embedding_channels,
        "attention_head_dim": config.heads,
        "down_block_types": kinds,
        "up_block_types": kinds[::-1],
    }
    motion = config.motion
    if motion is None:
        return raw
    kwargs = {
        "num_attention_heads": motion.heads,
        "num_transformer_block": motion.blocks,
        "attention_block_types": ["Temporal_Self"] * motion.attentions,
        "temporal_position_encoding_max_len": motion.max_frames,
    }
    return raw | {
        "use_motion_module": True,
        "motion_module_resolutions": motion.downscales,
        "motion_module_mid_block": motion.mid,
        "motion_module_decoder_only": motion.decoder_only,
        "motion_module_kwargs": kwargs,
    }


def _guider_json(config: GuiderConfig) -> dict[str, object]:
    return {
        "conditioning_channels": config.in_channels,
        "block_out_channels": config.channels,
        "conditioning_embedding_channels": config.out_channels,
    }


def _write(folder: Path, parts: ACInterpParts) -> Path:
    """As the public files lie, at reduced size."""
    config = parts.config
    for part, name in FILES.items():
        torch.save(_state(parts, part), folder / f"{name}.pth")
    denoiser = _state(parts, "denoiser")
    motion = {name for name in denoiser if "motion_module" in name}
    torch.save({name: t for name, t in denoiser.items() if name not in motion}, folder / "denoising_unet.pth")
    torch.save({name: denoiser[name] for name in motion}, folder / "motion_module.pth")
    configs = {
        "reference_unet.json": _unet_json(config.reference),
        "denoising_unet.json": _unet_json(config.denoiser),
        "pose_guider.json": _guider_json(config.pose_guider),
        "background_guider.json": _guider_json(config.background_guider),
        "image_encoder/config.json": config.image_encoder.to_dict(),
        "sd-vae-ft-mse/config.json": {"_class_name": "AutoencoderKL", **config.vae},
    }
    for name, content in configs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    torch.save(_state(parts, "image_encoder"), folder / "image_encoder" / "pytorch_model.bin")
    torch.save(_state(parts, "vae"), folder / "sd-vae-ft-mse" / "diffusion_pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def written(parts: ACInterpParts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("public"), parts)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "public"))


def _change(file: Path, change: Callable[[State], object]) -> None:
    state = torch.load(file, weights_only=True)
    changed = change(state)
    torch.save(state if changed is None else changed, file)


def _same(loaded: ACInterpParts, parts: ACInterpParts, but: str = "none") -> None:
    for part in PARTS:
        if part != but:
            network = getattr(loaded, part)()
            for name, tensor in network.state_dict().items():
                torch.testing.assert_close(tensor, parts.tensors[f"{part}.{name}"], rtol=0, atol=0)


def test_a_folder_of_public_files(folder: Path, parts: ACInterpParts) -> None:
    loaded = load_acinterp(folder)
    assert replace(loaded.config, image_encoder=parts.config.image_encoder, vae=parts.config.vae) == parts.config
    _same(loaded, parts)
    assert not any(parameter.requires_grad for parameter in loaded.denoiser().parameters())
    pixels = _noise(1, 1, 3, 224, 224)
    torch.testing.assert_close(loaded.image_encoder()(pixels), parts.image_encoder()(pixels))


def test_other_spellings(folder: Path, parts: ACInterpParts) -> None:
    from safetensors.torch import save_file

    def old(name: str) -> str:
        for new, before in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    (folder / "sd-vae-ft-mse").rename(folder / "vae")
    _change(folder / "vae/diffusion_pytorch_model.bin", lambda state: {old(name): t for name, t in state.items()})
    ids = {"vision_model.embeddings.position_ids": torch.arange(50)[None]}
    _change(folder / "image_encoder/pytorch_model.bin", lambda state: state | ids)
    (folder / "pose_guider.pth").unlink()
    save_file(_state(parts, "pose_guider"), folder / "pose_guider.safetensors")
    _change(folder / "reference_unet.pth", lambda state: {"state_dict": state, "step": 3})
    _same(load_acinterp(folder), parts)


def test_one_file_with_the_motion_modules(folder: Path, parts: ACInterpParts) -> None:
    (folder / "motion_module.pth").unlink()
    torch.save(_state(parts, "denoiser"), folder / "denoising_unet.pth")
    _same(load_acinterp(folder), parts)


def test_without_a_background_guider_the_background_is_neutral(folder: Path, parts: ACInterpParts) -> None:
    (folder / "background_guider.pth").unlink()
    loaded = load_acinterp(folder)
    _same(loaded, parts, but="background_guider")
    guider, pose = loaded.background_guider(), loaded.pose_guider()
    assert not guider(_noise(1, 2, 2, 32, 32)).any()
    for one, other in zip(guider.blocks, pose.blocks, strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=0)
    assert guider.conv_in.weight.any()


class _Runs:
    def __reduce__(self) -> object:
        return print, ("code was run",)


@pytest.mark.parametrize(
    ("harm", "error", "said"),
    [
        (lambda f: (f / "motion_module.pth").unlink(), InputError, "has no motion_module.pth or motion_module.saf"),
        (lambda f: (f / "pose_guider.pth").unlink(), InputError, "has no pose_guider.pth"),
        (lambda f: (f / "image_encoder").rename(f / "other"), InputError, "has no folder image_encoder"),
        (lambda f: (f / "image_encoder/pytorch_model.bin").unlink(), InputError, "no model.safetensors or pytorch_mod"),
        (
            lambda f: _change(f / "reference_unet.pth", lambda s: {n: t for n, t in s.items() if n != "conv_in.bias"}),
            ArtifactError,
            r"reference is not complete: tensors 1 missing \(conv_in.bias\)",
        ),
        (
            lambda f: _change(f / "motion_module.pth", lambda s: {n: t for n, t in s.items() if "mid_block" not in n}),
            ArtifactError,
            r"denoiser is not complete: tensors 28 missing \(mid_block.motion_modules.0",
        ),
        (
            lambda f: _change(f / "motion_module.pth", lambda s: {n: _shorter(n, t) for n, t in s.items()}),
            ArtifactError,
            r"14 of another shape \(.*pe \(1, 24, 32\) instead of \(1, 32, 32\)",
        ),
        (
            lambda f: _change(f / "pose_guider.pth", lambda s: s | {"extra.weight": torch.zeros(1)}),
            ArtifactError,
            r"pose_guider is not complete: tensors 1 unexpected \(extra.weight\)",
        ),
        (
            lambda f: (f / "pose_guider.pth").write_bytes(pickle.dumps(_Runs(), protocol=2)),
            ArtifactError,
            "not a checkpoint of",
        ),
        (lambda f: (f / "pose_guider.pth").write_bytes(b""), ArtifactError, "not a checkpoint of"),
        (lambda f: (f / "pose_guider.json").write_text("{"), ArtifactError, "not JSON"),
        (lambda f: (f / "pose_guider.json").write_text("[]"), ArtifactError, "expected the config of a network"),
        (lambda f: (f / "pose_guider.json").write_text("{}"), InputError, "a guider config without"),
        (lambda f: (f / "pose_guider.json").unlink(), InputError, r"do not fit: the guiders' channels .* \(320, 32\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    harm: Callable[[Path], object],
    error: type[Exception],
    said: str,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    harm(folder)
    with pytest.raises(error, match=said) as caught:
        load_acinterp(folder)
    assert "\n" not in str(caught.value)
    assert "code was run" not in capfd.readouterr().out


def _shorter(name: str, tensor: Tensor) -> Tensor:
    return tensor[:, :24].clone() if name.endswith(".pe") else tensor


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder at .*: expected the files of AnimateAnyone"):
        load_acinterp(tmp_path / "absent")


def test_parts_that_do_not_fit() -> None:
    small = ACInterpConfig.small()
    with pytest.raises(InputError, match="levels and the denoiser's differ"):
        replace(small, reference=replace(small.reference, layers=2))
    with pytest.raises(InputError, match="embeddings differ"):
        replace(small, denoiser=replace(small.denoiser, embedding_channels=24))

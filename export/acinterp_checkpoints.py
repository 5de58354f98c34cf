"""Loads a folder of the public AnimateAnyone files; an incomplete one is refused with a one-line error.

    denoising_unet.pth      the image part; if it includes the motion modules, it needs no other file
    motion_module.pth       merged with it; for a tensor in both, the first file wins
    reference_unet.pth      pose_guider.pth
    background_guider.pth   optional: without it, it is neutral until it is trained (SPEC section 9)
    image_encoder/          in the transformers layout
    sd-vae-ft-mse/ or vae/  in the diffusers layout

Every .pth may be a .safetensors file. Sizes are the published ones, or those in denoising_unet.json and so on next to
the files, in the layout of the networks' configs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import CLIPVisionConfig

from engine.errors import ArtifactError, InputError
from engine.files import read_plain
from engine.inference.session import one_line
from engine.records import as_object
from export.checkpoints import check_complete, read_tensors
from export.models.acinterp.config import GuiderConfig, UNetConfig
from export.models.acinterp.motion import Positions
from export.models.acinterp.parts import LATENT_SCALE, PARTS, ACInterpConfig, ACInterpParts
from export.models.rule_weights import RuleWeights

__all__ = ["ACInterpConfig", "ACInterpParts", "Width", "load_acinterp", "random_acinterp"]

Width = Literal["small", "full"]

SUFFIXES = (".pth", ".safetensors")
REFERENCE, DENOISER, MOTION = "reference_unet", "denoising_unet", "motion_module"
POSE, BACKGROUND = "pose_guider", "background_guider"
ENCODER_FOLDERS, ENCODER_WEIGHTS = ("image_encoder",), ("model.safetensors", "pytorch_model.bin")
VAE_FOLDERS = ("sd-vae-ft-mse", "vae")
VAE_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# Names of the attention layers in the public VAE's files, and those that diffusers uses now.
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
POSITIONS = "pos_encoder.pe"
CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20
GUIDER_GAIN = 1.7  # keeps the variance through SiLU


def load_acinterp(folder: Path) -> ACInterpParts:
    """Read every part's tensors; large files stay on disk until a part is built.

    Raises:
        InputError: a file or folder is missing. ArtifactError: a file is damaged, incomplete or of another model.
    """
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}: expected the files of AnimateAnyone, {DENOISER}.pth and others")
    config = _config(folder)
    found = {
        "image_encoder": _encoder_tensors(folder),
        "vae": _vae_tensors(folder),
        "reference": _from_file(folder, REFERENCE),
        "denoiser": _denoiser_tensors(folder),
        "pose_guider": _from_file(folder, POSE),
    }
    if _file(folder, BACKGROUND) is not None:
        found["background_guider"] = _from_file(folder, BACKGROUND)
    else:
        found["background_guider"] = _neutral_guider(config, found["pose_guider"])
    for part, tensors in found.items():
        check_complete(tensors, config.shapes(part), f"{folder}: {part}")
    return ACInterpParts(config, {f"{part}.{name}": t for part in PARTS for name, t in found[part].items()})


def random_acinterp(seed: int, width: Width) -> ACInterpParts:
    """Generated weights, made when a part is built, for tests and timings without real weights.

    Layers that are zero at the start of training are filled, too, so that every part has an effect.
    """
    config = ACInterpConfig() if width == "full" else ACInterpConfig.small()
    shapes = {f"{part}.{name}": shape for part in PARTS for name, shape in config.shapes(part).items()}
    tables = {name: Positions(shape[2], shape[1]).pe for name, shape in shapes.items() if name.endswith(POSITIONS)}
    weights = _RandomWeights(shapes, seed, tables, one_trunk=False)
    return ACInterpParts(config, weights, licence="none: made by a rule")


class _RandomWeights(RuleWeights):
    """Larger where the signal would vanish: in the guiders' plain convolutions and in the scaled latents."""

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name)
        if name.startswith((f"{POSE}.", f"{BACKGROUND}.")) and tensor.ndim > 1:
            return tensor * GUIDER_GAIN
        return tensor / LATENT_SCALE if name == "vae.quant_conv.weight" else tensor


def _config(folder: Path) -> ACInterpConfig:
    """The published sizes, overridden by the folder's JSON files."""
    unets = {"reference": REFERENCE, "denoiser": DENOISER}
    guiders = {POSE: POSE, BACKGROUND: BACKGROUND}
    sizes: dict[str, Any] = {}
    for part, name in (unets | guiders).items():
        file = folder / f"{name}.json"
        if file.is_file():
            sizes[part] = (UNetConfig if part in unets else GuiderConfig).from_dict(_json(file))
    encoder, vae = _subfolder(folder, ENCODER_FOLDERS), _subfolder(folder, VAE_FOLDERS)
    if (encoder / CONFIG).is_file():
        sizes["image_encoder"] = _encoder_config(encoder)
    if (vae / CONFIG).is_file():
        sizes["vae"] = {name: value for name, value in _json(vae / CONFIG).items() if not name.startswith("_")}
    return replace(ACInterpConfig(), **sizes)


def _encoder_config(folder: Path) -> CLIPVisionConfig:
    try:
        return CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{folder / CONFIG}: not the config of a CLIP encoder: {one_line(error)}") from error


def _denoiser_tensors(folder: Path) -> dict[str, Tensor]:
    tensors = _from_file(folder, DENOISER)
    if any(MOTION in name for name in tensors) and _file(folder, MOTION) is None:
        return tensors
    return _from_file(folder, MOTION) | tensors


def _encoder_tensors(folder: Path) -> dict[str, Tensor]:
    tensors = _from_folder(_subfolder(folder, ENCODER_FOLDERS), ENCODER_WEIGHTS)
    # a counter, not a weight, in older files
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".position_ids")}


def _vae_tensors(folder: Path) -> dict[str, Tensor]:
    tensors = _from_folder(_subfolder(folder, VAE_FOLDERS), VAE_WEIGHTS)
    return {_new_name(name): tensor for name, tensor in tensors.items()}


def _new_name(name: str) -> str:
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def _neutral_guider(config: ACInterpConfig, pose: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pose guider's layers where their shapes fit, others by rule, and a last layer of zeros (SPEC section 9)."""
    shapes = config.shapes(BACKGROUND)
    made = RuleWeights(shapes, 0, {}, one_trunk=False)
    tensors = {}
    for name, shape in shapes.items():
        fits = name in pose and tuple(pose[name].shape) == shape
        tensors[name] = pose[name] if fits else made[name]
        if name.startswith("conv_out."):
            tensors[name] = torch.zeros(shape)
    return tensors


def _from_file(folder: Path, stem: str) -> dict[str, Tensor]:
    file = _file(folder, stem)
    if file is None:
        raise InputError(f"{folder} has no {' or '.join(stem + suffix for suffix in SUFFIXES)}")
    return read_tensors(file)


def _file(folder: Path, stem: str) -> Path | None:
    return next((folder / (stem + suffix) for suffix in SUFFIXES if (folder / (stem + suffix)).is_file()), None)


def _from_folder(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    for name in names:
        if (folder / name).is_file():
            return read_tensors(folder / name)
    raise InputError(f"{folder} has no {' or '.join(names)}")


def _subfolder(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(f"{folder} has no folder {' or '.join(names)}")


def _json(file: Path) -> dict[str, Any]:
    try:
        return as_object(read_plain(file, MAX_CONFIG_BYTES), file.name)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: expected the config of a network: {error}") from error

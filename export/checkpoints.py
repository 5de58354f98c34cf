"""Loads the published AuMoCLIP checkpoint; an incomplete one is refused with a one-line error.

A checkpoint has everything (325 M numbers) or only the model's own parts; missing speech and text encoders come from
folders in the transformers layout. These spellings of tensor names are unified:

    module.                                       from a wrapped model, dropped wherever it occurs
    weight_g, weight_v                            weight norm, old spelling, the one used here
    parametrizations.weight.original0, original1  weight norm, new spelling
"""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

from engine.errors import ArtifactError, InputError
from export import encoder_folders as folders
from export.models.aumoclip import AudioTower, AuMoCLIPConfig, MotionTower
from export.models.aumoclip_speech import FineTunedBranch, SpeechNetwork, TextNetwork

__all__ = ["Published", "Sizes", "canonical", "check_complete", "load_published", "read_tensors"]

Part = TypeVar("Part", bound=nn.Module)

# Parts of the model by tensor prefix.
MOTION = AUDIO = ""
BRANCH, FROZEN, RECOGNISER, TEXT = "audio_encoder_fintune.", "audio_encoder.", "asr.", "bert_model."
TRUNK = "wav2vec2."  # of the recogniser

# Tensors of the release that do not affect any output: optional.
UNUSED = ("low_temp", "high_temp")
UNUSED_SUFFIXES = ("masked_spec_embed", "pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")


def canonical(name: str) -> str:
    """The canonical form of a tensor's name."""
    name = name.replace("module.", "")
    for index, old in enumerate(("weight_g", "weight_v")):
        name = name.replace(f"parametrizations.weight.original{index}", old)
    return name


@dataclass(frozen=True)
class Sizes:
    """Everything that determines the shapes of a model; the defaults are the published ones."""

    model: AuMoCLIPConfig = field(default_factory=AuMoCLIPConfig)
    speech: Wav2Vec2Config = field(default_factory=folders.speech_config)
    text: BertConfig = field(default_factory=folders.text_config)

    def parts(self) -> list[tuple[str, Callable[[], nn.Module]]]:
        """Prefix and builder of every part."""
        return [
            (MOTION, partial(MotionTower, self.model)),
            (AUDIO, partial(AudioTower, self.model)),
            (BRANCH, partial(FineTunedBranch, self.model, self.speech)),
            (FROZEN, partial(Wav2Vec2Model, self.speech)),
            (RECOGNISER, partial(Wav2Vec2ForCTC, self.speech)),
            (TEXT, partial(BertModel, self.text, add_pooling_layer=False)),
        ]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every tensor in use."""
        with torch.device("meta"):
            built = [(prefix, build()) for prefix, build in self.parts()]
        return {
            prefix + canonical(name): tuple(tensor.shape)
            for prefix, part in built
            for name, tensor in part.state_dict().items()
        }


@dataclass(frozen=True)
class Published:
    """A complete model that is not built yet: parts are built on demand, so that one at a time is in memory.

    tensors: by canonical name, as `Sizes.shapes` gives them. one_trunk: the frozen encoder equals the recogniser's
    trunk tensor by tensor. files: the two vocabularies, by file name.
    """

    sizes: Sizes
    tensors: Mapping[str, Tensor]
    one_trunk: bool
    files: Mapping[str, bytes]

    def motion(self) -> MotionTower:
        return self._filled(MotionTower(self.sizes.model), MOTION)

    def audio(self) -> AudioTower:
        return self._filled(AudioTower(self.sizes.model), AUDIO)

    def speech(self, share: bool = True) -> SpeechNetwork:
        """With a single pass through the trunk if it is shared and `share` allows it."""
        branch = self._filled(FineTunedBranch(self.sizes.model, self.sizes.speech), BRANCH)
        recogniser = self._filled(Wav2Vec2ForCTC(self.sizes.speech), RECOGNISER)
        separate = not (share and self.one_trunk)
        frozen = self._filled(Wav2Vec2Model(self.sizes.speech), FROZEN) if separate else None
        return SpeechNetwork(recogniser, branch, frozen).eval()

    def text(self) -> TextNetwork:
        return TextNetwork(self._filled(BertModel(self.sizes.text, add_pooling_layer=False), TEXT)).eval()

    def _filled(self, part: Part, prefix: str) -> Part:
        state = {name: self.tensors[prefix + canonical(name)] for name in part.state_dict()}
        part.load_state_dict(state, assign=True)
        return part.eval().requires_grad_(False)


def load_published(
    checkpoint: Path,
    speech: str | Path,
    text: str | Path,
    model: AuMoCLIPConfig | None = None,
    allow_download: bool = False,
) -> Published:
    """Read a checkpoint, and from the two folders the vocabularies and any encoder missing from it.

    Args:
        checkpoint: a file of torch.save or a .safetensors file.
        speech: folder of the public recogniser: vocab.json; config.json and weights if the checkpoint lacks them.
        text: folder of the public text encoder: vocab.txt or tokenizer.json; config.json and weights likewise.
        model: sizes of the model's own parts, if not the published ones.
        allow_download: `speech` and `text` may name public models, which are then fetched.

    Raises:
        InputError: a file or folder is missing. ArtifactError: a file is damaged, incomplete or of another model.
    """
    tensors = read_tensors(checkpoint)
    heard = folders.EncoderFolder(speech, folders.SPEECH, allow_download)
    read = folders.EncoderFolder(text, folders.TEXT, allow_download)
    files = {path.name: path.read_bytes() for path in (heard.vocabulary, read.vocabulary)}
    sizes = Sizes(model or AuMoCLIPConfig(), folders.speech_config(heard), folders.text_config(read))
    absent = [prefix for prefix in (FROZEN, RECOGNISER, TEXT) if not any(name.startswith(prefix) for name in tensors)]
    if FROZEN in absent or RECOGNISER in absent:
        public = {canonical(name): tensor for name, tensor in heard.tensors(sizes.speech).items()}
        if RECOGNISER in absent:
            tensors |= {RECOGNISER + name: tensor for name, tensor in public.items()}
        if FROZEN in absent:
            trunk = [name for name in public if name.startswith(TRUNK)]
            tensors |= {FROZEN + name.removeprefix(TRUNK): public[name] for name in trunk}
    if TEXT in absent:
        tensors |= {TEXT + canonical(name): tensor for name, tensor in read.tensors(sizes.text).items()}
    check_complete(tensors, sizes.shapes(), f"{checkpoint}: this AuMoCLIP checkpoint", _unused)
    return Published(sizes, tensors, _equal_trunks(tensors), files)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by canonical name, float32; large ones stay on disk until they are used.

    Raises InputError if there is no file, ArtifactError if it is not a checkpoint or would run code when read.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: expected a file of torch.save or a .safetensors file")
    try:
        content = _read(path)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200] or "it is empty"
        raise ArtifactError(f"{path}: not a checkpoint of plain tensors: {reason}") from error
    # the weights may be stored next to training state
    layers = [content, *content.values()] if isinstance(content, Mapping) else []
    for layer in layers:
        tensors = {name: t for name, t in layer.items() if isinstance(t, Tensor)} if isinstance(layer, Mapping) else {}
        if tensors:
            return {canonical(name): t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    raise ArtifactError(f"{path}: the checkpoint has no tensors")


def check_complete(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    origin: str,
    unused: Callable[[str], bool] = lambda name: False,
) -> None:
    """Raises a one-line ArtifactError if tensors are missing, unknown (except unused ones) or of another shape."""
    faults = {
        "missing": [name for name in shapes if name not in tensors],
        "unexpected": [name for name in tensors if name not in shapes and not unused(name)],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {shape}"
            for name, shape in shapes.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
    }
    found = [
        f"{len(names)} {fault} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for fault, names in faults.items()
        if names
    ]
    if found:
        raise ArtifactError(f"{origin} is not complete: tensors {'; '.join(found)}")


def _unused(name: str) -> bool:
    return name in UNUSED or name.endswith(UNUSED_SUFFIXES)


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _equal_trunks(tensors: Mapping[str, Tensor]) -> bool:
    names = [name.removeprefix(FROZEN) for name in tensors if name.startswith(FROZEN) and not _unused(name)]
    return all(torch.equal(tensors[FROZEN + name], tensors[RECOGNISER + TRUNK + name]) for name in names)

"""The public speech and text encoders, from folders in the transformers layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2ForCTC
from transformers.utils import logging

from engine.errors import ArtifactError, InputError
from export.models.aumoclip import AuMoCLIPConfig

__all__ = ["SPEECH", "TEXT", "EncoderFolder", "speech_config", "text_config"]

CONFIG = ("config.json",)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class EncoderFolder:
    """A folder with a vocabulary, and with config and weights if they are needed."""

    def __init__(self, place: str | Path, kind: str, allow_download: bool = False) -> None:
        """`place` may name a public model if downloads are allowed. Raises InputError if there is no folder."""
        self.kind = kind
        self._vocabularies = VOCABULARIES[kind]
        self.folder = Path(place)
        if not self.folder.is_dir() and allow_download:
            from huggingface_hub import snapshot_download

            wanted = [*CONFIG, *WEIGHTS, *self._vocabularies]
            self.folder = Path(snapshot_download(str(place), allow_patterns=wanted))
        if not self.folder.is_dir():
            raise InputError(f"no folder at {place}: {self._wanted}")

    @property
    def vocabulary(self) -> Path:
        """Raises InputError if there is none."""
        return self._find(self._vocabularies, self._wanted)

    def has_config(self) -> bool:
        return (self.folder / CONFIG[0]).is_file()

    def tensors(self, config: Wav2Vec2Config | BertConfig) -> dict[str, Tensor]:
        """All weights in float32, with the names of this version of transformers.

        Raises InputError if config or weights are missing, ArtifactError if they are unreadable or incomplete.
        """
        for names in (CONFIG, WEIGHTS):
            self._find(names, f"the checkpoint has no {self.kind} encoder, so the {self.kind} folder must have one")
        model: Any = Wav2Vec2ForCTC if self.kind == SPEECH else BertModel
        try:
            with _quiet():
                loaded, report = model.from_pretrained(
                    self.folder, config=config, local_files_only=True, output_loading_info=True, dtype=torch.float32
                )
        except Exception as error:  # every format has its own errors
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{self.folder}: unreadable {self.kind} encoder: {reason}") from error
        missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        if missing:
            few = ", ".join(missing[:3])
            raise ArtifactError(f"{self.folder}: the {self.kind} encoder lacks {len(missing)} tensors ({few})")
        return dict(loaded.state_dict())

    @property
    def _wanted(self) -> str:
        files = (self._vocabularies, CONFIG, WEIGHTS)
        return f"the {self.kind} folder needs {', '.join(' or '.join(names) for names in files)}"

    def _find(self, names: tuple[str, ...], why: str) -> Path:
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise InputError(f"{self.folder} has no {' or '.join(names)}: {why}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without tables of unused tensors, such as the heads of other tasks, and without progress bars."""
    chatter: Any = logging  # carries no types
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()


SPEECH, TEXT = "speech", "text"
VOCABULARIES = {SPEECH: ("vocab.json",), TEXT: ("vocab.txt", "tokenizer.json")}


def speech_config(source: EncoderFolder | None = None) -> Wav2Vec2Config:
    """Config from a folder, or of the public base model if it has none; without training masks and their tensor.

    Raises ArtifactError if it is not of the base size.
    """
    masks: dict[str, Any] = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    if source is None or not source.has_config():
        return Wav2Vec2Config(**masks)
    config = Wav2Vec2Config.from_pretrained(source.folder, local_files_only=True, **masks)
    wanted = AuMoCLIPConfig()
    if (config.hidden_size, config.conv_dim[-1]) != (wanted.encoder_channels, wanted.cnn_channels):
        found = f"{config.hidden_size} hidden and {config.conv_dim[-1]} convolution channels"
        raise ArtifactError(f"{source.folder}: a speech encoder of {found}, expected the base size of 768 and 512")
    return config


def text_config(source: EncoderFolder | None = None) -> BertConfig:
    """Config from a folder, or of the public base model. Raises ArtifactError if it is not of the base size."""
    if source is None or not source.has_config():
        return BertConfig()
    config = BertConfig.from_pretrained(source.folder, local_files_only=True)
    if config.hidden_size != AuMoCLIPConfig().encoder_channels:
        found = f"a text encoder of {config.hidden_size} channels"
        raise ArtifactError(f"{source.folder}: {found}, expected the base size of 768")
    return config

"""The published network at small size: rule-made weights, speech and text encoders of one layer."""

from pathlib import Path
from typing import Any

from transformers import BertConfig, Wav2Vec2Config

from export.checkpoints import Published, Sizes
from export.models.aumoclip import AuMoCLIPConfig
from export.recipes.full import random_published


def small_sizes(width: int = 64, hidden: int = 96, text_vocabulary: int = 64) -> Sizes:
    """One layer each; 768 and 512 are fixed by the mappings."""
    speech = Wav2Vec2Config(
        num_hidden_layers=1,
        intermediate_size=16,
        conv_dim=(16,) * 6 + (512,),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=16,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
    )
    text = BertConfig(num_hidden_layers=1, intermediate_size=16, vocab_size=text_vocabulary)
    return Sizes(AuMoCLIPConfig(width=width, hidden=hidden), speech, text)


def small_full(seed: int = 3, one_trunk: bool = True) -> Published:
    return random_published(seed, small_sizes(), one_trunk)


def write_folders(model: Published, folder: Path, weights: bool = True) -> tuple[Path, Path]:
    """The public encoders of a model as transformers saves them -> folders of speech and text."""
    speech, text = folder / "speech", folder / "text"
    for path in (speech, text):
        path.mkdir(parents=True)
    (speech / "vocab.json").write_bytes(model.files["vocab.json"])
    (text / "vocab.txt").write_bytes(model.files["vocab.txt"])
    if weights:
        model.speech().recogniser.save_pretrained(speech)
        model.text().encoder.save_pretrained(text)
    return speech, text


def state(model: Published, *prefixes: str) -> dict[str, Any]:
    """Tensors of the parts with these prefixes; "" stands for the model's own ones."""
    public = ("audio_encoder.", "asr.", "bert_model.")
    return {
        name: model.tensors[name]
        for name in model.tensors
        if (name.startswith(tuple(p for p in prefixes if p)) or ("" in prefixes and not name.startswith(public)))
    }

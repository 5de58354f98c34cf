"""The published network as a bundle: four graphs, two vocabularies."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import Wav2Vec2Config

from engine.errors import ArtifactError
from engine.features.released_windows import MIN_SAMPLES
from engine.features.text import BAR, CONTINUATION, PAD
from engine.files import reading
from engine.records import as_object
from engine.timebase import frame_start
from export.bundle import Recipe
from export.checkpoints import Published, Sizes, load_published
from export.models.aumoclip import MotionTower
from export.models.aumoclip_speech import prepare_for_export
from export.models.rule_weights import RuleWeights
from export.onnx_export import Graph

__all__ = ["full_recipe", "make_recipe", "random_full", "random_published"]

NAME = "full"
POSITIONS = "motion_encoder_fintune.pos_encoding.pe"
WINDOW_SAMPLES = 68_266  # 128 frames, what the model was trained on
WINDOW_FRAMES = 128
WINDOW_STEPS = 213  # of 20 ms
PROFILE = "window"
MIN_FRAMES = 4  # of a clip: a node
USUAL_TOKENS = 24
# 128 frames are a sample longer if they start between two samples
MAX_SAMPLES = max(frame_start(start + WINDOW_FRAMES) - frame_start(start) for start in range(3))


def full_recipe(checkpoint: Path, speech: str | Path, text: str | Path, allow_download: bool = False) -> Recipe:
    """From the published checkpoint and folders of the public encoders; see export.checkpoints.load_published."""
    return make_recipe(load_published(checkpoint, speech, text, allow_download=allow_download))


def random_full(seed: int, sizes: Sizes | None = None) -> Recipe:
    """Of the published size with generated weights, for tests and timings without the real ones."""
    return make_recipe(random_published(seed, sizes))


def random_published(seed: int, sizes: Sizes | None = None, one_trunk: bool = True) -> Published:
    """Generated weights; with one_trunk the frozen encoder equals the recogniser's trunk, as in the public models."""
    sizes = sizes or Sizes()
    shapes = sizes.shapes()
    fixed = {POSITIONS: MotionTower(sizes.model).state_dict()[POSITIONS]}
    tensors = RuleWeights(shapes, seed, fixed, one_trunk)
    return Published(sizes, tensors, one_trunk, _made_up_vocabularies())


def make_recipe(model: Published) -> Recipe:
    """Raises ArtifactError if a vocabulary is not the one that the weights were trained with."""
    _check_vocabularies(model)
    config = {"one_trunk": model.one_trunk, "max_motion_frames": model.sizes.model.max_frames}
    return Recipe(name=NAME, graphs=_graphs(model), config=config, files=dict(model.files))


def _graphs(model: Published) -> Iterator[Graph]:
    """One at a time: together they would be in memory twice."""
    yield _speech(model)
    yield _text(model)
    yield _audio(model)
    yield _motion(model)


def _speech(model: Published) -> Graph:
    trials = tuple({"waveform": _noise(1, n)} for n in (WINDOW_SAMPLES, 34_133, 6_000))
    return Graph(
        name="speech",
        module=_prepared(model.speech(), trials[-1]["waveform"]),
        inputs=trials[0],
        outputs=("raw_low", "raw_high", "ft_low", "ft_high", "logits"),
        dynamic={"waveform": {1: "samples"}},
        trials=trials,
        profiles={PROFILE: {"samples": (MIN_SAMPLES, WINDOW_SAMPLES, MAX_SAMPLES)}},
    )


def _text(model: Published) -> Graph:
    n_words = model.sizes.text.vocab_size
    most_tokens = model.sizes.text.max_position_embeddings
    trials = tuple({"ids": torch.arange(n)[None] * 7 % n_words} for n in (USUAL_TOKENS, 2, 61))
    return Graph(
        name="text",
        module=_prepared(model.text(), trials[0]["ids"]),
        inputs=trials[0],
        outputs=("hidden",),
        dynamic={"ids": {1: "tokens"}},
        trials=trials,
        profiles={PROFILE: {"tokens": (2, min(USUAL_TOKENS, most_tokens), most_tokens)}},
        below={"ids": n_words},
    )


def _audio(model: Published) -> Graph:
    """In fp32: the towers are a hundredth of the work, and interpolate over time: bf16 cannot count that far."""
    down, encoder = model.sizes.model.cnn_channels, model.sizes.model.encoder_channels
    channels = {"raw_low": down, "ft_low": down, "raw_high": encoder, "ft_high": down, "text": encoder}
    trials = tuple(
        {name: _noise(1, n_steps, width) for name, width in channels.items()} for n_steps in (WINDOW_STEPS, 49, 18)
    )
    steps = tuple(_steps(n_samples, model.sizes.speech) for n_samples in (MIN_SAMPLES, WINDOW_SAMPLES, MAX_SAMPLES))
    return Graph(
        name="audio",
        module=model.audio(),
        inputs=trials[0],
        outputs=("low", "high", "cls", "weighted"),
        dynamic={name: {1: "steps"} for name in channels},
        trials=trials,
        profiles={PROFILE: {"steps": (steps[0], steps[1], steps[2])}},
        keep_fp32=True,
    )


def _motion(model: Published) -> Graph:
    channels = model.sizes.model.motion_channels
    trials = tuple({"motion": _noise(n, frames, channels)} for n, frames in ((2, WINDOW_FRAMES), (1, 101), (3, 4)))
    return Graph(
        name="motion",
        module=model.motion(),
        inputs=trials[0],
        outputs=("low", "high", "cls", "weighted"),
        dynamic={"motion": {0: "batch", 1: "frames"}},
        trials=trials,
        profiles={PROFILE: {"batch": (1, 1, 1), "frames": (MIN_FRAMES, WINDOW_FRAMES, WINDOW_FRAMES)}},
        keep_fp32=True,
    )


def _steps(n_samples: int, speech: Wav2Vec2Config) -> int:
    """Number of 20 ms rows that the speech network's convolutions make from n_samples."""
    for kernel, stride in zip(speech.conv_kernel, speech.conv_stride, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def _prepared(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """A network rearranged for run times, checked to compute the same as before."""
    with torch.no_grad():
        expected = network(example)
        prepare_for_export(network)
        for before, after in zip(expected, network(example), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    return network


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def _check_vocabularies(model: Published) -> None:
    outputs, words = model.sizes.speech.vocab_size, model.sizes.text.vocab_size
    with reading("vocab.json", "is not a vocabulary", "use the one that came with the recogniser"):
        n_tokens = len(as_object(model.files["vocab.json"], "it"))
    if n_tokens != outputs:
        raise ArtifactError(
            f"vocab.json has {n_tokens} tokens, the recogniser {outputs}: use the one that came with it"
        )
    lines = model.files.get("vocab.txt", b"").decode().split("\n")
    if "vocab.txt" in model.files and len(lines) > words + 1:
        raise ArtifactError(
            f"vocab.txt has {len(lines)} tokens, the text encoder {words}: use the one that came with it"
        )


def _made_up_vocabularies() -> dict[str, bytes]:
    letters = "etaonihsrdlumwcfgypbvk'xjqz"
    heard = [PAD, "<s>", "</s>", "<unk>", BAR, *letters.upper()]
    read = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(CONTINUATION + letter for letter in letters)]
    ids = {token: index for index, token in enumerate(heard)}
    return {"vocab.json": json.dumps(ids).encode(), "vocab.txt": ("\n".join(read) + "\n").encode()}

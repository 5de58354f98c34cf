"""The published network against what the research release computed, from small towers to waveforms at full size."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import BertConfig  # noqa: E402

from engine.features.text import TextTokens, align, best_tokens, transcribe  # noqa: E402
from export.checkpoints import Published, Sizes  # noqa: E402
from export.models.aumoclip import AudioTower, AuMoCLIPConfig, MotionTower  # noqa: E402
from export.models.aumoclip_speech import prepare_for_export  # noqa: E402
from export.recipes.full import random_published  # noqa: E402
from tests.helpers.fakes_full import small_sizes  # noqa: E402

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden")) / "model"
SMALL = AuMoCLIPConfig(width=64, hidden=96)
AUDIO_INPUTS = ("raw_low", "ft_low", "raw_high", "ft_high", "bert")
# The largest difference, in units of the largest value: float32 in another order.
TOLERANCE = 1e-5
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden models: {GOLDEN} is absent")

Golden = dict[str, np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other's core cost far more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _files(pattern: str) -> list[Any]:
    found = sorted(GOLDEN.glob(pattern))
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {GOLDEN}"))]
    return [pytest.param(file, id=file.stem) for file in found]


def _load(file: Path) -> Golden:
    with np.load(file) as data:
        return {name: data[name] for name in data.files}


def _cases(golden: Golden, word: str) -> Iterator[Golden]:
    """The fields of word0/, word1/, ..."""
    for number in sorted({name.split("/")[0] for name in golden if name.startswith(word)}):
        yield {name.split("/")[1]: array for name, array in golden.items() if name.startswith(number + "/")}


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _close(result: torch.Tensor, expected: np.ndarray, what: str) -> None:
    assert result.shape == expected.shape, what
    difference = np.abs(result.numpy() - expected).max() / np.abs(expected).max()
    assert difference < TOLERANCE, f"{what}: {difference:.1e}"


def _check_motion(tower: MotionTower, case: Golden) -> None:
    with torch.no_grad():
        outputs = tower(_tensor(case["rep15d"]))
    for name, output in zip(("low", "high", "cls", "high_weight"), outputs, strict=True):
        _close(output, case[f"motion_{name}"], f"motion_{name}")


def _check_audio(tower: AudioTower, case: Golden) -> None:
    with torch.no_grad():
        outputs = tower(*(_tensor(case[name]) for name in AUDIO_INPUTS))
    for name, output in zip(("low", "high", "cls", "high_weight"), outputs, strict=True):
        _close(output, case[f"audio_{name}"], f"audio_{name}")


@pytest.mark.parametrize("file", _files("motion_small_s*.npz"))
def test_small_motion_tower(file: Path) -> None:
    golden = _load(file)
    tower = MotionTower(SMALL).eval()
    weights = {name.removeprefix("w/"): _tensor(array) for name, array in golden.items() if name.startswith("w/")}
    positions = "motion_encoder_fintune.pos_encoding.pe"
    torch.testing.assert_close(tower.state_dict()[positions], weights[positions], rtol=0, atol=1e-6)
    tower.load_state_dict(weights)
    for case in _cases(golden, "case"):
        _check_motion(tower, case)


@pytest.mark.parametrize("file", _files("audiomap_small_s*.npz"))
def test_small_audio_tower(file: Path) -> None:
    golden = _load(file)
    tower = AudioTower(SMALL).eval()
    tower.load_state_dict(
        {name.removeprefix("w/"): _tensor(array) for name, array in golden.items() if name.startswith("w/")}
    )
    for case in _cases(golden, "case"):
        _check_audio(tower, case)


@pytest.mark.parametrize("file", _files("fullsize_s*.npz"))
def test_towers_of_the_published_size(file: Path) -> None:
    golden = _load(file)
    model = random_published(int(golden["weight_seed"]), one_trunk=False)
    for name, sums in zip(golden["weight_names"], golden["weight_sum_abssum"], strict=True):
        tensor = model.tensors[str(name)].double()
        np.testing.assert_allclose([tensor.sum(), tensor.abs().sum()], sums, rtol=1e-6, atol=1e-4)
    motion, audio = model.motion(), model.audio()
    for case in _cases(golden, "motion"):
        _check_motion(motion, case)
    for case in _cases(golden, "audio"):
        _check_audio(audio, case)


@pytest.mark.skipif(not (GOLDEN / "statedict_full.json").is_file(), reason="no statedict_full.json")
def test_names_and_shapes_of_the_checkpoint() -> None:
    owners = json.loads((GOLDEN / "statedict_full.json").read_text())["owners"]
    listed = {name: tuple(t["shape"]) for owner in owners.values() for name, t in owner["tensors"].items()}
    shapes = Sizes().shapes()
    assert {name: listed.get(name) for name in shapes} == shapes
    left = set(listed) - set(shapes)
    assert all(name.endswith(("_temp", "masked_spec_embed")) or ".pooler." in name for name in left), left


@pytest.mark.parametrize("file", _files("chain_mini_s*.npz"))
@pytest.mark.parametrize("prepared", [False, True], ids=["as-built", "as-exported"])
def test_small_chain(file: Path, prepared: bool, tmp_path: Path) -> None:
    golden = _load(file)
    small = small_sizes()
    text = BertConfig(num_hidden_layers=1, intermediate_size=16, vocab_size=len(golden["bert_vocab"]))
    _check_chain(golden, Sizes(AuMoCLIPConfig(), small.speech, text), prepared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("file", _files("chain_full_s*.npz"))
def test_chain_of_the_published_size(file: Path, tmp_path: Path) -> None:
    _check_chain(_load(file), Sizes(), True, tmp_path)


def _check_chain(golden: Golden, sizes: Sizes, prepared: bool, folder: Path) -> None:
    """Waveform -> features, stage by stage, one network in memory at a time."""
    pytest.importorskip("tokenizers")
    model = random_published(int(golden["weight_seed"]), sizes, one_trunk=False)
    (folder / "vocab.txt").write_text("\n".join(map(str, golden["bert_vocab"])) + "\n")
    words = TextTokens(folder / "vocab.txt")
    vocabulary = [str(token) for token in golden["ctc_vocab"]]
    cases = list(_cases(golden, "case"))
    heard = [_hear(model, case, prepared) for case in cases]
    for case, (raw_low, raw_high, ft_low, ft_high, logits) in zip(cases, heard, strict=True):
        tokens = best_tokens(logits[0].numpy(), vocabulary)
        assert transcribe(tokens) == str(case["transcription"])
        ids, pieces = words.encode(transcribe(tokens))
        np.testing.assert_array_equal(ids[0], case["bert_ids"])
        index = align(tokens, pieces)
        np.testing.assert_array_equal(index, case["align_index"])
        text = _read(model, ids, prepared)[:, index]
        _close(text[0, :, :8], case["bert_first8"], "text")
        inputs = {"raw_low": raw_low, "ft_low": ft_low, "raw_high": raw_high, "ft_high": ft_high, "bert": text}
        _check_audio(model.audio(), case | {name: tensor.numpy() for name, tensor in inputs.items()})


def _hear(model: Published, case: Golden, prepared: bool) -> tuple[torch.Tensor, ...]:
    samples = case["pcm16"].astype(np.float32) / 32768
    waveform = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    np.testing.assert_allclose(waveform[:64], case["input_values_head"], rtol=1e-6, atol=1e-7)
    network = model.speech()
    assert network.frozen is not None
    if prepared:
        prepare_for_export(network)
    with torch.no_grad():
        outputs = network(_tensor(waveform)[None])
    raw_low, raw_high, _, ft_high, logits = outputs
    for name, output in (("raw_low", raw_low), ("raw_high", raw_high), ("ft_high", ft_high)):
        _close(output[0, :, :8], case[f"{name}_first8"], name)
    _close(logits[0], case["logits"], "logits")
    np.testing.assert_array_equal(logits[0].argmax(1), case["ctc_ids"])
    return tuple(outputs)


def _read(model: Published, ids: np.ndarray, prepared: bool) -> torch.Tensor:
    network = model.text()
    if prepared:
        prepare_for_export(network)
    with torch.no_grad():
        return network(torch.from_numpy(ids))[0]

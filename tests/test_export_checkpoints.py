"""Checkpoints in every spelling, complete or refused in one line; equal trunks found by comparison."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from engine.errors import ArtifactError, InputError  # noqa: E402
from export.checkpoints import Published, canonical, load_published, read_tensors  # noqa: E402
from export.recipes.full import full_recipe, make_recipe  # noqa: E402
from tests.helpers.fakes_full import small_full, small_sizes, state, write_folders  # noqa: E402

EVERYTHING = ("", "audio_encoder.", "asr.", "bert_model.")
MODEL = small_sizes().model
State = dict[str, torch.Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> Published:
    return small_full(one_trunk=False)


@pytest.fixture(scope="module")
def folders(model: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_folders(model, tmp_path_factory.mktemp("encoders"))


def _plain(state: State) -> object:
    return state


def _wrapped(state: State) -> object:
    return {"module." + name.replace("encoder.", "encoder.module.", 1): tensor for name, tensor in state.items()}


def _new_spelling(state: State) -> object:
    return {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in state.items()
    }


def _with_leftovers(state: State) -> object:
    unused = {
        "low_temp": torch.tensor(0.07),
        "asr.wav2vec2.masked_spec_embed": torch.zeros(768),
        "bert_model.pooler.dense.bias": torch.zeros(768),
        "bert_model.embeddings.position_ids": torch.arange(512)[None],
    }
    return {"model_state_dict": state | unused, "epoch": 3}


def _half(state: State) -> object:
    return {name: tensor.half() for name, tensor in state.items()}


def _load(path: Path, folders: tuple[Path, Path]) -> Published:
    return load_published(path, *folders, model=MODEL)


def _same(first: Published, second: Published, names: State, atol: float = 0) -> None:
    for name in names:
        torch.testing.assert_close(first.tensors[name], second.tensors[name], rtol=0, atol=atol)


@pytest.mark.parametrize("spelling", [_plain, _wrapped, _new_spelling, _with_leftovers, _half])
def test_spellings_of_a_complete_checkpoint(
    spelling: Callable[[State], object], model: Published, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    complete = state(model, *EVERYTHING)
    torch.save(spelling(complete), tmp_path / "all.pth")
    loaded = _load(tmp_path / "all.pth", folders)
    _same(loaded, model, complete, atol=1e-3 if spelling is _half else 0)
    assert not loaded.one_trunk
    assert all(tensor.dtype == torch.float32 for name, tensor in loaded.tensors.items() if "position_ids" not in name)


def test_safetensors(model: Published, folders: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    complete = state(model, *EVERYTHING)
    save_file(complete, tmp_path / "all.safetensors")
    _same(_load(tmp_path / "all.safetensors", folders), model, complete)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="not a checkpoint"):
        read_tensors(tmp_path / "bad.safetensors")


def test_only_own_parts_take_the_encoders_from_the_folders(
    model: Published, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.save(state(model, ""), tmp_path / "own.pth")
    loaded = _load(tmp_path / "own.pth", folders)
    _same(loaded, model, state(model, "", "asr.", "bert_model."))
    assert loaded.one_trunk  # both come from the same folder
    with torch.no_grad():
        shared = loaded.speech()(torch.ones(1, 4000).cumsum(1))
        separate = loaded.speech(share=False)(torch.ones(1, 4000).cumsum(1))
    assert loaded.speech().frozen is None
    for one, two in zip(shared, separate, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_equal_trunks_are_found_by_comparison(model: Published, folders: tuple[Path, Path], tmp_path: Path) -> None:
    complete = state(model, *EVERYTHING)
    equal = {
        name.replace("asr.wav2vec2.", "audio_encoder.", 1): t for name, t in complete.items() if "wav2vec2" in name
    }
    torch.save(complete | equal, tmp_path / "equal.pth")
    assert _load(tmp_path / "equal.pth", folders).one_trunk
    name = "audio_encoder.encoder.layers.0.attention.k_proj.bias"
    equal[name] = equal[name].clone()
    equal[name][5] += 1e-6
    torch.save(complete | equal, tmp_path / "nearly.pth")
    assert not _load(tmp_path / "nearly.pth", folders).one_trunk


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("audio_sa.key_proj.bias"), r"1 missing \(audio_sa.key_proj.bias\)"),
        (lambda s: s.pop("asr.lm_head.bias"), r"1 missing \(asr.lm_head.bias\)"),
        (lambda s: s.update({"discriminator.weight": torch.zeros(2)}), r"1 unexpected \(discriminator.weight\)"),
        (
            lambda s: s.update({"motion_sa.key_proj.bias": torch.zeros(65)}),
            r"1 of another shape \(motion_sa.key_proj.bias \(65,\) instead of \(64,\)\)",
        ),
    ],
)
def test_incomplete_checkpoints_are_refused_in_one_line(
    change: Callable[[State], object],
    message: str,
    model: Published,
    folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    damaged = state(model, *EVERYTHING)
    change(damaged)
    torch.save(damaged, tmp_path / "damaged.pth")
    with pytest.raises(ArtifactError, match=message) as caught:
        _load(tmp_path / "damaged.pth", folders)
    assert "\n" not in str(caught.value)


def test_the_published_sizes_refuse_a_small_model(model: Published, folders: tuple[Path, Path], tmp_path: Path) -> None:
    torch.save(state(model, *EVERYTHING), tmp_path / "small.pth")
    with pytest.raises(ArtifactError, match="of another shape"):
        full_recipe(tmp_path / "small.pth", *folders)


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


@pytest.mark.parametrize("content", [Code(), {"epoch": 3}, [1, 2]])
def test_what_is_no_checkpoint_is_refused_and_runs_no_code(
    content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ArtifactError) as caught:
        read_tensors(tmp_path / "odd.pth")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    for size in (0, 40):
        (tmp_path / "cut.pth").write_bytes((tmp_path / "odd.pth").read_bytes()[:size])
        with pytest.raises(ArtifactError, match=r"not a checkpoint of plain tensors: \w"):
            read_tensors(tmp_path / "cut.pth")


def test_missing_files_and_folders_say_what_is_wanted(
    model: Published, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.save(state(model, ""), tmp_path / "own.pth")
    with pytest.raises(InputError, match="no checkpoint at"):
        _load(tmp_path / "none.pth", folders)
    with pytest.raises(InputError, match=r"no folder at .*: the speech folder needs vocab.json, config.json, model"):
        _load(tmp_path / "own.pth", (tmp_path / "none", folders[1]))
    bare = write_folders(model, tmp_path / "bare", weights=False)
    with pytest.raises(InputError, match=r"has no config.json: the checkpoint has no speech encoder, so the speech"):
        _load(tmp_path / "own.pth", bare)
    (bare[0] / "config.json").write_bytes((folders[0] / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"has no model.safetensors or pytorch_model.bin: the checkpoint has no spe"):
        _load(tmp_path / "own.pth", bare)
    (bare[1] / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"has no vocab.txt or tokenizer.json: the text folder needs"):
        _load(tmp_path / "own.pth", bare)


def test_an_incomplete_folder_is_refused(model: Published, folders: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    torch.save(state(model, ""), tmp_path / "own.pth")
    speech, text = write_folders(model, tmp_path / "encoders")
    tensors = load_file(speech / "model.safetensors")
    tensors.pop("lm_head.bias")
    save_file(tensors, speech / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"the speech encoder lacks 1 tensors \(lm_head.bias\)"):
        _load(tmp_path / "own.pth", (speech, text))


def test_heads_of_other_tasks_are_passed_over_in_silence(
    model: Published, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    torch.save(state(model, ""), tmp_path / "own.pth")
    folders = write_folders(model, tmp_path / "encoders")
    tensors = load_file(folders[1] / "model.safetensors")
    other = {"bert." + name: tensor for name, tensor in tensors.items()} | {"cls.predictions.bias": torch.zeros(64)}
    save_file(other, folders[1] / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    _same(_load(tmp_path / "own.pth", folders), model, state(model, "bert_model."))
    assert capfd.readouterr() == ("", "")


def test_names_are_downloaded_only_when_allowed(
    model: Published, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[str] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert "model.safetensors" in allow_patterns
        return str(folders[0])

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    torch.save(state(model, ""), tmp_path / "own.pth")
    with pytest.raises(InputError, match="no folder at some/speech"):
        load_published(tmp_path / "own.pth", "some/speech", folders[1], model=MODEL)
    assert asked == []
    load_published(tmp_path / "own.pth", "some/speech", folders[1], model=MODEL, allow_download=True)
    assert asked == ["some/speech"]


def test_a_vocabulary_of_another_recogniser_is_refused(model: Published) -> None:
    files = {**model.files, "vocab.json": b'{"<pad>": 0, "|": 1}'}
    with pytest.raises(ArtifactError, match=r"vocab.json has 2 tokens, the recogniser 32"):
        make_recipe(Published(model.sizes, model.tensors, model.one_trunk, files))


def test_canonical_names() -> None:
    assert canonical("module.a.module.b") == "a.b"
    new = "x.conv.parametrizations.weight.original1"
    assert canonical(new) == canonical("module.x.conv.weight_v") == "x.conv.weight_v"
    assert not re.search("module", canonical("module." * 3 + "c"))

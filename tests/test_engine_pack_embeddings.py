"""Motion features in a pack: what is stored is read, damaged or foreign ones are refused in one line."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from engine.character.arrays import MAX_FEATURE_WIDTH
from engine.character.embeddings import NAMES, read_embedding, stored_names, write_embedding
from engine.character.pack import CharacterPack
from engine.character.steps import node_rows
from engine.errors import ArtifactError, InputError
from engine.features.embedding import Features
from engine.features.onset import OnsetEmbedding
from engine.features.recording import Recording
from tests.helpers.fakes_damage import sign
from tests.helpers.random_fits import fitted_of

N_NODES = 20


def folder_of(pack: CharacterPack, name: str = "onset") -> Path:
    return pack.path / "embeddings" / name


class Failing(OnsetEmbedding):
    """Cannot be applied."""

    def motion(self, recording: Recording) -> Features:
        raise InputError(f"{recording.name} has no tail")


def test_what_is_stored_is_read(pack: CharacterPack) -> None:
    embedding, about = fitted_of(), {"choice": "fitted", "scores": {"onset": None}}
    write_embedding(pack.path, embedding, pack.recording, about)
    assert stored_names(pack.path) == ["fitted", "onset"]
    stored = read_embedding(pack, "fitted")
    assert (stored.name, stored.sha256, stored.about) == ("fitted", embedding.sha256, about)
    assert stored.fitted is not None and stored.fitted.sha256 == embedding.sha256
    np.testing.assert_array_equal(stored.low, node_rows(embedding.motion(pack.recording).low))
    assert stored.high.shape == (N_NODES, 0)
    onset = read_embedding(pack, "onset")
    assert onset.fitted is None and onset.sha256 == OnsetEmbedding().sha256
    np.testing.assert_array_equal(onset.high, node_rows(OnsetEmbedding().motion(pack.recording).high))
    assert not onset.low.flags.writeable, "a memory map"


def test_a_new_one_replaces_the_old_one_and_nothing_else_remains(pack: CharacterPack) -> None:
    for seed in (0, 5):
        write_embedding(pack.path, fitted_of(seed), pack.recording, {"seed": seed})
    assert read_embedding(pack, "fitted").sha256 == fitted_of(5).sha256
    assert sorted(os.listdir(pack.path / "embeddings")) == ["fitted", "onset"]
    assert sorted(os.listdir(folder_of(pack, "fitted"))) == ["embedding.json", "fit.npz", "high.npy", "low.npy"]


def test_one_that_cannot_be_applied_leaves_the_old_one(pack: CharacterPack) -> None:
    with pytest.raises(InputError, match="anna has no tail"):
        write_embedding(pack.path, Failing(), pack.recording, {})
    assert read_embedding(pack, "onset").about == {}
    assert os.listdir(pack.path / "embeddings") == ["onset"]


def test_a_full_disk_leaves_the_old_one(pack: CharacterPack, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write_embedding(pack.path, OnsetEmbedding(), pack.recording, {"new": True})
    assert read_embedding(pack, "onset").about == {}
    assert os.listdir(pack.path / "embeddings") == ["onset"]


@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "onset"), "", "../embeddings/onset", "/etc"])
def test_what_is_not_there_is_named(pack: CharacterPack, name: str) -> None:
    with pytest.raises(InputError, match=f"no motion features for {name!r}.*character refresh"):
        read_embedding(pack, name)


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))


def _record(**changes: object) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        file = folder / "embedding.json"
        record = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))

    return act


def _linked(name: str) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        file = folder / name
        outside = folder.parent.parent.parent / f"outside {file.name}"
        shutil.move(file, outside)
        file.symlink_to(outside)

    return act


def _claiming(folder: Path) -> None:
    with (folder / "low.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (N_NODES, 1 << 40)}
        )


HOSTILE: dict[str, Callable[[Path], object]] = {
    "missing low": lambda folder: (folder / "low.npy").unlink(),
    "missing high": lambda folder: (folder / "high.npy").unlink(),
    "truncated": lambda folder: os.truncate(folder / "low.npy", 200),
    "empty": lambda folder: os.truncate(folder / "high.npy", 0),
    "nodes of another pack": _array("low", lambda rows: rows[:-1]),
    "another dtype": _array("low", lambda rows: rows.astype(np.float64)),
    "a row": _array("low", lambda rows: rows[0]),
    "far too long": _array("low", lambda rows: rows * 1e4),
    "no columns": _array("low", lambda rows: rows[:, :0]),
    "no hashes": _record(files=...),
    "control characters": _record(about={"why": "\x1b]0;gone\x07"}),
    "a FIFO": lambda folder: ((folder / "low.npy").unlink(), os.mkfifo(folder / "low.npy")),
    "not finite": _array("high", lambda rows: np.full_like(rows, np.nan)),
    "too wide": _array("low", lambda rows: np.zeros((N_NODES, MAX_FEATURE_WIDTH + 1), np.float32)),
    "pickle": _array("low", lambda rows: np.array([{"a": 1}] * N_NODES, object)),
    "larger than memory": _claiming,
    "no json": lambda folder: (folder / "embedding.json").write_text("{"),
    "a list": lambda folder: (folder / "embedding.json").write_text("[1]"),
    "deep json": lambda folder: (folder / "embedding.json").write_text("[" * 100_000),
    "large json": lambda folder: (folder / "embedding.json").write_text(" " * (2 << 20)),
    "not text": lambda folder: (folder / "embedding.json").write_bytes(b"\xff\xfe{}"),
    "no hash": _record(sha256=...),
    "half a character for a hash": _record(sha256="\ud800"),
    "a hash that is none": _record(sha256="0" * 63),
    "another name": _record(name="fitted"),
    "nothing about it": _record(about=...),
    "a number about it": _record(about=7),
    "a linked array": _linked("low.npy"),
    "a linked record": _linked("embedding.json"),
    "a linked folder": _linked(""),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_ones_are_refused_in_one_line(kind: str, signed: bool, pack: CharacterPack) -> None:
    HOSTILE[kind](folder_of(pack))
    if signed and kind != "no hashes":
        with suppress(OSError, ValueError, TypeError, RecursionError):  # where there is a record to write them in
            sign(pack.path)
    with pytest.raises(ArtifactError, match=r"onset are damaged .*character refresh") as refused:
        read_embedding(pack, "onset")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600
    write_embedding(pack.path, fitted_of(), pack.recording, {})
    assert read_embedding(pack, "fitted").low.shape[0] == N_NODES, "the others are untouched"


def test_nothing_is_written_through_a_link(pack: CharacterPack, tmp_path: Path) -> None:
    """A pack from a stranger cannot make us write elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(pack.path / "embeddings")
    (pack.path / "embeddings").symlink_to(elsewhere)
    with pytest.raises((InputError, ArtifactError)):
        write_embedding(pack.path, OnsetEmbedding(), pack.recording, {})
    assert not any(elsewhere.iterdir())

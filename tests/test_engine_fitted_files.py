"""Fits on disk: round trips, hashes, and files that hold something else, refused at load."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.character.embeddings import read_embedding, write_embedding
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError
from engine.features.archive import read_arrays
from engine.features.fitted import FittedEmbedding
from tests.helpers.fakes import make_pack
from tests.helpers.fakes_damage import sign
from tests.helpers.fakes_recording import random_rows, recording_of, restless
from tests.helpers.random_fits import HALF, WIDTH, fitted_of, heard, linear_of


def test_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    embedding, rows = fitted_of(), random_rows(50, rng)
    embedding.save(tmp_path / "fit.npz")
    again = FittedEmbedding.load((tmp_path / "fit.npz").read_bytes())
    assert (again.name, again.sha256, again.lookahead_frames) == (
        "fitted",
        embedding.sha256,
        embedding.lookahead_frames,
    )
    recording = recording_of(restless(40, rng))
    for lookahead in (0, 8, 100):
        one, two = (heard(each.with_lookahead(lookahead), rows).low for each in (embedding, again))
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(embedding.motion(recording).low, again.motion(recording).low)
    assert FittedEmbedding.load((tmp_path / "fit.npz").read_bytes(), "generic").name == "generic"


def test_hash_tells_fits_apart() -> None:
    one = linear_of()
    speech = one.speech | {0: one.speech[0] * 2}
    others = [
        replace(one, body=one.body * 2),
        replace(one, speech_mean=one.speech_mean + 1),
        replace(one, speech=speech),
        replace(one, body_size=one.body_size * 2),
        replace(one, speech_size=one.speech_size * 2),
        linear_of(1),
    ]
    hashes = {FittedEmbedding((other,)).sha256 for other in (one, *others)}
    assert len(hashes) == 1 + len(others)
    assert FittedEmbedding((one, one)).sha256 not in hashes


def _changed(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        with np.load(file) as content:
            arrays = dict(content)
        change(arrays)
        np.savez(file, **arrays)

    return act


def _compressed(file: Path) -> None:
    with np.load(file) as content:
        arrays = dict(content)
    np.savez_compressed(file, **arrays)


def _put(name: str, value: object) -> Callable[[Path], None]:
    return _changed(lambda arrays: arrays.update({f"{HALF}/{name}": np.asarray(value)}))


def _drop(name: str) -> Callable[[Path], None]:
    return _changed(lambda arrays: arrays.pop(f"{HALF}/{name}"))


def _moved(half: str) -> Callable[[Path], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        for name in [name for name in arrays if name.startswith(f"{HALF}/")]:
            arrays[f"{half}/{name.partition('/')[2]}"] = arrays.pop(name)

    return _changed(change)


def _member(name: str, content: bytes) -> Callable[[Path], None]:
    """A file of that name in the archive, whatever is in it."""

    def act(file: Path) -> None:
        with zipfile.ZipFile(file) as archive:
            kept = {each: archive.read(each) for each in archive.namelist() if each.removesuffix(".npy") != name}
        with zipfile.ZipFile(file, "w") as archive:
            for each, data in {**kept, name: content}.items():
                archive.writestr(each, data)

    return act


def _huge() -> bytes:
    """An array that claims 64 TB."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 44, WIDTH)})
    return file.getvalue() + bytes(100)


def _nan(array: np.ndarray) -> np.ndarray:
    return np.where(np.arange(array.size).reshape(array.shape) == 3, np.nan, array).astype(array.dtype)


def _save(array: np.ndarray) -> bytes:
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


def _overlapping(archive: bytes) -> bytes:
    """Its directory lists every member a hundred times: small on disk, large in memory."""
    end = archive.rindex(b"PK\x05\x06")
    n_members, size, start = struct.unpack_from("<10xHII", archive, end)
    listed = archive[start : start + size] * 100
    tail = struct.pack("<4s4xHHIIH", b"PK\x05\x06", n_members * 100, n_members * 100, len(listed), start, 0)
    return archive[:start] + listed + tail


def test_members_over_each_other_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "fit.npz"
    fitted_of().save(file)
    read_arrays(file.read_bytes())
    file.write_bytes(_overlapping(file.read_bytes()))
    with pytest.raises(ValueError, match=r"larger than the file|Overlapped"):
        read_arrays(file.read_bytes())


ONE = linear_of()
HOSTILE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "not an archive": lambda file: file.write_bytes(b"hello" * 100),
    "an array": lambda file: file.write_bytes((np.save(buffer := io.BytesIO(), np.zeros(3)), buffer.getvalue())[1]),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-300]),
    "cut in the middle": lambda file: file.write_bytes(file.read_bytes()[:2000]),
    "bits flipped": lambda file: file.write_bytes(file.read_bytes().replace(ONE.body.tobytes()[:16], bytes(16))),
    "compressed": _compressed,
    "no arrays": _changed(lambda arrays: arrays.clear()),
    "pickle": _changed(lambda arrays: arrays.update({f"{HALF}/body": np.array([{"a": 1}], object)})),
    "no member of an array": _member(f"{HALF}/body", b"hello"),
    "a member that is no array": _member(f"{HALF}/body.npy", b"hello"),
    "a header that is no Python": _member(f"{HALF}/body.npy", _save(np.zeros(3)).replace(b"(3,)", b"(3, ")),
    "a header of another version": _member(f"{HALF}/body.npy", b"\x93NUMPY\x09\x00" + bytes(100)),
    "members over each other": lambda file: file.write_bytes(_overlapping(file.read_bytes())),
    "larger than memory": _member(f"{HALF}/body.npy", _huge()),
    "scale without number": _moved("wide"),
    "negative scale": _moved("-4"),
    "no scale": _moved("0"),
    "another scale": _moved("16"),
    "scale larger than memory": _moved("4000000000000"),
    "no body": _drop("body"),
    "no means": _drop("speech_mean"),
    "no sizes": _drop("sizes"),
    "no whole context": _drop(f"speech_{HALF + 1}"),
    "body of a number": _put("body", np.float32(1)),
    "body of another shape": _put("body", ONE.body[:-1]),
    "body of another width": _put("body", ONE.body[:, :-1]),
    "body of no width": _put("body", ONE.body[:, :0]),
    "body of text": _put("body", ONE.body.astype(str)),
    "body of float64": _put("body", ONE.body.astype(np.float64)),
    "body not finite": _put("body", _nan(ONE.body)),
    "speech not finite": _put("speech_0", _nan(ONE.speech[0])),
    "speech of another shape": _put("speech_0", ONE.speech[0][1:]),
    "means not finite": _put("speech_mean", _nan(np.zeros(4, np.float32))[1:]),
    "means of text": _put("speech_mean", ["a", "b", "c"]),
    "complex means": _put("speech_mean", [1j, 2j, 3j]),
    "complex sizes": _put("sizes", [1j, 2j]),
    "three sizes": _put("sizes", [1.0, 2.0, 3.0]),
    "negative size": _put("sizes", [1.0, -2.0]),
    "two mouths": _put("mouth", [True, False]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_fits_are_refused_at_load(name: str, tmp_path: Path) -> None:
    file = tmp_path / "fit.npz"
    fitted_of().save(file)
    HOSTILE[name](file)
    with pytest.raises((ValueError, KeyError)):
        FittedEmbedding.load(file.read_bytes())


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> CharacterPack:
    pack = make_pack(tmp_path_factory.mktemp("packs") / "anna.tango", (20,))
    write_embedding(pack.path, fitted_of(), pack.recording, {})
    return pack


@pytest.mark.parametrize(
    "name", ["truncated", "compressed", "larger than memory", "scale larger than memory", "no body"]
)
@pytest.mark.parametrize("signed", [False, True])
def test_hostile_fits_in_a_pack_are_refused_in_one_line(name: str, signed: bool, pack: CharacterPack) -> None:
    file, record = (pack.path / "embeddings" / "fitted" / part for part in ("fit.npz", "embedding.json"))
    good, known = file.read_bytes(), record.read_bytes()
    try:
        HOSTILE[name](file)
        if signed:
            sign(pack.path)
        with pytest.raises(ArtifactError, match=r"fitted are damaged .*character refresh") as refused:
            read_embedding(pack, "fitted")
        assert "\n" not in str(refused.value)
    finally:
        file.write_bytes(good)
        record.write_bytes(known)
    assert read_embedding(pack, "fitted").sha256 == fitted_of().sha256


def test_a_fit_of_somebody_else_is_refused(pack: CharacterPack) -> None:
    file = pack.path / "embeddings" / "fitted" / "fit.npz"
    good = file.read_bytes()
    fitted_of(7).save(file)
    with pytest.raises(ArtifactError, match="its sha256 differs"):
        read_embedding(pack, "fitted")
    sign(pack.path)
    with pytest.raises(ArtifactError, match="another fit"):
        read_embedding(pack, "fitted")
    file.write_bytes(good)
    sign(pack.path)
    assert json.loads((file.parent / "embedding.json").read_text())["sha256"] == fitted_of().sha256

"""What a stranger may do to a pack: every byte, field, array and file changed, singly or together.

A mutation changes a pack in place. `systematic` lists one by one what can be listed; `mutations` draws the rest.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.character.arrays import ARRAYS, npy_bytes

__all__ = ["CACHE", "Mutation", "mutations", "systematic"]

CUES, DRAWN_RECORD = "cues.json", "live/live.json"
RECORDS = ("pack.json", CUES, DRAWN_RECORD, "embeddings/fitted/embedding.json", "embeddings/onset/embedding.json")
FITS = ("embeddings/fitted/fit.npz",)
FEATURES = tuple(f"embeddings/{name}/{part}.npy" for name in ("fitted", "onset") for part in ("low", "high"))
DRAWN_NPYS = ("live/cuts.npy", "live/sizes.npy", "live/half_sha256.npy")
NPYS = (*(f"{name}.npy" for name in ARRAYS), *FEATURES, *DRAWN_NPYS)
VIDEO = "video.h264"
DRAWN_VIDEO = "live/live.h264"
FILES = (*RECORDS, *FITS, *NPYS, VIDEO, DRAWN_VIDEO)
CACHE, DRAWN = "transitions", "live"

# JSON texts, for some of them json.dumps would not write
VALUES = {
    "null": "null",
    "true": "true",
    "-1": "-1",
    "0": "0",
    "1": "1",
    "1e308": "1e308",
    "1e999": "1e999",
    "2^63": str(2**63),
    "2^64": str(2**64),
    "5000 digits": "9" * 5000,
    "0.5": "0.5",
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "empty text": '""',
    "long text": json.dumps("A" * 100_000),
    "control text": json.dumps("\x1b]0;owned\x07\r\n\u202e"),
    "half a character": '"\\ud800"',
    "letters": '"fitted"',
    "hash": json.dumps("0" * 64),
    "empty list": "[]",
    "list of nothing": "[null, [], {}]",
    "list of text": '["a", "b"]',
    "empty object": "{}",
    "nested": '{"a": [{"b": [[[{}]]]}]}',
    "very deep": "[" * 3000 + "]" * 3000,
}

EXTREMES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e-20, 1e4, 1e15, 1e30, 3e38, -3e38, np.inf, -np.inf, np.nan)


@dataclass(frozen=True)
class Mutation:
    """apply(folder): changes the pack there. files: those it touches, as paths in the pack."""

    name: str
    files: tuple[str, ...]
    apply: Callable[[Path], object]

    def __repr__(self) -> str:  # what hypothesis prints
        return self.name


def systematic() -> Iterator[Mutation]:
    """All that can be listed: some 3,000."""
    yield from _every_byte()
    yield from _every_field()
    yield from _every_file()


def _every_byte() -> Iterator[Mutation]:
    for file in (*NPYS, *FITS, VIDEO, DRAWN_VIDEO):
        header = (0, 5, 6, 8, 9, 10, 11, 20, 22, 40, 58, 60, 64, 68, 72, 127) if file.endswith(".npy") else (0, 4, 30)
        for place in (*header, 128, 135, 200, 0.3, 0.6, -8, -1):
            for how in ("flip", "0x00", "0xff"):
                yield byte(file, place, how)


def _every_field() -> Iterator[Mutation]:
    for file, paths in FIELDS.items():
        for path in paths:
            for value in (*VALUES, "removed"):
                yield field(file, path, value)
            yield added(file, path)


def _every_file() -> Iterator[Mutation]:
    for file in FILES:
        for kind in SPECIAL:
            yield special(file, kind)
        for other in (FILES[(FILES.index(file) + 1) % len(FILES)], VIDEO, "pack.json", "clip_start.npy"):
            if other != file:
                yield swapped(file, other)
    for folder in ("embeddings", "embeddings/fitted", "embeddings/onset", DRAWN, CACHE, f"{CACHE}/KEY"):
        for kind in SPECIAL:
            yield special(folder, kind)
    for kind in (*SPECIAL, "another's", "garbage", "flip"):
        yield cached(kind)


def byte(file: str, place: int | float, how: str | int) -> Mutation:
    """One byte: at a place from the beginning, from the end where negative, or at a share of the length."""

    def apply(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        at = int(place * len(content)) if isinstance(place, float) else place
        if -len(content) <= at < len(content):
            content[at] = how if isinstance(how, int) else {"flip": content[at] ^ 0x10, "0x00": 0, "0xff": 255}[how]
        (folder / file).write_bytes(content)

    return Mutation(f"{file} byte {place} {how}", (file,), apply)


def field(file: str, path: tuple[Any, ...], value: str) -> Mutation:
    """Another JSON value, or none, where `path` leads."""

    def apply(folder: Path) -> None:
        record = json.loads((folder / file).read_text())
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        if value == "removed":
            del parent[path[-1]]
        else:
            parent[path[-1]] = "@@@"
        text = json.dumps(record)
        (folder / file).write_text(text.replace('"@@@"', VALUES.get(value, "0"), 1))

    return Mutation(f"{file} {'.'.join(map(str, path))} = {value}", (file,), apply)


def added(file: str, path: tuple[Any, ...]) -> Mutation:
    def apply(folder: Path) -> None:
        record = json.loads((folder / file).read_text())
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, list):
            parent.append(parent[0])
        else:
            parent["__class__"] = "os.system"
        (folder / file).write_text(json.dumps(record))

    return Mutation(f"{file} added next to {'.'.join(map(str, path))}", (file,), apply)


def _fields() -> dict[str, list[tuple[Any, ...]]]:
    info = ("name", "width", "height", "n_frames", "shoulder_px", "sources", "clips", "extradata", "words", "report")
    inner: list[tuple[Any, ...]] = [("sources", 0, key) for key in ("name", "sha256", "n_frames")]
    inner += [("clips", 1, key) for key in ("source", "first_frame", "n_frames")]
    inner += [("sources", 0), ("clips", 0), ("sha256", "rest"), ("sha256", "joints"), ("sha256", "node_sha256")]
    inner += [("report", key) for key in ("warnings", "groups", "connection")]
    inner += [("report", "warnings", 0), ("report", "groups", 0), ("report", "connection", "rule")]
    inner += [("report", "groups", 0, key) for key in ("seconds", "kept", "spans")]
    inner += [("report", "groups", 0, "spans", 0)]
    inner += [("report", "groups", 0, "spans", 0, key) for key in ("source", "first_s", "last_s")]
    record: list[tuple[Any, ...]] = [(key,) for key in ("name", "sha256", "about", "files")]
    hashes: list[tuple[Any, ...]] = [("files", "low.npy"), ("files", "high.npy")]
    drawn: list[tuple[Any, ...]] = [("sha256", name) for name in ("cuts", "sizes", "half_sha256")]
    about: list[tuple[Any, ...]] = [("about", key) for key in ("choice", "why", "speech_s", "lag_frames", "scores")]
    cue = ("name", "first_node", "n_nodes")
    return {
        "pack.json": [*((key,) for key in (*info, "sha256", "schema")), *inner],
        CUES: [*((key,) for key in ("pack", "sha256", "cues")), ("cues", 0), *(("cues", 1, key) for key in cue)],
        "embeddings/fitted/embedding.json": [*record, *hashes, ("files", "fit.npz"), *about],
        "embeddings/onset/embedding.json": [*record, *hashes],
        DRAWN_RECORD: [*((key,) for key in ("pack", "blender", "version", "settings", "n_cuts", "sha256")), *drawn],
    }


FIELDS = _fields()


def special(file: str, kind: str) -> Mutation:
    """Something else where a file or a folder is expected."""
    return Mutation(f"{file} is {kind}", (file,), lambda folder: SPECIAL[kind](_keyed(folder, file)))


def _keyed(folder: Path, file: str) -> Path:
    """KEY in a path stands for the one folder there."""
    if "KEY" not in file:
        return folder / file
    parent = folder / file.partition("/KEY")[0]
    return next(iter(sorted(parent.iterdir())))


def _gone(place: Path) -> Path:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    return place


def _moved_out(place: Path) -> Path:
    outside = next(parent for parent in place.parents if parent.suffix == ".tango").parent / f"outside {place.name}"
    _gone(outside)
    shutil.move(place, outside)
    return outside


def _sparse(place: Path) -> None:
    with _gone(place).open("wb") as file:
        file.truncate(3 << 40)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "gone": _gone,
    "empty": lambda place: _gone(place).touch(),
    "half as long": lambda place: os.truncate(place, place.stat().st_size // 2) if place.is_file() else None,
    "longer": lambda place: place.write_bytes(place.read_bytes() + b"x") if place.is_file() else None,
    "sparse": _sparse,
    "a FIFO": lambda place: os.mkfifo(_gone(place)),
    "a folder": lambda place: _gone(place).mkdir(),
    "a link to nothing": lambda place: _gone(place).symlink_to("nothing"),
    "a loop": lambda place: _gone(place).symlink_to(place.name),
    "a link to itself outside": lambda place: place.symlink_to(_moved_out(place)),
    "a device": lambda place: _gone(place).symlink_to("/dev/zero"),
    "unreadable": lambda place: place.chmod(0),
    "noise": lambda place: _gone(place).write_bytes(np.random.default_rng(0).bytes(3000)),
    "zeros": lambda place: place.write_bytes(bytes(place.stat().st_size)) if place.is_file() else None,
    "an archive": lambda place: _archive(_gone(place)),
}


def _archive(place: Path) -> None:
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("a.npy", npy_bytes(np.zeros(3)))


def swapped(file: str, other: str) -> Mutation:
    def apply(folder: Path) -> None:
        first, second = (folder / file).read_bytes(), (folder / other).read_bytes()
        (folder / file).write_bytes(second)
        (folder / other).write_bytes(first)

    return Mutation(f"{file} and {other} swapped", (file, other), apply)


def cached(kind: str) -> Mutation:
    """All cached transitions at once."""

    def apply(folder: Path) -> None:
        files = sorted((folder / CACHE).glob("*/*"))
        contents = [file.read_bytes() for file in files]
        for file, content, others in zip(files, contents, reversed(contents), strict=True):
            if kind in SPECIAL:
                SPECIAL[kind](file)
            else:
                middle = len(content) // 2
                flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
                head = content[:64] + np.random.default_rng(0).bytes(len(content))
                file.write_bytes({"another's": others, "flip": flipped, "garbage": head}[kind])

    return Mutation(f"cached transitions: {kind}", (CACHE,), apply)


def values(file: str, how: str, seed: int) -> Mutation:
    """Other numbers of the same kind and shape in an array."""

    def apply(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        array = _loaded(folder / file)
        if array is not None and array.size:
            (folder / file).write_bytes(npy_bytes(_changed(array, how, rng)))

    return Mutation(f"{file}: {how} ({seed})", (file,), apply)


def _loaded(file: Path) -> np.ndarray | None:
    try:
        return np.load(file)
    except Exception:  # another mutation was there before
        return None


HOW = ("one", "some", "all", "constant", "shuffled", "scaled", "near", "ends", "unit", "shape", "dtype", "order")


def _changed(array: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    array = array.copy()
    flat = array.reshape(-1)
    if how == "shape":
        return [array[:-1], np.concatenate([array, array[:1]]), array[None], array.reshape(-1), array[:0]][
            rng.integers(5)
        ]
    if how == "dtype":
        return array.astype(rng.choice(["f8", "i8", "u1", "f4", "i4", "c16", "f2", ">i8", "S3"]))
    if how == "unit":  # rows as embeddings have them
        rows = rng.normal(0, 1, array.shape)
        return (rows / np.maximum(np.linalg.norm(np.atleast_1d(rows), axis=-1, keepdims=True), 1e-9)).astype(
            array.dtype
        )
    if how == "order" and array.ndim:
        return np.asfortranarray(array[::-1])
    if how == "shuffled":
        rng.shuffle(flat)
        return array
    with np.errstate(all="ignore"):
        if how == "scaled":
            return (array * np.float64(rng.choice([1e30, 1e-30, -1.0, 2.0, 1e-40]))).astype(array.dtype)
        if how == "near" and array.dtype != bool:  # what is legal, or nearly
            return (array + rng.integers(-1, 2, array.shape)).astype(array.dtype)
        chosen = {
            "one": rng.integers(flat.size, size=1),
            "some": rng.integers(flat.size, size=max(1, flat.size // 10)),
            "ends": np.array([0, flat.size - 1]),
        }.get(how, np.arange(flat.size))
        if how == "constant":
            flat[:] = rng.choice(_plausible(array, rng, flat.size))
        else:
            flat[chosen] = _plausible(array, rng, len(chosen))
    return array


def _plausible(array: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """Numbers that are there already or could be, with extremes now and then."""
    kind = array.dtype.kind
    if kind == "b":
        return rng.random(n) < 0.5
    if kind in "iu":
        limits = np.iinfo(array.dtype)
        extremes = np.array([0, 1, limits.max, limits.min, limits.max - 1, 2], array.dtype)
        usual = rng.integers(0, max(2, min(int(array.max()) + 2, int(limits.max))), n).astype(array.dtype)
    else:
        extremes = np.array(EXTREMES, array.dtype)
        usual = rng.random(n).astype(array.dtype)
    share = rng.choice([0.0, 0.0, 0.1, 0.5])
    return np.where(rng.random(n) < share, rng.choice(extremes, n), usual)


def graph(seed: int, sane: bool) -> Mutation:
    """Another graph, where `sane` one that keeps every rule which can be checked."""
    return Mutation(
        f"{'sane' if sane else 'any'} graph {seed}",
        tuple(f"graph_{name}.npy" for name in ("indptr", "indices", "kind", "distance", "kept")),
        lambda folder: _put_graph(folder, np.random.default_rng(seed), sane),
    )


def _put_graph(folder: Path, rng: np.random.Generator, sane: bool) -> None:
    clip_start, before = _loaded(folder / "clip_start.npy"), _loaded(folder / "graph_kept.npy")
    if clip_start is None or before is None:
        return
    n = len(before)
    going = rng.random(n) < rng.choice([0.5, 0.9, 1.0])
    going[[*(clip_start[1:] - 1)]] = False
    entered = np.flatnonzero(going & np.roll(going, -1)).tolist() or [0]  # two nodes follow
    kept = np.ones(n, bool)
    kept[:-1] = going[:-1] | (rng.random(n - 1) < 0.7)
    kept[1:] |= going[:-1]
    most = int(rng.choice([1, 1, 3, n]))
    edges: list[tuple[int, int, int, float]] = []
    largest = float(rng.choice([0.0, 0.5, 1.0, 1e-45, 1e4]))
    for node in np.flatnonzero(kept).tolist():
        wanted = rng.choice(entered, rng.integers(0 if going[node] else 1, most + 1)).tolist()
        targets = {j: int(rng.integers(1, 3)) for j in wanted if j != node + 1 or not going[node]}
        if going[node]:
            targets[node + 1] = 0
        edges += [(node, j, targets[j], largest * rng.random()) for j in sorted(targets)]
    arrays = {
        "indptr": np.cumsum([0, *np.bincount([edge[0] for edge in edges], minlength=n)]).astype(np.int64),
        "indices": np.array([edge[1] for edge in edges], np.int32),
        "kind": np.array([edge[2] for edge in edges], np.uint8),
        "distance": np.array([edge[3] for edge in edges], np.float32),
        "kept": kept,
    }
    if not sane:
        broken = str(rng.choice(list(arrays)))
        arrays[broken] = _changed(arrays[broken], str(rng.choice(["one", "some", "near", "shuffled"])), rng)
    for name, array in arrays.items():
        (folder / f"graph_{name}.npy").write_bytes(npy_bytes(array))


def fit(how: str, part: int, seed: int) -> Mutation:
    """Other numbers in the projections of the fit."""
    file = FITS[0]

    def apply(folder: Path) -> None:
        try:
            with np.load(folder / file) as archive:
                arrays = dict(archive)
        except Exception:
            return
        name = sorted(arrays)[part % len(arrays)]
        if how == "renamed":
            arrays[f"{seed}/{name}"] = arrays.pop(name)
        elif arrays[name].size:
            arrays[name] = _changed(arrays[name], how, np.random.default_rng(seed))
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        (folder / file).write_bytes(content.getvalue())

    return Mutation(f"{file} part {part}: {how} ({seed})", (file,), apply)


seeds = st.integers(0, 2**32 - 1)
_shares = st.floats(0, 1, exclude_max=True)
_one = st.one_of(
    st.builds(values, st.sampled_from(NPYS), st.sampled_from(HOW), seeds),
    st.builds(values, st.sampled_from(NPYS[:20]), st.sampled_from(HOW[:-3]), seeds),
    st.builds(graph, seeds, st.booleans()),
    st.builds(graph, seeds, st.just(True)),
    st.builds(fit, st.sampled_from((*HOW, "renamed")), st.integers(0, 20), seeds),
    st.builds(byte, st.sampled_from((*NPYS, *FITS, *RECORDS, VIDEO)), _shares, st.integers(0, 255)),
)


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """One change, or two at once."""
    parts = draw(st.lists(_one, min_size=1, max_size=2))

    def apply(folder: Path) -> None:
        for part in parts:
            part.apply(folder)

    return Mutation("; ".join(part.name for part in parts), tuple(f for part in parts for f in part.files), apply)

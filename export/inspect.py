"""The contents of a bundle and its engines, as text and as JSON; needs no torch and runs no network."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.engine_sets import EngineSet, check_precision, read_set
from engine.inference.engines import EngineKey, EngineMiss, engines_folder, read_record, set_folder
from engine.inference.manifest import ENGINES, MANIFEST, MAX_MANIFEST_BYTES, Bundle, Profile, TensorSpec
from engine.inference.precision import describe as policy_in_words
from engine.inference.precision import policy_digest
from engine.inference.report import Report, read_any_report
from engine.inference.target import PRECISIONS, Target
from engine.records import read_object
from tango_rt.console import aligned

__all__ = ["compiled_sets", "describe", "engine_rows", "list_bundles", "summarize", "summarize_list"]

_PACK_SUFFIX = ".tango"


def describe(bundle: Bundle, engines: Path | None = None) -> dict[str, Any]:
    """Everything in the manifest, the size on disk, what would stay in float32, and what was compiled.

    engines: their folder, None: inside the bundle; their content is checked, too.
    """
    return {
        **bundle.to_dict(),
        "bytes": _bytes(bundle),
        "policies": {
            name: {
                precision: {"sha256": policy_digest(graph, precision), "words": policy_in_words(graph, precision)}
                for precision in PRECISIONS
            }
            for name, graph in bundle.graphs.items()
        },
        "engines": list(engine_rows(bundle, engines)),
    }


def summarize(bundle: Bundle, engines: Path | None = None) -> str:
    """The same as text."""
    versions = ", ".join(f"{package} {version}" for package, version in bundle.versions.items())
    lines = [
        f"{bundle.folder}: {bundle.name}, {_bytes(bundle) / 1e6:.1f} MB",
        f"sha256    {bundle.sha256}",
        f"licence   {bundle.licence}",
        f"made with {versions}",
    ]
    for graph in bundle.graphs.values():
        lines.append(f"{graph.name}: {_tensors(graph.inputs)} -> {_tensors(graph.outputs)}")
        lines += [f"  profile {name}: {_sizes(profile)}" for name, profile in graph.profiles.items()]
        for backend, parity in graph.parity.items():
            worst = max((output["max_abs"] for output in parity["reached"].values()), default=0.0)
            least = min((output["cosine"] for output in parity["reached"].values()), default=1.0)
            lines.append(f"  {backend} against torch: max abs {worst:.1e}, cosine {least:.7f}")
    lines += _policies(bundle)
    rows = list(engine_rows(bundle, engines))
    lines.append(f"engines in {engines_folder(bundle, engines)}:{'' if rows else ' none'}")
    return "\n".join((*lines, *_set_lines(rows)))


def list_bundles(folder: Path) -> list[dict[str, Any]]:
    """The bundles in a folder, or the folder itself, with their sets of engines; engines are not read.

    A bundle that cannot be opened has an "error". Raises InputError if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}: give one that contains bundles")
    return [_listed(place) for place in _bundle_folders(folder)]


def summarize_list(rows: Sequence[dict[str, Any]]) -> str:
    """A line per bundle, and one for each of its sets."""
    lines = []
    for row in rows:
        if "error" in row:
            lines.append(row["error"])
            continue
        profiles = f", profiles {', '.join(row['profiles'])}" if row["profiles"] else ""
        lines.append(f"{row['bundle']}: {row['name']}, {row['bytes'] / 1e6:.1f} MB{profiles}")
        lines += _set_lines(row["engines"])
    return "\n".join(lines) or "no bundles here: 'tango-export bundle' makes them"


def compiled_sets(bundle: Bundle, engines: Path | None = None, trusted: bool = False) -> Iterator[EngineSet]:
    """The sets made for this machine, up to date or not; engines are not read. trusted: see read_set."""
    root = engines_folder(bundle, engines)
    for row in engine_rows(bundle, engines, hashes=False):
        if row["here"]:
            target = Target(row["backend"], row["precision"], row["profile"])
            yield read_set(bundle, root, target, hashes=False, trusted=trusted)


def engine_rows(bundle: Bundle, engines: Path | None = None, hashes: bool = True) -> Iterator[dict[str, Any]]:
    """The content of a folder of engines, made here or elsewhere, in order of names: a row per set."""
    root = engines_folder(bundle, engines)
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir() and not folder.name.startswith("."):
            yield _engine_row(bundle, root, folder, hashes)


def _engine_row(bundle: Bundle, root: Path, folder: Path, hashes: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": str(folder), "backend": "", "precision": "", "profile": "", "verified": False}
    row |= {"here": False, "state": "", "bytes": 0, "networks": {}, "report": None}
    misses, key = [], None
    for graph in bundle.graphs:
        try:
            engine = read_record(folder, graph)
        except EngineMiss as miss:
            misses.append(f"{graph}: {miss.reason}")
            continue
        key = key or engine.key
        row["bytes"] += engine.bytes
        row["networks"][graph] = {"precision": engine.key.precision, "bytes": engine.bytes, "digest": engine.digest}
    if key is None:
        return {**row, "state": misses[0] if misses else "empty"}
    target = _target(root, folder, key)
    row |= {"backend": key.backend, "profile": key.profile, "precision": target.precision if target else key.precision}
    if target is None:
        return {**row, "state": "corrupt: it belongs in another folder"}
    return row | _state(bundle, root, folder, key, target, hashes)


def _state(bundle: Bundle, root: Path, folder: Path, key: EngineKey, target: Target, hashes: bool) -> dict[str, Any]:
    if key.profile not in (bundle.profile_names or ("",)):
        return {"state": f"stale: the bundle has no profile {key.profile!r}"}
    try:
        check_precision(bundle, target)
        found = read_set(bundle, root, target, hashes)
    except BackendError as error:
        return {"state": f"not for this machine: {error}"}
    if found.folder != folder:
        return {"state": f"foreign: built for GPU {key.machine.gpu or 'none'}"}
    report = _report_row(found, read_any_report(folder))
    return {"here": True, "state": found.state, "verified": found.verified, "report": report}


def _report_row(found: EngineSet, report: Report | None) -> dict[str, Any] | None:
    """The result of a report; current: whether it is about these engines."""
    if report is None:
        return None
    return {
        "sha256": report.sha256,
        "current": found.report is not None,
        "passed": report.passed,
        "why": report.why,
        "median_ms": report.median_ms,
        "reference_ms": report.reference_ms,
        "path_share": None if report.paths is None else report.paths.share,
        "transition_psnr_db": None if report.transition is None else report.transition.psnr_db,
    }


def _target(root: Path, folder: Path, key: EngineKey) -> Target | None:
    """The target of a set, in which some networks may keep float32; None if no target has the name of its folder."""
    targets = (Target(key.backend, precision, key.profile) for precision in PRECISIONS)
    return {set_folder(root, target, key.machine).name: target for target in targets}.get(folder.name)


def _listed(place: Path) -> dict[str, Any]:
    try:
        bundle = Bundle.open(place)
        rows = list(engine_rows(bundle, hashes=False))
    except ArtifactError as error:
        return {"bundle": str(place), "error": str(error)}
    return {
        "bundle": str(place),
        "name": bundle.name,
        "sha256": bundle.sha256,
        "bytes": _bytes(bundle),
        "profiles": list(bundle.profile_names),
        "engines": rows,
    }


def _bundle_folders(folder: Path) -> Iterator[Path]:
    """Folders with the manifest of a bundle; hidden folders, packs and engines are skipped."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name != ENGINES and not name.endswith(_PACK_SUFFIX)
        )
        if MANIFEST in files and _looks_like_bundle(Path(place) / MANIFEST):
            folders.clear()
            yield Path(place)


def _looks_like_bundle(manifest: Path) -> bool:
    """Other programs use this file name, too; one that cannot be read may be ours."""
    try:
        return "graphs" in read_object(manifest, MAX_MANIFEST_BYTES)
    except (OSError, ValueError, RecursionError):
        return True


def _set_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for line in aligned(
        (Path(row["folder"]).name, f"{row['bytes'] / 1e6:.1f} MB", _state_and_times(row)) for row in rows
    ):
        yield f"  {line}"


def _state_and_times(row: dict[str, Any]) -> str:
    report = row["report"] or {}
    if not report.get("current") or report["median_ms"] is None or report["reference_ms"] is None:
        return str(row["state"])
    times = f"{report['median_ms']:.3g} ms a pass (onnxruntime fp32 {report['reference_ms']:.3g})"
    return f"{row['state']}, {times}"


def _policies(bundle: Bundle) -> Iterator[str]:
    """What fp16 and bf16 would mean here; the same words for all networks, except those that keep float32."""
    low = [graph for graph in bundle.graphs.values() if not graph.keep_fp32]
    kept = [graph.name for graph in bundle.graphs.values() if graph.keep_fp32]
    if low:
        yield f"in fp16 or bf16: {policy_in_words(low[0], 'bf16').replace('in bf16', 'in that type')}"
    if kept:
        yield f"always float32: {', '.join(kept)}"


def _sizes(profile: Profile) -> str:
    """Like "batch 1, frames 4..64..128": smallest, usual, largest."""
    if not profile:
        return "fixed sizes"
    return ", ".join(
        f"{symbol} {least}" if least == most else f"{symbol} {least}..{usual}..{most}"
        for symbol, (least, usual, most) in profile.items()
    )


def _bytes(bundle: Bundle) -> int:
    return sum(spec.bytes for spec in bundle.files.values())


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype}[{', '.join(map(str, t.shape))}]" for t in tensors)

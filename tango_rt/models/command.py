"""tango-rt models: fetch and list the networks that a build needs."""

import argparse
from pathlib import Path
from typing import Any

from engine.errors import BackendError
from tango_rt.console import add_command, aligned, print_result

__all__ = ["add_models"]

FETCH_EXAMPLES = """examples:
  tango-rt models fetch                                     from the package index that pip uses
  tango-rt models fetch --from mediapipe-0.10.14-*.whl      on a machine without internet access
  tango-rt models fetch --from /mnt/usb/models
  TANGO_RT_MODELS=/opt/models tango-rt models fetch         into an image, for every user of it
"""
LIST_EXAMPLES = """examples:
  tango-rt models list
  tango-rt models list --json | jq .folder
"""


def add_models(commands: Any) -> None:
    models = add_command(commands, "models", "the networks that find people in video", FETCH_EXAMPLES)
    actions = models.add_subparsers(required=True, metavar="ACTION")
    summary = "download the networks; a build does so by itself if it has internet access"
    fetch = add_command(actions, "fetch", summary, FETCH_EXAMPLES, _fetch)
    fetch.add_argument(
        "--from", dest="source", type=Path, metavar="DIR|WHEEL", help="a folder with the networks, or MediaPipe's wheel"
    )
    fetch.add_argument("--index", metavar="URL", help="package index (default: the one that pip uses, else PyPI)")
    fetch.add_argument("--force", action="store_true", help="even if they are present and intact")
    add_command(actions, "list", "which networks are present, and whether they are intact", LIST_EXAMPLES, _list)


def _fetch(arguments: argparse.Namespace) -> None:
    from tango_rt.models.fetch import FetchOptions, fetch
    from tango_rt.models.folder import file_states
    from tango_rt.models.published import HOLISTIC

    folder = _folder()
    whole = set(file_states(folder).values()) == {"ok"}
    wanted = not whole or arguments.force or arguments.source is not None
    if wanted:
        fetch(HOLISTIC, folder, FetchOptions(arguments.source, arguments.index))
    states = file_states(folder)
    result = {"folder": str(folder), "fetched": wanted, "files": states}
    print_result(arguments, result, f"{len(states)} networks {'fetched' if wanted else 'already there'}: {folder}")


def _list(arguments: argparse.Namespace) -> None:
    from tango_rt.models.folder import file_states
    from tango_rt.models.published import HOLISTIC

    folder = _folder()
    states = file_states(folder)
    sizes = {name: (folder / name).stat().st_size if state != "absent" else None for name, state in states.items()}
    result = {"release": HOLISTIC.release, "folder": str(folder), "files": states, "bytes": sizes}
    lines = [f"{HOLISTIC.title} of {HOLISTIC.distribution} {HOLISTIC.version}, Apache-2.0: {folder}"]
    lines += [f"  {line}" for line in aligned((name, _megabytes(sizes[name]), state) for name, state in states.items())]
    print_result(arguments, result, "\n".join(lines))


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f} MB"


def _folder() -> Path:
    from tango_rt.models.folder import MODELS_VARIABLE, models_folder

    folder = models_folder()
    if folder is None:
        raise BackendError(f"no cache folder is writable: set {MODELS_VARIABLE} to a folder")
    return folder

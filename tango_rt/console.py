"""What the command lines share: one line for every error, exit codes, examples in --help, results as text or JSON."""

import argparse
import io
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NoReturn

from engine.address_space import check_address_space
from engine.cores import tell_libraries
from engine.errors import BackendError, TangoError
from engine.folders import cache_folder
from tango_rt.progress import OnProgress, Progress

__all__ = ["add_command", "aligned", "bars", "positive", "print_result", "run_command"]

_FIGURE = re.compile(r"[-+]?\d[\d.,]*(e[-+]\d+)?( ?(%|x|ms|s|MB))?|-|")

_OLD_KEYS: Mapping[str, Mapping[str, str]] = {
    "tango-rt demo": {
        "video": "output",
        "render/path": "nodes",
        "render/seconds": "took_s",
        "live/path": "output",
    },
    "tango-rt render": {"path": "nodes", "seconds": "took_s"},
    "tango-rt send": {"path": "output"},
    "tango-rt character build": {"path": "character"},
    "tango-rt character inspect": {"path": "character"},
    "tango-rt character install": {"path": "character"},
    "tango-rt character refresh": {"path": "character"},
    "tango-rt character warm": {"pack": "character", "seconds": "took_s"},
    "tango-export bundle mini": {"seconds": "took_s"},
    "tango-export bundle full": {"seconds": "took_s"},
    "tango-export bundle acinterp": {"seconds": "took_s"},
    "tango-export train aumoclip": {"checkpoint": "output", "seconds": "took_s"},
    "tango-export adapt": {"checkpoint": "output", "frames": "n_frames"},
    "tango-export evaluate aumoclip": {
        "people/*/seconds": "duration_s",
        "shown/*/people/*/seconds": "duration_s",
        "shown/*/pooled/seconds": "duration_s",
        "costs/seconds": "duration_s",
    },
    "tango-export prior": {"prior": "output", "seconds": "duration_s"},
    "tango-export compile": {"seconds": "took_s", "networks/*/seconds": "build_s", "triton/repository": "output"},
    "tango-export list": {"bundles/*/folder": "bundle"},
}
"""By command: the name of a key of its JSON in the last release -> its name now. Both are printed until the next
release. "a/*/b" is the key b of every part of a."""


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Parse and run; exits by SystemExit with 0, 1 (our fault), 2 (bad input) or 130 (interrupted)."""
    arguments = parser.parse_args(argv)
    if logging.lastResort is not None:  # handles records if logging is not set up
        logging.lastResort.setFormatter(logging.Formatter(f"{parser.prog}: warning: %(message)s"))
    tell_libraries()
    _lead_matplotlib()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not fail
    # SIGTERM and the loss of the terminal must not leave anything half-written, either
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(ending, signal.default_int_handler)
    try:
        check_address_space()
        arguments.run(arguments)
    except KeyboardInterrupt:
        _fail(parser, "interrupted; nothing half-written was left behind", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if arguments.debug:
            raise
        _fail(parser, *_message(error))


def _message(error: Exception) -> tuple[str, int]:
    """The message for an error, and the exit code."""
    if isinstance(error, TangoError):
        return str(error), 1 if isinstance(error, BackendError) else 2
    if isinstance(error, OSError) and error.strerror:  # a full disk, a name too long, no permission
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part), 2
    if isinstance(error, OSError) and str(error):  # raised by a library, about this machine
        return str(error), 1
    return f"internal error, please report it: {type(error).__name__}: {error} (--debug shows where)", 1


def _lead_matplotlib() -> None:
    """Keep its list of fonts in our cache too: it would complain about a home that is not writable."""
    if not os.environ.get("MPLCONFIGDIR") and (folder := cache_folder()) is not None:
        os.environ["MPLCONFIGDIR"] = str(folder / "matplotlib")


def _fail(parser: argparse.ArgumentParser, message: str, code: int) -> None:
    print(f"{parser.prog}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def add_command(
    parent: Any, name: str, summary: str, examples: str, run: Callable[[argparse.Namespace], None] | None = None
) -> argparse.ArgumentParser:
    """A command of `parent` (from add_subparsers; None: the program itself) with examples in its --help.

    Commands with `run` also get --json and --debug.
    """
    style: dict[str, Any] = {
        "description": summary[0].upper() + summary[1:],
        "epilog": examples,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser: argparse.ArgumentParser = (
        _Parser(prog=name, **style) if parent is None else parent.add_parser(name, help=summary, **style)
    )
    if run is not None:
        parser.set_defaults(run=run, command=parser.prog)
        parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports a bad argument in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


@contextmanager
def bars() -> Iterator[OnProgress]:
    """Draws progress on standard error, one bar per stage, if that is a terminal."""
    from tqdm import tqdm

    bar: Any = None

    def draw(progress: Progress) -> None:
        nonlocal bar
        if bar is None or bar.desc != progress.stage or progress.done < bar.n:
            if bar is not None:
                bar.close()
            bar = tqdm(total=progress.total, desc=progress.stage, unit=f" {progress.unit}", disable=None)
            bar.desc = progress.stage  # a bar that is not drawn has none
        bar.update(progress.done - bar.n)

    try:
        yield draw
    finally:
        if bar is not None:
            bar.close()


def positive(text: str) -> int:
    """Type of an argument: a whole number of 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def aligned(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> list[str]:
    """A table, one line per row: columns as narrow as possible; columns of figures are aligned right, with their heads.

    Figures may have a unit; an empty cell or "-" means none.
    """
    body = [[str(cell) for cell in row] for row in rows]
    lines = [list(header), *body] if header else body
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    figures = [all(map(_FIGURE.fullmatch, column[bool(header) :])) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, figures, strict=True)
        ).rstrip()
        for line in lines
    ]


def print_result(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """Print the result as JSON if --json is given, with the keys of the last release too; otherwise as text."""
    print(json.dumps(_with_old_keys(arguments.command, result)) if arguments.json else text)


def _with_old_keys(command: str, result: dict[str, Any]) -> dict[str, Any]:
    printed = deepcopy(result)
    for place, new in _OLD_KEYS.get(command, {}).items():
        *parents, old = place.split("/")
        parts = [printed]
        for parent in parents:
            parts = [child for part in parts for child in _children(part, parent)]
        for part in parts:
            if new in part:
                part[old] = part[new]
    return printed


def _children(part: Any, name: str) -> list[Any]:
    if name == "*":
        return list(part.values() if isinstance(part, dict) else part)
    return [part[name]] if name in part else []

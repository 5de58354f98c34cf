"""What the command lines share: one line for every error, exit codes, examples in --help, results as text or JSON."""

import argparse
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.address_space import check_address_space
from engine.cores import tell_libraries
from engine.errors import BackendError, TangoError
from engine.folders import cache_folder
from tango_rt.progress import OnProgress, Progress

__all__ = ["add_command", "bars", "positive", "print_result", "run_command"]


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Parse and run; leaves through SystemExit with 0, 1 (our fault), 2 (bad input) or 130 (interrupted)."""
    arguments = parser.parse_args(argv)
    if logging.lastResort is not None:  # what is logged where nobody has set up a log
        logging.lastResort.setFormatter(logging.Formatter(f"{parser.prog}: warning: %(message)s"))
    tell_libraries()
    _lead_matplotlib()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    # to be ended or to lose the terminal is no reason to leave anything half-written
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
    """What to say about an error, and the exit code."""
    if isinstance(error, TangoError):
        return str(error), 1 if isinstance(error, BackendError) else 2
    if isinstance(error, OSError) and error.strerror:  # a full disk, a name too long, no permission
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part), 2
    if isinstance(error, OSError) and str(error):  # of a library, about this machine
        return str(error), 1
    return f"internal error, please report it: {type(error).__name__}: {error} (--debug shows where)", 1


def _lead_matplotlib() -> None:
    """Its list of fonts goes into our cache, too: it would complain of a home that cannot be written to."""
    if not os.environ.get("MPLCONFIGDIR") and (folder := cache_folder()) is not None:
        os.environ["MPLCONFIGDIR"] = str(folder / "matplotlib")


def _fail(parser: argparse.ArgumentParser, message: str, code: int) -> None:
    print(f"{parser.prog}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def add_command(
    parent: Any, name: str, summary: str, examples: str, run: Callable[[argparse.Namespace], None] | None = None
) -> argparse.ArgumentParser:
    """A command of `parent` (what add_subparsers gave; None: the program itself) with examples in its --help.

    Commands that do something (`run`) also get --json and --debug.
    """
    style: dict[str, Any] = {
        "description": summary[0].upper() + summary[1:],
        "epilog": examples,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser: argparse.ArgumentParser = (
        argparse.ArgumentParser(prog=name, **style)
        if parent is None
        else parent.add_parser(name, help=summary, **style)
    )
    if run is not None:
        parser.set_defaults(run=run)
        parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


@contextmanager
def bars() -> Iterator[OnProgress]:
    """Draws progress as one bar after the other on standard error, where that is a terminal."""
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


def print_result(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """The result as JSON where --json asks for it, else as text."""
    print(json.dumps(result) if arguments.json else text)

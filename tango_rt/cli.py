"""tango-rt: build characters from video, render them to speech. Arguments in, one library call, a summary out."""

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.errors import BackendError, InputError, TangoError
from tango_rt import __version__

__all__ = ["main"]

EXAMPLES = """examples:
  tango-rt demo                                       a drawn presenter, from nothing to demo.mp4
  tango-rt character build talk.mp4 -o anna.tango     a character from a video of one person
  tango-rt render anna.tango speech.wav -o out.mp4    the character, gesturing to speech of any length
"""
DEMO_EXAMPLES = """examples:
  tango-rt demo
  tango-rt demo --out /tmp/demo --json
"""
BUILD_EXAMPLES = """examples:
  tango-rt character build talk.mp4 -o anna.tango
  tango-rt character build monday.mp4 tuesday.mov -o anna.tango --max-height 1080 --report anna-report
"""
INSPECT_EXAMPLES = """examples:
  tango-rt character inspect anna.tango
  tango-rt character inspect anna.tango --json | jq .n_nodes_kept
"""
RENDER_EXAMPLES = """examples:
  tango-rt render anna.tango speech.wav -o out.mp4
  tango-rt render anna.tango speech.mp3 -o out.mp4 --seed 7 --plot path.png --json
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; leaves through SystemExit with 0, 1 (our fault), 2 (bad input) or 130 (interrupted)."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    # to be ended or to lose the terminal is no reason to leave anything half-written
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(ending, signal.default_int_handler)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written was left behind", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except TangoError as error:
        if arguments.debug:
            raise
        _fail(str(error), 1 if isinstance(error, BackendError) else 2)
    except Exception as error:
        if arguments.debug:
            raise
        if isinstance(error, OSError) and error.strerror:  # a full disk, a name too long, no permission
            _fail(": ".join(str(part) for part in (error.filename, error.strerror) if part), 2)
        _fail(f"internal error, please report it: {type(error).__name__}: {error} (--debug shows where)", 1)


def _fail(message: str, code: int) -> None:
    print(f"tango-rt: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = _command(None, "tango-rt", "A person on video, gesturing to any speech.", EXAMPLES, None)
    parser.add_argument("--version", action="version", version=f"tango-rt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    character = _command(commands, "character", "make and inspect characters", BUILD_EXAMPLES, None)
    actions = character.add_subparsers(required=True, metavar="ACTION")
    _add_build(actions)
    _add_inspect(actions)
    _add_render(commands)
    return parser


def _command(
    parent: Any, name: str, summary: str, examples: str, run: Callable[[argparse.Namespace], None] | None
) -> argparse.ArgumentParser:
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


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes to use (default: one a core)",
    )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands, "demo", "draw a presenter, build the character, render it to another speech", DEMO_EXAMPLES, _demo
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")
    _add_jobs(parser)


def _add_build(actions: Any) -> None:
    parser = _command(
        actions, "build", "make a character from one or several videos of one person", BUILD_EXAMPLES, _build
    )
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.tango")
    parser.add_argument("--max-height", type=_positive, default=720, metavar="PX", help="default: 720")
    parser.add_argument(
        "--graph",
        choices=("window", "paper", "official"),
        default="window",
        help="what admits a cut: the distance of the 8 blended frames (window, default), of the two nodes (paper), "
        "or the research release's votes of joints (official)",
    )
    parser.add_argument("--words", type=Path, metavar="JSON", help="word timings of the reference (one video only)")
    parser.add_argument("--smplx-model", type=Path, metavar="NPZ", help="your SMPLX_NEUTRAL.npz, for SMPL-X sources")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page with pictures about the character")
    _add_jobs(parser)


def _add_inspect(actions: Any) -> None:
    parser = _command(actions, "inspect", "what is in a character pack", INSPECT_EXAMPLES, _inspect)
    parser.add_argument("pack", type=Path, metavar="PACK")


def _add_render(commands: Any) -> None:
    parser = _command(commands, "render", "gesture video for a speech, as mp4", RENDER_EXAMPLES, _render)
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="any audio or video file, any length")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4")
    parser.add_argument("--blender", choices=("flow", "crossfade", "cut"), default="flow", help="default: flow")
    parser.add_argument("--search", choices=("viterbi", "official"), default="viterbi", help="default: viterbi")
    parser.add_argument("--seed", type=int, default=0, help="0, the default: the best path; any other: a variation")
    parser.add_argument("--words", type=Path, metavar="JSON", help="word timings of the speech, for keyword matches")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the path over the speech waveform")
    _add_jobs(parser)


def _demo(arguments: argparse.Namespace) -> None:
    from tango_rt.demo.run import run_demo

    result = run_demo(arguments.out, arguments.jobs)
    _print(arguments, result, f"video          {result['video']}\ncontact sheet  {result['contact_sheet']}")


def _build(arguments: argparse.Namespace) -> None:
    from tango_rt.characters.build import BuildOptions, build_character
    from tango_rt.characters.inspect import describe, summarize

    options = BuildOptions(
        max_height=arguments.max_height,
        graph_rule=arguments.graph,
        words=arguments.words,
        smplx_model=arguments.smplx_model,
        n_workers=arguments.jobs,
    )
    if arguments.report is not None and arguments.report.exists() and not arguments.report.is_dir():
        raise InputError(f"{arguments.report} is a file: --report wants a folder")
    pack = build_character(arguments.videos, arguments.output, options)
    result = describe(pack)
    if arguments.report is not None:
        from tango_rt.characters.report import write_report

        result["report"] = str(write_report(pack, arguments.report))
    _warn(result)
    _print(arguments, result, summarize(result))


def _warn(figures: dict[str, Any]) -> None:
    for warning in figures["build"].get("warnings", []):
        print(f"tango-rt: warning: {warning}", file=sys.stderr)


def _inspect(arguments: argparse.Namespace) -> None:
    from tango_rt.characters.inspect import describe, summarize
    from tango_rt.characters.pack import CharacterPack

    result = describe(CharacterPack.open(arguments.pack))
    _warn(result)
    _print(arguments, result, summarize(result))


def _render(arguments: argparse.Namespace) -> None:
    from tango_rt.characters.pack import CharacterPack
    from tango_rt.pipeline.render import RenderOptions, render

    options = RenderOptions(
        blender=arguments.blender,
        search=arguments.search,
        seed=arguments.seed,
        words=arguments.words,
        plot=arguments.plot,
        n_workers=arguments.jobs,
    )
    result = render(CharacterPack.open(arguments.pack), arguments.speech, arguments.output, options)
    _print(
        arguments,
        result.to_dict(),
        f"{arguments.output}: {result.duration_s:.1f} s, {result.n_cuts} cuts "
        f"({result.n_transitions_computed} transitions computed, {result.n_transitions_cached} cached), "
        f"{result.seconds:.1f} s, {result.realtime_factor:.2f} of real time",
    )


def _print(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    print(json.dumps(result) if arguments.json else text)

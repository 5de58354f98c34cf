"""tango-rt: build characters from video, render them to speech, serve them live. Arguments in, a summary out."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.blending.blender import CUT
from engine.choices import GRAPH_RULES
from engine.errors import InputError
from tango_rt import __version__
from tango_rt.characters.cue_command import add_mark
from tango_rt.client.command import add_send
from tango_rt.console import add_command, bars, positive, print_result, run_command
from tango_rt.models.command import add_models
from tango_rt.options import (
    DEFAULT_LOOKAHEAD_NODES,
    add_blender,
    add_jobs,
    add_live_cuts,
    add_lookahead,
    add_networks,
    add_retrieval,
    add_search,
    add_seed,
    network_options,
    perform_options,
)
from tango_rt.server.command import add_serve

if TYPE_CHECKING:
    from engine.inference.networks import Networks

__all__ = ["main"]

EXAMPLES = """examples:
  tango-rt demo                                       a drawn presenter, from nothing to demo.mp4
  tango-rt character build talk.mp4 -o anna.tango     a character from a video of one person
  tango-rt render anna.tango speech.wav -o out.mp4    the character, gesturing to speech of any length
  tango-rt serve --characters packs/                  live: speech in, gesture video out, by gRPC
  tango-rt send localhost:50051 --character anna speech.wav -o live.mp4
  tango-rt models fetch                               download the networks that a build needs
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
INSTALL_EXAMPLES = """examples:
  tango-rt character install anna.tango packs/           a running server switches to it by itself
"""
REFRESH_EXAMPLES = """examples:
  tango-rt character refresh anna.tango                  fit to the person again
  tango-rt character refresh anna.tango --no-mouth       without the lips
  tango-rt character refresh anna.tango --bundle mini    and add the motion features of a network
"""
WARM_EXAMPLES = """examples:
  tango-rt character warm anna.tango                       with its own voice, and at rest
  tango-rt character warm anna.tango hello.wav news.mp3    with speech like what it will perform
  tango-rt character warm anna.tango --live-cuts 2 --jobs 8
"""
RENDER_EXAMPLES = """examples:
  tango-rt render anna.tango speech.wav -o out.mp4
  tango-rt render anna.tango speech.wav -o out.mp4 --retrieval onset
  tango-rt render anna.tango speech.wav -o out.mp4 --lookahead 2      as if heard live
  tango-rt render anna.tango speech.mp3 -o out.mp4 --seed 7 --plot path.png --json
  tango-rt render anna.tango speech.wav -o out.mp4 --words words.json --caption words --label "AI-generated"
  tango-rt render anna.tango speech.wav -o out.mp4 --cues cues.json    [{"name": "wave", "at": 3.2, "within": 1.0}]
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits by SystemExit with 0, 1 (our fault), 2 (bad input) or 130 (interrupted)."""
    run_command(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = add_command(None, "tango-rt", "A person on video, gesturing to any speech.", EXAMPLES)
    parser.add_argument("--version", action="version", version=f"tango-rt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    character = add_command(commands, "character", "make and inspect characters", BUILD_EXAMPLES)
    actions = character.add_subparsers(required=True, metavar="ACTION")
    _add_build(actions)
    _add_inspect(actions)
    _add_install(actions)
    _add_refresh(actions)
    _add_warm(actions)
    add_mark(actions)
    _add_render(commands)
    add_serve(commands)
    add_send(commands)
    add_models(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = add_command(
        commands, "demo", "draw a presenter, build the character, render it to another speech", DEMO_EXAMPLES, _demo
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")
    add_jobs(parser)


def _add_build(actions: Any) -> None:
    parser = add_command(
        actions, "build", "make a character from one or several videos of one person", BUILD_EXAMPLES, _build
    )
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.tango")
    parser.add_argument("--max-height", type=positive, default=720, metavar="PX", help="default: 720")
    parser.add_argument(
        "--graph",
        choices=GRAPH_RULES,
        default=GRAPH_RULES[0],
        help="what a cut is judged by: the distance over the 8 blended frames (window, default) or between the two "
        "nodes (paper), or joint votes as in the research release (official)",
    )
    parser.add_argument(
        "--keep",
        choices=("largest", "all"),
        default="largest",
        help="if the videos show several people, outfits or places: keep the one shown longest (largest, default), "
        "or all of them, so that the character changes from one to another (all)",
    )
    parser.add_argument("--words", type=Path, metavar="JSON", help="word timings of the reference (one video only)")
    parser.add_argument("--smplx-model", type=Path, metavar="NPZ", help="your SMPLX_NEUTRAL.npz, for SMPL-X sources")
    _add_fit(parser)
    add_live_cuts(parser)
    add_blender(parser, without={CUT})
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page about the character, with pictures")
    add_jobs(parser)


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mouth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="include the lips in the fit of voice to motion (default: yes)",
    )
    parser.add_argument(
        "--prior",
        type=Path,
        metavar="NPZ",
        help="covariances of other people, from 'tango-export prior', to start from",
    )


def _add_inspect(actions: Any) -> None:
    parser = add_command(
        actions, "inspect", "check a character pack and show what is in it", INSPECT_EXAMPLES, _inspect
    )
    parser.add_argument("pack", type=Path, metavar="PACK")


def _add_install(actions: Any) -> None:
    summary = "check a pack and put it in a served folder, replacing one of the same name"
    parser = add_command(actions, "install", summary, INSTALL_EXAMPLES, _install)
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of 'tango-rt serve --characters'")


def _add_refresh(actions: Any) -> None:
    parser = add_command(
        actions,
        "refresh",
        "fit and embed the motion of a pack again, in seconds, without its videos",
        REFRESH_EXAMPLES,
        _refresh,
    )
    parser.add_argument("pack", type=Path, metavar="PACK")
    _add_fit(parser)
    add_networks(parser)


def _add_warm(actions: Any) -> None:
    summary = "draw the transitions that a character uses most, ahead of time"
    parser = add_command(actions, "warm", summary, WARM_EXAMPLES, _warm)
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("speeches", type=Path, nargs="*", metavar="SPEECH", help="speech like what it will perform")
    add_live_cuts(parser)
    add_blender(parser, without={CUT}, default="what drew those of the pack")
    add_lookahead(parser, f"{DEFAULT_LOOKAHEAD_NODES}, as in the server")
    add_jobs(parser)


def _add_render(commands: Any) -> None:
    parser = add_command(commands, "render", "gesture video for a speech, as mp4", RENDER_EXAMPLES, _render)
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="any audio or video file, any length; - for a pipe")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4")
    add_blender(parser)
    add_retrieval(parser)
    add_networks(parser)
    add_search(parser)
    add_lookahead(parser, "the whole speech")
    add_seed(parser)
    parser.add_argument("--words", type=Path, metavar="JSON", help="word timings of the speech, for keyword matches")
    parser.add_argument(
        "--cues", type=Path, metavar="JSON", help="named stretches of the character to play, with their times"
    )
    parser.add_argument(
        "--caption",
        metavar="TEXT|words",
        help="text at the bottom of every frame, or 'words': those of --words as they are spoken",
    )
    parser.add_argument("--label", metavar="TEXT", help="text in the corner of every frame, such as 'AI-generated'")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the path over the speech waveform")
    add_jobs(parser)


@contextmanager
def _networks(arguments: argparse.Namespace) -> "Iterator[Networks | None]":
    """The networks of --bundle, opened with the options of the command."""
    if arguments.bundle is None:
        yield None
        return
    from engine.features.learned import open_embedding_networks

    with open_embedding_networks(arguments.bundle, network_options(arguments)) as networks:
        yield networks


def _demo(arguments: argparse.Namespace) -> None:
    from tango_rt.demo.run import run_demo

    with bars() as on_progress:
        result = run_demo(arguments.out, arguments.jobs, on_progress)
    live = result["live"]
    same = "node for node" if live["identical"] else f"except for {live['underruns']} underruns"
    print_result(
        arguments,
        result,
        f"live video     {live['output']}, matches {live['offline']} {same}\n"
        f"contact sheet  {result['contact_sheet']}\nvideo          {result['output']}",
    )


def _build(arguments: argparse.Namespace) -> None:
    from tango_rt.characters.build import BuildOptions, build_character
    from tango_rt.characters.embed import EmbedOptions
    from tango_rt.characters.inspect import describe, summarize

    options = BuildOptions(
        max_height=arguments.max_height,
        graph_rule=arguments.graph,
        keep=arguments.keep,
        words=arguments.words,
        smplx_model=arguments.smplx_model,
        embed=EmbedOptions(arguments.mouth, arguments.prior),
        live_cuts=arguments.live_cuts,
        blender=arguments.blender,
        n_workers=arguments.jobs,
    )
    if arguments.report is not None and arguments.report.exists() and not arguments.report.is_dir():
        raise InputError(f"{arguments.report} is a file: --report wants a folder")
    with bars() as on_progress:
        pack = build_character(arguments.videos, arguments.output, options, on_progress)
    result = describe(pack)
    if arguments.report is not None:
        from tango_rt.characters.report import write_report

        result["report"] = str(write_report(pack, arguments.report))
    _warn(result["build"].get("warnings", []))
    print_result(arguments, result, summarize(result))


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"tango-rt: warning: {warning}", file=sys.stderr)


def _inspect(arguments: argparse.Namespace) -> None:
    from engine.character.pack import CharacterPack
    from tango_rt.characters.inspect import describe, summarize

    pack = CharacterPack.open(arguments.pack)
    pack.verify()
    result = describe(pack)
    _warn(result["build"].get("warnings", []))
    print_result(arguments, result, summarize(result))


def _install(arguments: argparse.Namespace) -> None:
    from engine.character.pack import folder_bytes
    from tango_rt.characters.install import install

    pack = install(arguments.pack, arguments.folder)
    n_bytes = folder_bytes(pack.path)
    result = {"character": str(pack.path), "sha256": pack.sha256, "bytes": n_bytes}
    print_result(arguments, result, f"{pack.path}: installed, {n_bytes / 1e6:.1f} MB")


def _refresh(arguments: argparse.Namespace) -> None:
    from engine.character.pack import CharacterPack
    from tango_rt.characters.embed import EmbedOptions, refresh
    from tango_rt.characters.inspect import describe, summarize

    pack = CharacterPack.open(arguments.pack)
    with _networks(arguments) as networks:
        learned = None
        if networks is not None:
            from engine.features.learned import learned_embedding

            learned = learned_embedding(networks)
        refresh(pack, EmbedOptions(arguments.mouth, arguments.prior), learned)
    result = describe(pack)
    _warn(result["build"].get("warnings", []))
    print_result(arguments, result, summarize(result))


def _warm(arguments: argparse.Namespace) -> None:
    from tango_rt.pipeline.warm import WarmOptions, warm

    lookahead_nodes = DEFAULT_LOOKAHEAD_NODES if arguments.lookahead is None else arguments.lookahead
    options = WarmOptions(arguments.live_cuts, arguments.blender, lookahead_nodes, arguments.jobs)
    with bars() as on_progress:
        result = warm(arguments.pack, arguments.speeches, options, on_progress)
    _warn(result.warnings)
    print_result(
        arguments,
        result.to_dict(),
        f"{result.character}: {result.n_cuts} transitions are ready for live streams ({result.n_computed} drawn, "
        f"{result.n_cached} already there), {result.took_s:.1f} s",
    )


def _render(arguments: argparse.Namespace) -> None:
    from engine.character.pack import CharacterPack
    from tango_rt.pipeline.render import RenderOptions, render

    with _networks(arguments) as networks:
        options = RenderOptions(
            blender=arguments.blender,
            lookahead_nodes=arguments.lookahead,
            perform=perform_options(arguments, networks),
            caption=arguments.caption,
            label=arguments.label,
            plot=arguments.plot,
            n_workers=arguments.jobs,
        )
        with bars() as on_progress:
            result = render(
                CharacterPack.open(arguments.pack), arguments.speech, arguments.output, options, on_progress
            )
    _warn(result.warnings)
    print_result(
        arguments,
        result.to_dict(),
        f"{arguments.output}: {result.duration_s:.1f} s, {result.n_cuts} cuts "
        f"({result.n_transitions_computed} transitions computed, {result.n_transitions_cached} cached), "
        f"{result.took_s:.1f} s, {result.realtime_factor:.2f} of real time"
        + (f"\nnetworks: {result.networks}" if result.networks else ""),
    )

"""`tango-rt send`: arguments in, one library call, a summary out."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from tango_rt.client.connection import add_connection, connect_options, quiet
from tango_rt.console import add_command, bars, print_result
from tango_rt.options import DEFAULT_ENCODING, ENCODINGS, add_blender, add_lookahead, add_retrieval, add_seed

if TYPE_CHECKING:
    from tango_rt.client.send import SendOptions, SendResult

__all__ = ["add_send"]

SEND_EXAMPLES = """examples:
  tango-rt send localhost:50051 --character anna speech.wav -o out.mp4
  tango-rt send localhost:50051 --character anna speech.wav -o out.mp4 --live --idle 2
  tango-rt send localhost:50051 --character anna speech.wav -o out.mp4 --live --interrupt-at 3.5 --idle 2
  tango-rt send localhost:50051 --character anna --mic -o out.mp4
  tango-rt send gestures.example.org:443 --character anna speech.wav -o out.mp4 --token-file token --json
"""


def add_send(commands: Any) -> None:
    parser = add_command(
        commands, "send", "send speech to a server, write the gesture video it returns as mp4", SEND_EXAMPLES, _send
    )
    parser.add_argument("server", metavar="HOST:PORT")
    speech = parser.add_argument("speech", type=Path, metavar="SPEECH", help="any audio or video file; - for a pipe")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4")
    parser.add_argument("--character", required=True, metavar="NAME", help="one of the server's characters")
    _add_speaking(parser, speech)
    _add_performance(parser)
    add_connection(parser)


def _add_speaking(parser: argparse.ArgumentParser, speech: argparse.Action) -> None:
    class Microphone(argparse.Action):
        """Replaces SPEECH, which is not declared optional because it could then not follow an option."""

        def __call__(self, _: Any, namespace: argparse.Namespace, *__: Any) -> None:
            namespace.mic = True
            speech.required = False

    group = parser.add_argument_group("how it is spoken")
    group.add_argument(
        "--mic", action=Microphone, nargs=0, default=False, help="use the microphone instead of a file, until Ctrl-C"
    )
    pace = group.add_mutually_exclusive_group()
    pace.add_argument("--live", action="store_true", help="send the file at the pace of a microphone")
    pace.add_argument("--fast", action="store_true", help="not in real time, but as fast as frames arrive")
    group.add_argument(
        "--idle", type=_seconds, metavar="SECONDS", help="record this much rest before and after the speech"
    )
    group.add_argument(
        "--cues", type=Path, metavar="JSON", help="named stretches of the character to play, with their times"
    )
    group.add_argument("--interrupt-at", type=_seconds, metavar="SECONDS", help="interrupt the speech at this time")
    group.add_argument(
        "--interrupt-mode",
        choices=("rest", "cut"),
        default="rest",
        help="on interrupt, return to rest along recorded motion (rest, default) or by a hard cut (cut)",
    )


def _add_performance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the performance")
    add_lookahead(group, "as set in the server")
    group.add_argument(
        "--fixed",
        action="store_true",
        help="do not use what arrived beyond the look-ahead: the result then does not depend on when it arrived",
    )
    group.add_argument("--whole", action="store_true", help="hear everything first, as 'tango-rt render' does")
    group.add_argument("--words", type=Path, metavar="JSON", help="word timings of the speech, for keyword matches")
    add_retrieval(group)
    add_seed(group)
    add_blender(group, default="what drew the transitions of the character")
    group.add_argument(
        "--encoding",
        choices=ENCODINGS,
        default=DEFAULT_ENCODING,
        help="encoding of frames on the wire. The output is always an mp4: h264 (default) is copied into it, pictures "
        "are encoded here, references are looked up in --pack",
    )
    group.add_argument("--pack", type=Path, metavar="DIR", help="the character's pack, for --encoding reference")
    group.add_argument("--timings", action="store_true", help="ask the server how long each stage of a frame took")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _send(arguments: argparse.Namespace) -> None:
    quiet()
    from tango_rt.client.printable import printable
    from tango_rt.client.send import send

    if arguments.mic and arguments.speech is not None:
        raise InputError(f"{arguments.speech} and --mic: only one of them can be sent")
    with bars() as on_progress:
        result = send(arguments.server, arguments.speech, arguments.output, _options(arguments), on_progress)
    for warning in result.warnings:
        print(f"tango-rt: warning: {printable(warning)}", file=sys.stderr)
    print_result(arguments, result.to_dict(), _summary(result))
    if result.stopped:
        sys.exit(130)


def _options(arguments: argparse.Namespace) -> "SendOptions":
    from tango_rt.client.options import SessionOptions
    from tango_rt.client.send import SendOptions
    from tango_rt.cue_list import read_cue_list

    session = SessionOptions(
        character=arguments.character,
        video_encoding=arguments.encoding,
        pacing="fast" if arguments.fast else "realtime",
        lookahead_nodes=arguments.lookahead,
        whole_utterance=arguments.whole,
        lookahead="fixed" if arguments.fixed else None,
        blender=arguments.blender,
        retrieval=arguments.retrieval,
        seed=arguments.seed,
        timings=arguments.timings,
    )
    return SendOptions(
        session=session,
        connect=connect_options(arguments),
        live=arguments.live,
        idle_s=arguments.idle,
        interrupt_at_s=arguments.interrupt_at,
        interrupt_mode=arguments.interrupt_mode,
        words=arguments.words,
        cues=() if arguments.cues is None else read_cue_list(arguments.cues),
        pack=arguments.pack,
    )


def _summary(result: "SendResult") -> str:
    parts = [f"{result.output}: {result.duration_s:.1f} s"]
    if result.first_frame_ms is not None:
        parts.append(f"first frame after {result.first_frame_ms:.0f} ms")
    if result.first_speech_frame_ms is not None:
        parts.append(f"of speech after {result.first_speech_frame_ms:.0f} ms (look-ahead {result.lookahead_ms:.0f} ms)")
    if result.interval_ms:
        parts.append(f"frame interval p99 {result.interval_ms['p99']:.0f} ms")
    parts.append(f"{result.underruns} underruns, {result.dropped} dropped")
    if result.dropped:
        parts.append("dropped frames repeat the picture before them")
    if result.stopped or result.interrupted:
        parts.append("stopped by Ctrl-C" if result.stopped else "interrupted")
    return ", ".join(parts)

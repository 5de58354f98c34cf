"""`tango-rt-client`: the command of the stand-alone client, without the engine and without media libraries.

Speech comes from a WAV file; the output is the video as the server sends it, H.264 at 30 frames per second.
"""

import argparse
import json
import secrets
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tango_rt import __version__
from tango_rt.client.connection import add_connection, connect_options, quiet
from tango_rt.client.printable import printable

if TYPE_CHECKING:
    from tango_rt.client.errors import ServerError
    from tango_rt.client.plain import Session
    from tango_rt.client.wav import WavSpeech

__all__ = ["main"]

_FPS = 30  # of the protocol
_MAX_NAME = 100  # characters
_MAX_WARNINGS = 100

EXAMPLES = """examples:
  tango-rt-client info localhost:50051
  tango-rt-client send localhost:50051 --character anna speech.wav -o out.h264
  ffmpeg -r 30 -i out.h264 -i speech.wav -c:v copy out.mp4     add the sound
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits by SystemExit with 0, 1 (the server or this machine), 2 (bad input) or 130."""
    arguments = _parser().parse_args(argv)
    quiet()
    from tango_rt.client.errors import BackendError, TangoError

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        _leave("interrupted; nothing half-written was left behind", 130)
    except TangoError as error:
        _leave(str(error), 1 if isinstance(error, BackendError) else 2)
    except OSError as error:
        _leave(": ".join(str(part) for part in (error.filename, error.strerror) if part), 2)


def _leave(message: str, code: int) -> None:
    print(f"tango-rt-client: {message}", file=sys.stderr)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    style: Any = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("tango-rt-client", description="Talk to a tango-rt server.", **style)
    parser.add_argument("--version", action="version", version=f"tango-rt-client {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="show what a server is and which characters it has", **style)
    info.set_defaults(run=_info)
    info.add_argument("server", metavar="HOST:PORT")
    send = commands.add_parser("send", help="send speech, write the gesture video that comes back as H.264", **style)
    send.set_defaults(run=_send)
    send.add_argument("server", metavar="HOST:PORT")
    send.add_argument("speech", type=Path, metavar="SPEECH.wav")
    send.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.h264")
    send.add_argument("--character", required=True, metavar="NAME", help="one of the server's characters")
    for command in (info, send):
        command.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        add_connection(command)
    return parser


def _info(arguments: argparse.Namespace) -> None:
    from google.protobuf.json_format import MessageToDict

    from tango_rt.client import Client

    with Client(arguments.server, connect_options(arguments)) as client:
        info, characters = client.info(), client.characters()
    if arguments.json:
        told = {"server": MessageToDict(info), "characters": [MessageToDict(one) for one in characters]}
        print(json.dumps(told))
        return
    version = printable(info.version, _MAX_NAME)
    print(f"{arguments.server}: tango-rt {version}, {info.active_sessions} of {info.max_sessions} sessions")
    for one in characters:
        name, retrievals = printable(one.id, _MAX_NAME), printable(", ".join(one.retrievals))
        print(f"{name}: {one.width}x{one.height}, {one.n_frames / _FPS:.0f} s, {retrievals}")
    if not characters:
        print("no characters")


def _send(arguments: argparse.Namespace) -> None:
    from tango_rt.client import Client, InputError, SessionOptions
    from tango_rt.client.wav import WavSpeech

    if arguments.output.suffix.lower() not in (".h264", ".264"):
        raise InputError(f"the output {arguments.output} must end in .h264 ('tango-rt send' of tango-rt writes mp4)")
    speech = WavSpeech.open(arguments.speech)
    options = SessionOptions(arguments.character, sample_rate_hz=speech.rate_hz, pacing="fast")
    with (
        Client(arguments.server, connect_options(arguments)) as client,
        client.stream(options) as session,
        _whole_file(arguments.output) as file,
    ):
        warnings, failure = _exchange(session, speech, file)
    n_frames = session.measurements.n_frames
    if failure is not None:  # keep what was received before it
        failure.args = (f"{failure}; {arguments.output} holds the {n_frames / _FPS:.1f} s received before that",)
        raise failure
    if speech.n_channels > 1:
        warnings.insert(0, f"{speech.path}: channel {speech.channel + 1} of {speech.n_channels} was sent, the loudest")
    for warning in warnings:
        print(f"tango-rt-client: warning: {printable(warning)}", file=sys.stderr)
    measurements = session.measurements
    told = {
        "output": str(arguments.output),
        "path": str(arguments.output),  # its name in the last release; removed in the next
        "n_frames": n_frames,
        "duration_s": round(n_frames / _FPS, 4),
        "first_frame_ms": measurements.first_frame_ms,
        "session_id": session.accepted.session_id,
        "warnings": warnings,
    }
    files = [shlex.quote(str(file)) for file in (arguments.output, arguments.speech)]
    joined = f"ffmpeg -r {_FPS} -i {files[0]} -i {files[1]} -c:v copy OUT.mp4 adds the sound"
    print(json.dumps(told) if arguments.json else f"{arguments.output}: {told['duration_s']:.1f} s; {joined}")


def _exchange(session: "Session", speech: "WavSpeech", file: BinaryIO) -> "tuple[list[str], ServerError | None]":
    """Send the speech and write the frames. Returns the server's warnings, and the failure if there were frames."""
    from tango_rt.client.errors import ServerError, ended_early
    from tango_rt.v1 import media_pb2, session_pb2

    threading.Thread(target=_speak, args=(session, speech), name="speaker", daemon=True).start()
    warnings: list[str] = []
    finished = False
    try:
        for event in session:
            if isinstance(event, media_pb2.VideoFrame):
                file.write(event.data)
            elif isinstance(event, session_pb2.Warning) and len(warnings) < _MAX_WARNINGS:
                warnings.append(f"{event.message} ({event.reason})")
            elif isinstance(event, session_pb2.UtteranceFinished):
                finished = True
        if not finished:
            raise ended_early(session.route)
    except ServerError as error:
        if not session.measurements.n_frames:
            raise
        return warnings, error
    return warnings, None


def _speak(session: "Session", speech: "WavSpeech") -> None:
    from tango_rt.client.errors import ServerError

    with suppress(ServerError, ValueError):  # the session is over: reading from it raises the error
        try:
            for block in speech.blocks():
                session.send_audio(block)
            session.finish()
        except OSError:  # the file has gone: without the rest of it there is nothing to wait for
            session.cancel()


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write under another name and rename at the end; an error removes the file."""
    partial = path.parent / f".tango-rt-{secrets.token_hex(4)}.partial"
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()

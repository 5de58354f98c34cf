"""`tango-rt character mark`: cues of a character, by their times in its video."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from tango_rt.console import add_command, print_result

if TYPE_CHECKING:
    from tango_rt.characters.cues import MarkedCue

__all__ = ["add_mark"]

MARK_EXAMPLES = """examples:
  tango-rt character mark anna.tango                                     the cues that it has
  tango-rt character mark anna.tango --suggest gestures                  pictures of gestures that could be cues
  tango-rt character mark anna.tango --cue wave --from 12.3 --to 14.1    times in the source video
  tango-rt character mark anna.tango --remove wave
"""


def add_mark(actions: Any) -> None:
    summary = "name stretches of a character, such as a wave, to be played when they are asked for"
    parser = add_command(actions, "mark", summary, MARK_EXAMPLES, _mark)
    parser.add_argument("pack", type=Path, metavar="PACK")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cue", metavar="NAME", help="mark a stretch, with --from and --to; replaces one of this name")
    what.add_argument("--remove", metavar="NAME", help="forget a cue")
    what.add_argument("--suggest", type=Path, metavar="DIR", help="write pictures of gestures that could be cues")
    parser.add_argument("--from", dest="from_s", type=float, metavar="SECONDS", help="where it begins in the video")
    parser.add_argument("--to", dest="to_s", type=float, metavar="SECONDS", help="where it ends in the video")
    parser.add_argument("--source", metavar="NAME", help="which video, if the character is made from several")


def _mark(arguments: argparse.Namespace) -> None:
    from engine.character.pack import CharacterPack
    from tango_rt.characters.cues import list_cues, mark_cue, remove_cue

    times = arguments.from_s, arguments.to_s
    if (arguments.cue is None) != (times == (None, None)) or (arguments.cue is not None and None in times):
        raise InputError("a cue is marked with its name and two times: --cue NAME --from SECONDS --to SECONDS")
    if arguments.source is not None and arguments.cue is None:
        raise InputError("--source belongs to --cue")
    pack = CharacterPack.open(arguments.pack)
    if arguments.cue is not None:
        mark_cue(pack, arguments.cue, *times, arguments.source)
    elif arguments.remove is not None:
        remove_cue(pack, arguments.remove)
    if arguments.suggest is not None:
        _suggest(arguments, pack)
        return
    cues = list_cues(CharacterPack.open(arguments.pack))
    result = {"character": str(arguments.pack), "cues": [_listed(cue) for cue in cues]}
    lines = [_line(cue) for cue in cues] or [f"{arguments.pack} has no cues"]
    if arguments.cue is not None and pack.drawn is not None:
        lines.append(f"so that live streams come there soon: tango-rt character warm {arguments.pack}")
    print_result(arguments, result, "\n".join(lines))


def _suggest(arguments: argparse.Namespace, pack: Any) -> None:
    from tango_rt.characters.cues import list_cues
    from tango_rt.characters.gestures import suggest_cues

    sheet, found = suggest_cues(pack, arguments.suggest)
    result = {
        "character": str(arguments.pack),
        "cues": [_listed(cue) for cue in list_cues(pack)],
        "output": str(sheet),
        "suggestions": [_listed(cue) for cue in found],
    }
    several = len(pack.info.sources) > 1
    lines = [
        f"tango-rt character mark {arguments.pack} --cue {cue.name} --from {cue.from_s:g} --to {cue.to_s:g}"
        + (f" --source {cue.source}" if several else "")
        for cue in found
    ]
    print_result(arguments, result, "\n".join([f"pictures: {sheet}", *lines] if found else ["no large gesture found"]))


def _listed(cue: "MarkedCue") -> dict[str, Any]:
    return {"name": cue.name, "source": cue.source, "from_s": cue.from_s, "to_s": cue.to_s, "nodes": cue.nodes}


def _line(cue: "MarkedCue") -> str:
    return f"{cue.name}: {cue.from_s:.2f} to {cue.to_s:.2f} s of {cue.source}"

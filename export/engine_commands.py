"""tango-export compile, verify, inspect, list: bundles and the engines made from them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import BackendError, InputError
from engine.inference.backends import BACKENDS
from engine.inference.target import PRECISIONS, Target
from export.extra import export_extra
from tango_rt.console import add_command, print_result

__all__ = ["add_engine_commands"]

COMPILE_EXAMPLES = """examples:
  tango-export compile mini --backend openvino                        fp32
  tango-export compile mini --backend openvino --precision bf16 --character anna.tango --speech talk.wav
  tango-export compile acinterp --backend tensorrt --precision fp16 --profile 768
  tango-export compile full --backend tensorrt --precision fp16 --layout triton -o models
A second run reuses what is there: engines are rebuilt only if a network, a library, a driver or an option changed.
The exit code is 1 if an engine does not compute what its network does.
"""
VERIFY_EXAMPLES = """examples:
  tango-export verify mini                                            all existing sets of engines
  tango-export verify mini --backend openvino --precision bf16 --character anna.tango --speech talk.wav
"""
INSPECT_EXAMPLES = """examples:
  tango-export inspect mini
  tango-export inspect mini --json | jq .graphs
"""
LIST_EXAMPLES = """examples:
  tango-export list
  tango-export list models --json
"""


def add_engine_commands(commands: Any) -> None:
    """Add the commands to a parser (the result of add_subparsers)."""
    _add_compile(commands)
    _add_verify(commands)
    parser = add_command(commands, "inspect", "the contents of a bundle, and its engines", INSPECT_EXAMPLES, _inspect)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser = add_command(commands, "list", "the bundles in a folder, and their engines", LIST_EXAMPLES, _list)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="default: this one")


def _add_compile(commands: Any) -> None:
    parser = add_command(
        commands, "compile", "compile and verify the networks of a bundle for this machine", COMPILE_EXAMPLES, _compile
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="made by 'tango-export bundle'")
    parser.add_argument("--backend", choices=tuple(BACKENDS), required=True)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    parser.add_argument("--profile", metavar="NAME", help="of shapes (default: the bundle's first)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for engines (default: BUNDLE/engines)")
    parser.add_argument(
        "--layout", choices=("engines", "triton"), default="engines", help="triton: DIR is a Triton model repository"
    )
    parser.add_argument("--no-verify", action="store_true", help="compile only; a server will not choose it by itself")
    _add_agreement(parser)


def _add_verify(commands: Any) -> None:
    summary = "compare engines with their networks: numbers, paths, frames, time"
    parser = add_command(commands, "verify", summary, VERIFY_EXAMPLES, _verify)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--backend", choices=tuple(BACKENDS), help="default: all existing sets of engines")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--profile", metavar="NAME", help="of shapes (default: the bundle's first)")
    parser.add_argument("--engines", type=Path, metavar="DIR", help="folder of the engines (default: BUNDLE/engines)")
    parser.add_argument(
        "--trust-engines",
        action="store_true",
        help="run engines made by others (like running a program), and trust them from then on",
    )
    _add_agreement(parser)


def _add_agreement(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("are the same gestures chosen? (mini and full)")
    group.add_argument("--character", type=Path, metavar="PACK", help="made by 'tango-rt character build'")
    group.add_argument("--speech", type=Path, metavar="WAV", help="real speech; give both for fp16 and bf16")


@export_extra(torch=False)
def _compile(arguments: argparse.Namespace) -> None:
    from export.compile import CompileOptions, compile_bundle, summarize

    _check_agreement(arguments)
    triton = arguments.layout == "triton"
    if triton and arguments.output is None:
        raise InputError("a Triton model repository needs its own folder: add -o DIR")
    options = CompileOptions(
        Target(arguments.backend, arguments.precision, arguments.profile or ""),
        output=None if triton else arguments.output,
        verify=not arguments.no_verify,
        character=arguments.character,
        speech=arguments.speech,
    )
    result = compile_bundle(arguments.bundle, options)
    lines = [summarize(result)]
    passed = result["report"]["passed"] if result["report"] else None
    if triton and passed is not False:
        from export.triton import write_triton

        result["triton"] = write_triton(arguments.bundle, arguments.output, options.target)
        lines.append(f"Triton model repository: {arguments.output}")
    print_result(arguments, result, "\n".join(lines))
    _leave_on_breach([passed])


@export_extra(torch=False)
def _verify(arguments: argparse.Namespace) -> None:
    from engine.inference.manifest import Bundle
    from export.inspect import compiled_sets
    from export.report import table
    from export.verify import verify

    _check_agreement(arguments)
    bundle = Bundle.open(arguments.bundle)
    bundle.check()
    lines = [f"{bundle.folder}: all {len(bundle.files)} files are unchanged"]
    place, trusted = arguments.engines, arguments.trust_engines
    if arguments.backend is not None:
        targets = [Target(arguments.backend, arguments.precision or "fp32", arguments.profile or "")]
    else:
        found = list(compiled_sets(bundle, place, trusted))
        lines += [f"{one.target}: cannot be verified here ({one.state})" for one in found if one.miss]
        targets = [one.target for one in found if not one.miss]
        if not found:
            lines.append("no engines: 'tango-export compile' makes them")
    reports = [verify(bundle, target, place, arguments.character, arguments.speech, trusted) for target in targets]
    told = [report.to_dict() for report in reports]
    result = {"bundle": str(bundle.folder), "sha256": bundle.sha256, "reports": told}
    print_result(arguments, result, "\n".join((*lines, *map(table, reports))))
    _leave_on_breach([report.passed for report in reports])


def _inspect(arguments: argparse.Namespace) -> None:
    from engine.inference.manifest import Bundle
    from export.inspect import describe, summarize

    bundle = Bundle.open(arguments.bundle)
    bundle.check()
    print_result(arguments, describe(bundle), summarize(bundle))


def _list(arguments: argparse.Namespace) -> None:
    from export.inspect import list_bundles, summarize_list

    result = list_bundles(arguments.folder)
    print_result(arguments, {"bundles": result}, summarize_list(result))


def _check_agreement(arguments: argparse.Namespace) -> None:
    if (arguments.character is None) != (arguments.speech is None):
        raise InputError("comparing paths needs a character and a speech: give both --character PACK and --speech WAV")


def _leave_on_breach(passed: Sequence[bool | None]) -> None:
    """An engine that could not be run here (None) is reported, but is not a failure."""
    if False in passed:
        raise BackendError("verification failed: figures above exceed their limits")

"""Options of a performance, defined once for the commands, the server and Python: name, values, default, help.

Nothing heavy is imported here, so that --help is quick.
"""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from engine.blending.blender import BLENDERS, DEFAULT_BLENDER
from engine.choices import RETRIEVALS, SEARCHES
from engine.cores import usable_cores
from engine.inference.backends import BACKENDS
from engine.inference.target import PRECISIONS
from tango_rt.console import positive

if TYPE_CHECKING:
    from engine.character.perform import PerformOptions
    from engine.inference.networks import NetworkOptions, Networks

__all__ = [
    "AUTO",
    "DEFAULT_ENCODING",
    "DEFAULT_LIVE_CUTS",
    "DEFAULT_LOOKAHEAD_NODES",
    "DEFAULT_RETRIEVAL",
    "DEFAULT_WITHIN_S",
    "ENCODINGS",
    "MAX_HEARD_NODES",
    "MAX_LIVE_CUTS",
    "MAX_LOOKAHEAD_NODES",
    "MAX_WITHIN_S",
    "Encoding",
    "add_blender",
    "add_jobs",
    "add_live_cuts",
    "add_lookahead",
    "add_networks",
    "add_retrieval",
    "add_search",
    "add_seed",
    "network_options",
    "perform_options",
]

Encoding = Literal["h264", "jpeg", "rgb24", "i420", "reference"]
"""How pictures are encoded on the wire."""
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
DEFAULT_ENCODING: Encoding = "h264"

MAX_LOOKAHEAD_NODES = 8
DEFAULT_LOOKAHEAD_NODES = 2
"""How long a live stream waits in addition to the analysis of sound, in nodes of 4 frames (133 ms)."""
MAX_HEARD_NODES = 60
"""How much of what has arrived a live stream with an adaptive look-ahead uses: 8 s."""

DEFAULT_LIVE_CUTS = 1.0
MAX_LIVE_CUTS = 48
"""Cuts a node that live streams may take: about as many are used, and a graph holds at most 48."""

DEFAULT_WITHIN_S = 1.0
MAX_WITHIN_S = 10.0
"""How much later than asked for a cue may begin."""

AUTO = "auto"
DEFAULT_RETRIEVAL = RETRIEVALS[0]


def add_blender(
    parser: argparse._ActionsContainer, without: Collection[str] = (), default: str = DEFAULT_BLENDER
) -> None:
    """default: a name, or what happens without the option, in the words of its help; then its value is None."""
    parser.add_argument(
        "--blender",
        choices=[name for name in BLENDERS if name not in without],
        default=default if default in BLENDERS else None,
        help=f"what draws the frames around a cut (default: {default})",
    )


def add_live_cuts(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--live-cuts",
        type=_cuts_per_node,
        default=DEFAULT_LIVE_CUTS,
        metavar="X",
        help="transitions to draw ahead of time for live streams, which use no others, as a multiple of the nodes "
        f"(default: {DEFAULT_LIVE_CUTS:g}; 0: none)",
    )


def _cuts_per_node(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_LIVE_CUTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MAX_LIVE_CUTS}")
    return value


def add_retrieval(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--retrieval",
        choices=RETRIEVALS,
        default=DEFAULT_RETRIEVAL,
        help=f"what compares speech and motion (default: {DEFAULT_RETRIEVAL}, the best found when the pack was built)",
    )


def add_search(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--search",
        choices=SEARCHES,
        default=SEARCHES[0],
        help=f"how the path is searched (default: {SEARCHES[0]}, exact)",
    )


def add_lookahead(parser: argparse._ActionsContainer, default: str) -> None:
    """default: what happens without the option, in the words of its help."""
    parser.add_argument(
        "--lookahead",
        type=_lookahead_nodes,
        metavar="NODES",
        help=f"how much of the speech the search hears ahead, 0 to {MAX_LOOKAHEAD_NODES} nodes of 133 ms "
        f"(default: {default})",
    )


def _lookahead_nodes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_LOOKAHEAD_NODES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of nodes from 0 to {MAX_LOOKAHEAD_NODES}")
    return int(text)


def add_seed(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--seed", type=int, default=0, help="0 (default): the best path; any other number: a variation")


def add_jobs(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--jobs", type=positive, default=usable_cores(), metavar="N", help="processes to use (default: one per core)"
    )


def add_networks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("networks")
    group.add_argument("--bundle", type=Path, metavar="DIR", help="made by 'tango-export bundle'")
    group.add_argument(
        "--backend",
        choices=(AUTO, *BACKENDS),
        default=AUTO,
        help=f"what runs them (default: {AUTO}, the fastest that is installed and verified)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="as given to 'tango-export compile' (default: fp32, or what auto picks)",
    )
    group.add_argument(
        "--profile", metavar="NAME", help="shapes that they were compiled for (default: the bundle's first)"
    )
    group.add_argument("--engines", type=Path, metavar="DIR", help="compiled engines (default: BUNDLE/engines)")
    group.add_argument("--unverified", action="store_true", help="run networks that no verification report vouches for")
    group.add_argument(
        "--trust-engines",
        action="store_true",
        help="run engines made by another user or machine; trust them as you would a program",
    )


def network_options(arguments: argparse.Namespace) -> "NetworkOptions":
    """The values of the options of add_networks."""
    from engine.inference.networks import NetworkOptions

    return NetworkOptions(
        backend=arguments.backend,
        precision=arguments.precision,
        profile=arguments.profile,
        engines=arguments.engines,
        unverified=arguments.unverified,
        trust_engines=arguments.trust_engines,
    )


def perform_options(arguments: argparse.Namespace, networks: "Networks | None") -> "PerformOptions":
    """The values of --retrieval, --search, --seed, --words and --cues. Raises InputError for a bad file."""
    from engine.character.perform import PerformOptions
    from engine.character.retrieval import RetrievalOptions
    from tango_rt.cue_list import read_cue_list
    from tango_rt.words import read_words

    return PerformOptions(
        retrieval=RetrievalOptions(arguments.retrieval, networks),
        search=arguments.search,
        seed=arguments.seed,
        words=None if arguments.words is None else read_words(arguments.words),
        cues=() if arguments.cues is None else read_cue_list(arguments.cues),
    )

"""tango-export: train, adapt, evaluate, bundle weights, compile bundles. Arguments in, a summary out."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import InputError
from export.engine_commands import add_engine_commands
from export.extra import export_extra, stay_offline
from tango_rt.console import add_command, aligned, positive, print_result, run_command

__all__ = ["main"]

EXAMPLES = """examples:
  tango-export train aumoclip data/ -o mini.ckpt         two small towers, from people and their voices
  tango-export bundle mini mini.ckpt -o mini             the form used at run time
  tango-export compile mini --backend openvino           compiled and verified for this machine
  tango-export evaluate aumoclip data/ --bundle mini     does it find the right moments?
"""
BUNDLE_EXAMPLES = """examples:
  tango-export bundle mini mini.ckpt -o mini
  tango-export bundle full ckpt.pth --speech wav2vec2-base-960h --text bert-base-uncased -o full
  tango-export bundle acinterp AnimateAnyone -o acinterp
"""
MINI_EXAMPLES = """examples:
  tango-export bundle mini mini.ckpt -o mini
  tango-export bundle mini anna.ckpt -o anna-mini --json
"""
FULL_EXAMPLES = """examples:
  tango-export bundle full ckpt.pth --speech models/wav2vec2-base-960h --text models/bert-base-uncased -o full
  tango-export bundle full --random 0 -o full-random     made-up weights of the published size, for timings
"""
ACINTERP_EXAMPLES = """examples:
  tango-export bundle acinterp pretrained -o acinterp    folder with reference_unet.pth, denoising_unet.pth,
      motion_module.pth, pose_guider.pth, image_encoder/ and sd-vae-ft-mse/, the public names
  tango-export bundle acinterp --random 0 --width small -o acinterp-small    made-up weights, for tests and timings
"""
TRAIN_EXAMPLES = """examples:
  tango-export train aumoclip data/ -o mini.ckpt
  tango-export train aumoclip anna.tango ben.tango talk.npz -o mini.ckpt --held-out 'ben*' --steps 400
  tango-export train aumoclip data/ -o mini.ckpt --resume
"""
ADAPT_EXAMPLES = """examples:
  tango-export adapt anna.tango --checkpoint mini.ckpt -o anna.ckpt
"""
EVALUATE_EXAMPLES = """examples:
  tango-export evaluate aumoclip anna.tango ben.tango
  tango-export evaluate aumoclip data/ --bundle mini --bundle full -o report --json
"""
PRIOR_EXAMPLES = """examples:
  tango-export prior people/ -o people.npz               then: tango-rt character build --prior people.npz
  tango-export prior anna.tango ben.tango -o both.npz --no-mouth
"""
DATA_HELP = "character packs, NAME.npz or NAME.joints.txt with NAME.wav next to it, or folders of them"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; leaves through SystemExit with 0, 1 (our fault), 2 (bad input) or 130 (interrupted)."""
    run_command(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = add_command(None, "tango-export", "train networks, bundle them, compile the bundles.", EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bundle = add_command(commands, "bundle", "turn weights into a bundle for the run time", BUNDLE_EXAMPLES)
    presets = bundle.add_subparsers(required=True, metavar="PRESET")
    _add_mini(presets)
    _add_full(presets)
    _add_acinterp(presets)
    train = add_command(commands, "train", "train a network", TRAIN_EXAMPLES)
    _add_train(train.add_subparsers(required=True, metavar="NETWORK"))
    _add_adapt(commands)
    evaluate = add_command(commands, "evaluate", "compare a network with its rivals", EVALUATE_EXAMPLES)
    _add_evaluate(evaluate.add_subparsers(required=True, metavar="NETWORK"))
    _add_prior(commands)
    add_engine_commands(commands)
    return parser


def _add_mini(presets: Any) -> None:
    parser = add_command(presets, "mini", "the two small towers, from a tango-export checkpoint", MINI_EXAMPLES, _mini)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="from 'tango-export train' or 'adapt'")
    _add_output(parser, "DIR")


def _add_full(presets: Any) -> None:
    parser = add_command(presets, "full", "the published network, from its weights", FULL_EXAMPLES, _full)
    parser.add_argument("checkpoint", type=Path, nargs="?", metavar="CKPT", help="the published AuMoCLIP checkpoint")
    parser.add_argument("--speech", metavar="DIR", help="folder of the public speech encoder, transformers layout")
    parser.add_argument("--text", metavar="DIR", help="folder of the public text encoder, transformers layout")
    parser.add_argument("--allow-download", action="store_true", help="--speech and --text may name models to download")
    parser.add_argument("--random", type=int, metavar="SEED", help="made-up weights instead of CKPT")
    _add_output(parser, "DIR")


def _add_acinterp(presets: Any) -> None:
    summary = "the diffusion model for transitions, from public weights"
    parser = add_command(presets, "acinterp", summary, ACINTERP_EXAMPLES, _acinterp)
    parser.add_argument("weights", type=Path, nargs="?", metavar="DIR", help="folder of the public AnimateAnyone files")
    parser.add_argument("--random", type=int, metavar="SEED", help="made-up weights instead of DIR")
    parser.add_argument("--width", choices=("small", "full"), help="of made-up weights (default: full)")
    _add_output(parser, "DIR")


def _add_train(networks: Any) -> None:
    parser = add_command(networks, "aumoclip", "speech and motion in one space", TRAIN_EXAMPLES, _train)
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help=DATA_HELP)
    _add_output(parser, "CKPT")
    _add_options(
        parser,
        ("--steps", {"type": positive, "metavar": "N"}),
        ("--batch", {"type": positive, "metavar": "N", "help": "windows per step"}),
        ("--seed", {"type": int}),
        ("--variants", {"type": int, "metavar": "N", "help": "augmented copies of every recording"}),
        ("--held-out", {"nargs": "+", "metavar": "NAME", "help": "recordings to validate on, * for anything"}),
        ("--mouth", {"action": "store_true", "help": "use mouth movements, too"}),
        ("--device", {"choices": ("auto", "cpu", "cuda")}),
        ("--bf16", {"action": argparse.BooleanOptionalAction, "help": "default: if it is faster"}),
        ("--resume", {"action": "store_true", "help": "continue from CKPT"}),
    )
    ablations = parser.add_argument_group("the paper's ablations")
    _add_options(
        ablations,
        ("--levels", {"choices": ("both", "low")}),
        ("--pooling", {"choices": ("token", "max")}),
        ("--layout", {"choices": ("hierarchy", "split")}),
        ("--stop-gradient", {"action": argparse.BooleanOptionalAction}),
    )


def _add_adapt(commands: Any) -> None:
    parser = add_command(commands, "adapt", "fine-tune a checkpoint to the person of a pack", ADAPT_EXAMPLES, _adapt)
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="CKPT", help="checkpoint to start from")
    _add_output(parser, "CKPT")
    _add_options(parser, ("--steps", {"type": positive, "metavar": "N"}), ("--seed", {"type": int}))


def _add_evaluate(networks: Any) -> None:
    parser = add_command(networks, "aumoclip", "the paper's protocol, with controls", EVALUATE_EXAMPLES, _evaluate)
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--bundle", type=Path, action="append", default=[], metavar="DIR", help="may be repeated")
    parser.add_argument("--mini", action="store_true", help="also train the small network and its ablations: minutes")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write a report with pictures")


def _add_prior(commands: Any) -> None:
    parser = add_command(commands, "prior", "what people have in common, for fits to a person", PRIOR_EXAMPLES, _prior)
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--mouth", action=argparse.BooleanOptionalAction, default=True, help="default: with the mouth")
    _add_output(parser, "NPZ")


def _add_output(parser: argparse.ArgumentParser, metavar: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=metavar)


def _add_options(parser: Any, *options: tuple[str, dict[str, Any]]) -> None:
    """Add options without defaults here: what is not given does not appear in the namespace."""
    for name, settings in options:
        parser.add_argument(name, default=argparse.SUPPRESS, **settings)


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name in names}


@export_extra()
def _mini(arguments: argparse.Namespace) -> None:
    from export.recipes.mini import mini_recipe

    _write(arguments, mini_recipe(arguments.checkpoint))


@export_extra(downloads=True)
def _full(arguments: argparse.Namespace) -> None:
    if (arguments.checkpoint is None) == (arguments.random is None):
        raise InputError("the published checkpoint is missing: give it, or --random SEED instead")
    if arguments.checkpoint is not None and not (arguments.speech and arguments.text):
        raise InputError("the folders of the public encoders are missing: add --speech DIR --text DIR")
    if not arguments.allow_download:
        stay_offline()
    from export.recipes.full import full_recipe, random_full

    if arguments.random is not None:
        _write(arguments, random_full(arguments.random))
    else:
        recipe = full_recipe(arguments.checkpoint, arguments.speech, arguments.text, arguments.allow_download)
        _write(arguments, recipe)


@export_extra()
def _acinterp(arguments: argparse.Namespace) -> None:
    if (arguments.weights is None) == (arguments.random is None):
        raise InputError("the folder of the public weights is missing: give it, or --random SEED instead")
    if arguments.width is not None and arguments.random is None:
        raise InputError("--width is only for made-up weights (--random): leave it out")
    from export.recipes.acinterp import acinterp_recipe, random_recipe

    if arguments.random is not None:
        _write(arguments, random_recipe(arguments.random, arguments.width or "full"))
    else:
        _write(arguments, acinterp_recipe(arguments.weights))


def _write(arguments: argparse.Namespace, recipe: Any) -> None:
    from engine.inference.manifest import Bundle
    from export.bundle import write_bundle
    from export.inspect import summarize

    result = write_bundle(recipe, arguments.output)
    print_result(arguments, result, summarize(Bundle.open(arguments.output)))


@export_extra()
def _train(arguments: argparse.Namespace) -> None:
    from export.models.mini import MiniConfig
    from export.training.run import TrainOptions, train

    plain = ("steps", "batch", "seed", "variants", "mouth", "device", "bf16", "resume")
    options = TrainOptions(
        **_given(arguments, *plain),
        model=MiniConfig(**_given(arguments, "levels", "pooling", "layout", "stop_gradient")),
        held_out=tuple(getattr(arguments, "held_out", ())),
    )
    result = train(arguments.data, arguments.output, options)
    print_result(arguments, result, _lines(result))


@export_extra()
def _adapt(arguments: argparse.Namespace) -> None:
    from export.training.adapt import AdaptOptions, adapt

    options = AdaptOptions(**_given(arguments, "steps", "seed"))
    result = adapt(arguments.pack, arguments.checkpoint, arguments.output, options)
    print_result(arguments, result, _lines(result))


@export_extra()
def _evaluate(arguments: argparse.Namespace) -> None:
    from export.evaluation.run import EvaluateOptions, evaluate, summarize

    options = EvaluateOptions(bundles=tuple(arguments.bundle), output=arguments.output, mini=arguments.mini)
    result = evaluate(arguments.data, options)
    print_result(arguments, result, summarize(result))


def _prior(arguments: argparse.Namespace) -> None:
    from engine.features.fit import FitOptions
    from export.prior import make_prior

    result = make_prior(arguments.data, arguments.output, FitOptions(mouth=arguments.mouth))
    print_result(arguments, result, _lines(result))


def _lines(result: dict[str, Any]) -> str:
    """One line per figure."""
    return "\n".join(aligned(result.items()))

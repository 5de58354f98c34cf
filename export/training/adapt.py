"""`tango-export adapt`: fine-tune mini to the person of a pack, and stop before it overfits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.errors import InputError
from export.models.mini import MiniConfig
from export.recordings import read_recordings
from export.training.augment import AugmentOptions
from export.training.batches import split_time
from export.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from export.training.trainer import Trainer, TrainOptions
from export.training.validation import known, low_accuracy

__all__ = ["AdaptOptions", "adapt"]


@dataclass(frozen=True)
class AdaptOptions:
    """How mini is adapted."""

    steps: int = 80  # at most: on a minute of video validation ends it after 40 to 80
    batch: int = 12
    learning_rate: float = 4e-3
    average: float = 0.9
    seed: int = 0
    variants: int = 6
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    validation_share: float = 0.25  # of the recording, at its end
    gap_s: float = 0.5
    validate_every: int = 5
    patience: int = 4  # validations without improvement
    progress: bool = True


def adapt(pack: Path, checkpoint: Path, output: Path, options: AdaptOptions | None = None) -> dict[str, Any]:
    """Fine-tune a checkpoint to one recording (a pack, or anything export.recordings reads) and write it to `output`.

    The averaged weights of the best validation are kept, or the start's if none is better. Returns a summary for
    JSON: accuracies on the held-out end before and after, the control, the step that was kept. The accuracy after is
    the best of several on the same frames, so a little optimistic.

    Raises:
        InputError: not exactly one recording, one that is too short, no mouth if the checkpoint needs it, or an
            output that cannot be written.
        ArtifactError: a damaged pack or checkpoint.
    """
    options = options or AdaptOptions()
    if output.is_dir():
        raise InputError(f"{output} is a folder: give a file for the checkpoint")
    start = read_checkpoint(checkpoint)
    recordings = read_recordings([pack])
    if len(recordings) != 1:
        raise InputError(f"{pack} holds {len(recordings)} recordings, but mini is adapted to one person: give one")
    learned, validated = split_time(recordings[0], options.validation_share, options.gap_s)
    trainer = Trainer([learned], [validated] if validated else [], _train_options(start, options), start)
    before = low_accuracy(trainer.averaged(), trainer.validated)
    if not before["frames"]:
        raise InputError(
            f"{recordings[0].name} is too short to hold out a part for validation: "
            "give clips of at least 20 s without a jump cut"
        )
    best, best_step = _fine_tune(trainer, before["low"], options)
    write_checkpoint(output, best)
    after = best.history[-1] if best.history else before
    return {
        "output": str(output),
        "person": recordings[0].name,
        **known({"low_before": before["low"], "low": after["low"], "control": after["control"]}),
        "n_frames": int(before["frames"]),
        "kept_step": best_step,
        "steps": trainer.step,
    }


def _fine_tune(trainer: Trainer, accuracy: float, options: AdaptOptions) -> tuple[Checkpoint, int]:
    """The best checkpoint, by validation, and its step; the start's if nothing is better."""
    best, best_step, waited = trainer.checkpoint(), 0, 0
    bar = tqdm(total=options.steps, unit=" steps", leave=False, disable=None if options.progress else True)
    while trainer.step < options.steps and waited < options.patience:
        losses = trainer.advance()
        bar.update()
        if trainer.step % options.validate_every:
            continue
        trainer.history.append({"step": trainer.step, **losses, **trainer.validate()})
        waited += 1
        if trainer.history[-1]["low"] > accuracy:
            accuracy, best, best_step, waited = trainer.history[-1]["low"], trainer.checkpoint(), trainer.step, 0
    bar.close()
    return best, best_step


def _train_options(start: Checkpoint, options: AdaptOptions) -> TrainOptions:
    config: MiniConfig = start.config
    return TrainOptions(
        steps=options.steps,
        batch=options.batch,
        window_frames=2 * config.low_reach_frames + config.window_frames,
        learning_rate=options.learning_rate,
        average=options.average,
        seed=options.seed,
        mouth=start.mouth,
        variants=options.variants,
        model=config,
        augment=options.augment,
        progress=options.progress,
    )

"""`tango-export train aumoclip`: recordings in, a checkpoint and its curves out."""

import os
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.features.recording import Recording
from export.recordings import read_recordings
from export.training.batches import split_time
from export.training.checkpoint import read_checkpoint
from export.training.curves import draw_curves
from export.training.trainer import Trainer, TrainOptions
from export.training.validation import known

__all__ = ["TrainOptions", "train"]

_MAX_BYTES = 255  # of a file's name


def train(data: Sequence[Path], output: Path, options: TrainOptions | None = None) -> dict[str, Any]:
    """Train on recordings (see export.recordings) and write a checkpoint, and next to it OUTPUT.png with the curves.

    Ctrl-C ends the run after the current step: the checkpoint is written, then KeyboardInterrupt raised; `resume`
    continues from there. Returns a summary for JSON.

    Raises:
        InputError: unusable data or options, an existing checkpoint, or, to resume, one of another run.
        BackendError: no such device, or one without bf16.
    """
    options = options or TrainOptions()
    _check(options, output)
    recordings = read_recordings(data)
    learned, validated = _split(recordings, options)
    trainer = Trainer(learned, validated, options)
    if options.resume:
        trainer.restore(read_checkpoint(output), output)
    started = time.perf_counter()
    trainer.run(output)
    draw_curves(trainer.history, _curves_file(output))
    return {
        "output": str(output),
        "steps": trainer.step,
        "took_s": round(time.perf_counter() - started, 1),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "recordings": [r.name for r in learned],
        "validated_on": [take.name for take in trainer.validated],
        **known(trainer.history[-1]),
    }


def _curves_file(output: Path) -> Path:
    """OUTPUT.png, with a shortened name if it would be too long for a file."""
    return output.with_name(os.fsencode(output.name)[: _MAX_BYTES - 4].decode(errors="ignore") + ".png")


def _check(options: TrainOptions, output: Path) -> None:
    margin = options.model.low_reach_frames
    if min(options.steps, options.batch, options.validate_every) < 1 or options.variants < 0:
        raise InputError("steps, batch and validate_every must be 1 or more, variants 0 or more")
    if options.window_frames <= 2 * margin + options.model.window_frames // 2:
        least = 2 * margin + options.model.window_frames // 2
        raise InputError(f"windows of {options.window_frames} frames are too short, wanted more than {least}")
    if not 0 < options.validation_share < 1:
        raise InputError(
            f"a validation share of {options.validation_share} is impossible, wanted more than 0 and less than 1"
        )
    if output.is_dir():
        raise InputError(f"{output} is a folder: give a file for the checkpoint")
    if output.exists() and not options.resume:
        raise InputError(f"{output} already exists: continue it (--resume), or choose another name")


def _split(recordings: Sequence[Recording], options: TrainOptions) -> tuple[list[Recording], list[Recording]]:
    """What is trained on, what is validated on: people held out, else the end of every recording."""
    if options.held_out:
        kept_away = [r for r in recordings if any(fnmatch(r.name, pattern) for pattern in options.held_out)]
        learned = [r for r in recordings if not any(r is other for other in kept_away)]
        if not kept_away or not learned:
            names = ", ".join(r.name for r in recordings)
            raise InputError(f"holding out {', '.join(options.held_out)} leaves nothing on one side of: {names}")
        return learned, kept_away
    halves = [split_time(r, options.validation_share, options.gap_s) for r in recordings]
    return [first for first, _ in halves], [second for _, second in halves if second is not None]

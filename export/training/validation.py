"""How well a network does on unseen speech and motion, compared to the same with the sound shifted."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from engine.features.scores import CONTROL_SHIFTS, REACH, low_hits
from export.models.mini import AuMoMini, MiniTower
from export.training.batches import Take

__all__ = ["known", "low_accuracy"]


@torch.no_grad()
def low_accuracy(model: AuMoMini, takes: Iterable[Take]) -> dict[str, float]:
    """Low accuracy of engine.features.scores, and its control with shifted speech.

    Only frames whose candidates have all of their context inside a clip are used. `frames`: their number; if there
    are none, the accuracies are NaN.
    """
    margin = model.config.low_reach_frames + REACH
    hits, moved = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for take in takes:
        speech = _low(model.audio, take.rows)
        for clip in take.clips:
            motion = _low(model.motion, take.descriptors[clip])
            frames = np.arange(margin, len(motion) - margin)
            hits.append(low_hits(speech[clip], motion, frames))
            moved += [low_hits(np.roll(speech, shift, axis=0)[clip], motion, frames) for shift in CONTROL_SHIFTS]
    low, control = np.concatenate(hits), np.concatenate(moved)
    return {
        "low": float(low.mean()) if len(low) else float("nan"),
        "control": float(control.mean()) if len(control) else float("nan"),
        "frames": float(len(low)),
    }


def known(record: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON: NaN becomes None."""
    return {name: None if math.isnan(value) else value for name, value in record.items()}


def _low(tower: MiniTower, rows: np.ndarray) -> np.ndarray:
    return np.asarray(tower(torch.from_numpy(rows[None]).to(tower.scale.device)).low[0].float().cpu().numpy())

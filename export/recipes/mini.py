"""The small trained embedding as a bundle: one graph per tower."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.features.mini import AUDIO_GRAPH, HOP_FRAMES, MOTION_GRAPH, mini_config
from engine.inference.manifest import Profile
from export.bundle import Recipe
from export.models.mini import AuMoMini, MiniConfig, MiniTower
from export.onnx_export import Graph
from export.training.checkpoint import Checkpoint, read_checkpoint, trained_model

__all__ = ["make_recipe", "mini_recipe"]

NAME = "mini"
PROFILE = "live"
CLIP_FRAMES = (1, 2_048, 65_536)  # of a recording between two shot changes: least, usual, most (36 minutes)


def mini_recipe(checkpoint: Path) -> Recipe:
    """From a checkpoint of `tango-export train aumoclip` or `adapt`; its averaged weights are used."""
    return make_recipe(read_checkpoint(checkpoint))


def make_recipe(checkpoint: Checkpoint) -> Recipe:
    """Graphs `audio` (rows) and `motion` (descriptors) -> low, high, cls; only low if there is no high level."""
    config = checkpoint.config
    has_high = config.levels == "both"
    fed = mini_config(
        mouth=checkpoint.mouth,
        low_dim=config.low_dim,
        high_dim=config.high_dim if has_high else 0,
        lookback_frames=config.lookback_frames,
        lookahead_frames=config.lookahead_frames,
    )
    return Recipe(
        name=NAME,
        graphs=_graphs(trained_model(checkpoint), config),
        config={**fed, "window_frames": config.window_frames, "ablation": _ablation(config)},
    )


class _Outputs(nn.Module):
    """A tower that returns a plain tuple of its outputs."""

    def __init__(self, tower: MiniTower) -> None:
        super().__init__()
        self.tower = tower
        self.has_high = tower.config.levels == "both"

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        low, high, cls = self.tower(rows)
        return (low, high, cls) if self.has_high else (low,)


def _graphs(model: AuMoMini, config: MiniConfig) -> Iterator[Graph]:
    outputs = ("low", "high", "cls") if config.levels == "both" else ("low",)
    window = config.lookback_frames + HOP_FRAMES + config.lookahead_frames
    towers = (
        (AUDIO_GRAPH, "rows", model.audio, config.audio_columns, (1, window, window)),
        (MOTION_GRAPH, "descriptors", model.motion, config.motion_columns, CLIP_FRAMES),
    )
    for name, fed, tower, columns, frames in towers:
        profile: Profile = {"batch": (1, 1, 1), "frames": frames}
        trials = tuple({fed: _noise(batch, n, columns)} for batch, n in ((2, 128), (1, 216), (3, 5)))
        yield Graph(
            name=name,
            module=_Outputs(tower),
            inputs=trials[0],
            outputs=outputs,
            dynamic={fed: {0: "batch", 1: "frames"}},
            trials=trials,
            profiles={PROFILE: profile},
        )


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[1]))


def _ablation(config: MiniConfig) -> dict[str, str | bool]:
    return {
        "levels": config.levels,
        "pooling": config.pooling,
        "layout": config.layout,
        "stop_gradient": config.stop_gradient,
    }

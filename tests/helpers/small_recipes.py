"""Recipes of bundles of tiny torch modules."""

import torch
from torch import nn

from export.bundle import Recipe
from export.onnx_export import Graph


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.tanh(self.linear(rows)),)


def layer(name: str, seed: int) -> Graph:
    torch.manual_seed(seed)
    trials = tuple({"rows": torch.randn(n, 3)} for n in (2, 1, 40))
    return Graph(name, Layer(), trials[0], ("low",), {"rows": {0: "frames"}}, trials)


def recipe(*seeds: int) -> Recipe:
    graphs = (layer(f"layer{n}", seed) for n, seed in enumerate(seeds))
    return Recipe("mini", graphs, {"hop_frames": 4, "names": ("a", "b")}, {"vocab.txt": b"a\nb\n"}, "made for tests")

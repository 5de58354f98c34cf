"""Which back end runs a network fastest on this CPU, and what does bfloat16 cost?

    python -m benchmarks.bench_sessions [--rounds 30] [--json]

Networks of AuMoCLIP's size on a window of 4.27 s: the seven convolutions of the speech encoder over the waveform (512
channels), the motion tower, and a transformer alone (6 layers of width 256). torch eager, onnxruntime float32, openvino
float32 and bfloat16 take turns in every round, so that what else the machine does falls on all alike. Times are
milliseconds a run, the least and the median; errors are against torch, relative to the largest output.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.cores import usable_cores
from engine.inference.backends import find_backend, open_graph
from engine.inference.session import RunOptions
from engine.inference.target import Precision
from export.models.aumoclip import AuMoCLIPConfig, MotionTower
from export.onnx_export import Graph, export_graph

__all__ = ["measure"]

WINDOW_SAMPLES, WINDOW_FRAMES = 68_266, 128
SETTINGS: tuple[tuple[str, Precision], ...] = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))


class Convolutions(nn.Module):
    """Waveform (1, samples) -> 50 rows a second (1, n, 512), as in wav2vec 2.0 (arXiv 2006.11477, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n, (kernel, stride) in enumerate(((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))):
            layers += [nn.Conv1d(512 if n else 1, 512, kernel, stride, bias=False), nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layers(waveform[:, None]).transpose(1, 2),)


class Transformer(nn.Module):
    """Rows (1, n, 256) -> (1, n, 256)."""

    def __init__(self, config: AuMoCLIPConfig) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.hidden, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layers(rows),)


def graphs() -> list[Graph]:
    torch.manual_seed(0)
    config = AuMoCLIPConfig()
    waveform = {"waveform": torch.randn(1, WINDOW_SAMPLES)}
    motion = {"motion": torch.randn(1, WINDOW_FRAMES, config.motion_channels)}
    rows = {"rows": torch.randn(1, WINDOW_FRAMES, config.width)}
    tower = ("low", "high", "cls", "weighted")
    return [
        Graph("speech convolutions", Convolutions(), waveform, ("low",), {"waveform": {1: "samples"}}, ()),
        Graph("motion tower", MotionTower(config), motion, tower, {"motion": {1: "frames"}}, ()),
        Graph("transformer", Transformer(config), rows, ("low",), {"rows": {1: "frames"}}, ()),
    ]


def measure(n_rounds: int = 30) -> list[dict[str, Any]]:
    """One row per network, number of threads and back end."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for graph in graphs():
            for n_threads in (1, 2):
                rows += _measure(graph, Path(folder) / "graph.onnx", n_threads, n_rounds)
    return rows


def _measure(graph: Graph, model: Path, n_threads: int, n_rounds: int) -> list[dict[str, Any]]:
    spec = export_graph(graph, model)
    inputs = {name: tensor.numpy() for name, tensor in graph.inputs.items()}
    settings = [one for one in SETTINGS if find_backend(one[0]).why_no_precision(one[1]) is None]
    sessions = [open_graph(model, spec, backend, RunOptions(precision, n_threads)) for backend, precision in settings]
    torch.set_num_threads(n_threads)

    def eager() -> np.ndarray:
        with torch.no_grad():
            return graph.module(*graph.inputs.values())[0].numpy()

    runs: list[Callable[[], np.ndarray]] = [eager]
    runs += [lambda session=session: session.run(inputs)["low"] for session in sessions]
    seconds = [[_timed(run) for run in runs] for _ in range(n_rounds + 3)][3:]  # the first rounds warm up
    expected = eager()
    rows = []
    for (backend, precision), run, times in zip(
        (("torch", "fp32"), *settings), runs, np.transpose(seconds) * 1000, strict=True
    ):
        rows.append(
            {
                "network": graph.name,
                "threads": n_threads,
                "backend": backend,
                "precision": precision,
                "least_ms": round(float(times.min()), 2),
                "median_ms": round(float(np.median(times)), 2),
                "error": float(np.abs(run() - expected).max() / np.abs(expected).max()),
            }
        )
    for session in sessions:
        session.close()
    return rows


def _timed(run: Callable[[], np.ndarray]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def print_table(rows: list[dict[str, Any]]) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    print(f"{platform.machine()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}, {versions}\n")
    print("| network | threads | back end | least ms | median ms | times onnxruntime | error |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        mine = (row["network"], row["threads"])
        reference = next(r for r in rows if (r["network"], r["threads"], r["backend"]) == (*mine, "onnxruntime"))
        print(
            f"| {row['network']} | {row['threads']} | {row['backend']} {row['precision']} | {row['least_ms']:.1f} "
            f"| {row['median_ms']:.1f} | {reference['median_ms'] / row['median_ms']:.1f} | {row['error']:.1e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(rows))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()

"""Pictures of a performance: the path over the speech, and a contact sheet of a video."""

from pathlib import Path

import cv2
import numpy as np

from engine.character.perform import Performance
from engine.programs import without_programs
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.video.reader import VideoReader

__all__ = ["contact_sheet", "plot_performance"]

_POINTS = 4000


def plot_performance(performance: Performance, samples: np.ndarray, clip_start: np.ndarray, file: Path) -> None:
    """Plot the path through the reference below the waveform of the speech. PNG, PDF or SVG by suffix."""
    with without_programs():
        from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    wave, path = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    step = max(1, len(samples) // _POINTS)
    peaks = np.abs(samples[: len(samples) // step * step]).reshape(-1, step).max(axis=1)
    seconds = np.arange(len(peaks)) * step / SAMPLE_RATE
    wave.fill_between(seconds, -peaks, peaks, color="steelblue", linewidth=0)
    node_s = FRAMES_PER_NODE / FPS
    start_s = np.arange(len(performance.nodes)) * node_s
    wave.fill_between(
        start_s, -1, 1, where=performance.speaking < 0.5, color="black", alpha=0.08, step="post", linewidth=0
    )
    wave.set_ylim(-1, 1)
    wave.set_ylabel("speech (grey: pause)")

    clip = np.searchsorted(clip_start, performance.nodes, side="right")
    path.scatter(start_s + node_s / 2, performance.nodes * node_s, c=clip, cmap="tab10", s=10)
    for t in performance.cuts:
        path.axvline((t + 1) * node_s, color="crimson", linewidth=0.6, alpha=0.6)
    path.set_ylabel("seconds of the reference")
    path.set_xlabel(f"seconds of the speech; red: {len(performance.cuts)} cuts")
    figure.savefig(file, dpi=110)


def contact_sheet(video: Path, file: Path, columns: int = 6, rows: int = 5, width_px: int = 240) -> None:
    """Write a grid of pictures from a video at equal intervals, left to right, top to bottom."""
    with VideoReader(video) as reader:
        frames = [_thumbnail(frame, width_px) for frame in reader]
    picks = np.linspace(0, len(frames) - 1, columns * rows).round().astype(int)
    tiles = [_stamp(frames[k], k) for k in picks]
    sheet = np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])
    # not imwrite, which fails silently and crashes on names that are not UTF-8
    file.write_bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def _thumbnail(frame: np.ndarray, width_px: int) -> np.ndarray:
    height_px = round(frame.shape[0] * width_px / frame.shape[1])
    return cv2.resize(frame, (width_px, height_px), interpolation=cv2.INTER_AREA)


def _stamp(tile: np.ndarray, frame: int) -> np.ndarray:
    tile = np.ascontiguousarray(tile)
    return cv2.putText(
        tile, f"{frame / FPS:.1f} s", (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA
    )

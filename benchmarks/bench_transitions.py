"""How good and how fast are the transition blenders, on real clips?

    python -m benchmarks.bench_transitions [CLIP.mp4 ...] [--json] [--strips DIR] [--windows 5] [--cuts 5]

Without clips: all of TANGO_DATA_DIR/video. Pictures are 512 px high. Three kinds of windows with known truth:
gap: 8 frames are removed; double, triple: 17 or 26 are removed and every second or third is asked for. A sync
transition of the latter morphs frame t + k into frame t + k + 9 (or 18) and never sees the truth. Measured against
the truth, mean over the 8 frames: PSNR and SSIM in the picture, the person (dilated mask) and the hand boxes;
sharpness, mean |Laplacian| in the hand boxes; motion, mean second difference in the person. Gains are over the gap
cross-fade of the same windows. At real cuts there is no truth: the largest second difference in the person, in units
of the mean one of the same stretches uncut. Times are CPU seconds a transition of one core at full size,
without decoding and encoding: benchmarks.bench_transition_time has those.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.transition_clips import FULL_HEIGHT_PX, HEIGHT_PX, Clip, drawn, read_clip
from engine.blending.blender import TRANSITION_FRAMES, Blender
from engine.blending.fades import Crossfade, HardCut
from engine.blending.morph import Flow
from engine.skeleton import joint_weights
from tango_rt.console import aligned

__all__ = ["measure_clip", "measure_cuts", "measure_time", "measure_windows"]

SPEEDS = {"gap": 1, "double": 2, "triple": 3}
MIN_CUT = 45  # frames between the two sides of a cut
LEVELS = {"near": 0.002, "usual": 0.03, "hard": 0.15}  # quantiles of the distances of all pairs
FLOW, ARMS, FADE, CUT = Flow(), Flow(arms=True), Crossfade(), HardCut()


def measure_clip(clip: Clip, n_windows: int = 5, n_cuts: int = 5) -> dict[str, Any]:
    """All figures of one clip: {"windows": {kind: {blender: {measure: value}}}, "cuts": {level: {...}}}."""
    return {
        "windows": {kind: measure_windows(clip, kind, n_windows) for kind in SPEEDS},
        "cuts": {level: measure_cuts(clip, level, n_cuts) for level in LEVELS},
    }


def measure_windows(clip: Clip, kind: str, count: int) -> dict[str, dict[str, float]]:
    """Means over windows at equal steps; measures of each blender."""
    speed = SPEEDS[kind]
    blenders: dict[str, tuple[str, Blender]] = {
        "gap crossfade": ("gap", FADE),
        "gap flow": ("gap", FLOW),
        "gap flow, arms": ("gap", ARMS),
    }
    if speed > 1:
        blenders |= {"crossfade": ("sync", FADE), "flow": ("sync", FLOW), "flow, arms": ("sync", ARMS)}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in blenders}
    for last in _window_starts(clip, 9 * speed + 7, count) + 3:
        truth = last + speed * np.arange(TRANSITION_FRAMES + 2)
        before, after = clip.take(last + np.arange(-3, 1)), clip.take(truth[-1] + np.arange(4))
        steps = last + np.arange(1, TRANSITION_FRAMES + 1)
        for name, (sampling, options) in blenders.items():
            if sampling == "gap":
                out = drawn(options, before, after)
            else:
                out = drawn(options, clip.take(steps), clip.take(steps + 9 * (speed - 1)))
            rows[name].append(_score(clip, out, truth))
    return {name: _mean(scores) for name, scores in rows.items() if scores}


def _window_starts(clip: Clip, length: int, count: int) -> np.ndarray:
    same = clip.shots[: 1 - length] == clip.shots[length - 1 :] if len(clip.shots) >= length else np.zeros(0, bool)
    starts = np.flatnonzero(same)
    return starts[np.linspace(0, len(starts) - 1, count).astype(int)] if len(starts) else starts


def _score(clip: Clip, out: Sequence[np.ndarray], truth: np.ndarray) -> dict[str, float]:
    rows = []
    for frame, number in zip(out, truth[1:-1], strict=True):
        real, person, hands = clip.frames[number], clip.person(number), clip.hands(number)
        error, likeness = (frame.astype(np.float32) - real) ** 2, _ssim(frame, real)
        row = {}
        for name, mask in (("frame", np.ones_like(person)), ("person", person), ("hands", hands)):
            if mask.any():
                row[f"psnr_{name}"] = 10 * float(np.log10(255**2 / max(error[mask].mean(), 1e-3)))
                row[f"ssim_{name}"] = float(likeness[mask].mean())
        if hands.any():
            row["sharpness"] = float(_detail(frame)[hands].mean() / max(_detail(real)[hands].mean(), 1e-6))
        rows.append(row)
    mask = np.any([clip.person(number) for number in truth], axis=0)
    whole = [clip.frames[truth[0]], *out, clip.frames[truth[-1]]]
    natural = _second_differences(clip.frames[truth], mask).mean()
    return {**_mean(rows), "motion": float(_second_differences(whole, mask).mean() / natural)}


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name for row in rows for name in row}
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in sorted(names)}


def _ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of the luma at every pixel (Wang et al. 2004: Gaussian window, sigma 1.5)."""
    x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in (a, b))
    mean_x, mean_y, xx, yy, xy = (cv2.GaussianBlur(v, (0, 0), 1.5) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance, variances = xy - mean_x * mean_y, xx + yy - mean_x**2 - mean_y**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return np.asarray(likeness)


def _detail(picture: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F)))


def _second_differences(frames: Sequence[np.ndarray] | np.ndarray, mask: np.ndarray) -> np.ndarray:
    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[mask] for frame in frames]).astype(np.float32)
    return np.asarray(np.abs(luma[:-2] - 2 * luma[1:-1] + luma[2:]).mean(axis=1))


def find_cuts(clip: Clip, level: str, count: int) -> list[tuple[int, int]]:
    """Pairs of first frames of two takes of 8, at a quantile of the distance of joints and their velocities."""
    use = np.flatnonzero(joint_weights() > 0)
    position = clip.joints[:, use] / np.float32(clip.shoulder_px)
    velocity = np.gradient(position, axis=0) * np.float32(4)
    state = np.concatenate([position, velocity], axis=2) * np.sqrt(joint_weights()[use])[:, None]
    starts = np.flatnonzero(clip.shots[2:-9] == clip.shots[11:])[:: max(1, len(state) // 600)] + 2
    takes = np.stack([state[start : start + 8].mean(axis=0).ravel() for start in starts])
    square = (takes**2).sum(axis=1)
    distance = square[:, None] + square[None] - 2 * takes @ takes.T
    distance[np.abs(starts[:, None] - starts[None]) < MIN_CUT] = np.inf
    distance[clip.shots[starts][:, None] != clip.shots[starts][None]] = np.inf
    order = np.argsort(distance, axis=None)[: int(np.isfinite(distance).sum())]
    first = int(len(order) * LEVELS[level])
    order = np.random.default_rng(0).permutation(order[first : first + max(200, len(order) // 50)])
    cuts: list[tuple[int, int]] = []
    for i, j in zip(*np.divmod(order, len(starts)), strict=True):
        cut = int(starts[i]), int(starts[j])
        if all(abs(cut[0] - a) > 12 or abs(cut[1] - b) > 12 for a, b in cuts):
            cuts.append(cut)
        if len(cuts) == count:
            break
    return cuts


def measure_cuts(clip: Clip, level: str, count: int) -> dict[str, dict[str, float]]:
    """Largest and mean second difference of each blender at real cuts, over the mean one of the stretches uncut."""
    blenders = {"cut": CUT, "crossfade": FADE, "flow": FLOW, "flow, arms": ARMS}
    largest: dict[str, list[float]] = {name: [] for name in blenders}
    mean: dict[str, list[float]] = {name: [] for name in blenders}
    natural = []
    for a, b in find_cuts(clip, level, count):
        mask = clip.person(a) | clip.person(b)
        takes = clip.take(np.arange(a, a + 8)), clip.take(np.arange(b, b + 8))
        uncut = (clip.frames[first - 2 : first + 10] for first in (a, b))
        natural.append(np.mean([_second_differences(frames, mask).mean() for frames in uncut]))
        for name, options in blenders.items():
            out = [*clip.frames[a - 2 : a], *drawn(options, *takes), *clip.frames[b + 8 : b + 10]]
            differences = _second_differences(out, mask)
            largest[name].append(differences.max())
            mean[name].append(differences.mean())
    # A ratio of means: single stretches are nearly still, and ratios to them say nothing.
    unit = np.mean(natural) if natural else 1.0
    return {
        name: {"largest": float(np.mean(largest[name]) / unit), "mean": float(np.mean(mean[name]) / unit)}
        for name in blenders
        if largest[name]
    }


def measure_time(clip: Clip, repeats: int = 3) -> dict[str, float]:
    """CPU seconds of a transition at the size of the clip, the least of several runs; decoding and encoding apart."""
    a, b = 10, min(10 + MIN_CUT, len(clip.frames) - 9)
    seconds = {}
    for kind, length in (("sync", 8), ("gap", 4)):
        takes = clip.take(np.arange(a, a + length)), clip.take(np.arange(b, b + length))
        for name, blender in ((f"{kind} flow", FLOW), (f"{kind} flow, arms", ARMS)):
            list(blender.draw(*takes))
            runs = []
            for _ in range(repeats):
                start = time.process_time()
                list(blender.draw(*takes))
                runs.append(time.process_time() - start)
            seconds[name] = min(runs)
    return seconds


def write_strips(clip: Clip, folder: Path, count: int) -> None:
    """Pictures of real cuts. Columns: last real frame, the 8 of the transition, first real frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for level in LEVELS:
        for a, b in find_cuts(clip, level, count):
            takes = clip.take(np.arange(a, a + 8)), clip.take(np.arange(b, b + 8))
            x, y = np.concatenate([take.joints[:, :17].reshape(-1, 2) for take in takes]).T
            margin = 0.3 * clip.shoulder_px
            rows, columns = (slice(max(0, int(v.min() - margin)), int(v.max() + margin)) for v in (y, x))
            pictures = []
            for options in (FADE, FLOW, ARMS):
                frames = [clip.frames[a - 1], *drawn(options, *takes), clip.frames[b + 8]]
                cells = [frame[rows, columns] for frame in frames]
                size = 180, round(180 * cells[0].shape[0] / cells[0].shape[1])
                pictures.append(np.concatenate([cv2.resize(cell, size) for cell in cells], axis=1))
            picture = cv2.cvtColor(np.concatenate(pictures), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / f"{clip.name}-{level}-{a}-{b}.png"), picture)


def print_tables(results: dict[str, Any]) -> None:
    for kind in SPEEDS:
        print(f"\n{kind}: gain over the gap cross-fade, dB person / dB hands; then means over the clips")
        clips = {name: result["windows"][kind] for name, result in results.items() if result["windows"][kind]}
        lines: list[tuple[str, ...]] = []
        for blender in next(iter(clips.values()), {}):
            base = {name: rows["gap crossfade"] for name, rows in clips.items()}
            gains = {
                name: [rows[blender].get(m, np.nan) - base[name].get(m, np.nan) for m in ("psnr_person", "psnr_hands")]
                for name, rows in clips.items()
            }
            each = [f"{p:+.1f}/{h:+.1f}" for p, h in gains.values()]
            means = _mean([rows[blender] for rows in clips.values()])
            person, hands = np.nanmean(list(gains.values()), axis=0)
            ssim, sharpness, motion = (means.get(m, np.nan) for m in ("ssim_person", "sharpness", "motion"))
            figures = f"{person:+.2f}", f"{hands:+.2f}", f"{ssim:.3f}", f"{sharpness:.2f}", f"{motion:.2f}"
            lines.append((blender, *each, *figures))
        heads = "blender", *(name[:9] for name in clips), "person", "hands", "ssim", "sharp", "motion"
        print(*aligned(lines, heads), sep="\n")
    for level in LEVELS:
        print(f"\n{level} cuts: largest second difference, natural = 1")
        clips = {name: result["cuts"][level] for name, result in results.items() if result["cuts"][level]}
        lines = []
        for blender in next(iter(clips.values()), {}):
            values = [rows[blender]["largest"] for rows in clips.values()]
            lines.append((blender, *(f"{value:.2f}" for value in (*values, np.mean(values)))))
        print(*aligned(lines, ("blender", *(name[:9] for name in clips), "mean")), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--strips", type=Path, metavar="DIR", help="write pictures of real cuts")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--cuts", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ.get("TANGO_DATA_DIR", Path(__file__).resolve().parents[2] / "shared" / "data"))
    results: dict[str, Any] = {}
    for path in arguments.clips or sorted((data / "video").glob("*.mp4")):
        clip = read_clip(path)
        results[path.stem] = measure_clip(clip, arguments.windows, arguments.cuts)
        if arguments.strips:
            write_strips(clip, arguments.strips, arguments.cuts)
        full = read_clip(path, FULL_HEIGHT_PX, 2 * MIN_CUT) if clip.frames.shape[1] == HEIGHT_PX else clip
        results[path.stem]["seconds"] = measure_time(full)
    if arguments.json:
        print(json.dumps(results))
        return
    print_tables(results)
    print("\nCPU seconds a transition, clip at up to 720 px")
    kinds = dict.fromkeys(kind for result in results.values() for kind in result["seconds"])
    lines = [
        (name[:24], *(f"{result['seconds'][kind]:.2f}" if kind in result["seconds"] else "" for kind in kinds))
        for name, result in results.items()
    ]
    print(*aligned(lines, ("clip", *kinds)), sep="\n")


if __name__ == "__main__":
    main()

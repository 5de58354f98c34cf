"""Does speech find its own place in a recording, and do the places it finds elsewhere move as the voice does?

    python benchmarks/bench_retrieval.py PACK.tango [PACK.tango ...] [--json]

Low: of the 8 nodes within 16 frames, is the best one within 4 frames of the truth (nominal chance 25 %)?
The control plays the audio 1.3 to 4 s late and is the real floor. High: the share of windows of 4.27 s, at
least one window away, that score lower than the true one (chance 50 %). Then each window chooses another
time of the same person: r relates voice energy to body speed inside it, for the true motion, the choice,
and the mean of all choices; level r does so across windows, on their means.
"""

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.rest import rest_distance
from engine.retrieval import (
    CostOptions,
    MotionVectors,
    SpeechSteps,
    joint_speeds,
    node_costs,
    node_vectors,
    speech_vectors,
)
from engine.skeleton import LEFT_ELBOW, LEFT_WRIST, NOSE, RIGHT_ELBOW, RIGHT_WRIST
from engine.speech import SMOOTH_ENERGY, speech_features
from engine.timebase import FPS, FRAMES_PER_NODE

REACH = 4  # nodes to either side: 16 frames
WINDOW = 32  # nodes: 4.27 s
STRIDE = 4  # nodes between query windows
SHIFTS = (10, 15, 22, 30)  # nodes: 1.3 to 4 s
BLOCK = 15  # nodes: 2 s, resampled as a whole
BODY = [NOSE, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST]


@dataclass(frozen=True)
class Reference:
    """A person and the voice that belongs to the same frames."""

    name: str
    samples: np.ndarray  # float32 (S,) 16 kHz, frame f starts at frame_start(f)
    joints: np.ndarray
    confidence: np.ndarray
    clip_start: np.ndarray
    unit_px: float


def load_reference(path: Path) -> Reference:
    from tango_rt.characters.pack import CharacterPack

    pack = CharacterPack.open(path)
    samples = pack["audio"].astype(np.float32) / 32768
    clip_start = np.asarray(pack["clip_start"])
    return Reference(
        path.stem,
        samples,
        np.asarray(pack["joints"]),
        np.asarray(pack["confidence"]),
        clip_start,
        pack.info.shoulder_px,
    )


@dataclass(frozen=True)
class Matched:
    """One person's speech and motion in the space of the retrieval, node by node."""

    steps: SpeechSteps
    motion: MotionVectors
    rest: np.ndarray
    clip_of: np.ndarray
    voice: np.ndarray  # (N,) smoothed energy
    body: np.ndarray  # (N,) root of speed


def match(reference: Reference) -> Matched:
    n_nodes = int(reference.clip_start[-1])
    place = (reference.joints, reference.confidence, reference.clip_start, reference.unit_px)
    rows = speech_features(reference.samples)[: n_nodes * FRAMES_PER_NODE]
    speed = joint_speeds(reference.joints, reference.clip_start, reference.unit_px)[:, BODY]
    return Matched(
        speech_vectors(rows),
        node_vectors(*place),
        rest_distance(*place),
        np.repeat(np.arange(len(reference.clip_start) - 1), np.diff(reference.clip_start)),
        rows[:, SMOOTH_ENERGY].reshape(n_nodes, -1).mean(axis=1),
        np.sqrt(speed).mean(axis=1).reshape(n_nodes, -1).mean(axis=1),
    )


def low_hits(matched: Matched, shift: int = 0) -> np.ndarray:
    """bool (Q,): nodes whose best place is right; `shift` nodes of delay for the control."""
    n = len(matched.body)
    query = np.arange(REACH, n - REACH + 1)
    query = query[matched.clip_of[query - REACH] == matched.clip_of[query + REACH - 1]]
    candidates = query[:, None] + np.arange(-REACH, REACH)
    heard = np.roll(matched.steps.low, shift, axis=0)[query]
    best = np.einsum("qd,qcd->qc", heard, matched.motion.low[candidates]).argmax(axis=1) - REACH
    return np.asarray((best == -1) | (best == 0))


def _window_sums(score: np.ndarray) -> np.ndarray:
    """score (N, N) of step and node -> (Q, C): sums over windows of both, queries STRIDE apart."""
    n = len(score) - WINDOW + 1
    sums = np.zeros((len(range(0, n, STRIDE)), n))
    for k in range(WINDOW):
        sums += score[k : k + n : STRIDE, k : k + n]
    return sums


def high_share(matched: Matched) -> np.ndarray:
    """(Q,): of the windows far from the truth the share that scores lower."""
    steps, motion = matched.steps, matched.motion
    sums = _window_sums(steps.low @ motion.low.T + steps.high @ motion.high.T)
    shares = []
    for q, row in enumerate(sums):
        far = np.abs(np.arange(len(row)) - q * STRIDE) >= WINDOW
        if far.any():
            shares.append((row[far] < row[q * STRIDE]).mean())
    return np.array(shares)


def chosen_motion(matched: Matched, options: CostOptions) -> dict[str, np.ndarray]:
    """Per window of speech, choosing another time: r inside it, and the means that level r is made of."""
    sums = _window_sums(node_costs(matched.steps, matched.motion, matched.rest, options))
    body = np.lib.stride_tricks.sliding_window_view(matched.body, WINDOW)
    voice = np.lib.stride_tricks.sliding_window_view(matched.voice, WINDOW)[::STRIDE]
    unit_body, unit_voice = _standard(body), _standard(voice)
    rows = []
    for q, row in enumerate(sums):
        far = np.flatnonzero(np.abs(np.arange(len(row)) - q * STRIDE) >= WINDOW)
        if not len(far):
            continue
        best = far[row[far].argmin()]
        r = unit_body @ unit_voice[q]
        size = body.mean(axis=1)
        rows.append((r[q * STRIDE], r[best], r[far].mean(), voice[q].mean(), size[q * STRIDE], size[best]))
    names = ("truth", "chosen", "random", "loudness", "true_size", "chosen_size")
    return dict(zip(names, np.array(rows).reshape(-1, len(names)).T, strict=True))


def _standard(windows: np.ndarray) -> np.ndarray:
    off = windows - windows.mean(axis=1, keepdims=True)
    return np.asarray(off / np.maximum(np.linalg.norm(off, axis=1, keepdims=True), 1e-9))


def interval(values: np.ndarray, block: int, seed: int = 0) -> tuple[float, float, float]:
    """Mean with a 95 % interval, blocks of neighbours resampled as a whole."""
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    blocks = [values[k : k + block] for k in range(0, len(values), block)]
    draws = rng.integers(len(blocks), size=(500, len(blocks)))
    means = [np.concatenate([blocks[k] for k in draw]).mean() for draw in draws]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _relation(loudness: np.ndarray, size: np.ndarray) -> float:
    return float(np.corrcoef(loudness, size)[0, 1]) if len(size) > 2 and size.std() > 0 else float("nan")


def measure(reference: Reference, options: CostOptions | None = None) -> dict[str, Any]:
    """Figures of one person; see the head of this file."""
    started = time.process_time()
    matched = match(reference)
    seconds = time.process_time() - started
    hits = low_hits(matched)
    control = np.concatenate([low_hits(matched, shift) for shift in SHIFTS])
    shares = high_share(matched)
    choice = chosen_motion(matched, options or CostOptions())
    return {
        "name": reference.name,
        "seconds_of_video": len(reference.joints) / FPS,
        "cpu_s": seconds,
        "low": interval(hits, BLOCK),
        "low_control": float(control.mean()) if len(control) else float("nan"),
        "high_far_beaten": interval(shares, WINDOW // STRIDE),
        **{f"r_{name}": interval(choice[name], WINDOW // STRIDE) for name in ("truth", "chosen", "random")},
        "level_r_truth": _relation(choice["loudness"], choice["true_size"]),
        "level_r_chosen": _relation(choice["loudness"], choice["chosen_size"]),
        "n_low": len(hits),
        "n_high": len(shares),
    }


def _line(figures: dict[str, Any]) -> str:
    def percent(key: str) -> str:
        mean, low, high = (100 * value for value in figures[key])
        return f"{mean:3.0f} [{low:3.0f},{high:4.0f}]"

    r = " / ".join(f"{figures[f'r_{name}'][0]:5.2f}" for name in ("truth", "chosen", "random"))
    level = f"{figures['level_r_truth']:5.2f} / {figures['level_r_chosen']:5.2f}"
    control = f"{100 * figures['low_control']:3.0f}"
    return f"{figures['name']:32s} {percent('low')} {control}  {percent('high_far_beaten')}  {r}   {level}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", type=Path, nargs="+")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = [measure(load_reference(path)) for path in arguments.packs]
    if arguments.json:
        print(json.dumps({"machine": platform.processor(), "numpy": np.__version__, "results": results}))
        return
    print(f"{'':32s} low % [95 %]  control  far beaten %   r truth / chosen / random   level r")
    for figures in results:
        print(_line(figures))


if __name__ == "__main__":
    main()

"""How long a call takes: percentiles over many calls, after pauses, after another shape; and the memory of a device."""

import gc
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Pace", "after_pauses", "differences", "first_then_steady_ms", "latency", "used_mb"]

Call = Callable[[], object]


@dataclass(frozen=True)
class Pace:
    """How much time a figure may take: calls are counted up to `most_calls`, or as many as fit into `budget_s`."""

    most_calls: int
    budget_s: float
    n_pauses: int
    pause_s: float


def latency(call: Call, pace: Pace, warm_up: int = 3) -> dict[str, Any]:
    """Percentiles of the wall time of a call in ms, and how many were timed (3 at least)."""
    for _ in range(warm_up):
        call()
    gc.collect()
    gc.disable()  # a collection in the middle is a spike of ours, not of what is measured
    try:
        times: list[float] = []
        end = time.perf_counter() + pace.budget_s
        while len(times) < 3 or (len(times) < pace.most_calls and time.perf_counter() < end):
            times.append(_seconds(call))
    finally:
        gc.enable()
    return _percentiles(times)


def after_pauses(call: Call, pace: Pace) -> dict[str, Any]:
    """Wall ms of the first call after each pause: clocks fall and caches cool while nothing runs."""
    times = []
    for _ in range(pace.n_pauses):
        time.sleep(pace.pause_s)
        times.append(_seconds(call))
    return {"pause_s": pace.pause_s, "after_pause_ms": [round(1000 * seconds, 3) for seconds in times]}


def first_then_steady_ms(calls: Sequence[Call], n_rounds: int = 3, n_steady: int = 10) -> list[dict[str, float]]:
    """The cost of changing the shape: for each call, one per shape, the first after another shape and the median after.

    The first round is not counted: there every shape is new, and what is made for it is kept.
    """
    firsts: list[list[float]] = [[] for _ in calls]
    steady: list[list[float]] = [[] for _ in calls]
    for round_ in range(n_rounds + 1):
        for index, call in enumerate(calls):
            first, *others = (_seconds(call) for _ in range(1 + n_steady))
            if round_:
                firsts[index].append(first)
                steady[index] += others
    return [
        {"first_ms": round(1000 * float(np.median(first)), 3), "steady_ms": round(1000 * float(np.median(others)), 3)}
        for first, others in zip(firsts, steady, strict=True)
    ]


def differences(reference: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, float]:
    """The worst over the outputs of a network: max abs, relative L2, cosine; NaN where one is not finite."""
    figures: dict[str, list[float]] = {"max_abs": [], "relative_l2": [], "cosine": []}
    for name, wanted in reference.items():
        a, b = wanted.astype(np.float64).ravel(), found[name].astype(np.float64).ravel()
        with np.errstate(invalid="ignore", over="ignore"):
            size_a, size_b = np.linalg.norm(a), np.linalg.norm(b)
            figures["max_abs"].append(float(np.abs(a - b).max()))
            figures["relative_l2"].append(float(np.linalg.norm(a - b) / max(size_a, 1e-30)))
            figures["cosine"].append(float(a @ b / max(size_a * size_b, 1e-30)))
    # np.max and np.min carry NaN through, the built-in ones may lose it
    worst = {name: float((np.min if name == "cosine" else np.max)(values)) for name, values in figures.items()}
    return {name: float(f"{value:.8g}") for name, value in worst.items()}


def used_mb(device: str) -> float | None:
    """Memory in use: of the whole GPU where it can be asked, of this process on a CPU."""
    if device == "cpu":
        status = Path("/proc/self/status")
        rows = status.read_text().splitlines() if status.is_file() else []
        resident = next((row.split()[1] for row in rows if row.startswith("VmRSS")), None)
        return None if resident is None else int(resident) / 1024
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return float(text) if done.returncode == 0 and text.isdigit() else None


def _seconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _percentiles(times: Sequence[float]) -> dict[str, Any]:
    p50, p90, p99 = (1000 * float(np.percentile(times, q)) for q in (50, 90, 99))
    return {
        "n_calls": len(times),
        "p50_ms": round(p50, 3),
        "p90_ms": round(p90, 3),
        "p99_ms": round(p99, 3),
        "p99_over_p50": round(p99 / p50, 3),
        "most_ms": round(1000 * max(times), 3),
    }

"""What a window of speech costs in the published network: exported and sharing a trunk, against plain torch.

    python benchmarks/bench_full.py [--bundle DIR] [--wav FILE] [--rounds 12] [--threads 2] [--json]

One window of 128 frames (4.27 s), batch 1, from samples to features, at the published size with made-up weights whose
frozen encoder equals the recogniser's trunk. Plain torch runs both trunks, as the release does. Every contender has a
process of its own, so that memory is its own and no thread pool waits in another's way; rounds take turns, so that
whatever else the machine does meets all of them. Agreement is the smallest cosine of a frame with torch's.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tango_rt.console import aligned

SEED = 5
WINDOW_S = 128 / 30
TORCH = "torch fp32"
CONTENDERS = (TORCH, "onnxruntime fp32", "openvino fp32", "openvino bf16")
Hear = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", type=Path, help=f"made by 'tango-export bundle full --random {SEED}'; else made here"
    )
    parser.add_argument("--wav", type=Path, help="mono 16 kHz speech of at least 4.27 s; else noise in syllables")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(arguments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments.bundle or _bundle(Path(scratch)), arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['machine']}, {result['threads']} threads, {result['rounds']} rounds, a window of {WINDOW_S:.2f} s")
    rows = [
        (
            name,
            *(f"{row[key]:.3f}" for key in ("best_s", "median_s")),
            *(f"{row[key]:.1f}x" for key in ("faster", "real_time")),
            f"{row['memory_mb']:.0f}",
            *(f"{row[key]:.6f}" for key in ("cosine_low", "cosine_high")),
        )
        for name, row in result["rows"].items()
    ]
    print(*aligned(rows, ("", "best s", "median s", "faster", "real time", "MB", "cos low", "cos high")), sep="\n")


def measure(bundle: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds a window, memory and agreement of every contender that runs here."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        workers = {name: stack.enter_context(_start(name, bundle, Path(scratch), arguments)) for name in CONTENDERS}
        ready = {name: _ask(worker) for name, worker in workers.items()}
        workers = {name: worker for name, worker in workers.items() if ready[name]}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(arguments.rounds):
            for name, worker in workers.items():
                seconds[name].append(float(_ask(worker, "run")))
        memory = {name: float(_ask(worker, "memory")) for name, worker in workers.items()}
        features = {name: dict(np.load(_place(Path(scratch), name))) for name in workers}
    return {
        "machine": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "rows": {
            name: {
                "best_s": min(times),
                "median_s": float(np.median(times)),
                # the median of what was measured next to each other
                "faster": float(np.median(np.array(seconds[TORCH]) / times)),
                "real_time": WINDOW_S / float(np.median(times)),
                "memory_mb": memory[name],
                **{
                    f"cosine_{level}": float((features[TORCH][level] * features[name][level]).sum(1).min())
                    for level in ("low", "high")
                },
            }
            for name, times in seconds.items()
        },
    }


def _bundle(scratch: Path) -> Path:
    from export.bundle import write_bundle
    from export.recipes.full import random_full

    write_bundle(random_full(SEED), scratch / "full")
    return scratch / "full"


def _start(name: str, bundle: Path, scratch: Path, arguments: argparse.Namespace) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--worker", name, "--bundle", str(bundle), "--threads", str(arguments.threads)]
    np.save(scratch / "samples.npy", _samples(arguments.wav))
    return subprocess.Popen(command, cwd=scratch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(worker: "subprocess.Popen[str]", what: str = "") -> str:
    """Send a line if there is one, read one; nothing if the worker could not start."""
    assert worker.stdin and worker.stdout
    if what:
        print(what, file=worker.stdin, flush=True)
    return worker.stdout.readline().strip()


def _place(scratch: Path, name: str) -> Path:
    return scratch / f"{name.replace(' ', '-')}.npz"


def _samples(wav: Path | None) -> np.ndarray:
    from engine.features.released_windows import WINDOW_SAMPLES

    if wav is not None:
        import wave

        with wave.open(str(wav)) as file:
            pcm = np.frombuffer(file.readframes(WINDOW_SAMPLES), np.int16)
        return pcm.astype(np.float32) / 32768
    generator = np.random.default_rng(SEED)
    syllables = np.abs(np.sin(np.arange(WINDOW_SAMPLES) * (np.pi * 4 / 16_000))) ** 3
    return (0.1 * syllables * generator.normal(size=WINDOW_SAMPLES)).astype(np.float32)


def _work(arguments: argparse.Namespace) -> None:
    """The side of a contender: a line when it is ready, then a line for every line."""
    from engine.errors import BackendError

    samples = np.load("samples.npy")
    try:
        hear = _torch(arguments) if arguments.worker == TORCH else _exported(arguments)
        low, high = hear(samples)  # warms up
    except BackendError as error:
        print(f"{arguments.worker}: {error}", file=sys.stderr)
        return
    np.savez(_place(Path(), arguments.worker), low=low, high=high)
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        if line.strip() == "run":
            hear(samples)
            print(time.perf_counter() - started, flush=True)
        else:
            status = Path("/proc/self/status").read_text()
            kilobytes = next(row.split()[1] for row in status.splitlines() if row.startswith("VmRSS"))
            print(int(kilobytes) / 1024, flush=True)


def _exported(arguments: argparse.Namespace) -> Hear:
    from engine.features.full import FullEmbedding
    from engine.inference.networks import NetworkOptions, Networks

    backend, precision = arguments.worker.split()
    options = NetworkOptions(backend, precision, n_threads=arguments.threads, unverified=True)
    return FullEmbedding(Networks.open(arguments.bundle, options)).as_released


def _torch(arguments: argparse.Namespace) -> Hear:
    import torch

    from engine.features.text import TextTokens, align, best_tokens, read_ctc_vocabulary, transcribe
    from export.recipes.full import random_published

    torch.set_num_threads(arguments.threads)
    model = random_published(SEED)
    speech, text, audio = model.speech(share=False), model.text(), model.audio()
    vocabulary = read_ctc_vocabulary(arguments.bundle / "vocab.json")
    words = TextTokens(arguments.bundle / "vocab.txt")

    def hear(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        waveform = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        with torch.inference_mode():
            raw_low, raw_high, ft_low, ft_high, logits = speech(torch.from_numpy(waveform)[None])
            tokens = best_tokens(logits[0].numpy(), vocabulary)
            ids, pieces = words.encode(transcribe(tokens))
            aligned = text(torch.from_numpy(ids))[0][:, align(tokens, pieces)]
            low, _, cls, _ = audio(raw_low, ft_low, raw_high, ft_high, aligned)
        high = np.repeat(cls.numpy(), low.shape[1], axis=0)
        return tuple(level / np.linalg.norm(level, axis=1, keepdims=True) for level in (low[0].numpy(), high))

    return hear


if __name__ == "__main__":
    main()

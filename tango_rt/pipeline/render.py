"""Speech file -> mp4: retrieve a path, join it, copy the encoded nodes. Only transitions are ever encoded."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from engine.errors import InputError
from engine.pack import CharacterPack
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_count
from engine.transitions import BlendOptions
from tango_rt.audio import audio_blocks, check_audible, read_audio
from tango_rt.pipeline.perform import Performance, PerformOptions, perform
from tango_rt.pipeline.retrieval import RetrievalOptions
from tango_rt.pipeline.transitions import Cut, TransitionStore
from tango_rt.video.mp4 import Mp4Writer

__all__ = ["RenderOptions", "RenderResult", "planned_transitions", "render"]

SOUND_RATE = 48_000
"""Of the sound in the video: the speech as it was recorded, not the 16 kHz that retrieval hears."""


@dataclass(frozen=True)
class RenderOptions:
    blender: Literal["flow", "crossfade", "cut"] = "flow"
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    search: Literal["viterbi", "official"] = "viterbi"
    seed: int = 0
    words: Path | None = None
    plot: Path | None = None
    n_workers: int = 1


@dataclass(frozen=True)
class RenderResult:
    """What was rendered and how long it took. `path` holds one node id per 4 frames."""

    output: str
    n_frames: int
    duration_s: float
    n_cuts: int
    n_hard_cuts: int
    n_transitions_cached: int
    n_transitions_computed: int
    blender: str
    retrieval: str
    search: str
    seed: int
    cost: float
    seconds: float
    realtime_factor: float
    path: list[int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def render(pack: CharacterPack, speech: Path, output: Path, options: RenderOptions) -> RenderResult:
    """Write the gesture video of a speech file. Raises InputError for speech that cannot be used."""
    started = time.perf_counter()
    _check_places(speech, output, options.plot)
    samples = read_audio(speech)
    check_audible(samples, speech)
    n_frames = frame_count(len(samples))
    # opened before the work, so that a place where nothing can be written is known at once
    with Mp4Writer(output, pack.info.extradata, SOUND_RATE, n_frames) as writer:
        performance = perform(
            pack, samples, PerformOptions(options.retrieval, options.search, options.seed, options.words)
        )
        transitions = planned_transitions(performance)
        store = TransitionStore(pack, BlendOptions(blender=options.blender))
        wanted = dict.fromkeys(transitions.values())
        n_cached = sum(store.cached(cut) for cut in wanted)
        _prepare(store, wanted, len(wanted) - n_cached, options.n_workers)
        writer.write(_pictures(pack, performance, transitions, store), audio_blocks(speech, SOUND_RATE))
    if options.plot is not None:
        from tango_rt.pipeline.plot import plot_performance

        plot_performance(performance, samples, pack["clip_start"], options.plot)
    seconds = time.perf_counter() - started
    duration_s = len(samples) / SAMPLE_RATE
    return RenderResult(
        output=str(output),
        n_frames=performance.n_frames,
        duration_s=round(duration_s, 4),
        n_cuts=len(performance.cuts),
        n_hard_cuts=len(performance.cuts) - len(transitions),
        n_transitions_cached=n_cached,
        n_transitions_computed=len(wanted) - n_cached,
        blender=options.blender,
        retrieval=performance.retrieval,
        search=options.search,
        seed=options.seed,
        cost=round(performance.cost, 4),
        seconds=round(seconds, 3),
        realtime_factor=round(seconds / duration_s, 4),
        path=performance.nodes.tolist(),
    )


def _check_places(speech: Path, output: Path, plot: Path | None) -> None:
    if output.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise InputError(f"the output {output} must end in .mp4")
    if output.exists() and speech.exists() and output.samefile(speech):
        raise InputError(f"{output} is the speech itself: choose another name for the output")
    if plot is not None:
        if plot.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise InputError(f"the plot {plot} must end in .png, .pdf or .svg")
        if not plot.parent.is_dir():
            raise InputError(f"{plot}: the folder {plot.parent} does not exist")


def _prepare(store: TransitionStore, wanted: Iterable[Cut], n_missing: int, n_workers: int) -> None:
    """Compute what is missing, with a progress bar."""
    # closing ends the worker processes, wherever an interrupt comes
    with (
        tqdm(total=n_missing, desc="transitions", unit="cut", disable=None) as progress,
        closing(store.prepare(wanted, n_workers)) as done,
    ):
        for _ in done:
            progress.update()


def planned_transitions(performance: Performance) -> dict[int, Cut]:
    """Step t -> cut, for every cut that is blended: its pictures replace those of steps t and t + 1.

    Paths of the exact search keep cuts apart. Those of the release's search may not; there the earlier cut is blended
    and the one that would need a picture already taken stays hard, as in the release.
    """
    planned: dict[int, Cut] = {}
    for t in performance.cuts.tolist():
        if t - 1 not in planned:
            planned[t] = (int(performance.nodes[t]), int(performance.nodes[t + 1]))
    return planned


def _pictures(
    pack: CharacterPack, performance: Performance, transitions: dict[int, Cut], store: TransitionStore
) -> Iterator[bytes]:
    """Encoded pictures in the order of the video."""
    after: list[bytes] | None = None
    for t, node in enumerate(np.asarray(performance.nodes).tolist()):
        if t in transitions:
            made = store.packets(transitions[t])
            yield from made[:FRAMES_PER_NODE]
            after = made[FRAMES_PER_NODE:]
        elif after is not None:
            yield from after
            after = None
        else:
            yield from pack.packets(node)

"""Speech file -> mp4: retrieve a path, join it, copy the encoded nodes. Only transitions are ever encoded."""

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from engine.blending.morph import BlendOptions
from engine.character.pack import CharacterPack
from engine.character.perform import Performance
from engine.character.retrieval import RetrievalOptions
from engine.character.steps import speech_steps
from engine.errors import InputError
from engine.features.onset import OnsetEmbedding
from engine.motion_graph.graph import Cut
from engine.timebase import SAMPLE_RATE, frame_count
from tango_rt.media.pipes import rereadable
from tango_rt.pipeline.character import Character, character_of
from tango_rt.pipeline.live import LiveOptions, Step
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.sound.audio import audio_blocks, check_audible, read_audio, said_before
from tango_rt.video.mp4 import Mp4Writer
from tango_rt.words import read_words

__all__ = ["RenderOptions", "RenderResult", "perform_speech", "render"]

SOUND_RATE = 48_000
"""Of the sound in the video: the speech as it was recorded, not the 16 kHz that retrieval hears."""


@dataclass(frozen=True)
class RenderOptions:
    """lookahead_nodes: as a live stream would be performed; None, the default: with all of the speech heard first."""

    blender: Literal["flow", "crossfade", "cut"] = "flow"
    lookahead_nodes: int | None = None
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    search: Literal["viterbi", "official"] = "viterbi"
    seed: int = 0
    words: Path | None = None
    plot: Path | None = None
    n_workers: int = 1


@dataclass(frozen=True)
class RenderResult:
    """What was rendered. nodes: one id per 4 frames; took_s: all of the work. cost is that of the exact search, None
    where the look-ahead was limited; networks says what ran those of a bundle, and why."""

    output: str
    n_frames: int
    duration_s: float
    n_cuts: int
    n_hard_cuts: int
    n_transitions_cached: int
    n_transitions_computed: int
    blender: str
    retrieval: str
    networks: str | None
    search: str
    seed: int
    lookahead_nodes: int | None
    cost: float | None
    took_s: float
    realtime_factor: float
    nodes: list[int]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def render(pack: CharacterPack, speech: Path, output: Path, options: RenderOptions) -> RenderResult:
    """Write the gesture video of a speech file, or of what comes through a pipe. Raises InputError for speech that
    cannot be used."""
    started = time.perf_counter()
    _check_places(speech, output, options.plot)
    with rereadable(speech) as file:
        return _render(pack, file, speech.name, output, options, started)


def _render(
    pack: CharacterPack, speech: Path, name: str, output: Path, options: RenderOptions, started: float
) -> RenderResult:
    warnings: list[str] = []
    samples = read_audio(speech, warn=warnings.append)
    check_audible(samples, speech)
    n_frames = frame_count(len(samples))
    words = None if options.words is None else read_words(options.words)
    live = LiveOptions(options.lookahead_nodes, False, options.retrieval, options.search, options.seed, words)
    # opened before the work, so that a place where nothing can be written is known at once
    with Mp4Writer(output, pack.info.extradata, SOUND_RATE, n_frames) as writer:
        steps, performance = perform_speech(character_of(pack), samples, live)
        store = TransitionStore(pack, BlendOptions(blender=options.blender))
        transitions = [(step.node, step.cut_to) for step in steps if step.cut_to is not None]
        wanted = dict.fromkeys(transitions)
        n_cached = sum(store.cached(cut) for cut in wanted)
        _prepare(store, wanted, len(wanted) - n_cached, options.n_workers)
        source = PictureSource(pack, options.blender, None, store)
        pictures = (packet for step in steps for packet in source.draw(step).packets)
        writer.write(pictures, audio_blocks(speech, SOUND_RATE, warn=said_before))
    if options.plot is not None:
        from tango_rt.pipeline.plot import plot_performance

        plot_performance(performance, samples, pack["clip_start"], options.plot)
    took_s = time.perf_counter() - started
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
        networks=options.retrieval.networks.reason if options.retrieval.networks else None,
        search=options.search,
        seed=options.seed,
        lookahead_nodes=options.lookahead_nodes,
        cost=None if performance.cost is None else round(performance.cost, 4),
        took_s=round(took_s, 3),
        realtime_factor=round(took_s / duration_s, 4),
        nodes=performance.nodes.tolist(),
        warnings=[f"{name}: {text}" for text in warnings],
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


def perform_speech(character: Character, samples: np.ndarray, options: LiveOptions) -> tuple[list[Step], Performance]:
    """All of a speech through the live object, float32 (n,) at 16 kHz -> its steps, and the same as a path."""
    live = character.performer(options)
    live.push(samples, "speech")
    live.flush()
    steps: list[Step] = []
    while (step := live.next()) is not None:
        steps.append(step)
    if live.plan is not None:
        return steps, live.plan
    entered = [t for t, step in enumerate(steps) if step.hard or step.cut_from is not None]
    return steps, Performance(
        nodes=np.array([step.node for step in steps], np.int32),
        cuts=np.array(entered, np.int64) - 1,
        n_frames=frame_count(len(samples)),
        speaking=speech_steps(OnsetEmbedding(), samples).speaking,
        cost=None,
        retrieval=live.retrieval,
    )

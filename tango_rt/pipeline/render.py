"""Speech file -> mp4: find a path, join it, copy the encoded nodes. Only transitions are ever encoded."""

import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.blending.blender import DEFAULT_BLENDER, open_blender
from engine.character.pack import CharacterPack
from engine.character.perform import PerformOptions
from engine.errors import InputError
from engine.timebase import SAMPLE_RATE, frame_count
from tango_rt.pipeline.captions import text_stages
from tango_rt.pipeline.character import Character, character_from_pack
from tango_rt.pipeline.drawers import draw_ahead
from tango_rt.pipeline.live import LiveOptions
from tango_rt.pipeline.offline import perform_speech
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.stages import StageChain, UtteranceSound
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.progress import OnProgress, Stage, silent
from tango_rt.sound.speech import Speech, open_speech
from tango_rt.video.mp4 import Mp4Writer

__all__ = ["RenderOptions", "RenderResult", "check_output", "render", "render_speech"]

SOUND_RATE = 48_000
"""Sample rate of the sound in the video: the speech as recorded, not the 16 kHz used by retrieval."""


@dataclass(frozen=True)
class RenderOptions:
    """How a complete speech becomes a video."""

    blender: str = DEFAULT_BLENDER  # draws the frames around a cut: a name in BLENDERS
    lookahead_nodes: int | None = None  # as in a live stream; None: use the whole speech
    perform: PerformOptions = field(default_factory=PerformOptions)
    caption: str | None = None  # a text, or "words": those of the timings, as they are spoken
    label: str | None = None  # text in the corner of all pictures
    plot: Path | None = None  # file for a plot of the path under the waveform
    n_workers: int = 1  # processes that draw transitions


@dataclass(frozen=True)
class RenderResult:
    """What was rendered."""

    output: str
    n_frames: int
    duration_s: float
    n_cuts: int
    n_hard_cuts: int
    n_transitions_cached: int
    n_transitions_computed: int
    blender: str
    retrieval: str
    networks: str | None  # which back end ran the networks of a bundle, and why
    search: str
    seed: int
    lookahead_nodes: int | None
    cost: float | None  # of the exact search; None if the look-ahead was limited
    took_s: float  # for all of the work
    realtime_factor: float
    nodes: list[int]  # one id per 4 frames
    cues: list[dict[str, Any]]  # name, asked_s and played_s of each, in seconds of the speech; None: not played
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def render(
    pack: CharacterPack, speech: Path, output: Path, options: RenderOptions, on_progress: OnProgress = silent
) -> RenderResult:
    """Write the gesture video of a speech file or pipe (-).

    Raises InputError for unusable speech, and for an output that cannot be written.
    """
    check_output(output, options.plot, speech)
    started = time.perf_counter()
    with open_speech(speech) as heard:
        return render_speech(character_from_pack(pack), heard, output, options, on_progress, started)


def render_speech(
    character: Character,
    speech: Speech,
    output: Path,
    options: RenderOptions,
    on_progress: OnProgress = silent,
    started_s: float | None = None,
) -> RenderResult:
    """The same for an open character and speech; call check_output first. started_s: start time for took_s."""
    started_s = time.perf_counter() if started_s is None else started_s
    pack, samples, performed = character.pack, speech.samples, options.perform
    warnings: list[str] = []
    blender = open_blender(options.blender)
    n_frames = frame_count(len(samples))
    on_pictures = text_stages(pack.info, options.label, options.caption, performed.words, warnings.append)
    stages = StageChain(pack.info, on_pictures)
    live = LiveOptions(options.lookahead_nodes, False, options.lookahead_nodes is not None, performed)
    # opened before the work, so that an unwritable output fails at once
    with Mp4Writer(output, pack.info.extradata, SOUND_RATE, n_frames) as writer:
        steps, performance = perform_speech(character, samples, live)
        warnings += [text for one in performance.cues if (text := one.warning())]
        store = TransitionStore(pack, blender)
        transitions = [(step.node, step.cut_to) for step in steps if step.cut_to is not None]
        wanted = dict.fromkeys(transitions)
        n_cached = sum(store.is_cached(cut) for cut in wanted)
        with (
            Stage(on_progress, "transitions", len(wanted) - n_cached, "cuts") as stage,
            closing(draw_ahead(store, wanted, options.n_workers)) as done,  # ends the processes in any case
        ):
            for _ in done:
                stage.advance()
        source = PictureSource(pack, blender, None, store)
        sound = UtteranceSound()
        sound.push(samples)
        drawn = (stages.apply(step, source.draw(step), sound) for step in steps)
        pictures = (packet for four in drawn for packet in four.packets)
        writer.write(pictures, speech.blocks(SOUND_RATE))
    if options.plot is not None:
        from tango_rt.pipeline.plot import plot_performance

        plot_performance(performance, samples, pack["clip_start"], options.plot)
    duration_s = len(samples) / SAMPLE_RATE
    took_s = time.perf_counter() - started_s
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
        networks=performed.retrieval.networks.reason if performed.retrieval.networks else None,
        search=performed.search,
        seed=performed.seed,
        lookahead_nodes=options.lookahead_nodes,
        cost=None if performance.cost is None else round(performance.cost, 4),
        took_s=round(took_s, 3),
        realtime_factor=round(took_s / duration_s, 4),
        nodes=performance.nodes.tolist(),
        cues=[{"name": one.name, "asked_s": one.asked_s, "played_s": one.played_s} for one in performance.cues],
        warnings=[*speech.warnings, *(f"{speech.name}: {text}" for text in warnings)],
    )


def check_output(output: Path, plot: Path | None = None, speech: Path | None = None) -> None:
    """Raises InputError if the video or the plot cannot be written there."""
    if output.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise InputError(f"the output {output} must end in .mp4")
    if speech is not None and output.exists() and speech.exists() and output.samefile(speech):
        raise InputError(f"{output} is the speech itself: choose another name for the output")
    if plot is not None:
        if plot.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise InputError(f"the plot {plot} must end in .png, .pdf or .svg")
        if not plot.parent.is_dir():
            raise InputError(f"{plot}: the folder {plot.parent} does not exist")

"""tango-rt in a program or a notebook: build a character, render it, get its frames, stream it.

Everything that the command line does with characters. Paths are text or Path, sound may be an array, and frames are
arrays that need no file. Errors are those of engine.errors: InputError for bad input, ArtifactError for a damaged pack.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.blending.blender import DEFAULT_BLENDER, open_blender
from engine.character.cues import TimedCue
from engine.character.pack import CharacterPack
from engine.character.perform import PerformOptions
from engine.character.retrieval import RetrievalOptions
from engine.choices import GRAPH_RULES, RETRIEVALS, SEARCHES, GraphRule, RetrievalName, SearchName
from engine.cores import usable_cores
from engine.errors import InputError
from engine.inference.networks import Networks
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.characters.build import BuildOptions, build_character
from tango_rt.characters.cues import MarkedCue, list_cues, mark_cue, remove_cue
from tango_rt.characters.embed import EmbedOptions
from tango_rt.characters.groups import Keep
from tango_rt.client.samples import Samples, audio_bytes
from tango_rt.cue_list import read_cue_list
from tango_rt.options import DEFAULT_LIVE_CUTS, DEFAULT_LOOKAHEAD_NODES
from tango_rt.pipeline.captions import text_stages
from tango_rt.pipeline.character import character_from_pack
from tango_rt.pipeline.live import LiveOptions, Step
from tango_rt.pipeline.offline import perform_speech
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.render import RenderOptions, RenderResult, check_output, render_speech
from tango_rt.pipeline.stages import StageChain, UtteranceSound
from tango_rt.progress import OnProgress, silent
from tango_rt.sound.resample import Resampler
from tango_rt.sound.speech import Speech, open_speech, speech_from_samples
from tango_rt.video.gop import GopDecoder
from tango_rt.words import read_words

__all__ = ["Character", "Frame", "RenderResult", "Stream", "build"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a performance."""

    picture: np.ndarray  # uint8 (height, width, 3), RGB
    index: int  # from 0, within this call of frames() or this stream
    node: int  # of the character: the source of the picture, or the neighbour that a transition was drawn for
    speaking: bool  # part of speech
    drawn: bool  # part of a transition

    @property
    def time_s(self) -> float:
        return self.index / FPS


def build(
    videos: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    max_height: int = 720,
    graph: GraphRule = GRAPH_RULES[0],
    keep: Keep = "largest",
    words: PathLike | None = None,
    mouth: bool = True,
    live_cuts: float = DEFAULT_LIVE_CUTS,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
) -> "Character":
    """Make a character from one or several videos of one person, and write it to `output`, NAME.tango.

    max_height: of the stored video, in pixels.
    graph: what a cut is judged by.
    keep: of several people, outfits or places the one shown longest ("largest"), or "all".
    words: a file with word timings of the reference.
    mouth: include the lips in the fit of voice to motion.
    live_cuts: transitions to draw for live streams, as a multiple of the nodes; 0: none.
    jobs: processes to use; None: one per core.
    Raises InputError for videos that cannot be used.
    """
    sources = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
    options = BuildOptions(
        max_height=max_height,
        graph_rule=graph,
        keep=keep,
        words=None if words is None else Path(words),
        embed=EmbedOptions(mouth),
        live_cuts=live_cuts,
        n_workers=jobs or usable_cores(),
    )
    return Character(build_character([Path(source) for source in sources], Path(output), options, on_progress))


class Character:
    """An open pack, usable from any thread. What one call opens is kept for the next."""

    def __init__(self, pack: CharacterPack) -> None:
        self._opened = character_from_pack(pack)

    @classmethod
    def open(cls, path: PathLike) -> "Character":
        """Raises InputError if there is no pack, ArtifactError if it is damaged."""
        return cls(CharacterPack.open(Path(path)))

    @property
    def pack(self) -> CharacterPack:
        """The files and arrays of the character."""
        return self._opened.pack

    @property
    def path(self) -> Path:
        return self.pack.path

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures, in pixels."""
        return self.pack.info.width, self.pack.info.height

    @property
    def duration_s(self) -> float:
        """Length of the reference."""
        return self.pack.info.n_frames / FPS

    @property
    def cues(self) -> list[MarkedCue]:
        """Its named stretches, which can be asked for."""
        return list_cues(self.pack)

    def mark(self, name: str, start_s: float, end_s: float, source: str | None = None) -> MarkedCue:
        """Name a stretch, by its times in the source video, and write it into the pack.

        source: name of the video; None: the only one. Raises InputError for times that are not in the pack. Streams
        that are open do not see it.
        """
        marked = mark_cue(self.pack, name, start_s, end_s, source)
        self._opened = character_from_pack(CharacterPack.open(self.path))
        return marked

    def unmark(self, name: str) -> None:
        """Forget a cue. Raises InputError if there is none of this name."""
        remove_cue(self.pack, name)
        self._opened = character_from_pack(CharacterPack.open(self.path))

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Character {self.path.name}: {width} x {height}, {self.duration_s:.1f} s>"

    def render(
        self,
        speech: PathLike | Samples,
        output: PathLike,
        rate: int | None = None,
        *,
        blender: str = DEFAULT_BLENDER,
        retrieval: RetrievalName = RETRIEVALS[0],
        networks: Networks | None = None,
        search: SearchName = SEARCHES[0],
        seed: int = 0,
        words: PathLike | None = None,
        cues: PathLike | Sequence[TimedCue] | None = None,
        lookahead: int | None = None,
        caption: str | None = None,
        label: str | None = None,
        plot: PathLike | None = None,
        jobs: int | None = None,
        on_progress: OnProgress = silent,
    ) -> RenderResult:
        """Write an mp4 of the character gesturing to a speech.

        speech: a file, or samples of one channel with their rate in Hz (floats from -1 to 1, or common integer types).
        networks: those of a bundle, open.
        seed: 0 for the best path, any other number for a variation.
        words: a file with word timings of the speech.
        cues: named stretches to play, with their times: a file, or TimedCues; RenderResult.cues tells when they began.
        lookahead: nodes heard ahead, as in a live stream; None: the whole speech.
        caption: text on every frame, or "words".
        label: text in the corner of every frame.
        plot: a PNG to write, showing the path.
        """
        place, drawing = Path(output), None if plot is None else Path(plot)
        options = RenderOptions(
            blender=blender,
            lookahead_nodes=lookahead,
            perform=_perform_options(retrieval, networks, search, seed, words, cues),
            caption=caption,
            label=label,
            plot=drawing,
            n_workers=jobs or usable_cores(),
        )
        check_output(place, drawing, Path(speech) if isinstance(speech, str | os.PathLike) else None)
        with _open_speech(speech, rate) as heard:
            return render_speech(self._opened, heard, place, options, on_progress)

    def frames(
        self,
        speech: PathLike | Samples,
        rate: int | None = None,
        *,
        blender: str = DEFAULT_BLENDER,
        retrieval: RetrievalName = RETRIEVALS[0],
        networks: Networks | None = None,
        search: SearchName = SEARCHES[0],
        seed: int = 0,
        words: PathLike | None = None,
        cues: PathLike | Sequence[TimedCue] | None = None,
        lookahead: int | None = None,
        caption: str | None = None,
        label: str | None = None,
    ) -> Iterator[Frame]:
        """The frames of the same video, one by one, without a file. Options as in render."""
        performed = _perform_options(retrieval, networks, search, seed, words, cues)
        stages = text_stages(self.pack.info, label, caption, performed.words)
        shown = _Pictures(self.pack, blender, StageChain(self.pack.info, stages))
        with _open_speech(speech, rate) as heard:
            steps, _ = perform_speech(
                self._opened, heard.samples, LiveOptions(lookahead, False, lookahead is not None, performed)
            )
            sound = UtteranceSound()
            sound.push(heard.samples)
            for step in steps:
                yield from shown.frames(step, sound, step.n_frames)

    def stream(
        self,
        rate: int = SAMPLE_RATE,
        *,
        blender: str = DEFAULT_BLENDER,
        retrieval: RetrievalName = RETRIEVALS[0],
        networks: Networks | None = None,
        seed: int = 0,
        lookahead: int = DEFAULT_LOOKAHEAD_NODES,
        adaptive: bool = False,
        label: str | None = None,
    ) -> "Stream":
        """A live performance: speech in as it arrives, frames out. rate: of the samples, 8,000 to 48,000 Hz.

        adaptive: use all that was pushed, up to 8 s ahead; frames then depend on when it was.
        """
        performed = _perform_options(retrieval, networks, SEARCHES[0], seed)
        options = LiveOptions(lookahead, drawn_only=True, perform=performed, adaptive=adaptive)
        shown = _Pictures(self.pack, blender, StageChain(self.pack.info, text_stages(self.pack.info, label)))
        return Stream(self, options, shown, rate)


class Stream:
    """One live performance, without a clock or threads of its own: those are up to you. One caller at a time.

        with character.stream(rate) as live:
            live.push(chunk)                 # whenever sound arrives
            for frame in live.next():        # every 133 ms, four frames: of the speech, or at rest
                show(frame.picture)

    For a file, push all of it, call end_of_utterance, and iterate over speech().
    """

    def __init__(self, character: Character, options: LiveOptions, shown: "_Pictures", rate: int) -> None:
        self._performer = character._opened.performer(options)
        self._shown = shown
        self._rate = rate
        self._utterances = 0
        self._closed = False
        self._begin()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, samples: Samples) -> None:
        """Add the next samples of the utterance, one channel, any number of them. Raises InputError for NaN."""
        self._check_open()
        self._hear(self._resampler.push(_floats(samples)))

    def end_of_utterance(self) -> None:
        """The utterance is complete."""
        self._check_open()
        self._hear(self._resampler.flush())
        self._performer.end_of_utterance()
        self._begin()

    def interrupt(self, at_once: bool = False) -> None:
        """Drop all speech and return to rest, along a path of the graph or by a hard cut."""
        self._check_open()
        self._performer.interrupt("cut" if at_once else "rest")
        self._begin()

    def next(self) -> list[Frame]:
        """The next four frames: of the speech if enough of it was heard, otherwise at rest."""
        self._check_open()
        return self._shown.frames(self._performer.next() or self._performer.idle(), None, FRAMES_PER_NODE)

    def speech(self) -> Iterator[Frame]:
        """All frames of speech that can be shown now; ends when more must be heard first."""
        self._check_open()
        while (step := self._performer.next()) is not None:
            yield from self._shown.frames(step, None, FRAMES_PER_NODE)

    def close(self) -> None:
        """End the stream: every other method raises RuntimeError from now on."""
        self._closed = True

    def _begin(self) -> None:
        self._resampler = Resampler(self._rate)
        self._utterances += 1

    def _hear(self, samples: np.ndarray) -> None:
        if len(samples):
            self._performer.push(samples, f"utterance {self._utterances}")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the stream is closed: open another with character.stream()")


class _Pictures:
    """Decodes the frames of steps; transitions are drawn on the spot."""

    def __init__(self, pack: CharacterPack, blender: str, stages: StageChain) -> None:
        info = pack.info
        self._source = PictureSource(pack, open_blender(blender), None)
        self._stages = stages
        self._decoder = GopDecoder(info.extradata, info.width, info.height, f"the video of {pack.path}")
        self._n_frames = 0

    def frames(self, step: Step, sound: UtteranceSound | None, n_frames: int) -> list[Frame]:
        drawn = self._stages.apply(step, self._source.draw(step), sound)
        first, self._n_frames = self._n_frames, self._n_frames + n_frames
        speaking = step.utterance is not None
        return [
            Frame(picture, first + k, step.node, speaking and k < step.n_frames, drawn.generated)
            for k, picture in enumerate(self._decoder.decode(drawn.packets)[:n_frames])
        ]


def _perform_options(
    retrieval: RetrievalName,
    networks: Networks | None,
    search: SearchName,
    seed: int,
    words: PathLike | None = None,
    cues: PathLike | Sequence[TimedCue] | None = None,
) -> PerformOptions:
    timings = None if words is None else read_words(Path(words))
    if isinstance(cues, str | os.PathLike):
        cues = read_cue_list(Path(cues))
    asked = tuple(sorted(cues or (), key=lambda cue: cue.at_s))
    return PerformOptions(RetrievalOptions(retrieval, networks), search, seed, timings, asked)


def _open_speech(speech: PathLike | Samples, rate: int | None) -> AbstractContextManager[Speech]:
    if isinstance(speech, str | os.PathLike):
        if rate is not None:
            raise InputError(f"{speech} is a file and has its own sample rate: leave the rate out")
        return open_speech(Path(speech))
    if rate is None:
        raise InputError("samples need their rate in Hz: pass it as the next argument")
    return nullcontext(speech_from_samples(_floats(speech), rate))


def _floats(samples: Samples) -> np.ndarray:
    """float32 (n,) from -1 to 1. Raises InputError for anything that cannot be samples."""
    return np.frombuffer(audio_bytes(samples, "float32"), np.float32)

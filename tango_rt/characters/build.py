"""Reference videos -> character pack.

Each video is read twice: first to track the person and find the shots (cached by the content of the file), then to
encode its nodes, whose places are known only then. Memory grows with the tracks, not with the pictures.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.blending.blender import DEFAULT_BLENDER
from engine.character.cues import Cue, write_cues
from engine.character.info import Clip, PackInfo, Source
from engine.character.pack import CharacterPack, make_recording
from engine.character.steps import motion_level
from engine.character.writer import PackWriter
from engine.choices import GRAPH_RULES, GraphRule
from engine.errors import InputError, TangoError
from engine.features.appearance import slow_colours
from engine.features.rest import rest_distance
from engine.motion_graph.graph import GraphOptions, MotionGraph, build_graph
from engine.motion_graph.hands import hand_gaps
from engine.motion_graph.words import parse_words
from engine.skeleton import joint_weights
from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt.characters.clips import cut_into_clips, gather_audio, gather_tracks
from tango_rt.characters.cues import carried_cues
from tango_rt.characters.embed import EmbedOptions, embed
from tango_rt.characters.groups import Keep, Selection, select, unjoined_warnings
from tango_rt.characters.source import TrackedSource, track_source
from tango_rt.options import DEFAULT_LIVE_CUTS
from tango_rt.pipeline.warm import WarmOptions, warm
from tango_rt.progress import OnProgress, Stage, silent
from tango_rt.video.gop import GopEncoder, encode_nodes
from tango_rt.video.reader import VideoReader
from tango_rt.words import read_words

__all__ = ["BuildOptions", "build_character"]

MIN_SECONDS = 4


@dataclass(frozen=True)
class BuildOptions:
    max_height: int = 720
    graph_rule: GraphRule = GRAPH_RULES[0]
    keep: Keep = "largest"
    words: Path | None = None
    smplx_model: Path | None = None
    embed: EmbedOptions = field(default_factory=EmbedOptions)
    live_cuts: float = DEFAULT_LIVE_CUTS  # transitions to draw for live streams, a node; 0: none
    blender: str = DEFAULT_BLENDER  # draws them
    n_workers: int = 1


def build_character(
    videos: Sequence[Path], output: Path, options: BuildOptions, on_progress: OnProgress = silent
) -> CharacterPack:
    """Build a pack from one or more videos of one person. Raises InputError for videos that cannot be used.

    If they show several people, outfits or places, the one with the most seconds is kept, or all (options.keep). The
    pack is complete before transitions are drawn for live streams: if that is interrupted, `warm` goes on with it.
    """
    started = time.perf_counter()
    words = "" if options.words is None else read_words(options.words)
    if words:
        parse_words(words)
    _check_videos(videos, options)
    with PackWriter(output) as writer:
        tracked = [
            track_source(video, options.max_height, options.smplx_model, options.n_workers, on_progress)
            for video in videos
        ]
        _check_different(tracked)
        kept = select(tracked, cut_into_clips(tracked), options.keep)
        _check_length(videos, kept)
        unit_px = float(np.median([source.track.shoulder_px for source in kept.sources]))
        arrays = gather_tracks(kept.sources, kept.clips, unit_px)
        arrays["audio"] = gather_audio(kept.sources, kept.clips)
        graph, connection = _graph(arrays, unit_px, options, on_progress)
        arrays |= {f"graph_{name}": getattr(graph, name) for name in ("indptr", "indices", "distance", "kind", "kept")}
        arrays["graph_hand_gap"] = hand_gaps(graph, arrays["joints"], unit_px)
        recording = make_recording(output.stem, arrays, unit_px)
        arrays["motion_level"] = motion_level(recording)
        arrays["rest"] = rest_distance(arrays["joints"], arrays["confidence"], arrays["clip_start"], unit_px)
        embed(writer.folder, recording, options.embed)
        extradata, size = _encode([source.path for source in kept.sources], kept.clips, writer, options, on_progress)
        info = PackInfo(
            name=output.stem,
            width=size[0],
            height=size[1],
            n_frames=sum(clip.n_frames for clip in kept.clips),
            shoulder_px=unit_px,
            sources=tuple(Source(s.path.name, s.sha256, s.n_frames) for s in kept.sources),
            clips=kept.clips,
            extradata=extradata,
            words=words,
            report={
                "graph_rule": options.graph_rule,
                "keep": options.keep,
                "groups": kept.report,
                "warnings": [
                    *(warning for source in tracked for warning in source.warnings),
                    *kept.warnings,
                    *unjoined_warnings(graph, kept),
                ],
                "connection": asdict(connection),
                "tracking_cached": all(source.cached for source in tracked),
                "seconds": round(time.perf_counter() - started, 2),
            },
        )
        cues = _carry_cues(output, info, graph)
        writer.commit(info, arrays)
    if cues:
        write_cues(output, CharacterPack.open(output).sha256, cues, graph)
    if options.live_cuts:
        warm(output, (), WarmOptions(options.live_cuts, options.blender, n_workers=options.n_workers), on_progress)
    return CharacterPack.open(output)


def _carry_cues(output: Path, info: PackInfo, graph: MotionGraph) -> list[Cue]:
    """The cues of the pack that is there already, as far as they have a place; for the others, warnings are added."""
    try:
        before = CharacterPack.open(output)
    except TangoError:  # none, or one that nobody can read
        return []
    cues, warnings = carried_cues(before, info, graph)
    info.report["warnings"] += warnings
    return cues


def _check_videos(videos: Sequence[Path], options: BuildOptions) -> None:
    """Check everything that can be checked before the long work starts."""
    if options.words is not None and len(videos) > 1:
        raise InputError("--words needs exactly one video: its times belong to one recording")
    sizes = {}
    for video in videos:
        with VideoReader(video, options.max_height) as reader:
            info = reader.info
        if not info.has_audio:
            raise InputError(f"{video}: has no audio track; retrieval needs the person's voice")
        sizes[info.width, info.height] = video
    if len(sizes) > 1:
        shapes = ", ".join(f"{video.name} {w}x{h}" for (w, h), video in sizes.items())
        raise InputError(f"all videos of one character must have the same picture size; found {shapes}")


def _check_different(sources: Sequence[TrackedSource]) -> None:
    seen: dict[str, Path] = {}
    for source in sources:
        other = seen.setdefault(source.sha256, source.path)
        if other is not source.path:
            raise InputError(f"{source.path} and {other} are the same video: give each recording only once")


def _check_length(videos: Sequence[Path], kept: Selection) -> None:
    n_frames = sum(clip.n_frames for clip in kept.clips)
    if n_frames < MIN_SECONDS * FPS:
        names = ", ".join(video.name for video in videos)
        others = f"; {kept.left_out_s:.1f} s of other looks were left out: see --keep" if kept.left_out_s else ""
        raise InputError(
            f"{names}: only {n_frames / FPS:.1f} s of one person outside shot changes, "
            f"at least {MIN_SECONDS} s are needed{others}"
        )


def _graph(
    arrays: dict[str, np.ndarray], unit_px: float, options: BuildOptions, on_progress: OnProgress
) -> tuple[MotionGraph, Any]:
    n_nodes = int(arrays["clip_start"][-1])
    with Stage(on_progress, "graph", n_nodes, "nodes") as stage:
        return build_graph(
            arrays["joints"],
            arrays["surface"],
            arrays["clip_start"],
            joint_weights(),
            unit_px,
            GraphOptions(rule=options.graph_rule),
            confidence=arrays["confidence"],
            appearance=slow_colours(arrays["appearance"], arrays["clip_start"]),
            progress=lambda done, _: stage.advance_to(done),
        )


def _encode(
    videos: Sequence[Path],
    clips: Sequence[Clip],
    writer: PackWriter,
    options: BuildOptions,
    on_progress: OnProgress,
) -> tuple[bytes, tuple[int, int]]:
    """Encode the nodes of all clips, in order. Returns extradata, width and height."""
    n_nodes = sum(clip.n_frames for clip in clips) // FRAMES_PER_NODE
    with Stage(on_progress, "encoding", n_nodes, "nodes") as stage:
        for number, video in enumerate(videos):
            with VideoReader(video, options.max_height) as reader:
                nodes = _nodes(reader, [clip for clip in clips if clip.source == number])
                for packets in encode_nodes(nodes, options.n_workers):
                    writer.add_packets(packets)
                    stage.advance()
            size = reader.info.width, reader.info.height
    return GopEncoder(*size).extradata, size


def _nodes(frames: Iterable[np.ndarray], clips: Sequence[Clip]) -> Iterator[np.ndarray]:
    """The frames of the clips, four at a time: uint8 (4, H, W, 3)."""
    wanted = iter(clips)
    clip = next(wanted, None)
    group: list[np.ndarray] = []
    for index, frame in enumerate(frames):
        if clip is None:
            return
        if index < clip.first_frame:
            continue
        group.append(frame)
        if len(group) == FRAMES_PER_NODE:
            yield np.stack(group)
            group = []
        if index + 1 == clip.first_frame + clip.n_frames:
            clip = next(wanted, None)

"""The demo: takes a drawn presenter through all steps, from video file to live stream."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from engine.character.pack import CharacterPack
from engine.errors import BackendError, InputError
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_count
from tango_rt.characters.build import BuildOptions, build_character
from tango_rt.demo.presenter import REFERENCE_SPEECH, TARGET_SPEECH, presenter_frames
from tango_rt.demo.stream import stream_speech
from tango_rt.options import DEFAULT_LOOKAHEAD_NODES
from tango_rt.pipeline.plot import contact_sheet
from tango_rt.pipeline.render import RenderOptions, render
from tango_rt.progress import OnProgress, counted, silent
from tango_rt.sound.audio import read_audio
from tango_rt.video.gop import GopEncoder, encode_nodes
from tango_rt.video.mp4 import Mp4Writer

__all__ = ["run_demo"]


def run_demo(folder: Path, n_workers: int, on_progress: OnProgress = silent) -> dict[str, Any]:
    """Make videos in a folder from scratch, offline and live.

    presenter.mp4, the reference; presenter.tango, the character; demo.mp4, path.png and contact_sheet.png, rendered
    from the whole speech; live.mp4, received from a server that was sent the speech in real time; offline.mp4,
    rendered with the same look-ahead: identical node for node.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: --out needs a folder")
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / "presenter.mp4"
    _write_reference(reference, n_workers, on_progress)
    pack = build_character([reference], folder / "presenter.tango", BuildOptions(n_workers=n_workers), on_progress)
    video = folder / "demo.mp4"
    options = RenderOptions(n_workers=n_workers, plot=folder / "path.png")
    result = render(pack, TARGET_SPEECH, video, options, on_progress)
    sheet = folder / "contact_sheet.png"
    contact_sheet(video, sheet)
    return {
        "output": str(video),
        "contact_sheet": str(sheet),
        "render": result.to_dict(),
        "live": _live(pack, folder, n_workers),
    }


def _live(pack: CharacterPack, folder: Path, n_workers: int) -> dict[str, Any]:
    """The same performance twice: rendered, and streamed by a server. Raises BackendError if they differ."""
    options = RenderOptions(n_workers=n_workers, lookahead_nodes=DEFAULT_LOOKAHEAD_NODES)
    offline = render(pack, TARGET_SPEECH, folder / "offline.mp4", options)
    received = stream_speech(folder, "presenter", TARGET_SPEECH, folder / "live.mp4")
    if received.underruns == 0 and received.nodes != offline.nodes:
        raise BackendError("the server performed a different path than the render: please report this")
    return {"offline": str(folder / "offline.mp4"), "identical": received.nodes == offline.nodes, **received.to_dict()}


def _write_reference(path: Path, n_workers: int, on_progress: OnProgress) -> None:
    """The presenter giving the reference speech, as a video file like any other."""
    speech = read_audio(REFERENCE_SPEECH)
    n_frames = frame_count(len(speech))
    nodes = _nodes(counted(presenter_frames(speech), on_progress, "drawing", n_frames, "frames"))
    first = next(nodes)
    extradata = GopEncoder(first.shape[2], first.shape[1]).extradata
    pictures = chain.from_iterable(encode_nodes(chain([first], nodes), n_workers))
    with Mp4Writer(path, extradata) as writer:
        writer.write(pictures, np.array_split(speech, len(speech) // SAMPLE_RATE))


def _nodes(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Groups of 4; the last one is padded with its last frame."""
    source = iter(frames)
    while group := list(islice(source, FRAMES_PER_NODE)):
        yield np.stack(group + group[-1:] * (FRAMES_PER_NODE - len(group)))

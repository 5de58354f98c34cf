"""The demo: a drawn presenter goes through what every person goes through, from video file to rendered speech."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.errors import InputError
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_count
from tango_rt.audio import read_audio
from tango_rt.characters.build import BuildOptions, build_character
from tango_rt.demo.presenter import REFERENCE_SPEECH, TARGET_SPEECH, presenter_frames
from tango_rt.pipeline.plot import contact_sheet
from tango_rt.pipeline.render import RenderOptions, render
from tango_rt.video.gop import GopEncoder, encode_nodes
from tango_rt.video.mp4 import Mp4Writer

__all__ = ["run_demo"]


def run_demo(folder: Path, n_workers: int) -> dict[str, Any]:
    """Write presenter.mp4 (the reference), presenter.tango, demo.mp4, path.png and contact_sheet.png into a folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: --out wants a folder")
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / "presenter.mp4"
    _write_reference(reference, n_workers)
    pack = build_character([reference], folder / "presenter.tango", BuildOptions(n_workers=n_workers))
    video = folder / "demo.mp4"
    options = RenderOptions(n_workers=n_workers, plot=folder / "path.png")
    result = render(pack, TARGET_SPEECH, video, options)
    sheet = folder / "contact_sheet.png"
    contact_sheet(video, sheet)
    return {"video": str(video), "contact_sheet": str(sheet), "render": result.to_dict()}


def _write_reference(path: Path, n_workers: int) -> None:
    """The presenter giving the reference speech, as a video file like any other."""
    speech = read_audio(REFERENCE_SPEECH)
    bar = tqdm(presenter_frames(speech), "drawing", frame_count(len(speech)), unit="frame", disable=None)
    nodes = _nodes(bar)
    first = next(nodes)
    extradata = GopEncoder(first.shape[2], first.shape[1]).extradata
    pictures = chain.from_iterable(encode_nodes(chain([first], nodes), n_workers))
    with Mp4Writer(path, extradata) as writer:
        writer.write(pictures, np.array_split(speech, len(speech) // SAMPLE_RATE))


def _nodes(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Groups of 4; the last one is filled up with its last frame."""
    source = iter(frames)
    while group := list(islice(source, FRAMES_PER_NODE)):
        yield np.stack(group + group[-1:] * (FRAMES_PER_NODE - len(group)))

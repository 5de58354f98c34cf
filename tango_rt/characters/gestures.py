"""Suggests cues: large gestures of a character that differ from each other, with pictures of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from engine.character.cues import Cue, why_no_stretch
from engine.character.pack import CharacterPack
from engine.errors import InputError
from engine.skeleton import LEFT_HAND, LEFT_SHOULDER, LEFT_WRIST, RIGHT_HAND, RIGHT_SHOULDER, RIGHT_WRIST
from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt.characters.cues import MarkedCue, marked
from tango_rt.video.gop import GopDecoder

__all__ = ["Gesture", "find_gestures", "suggest_cues"]

MAX_GESTURES = 8
_MIN_NODES, _MAX_NODES = FPS // FRAMES_PER_NODE + 1, 3 * FPS // FRAMES_PER_NODE  # 1 to 3 s
_LARGE = 0.6  # distance from rest at the peak, 0..1
_LOW_SHARE = 0.95  # quantile of the height of the hands: they hang
_LIFT = 0.5  # shoulder widths above it, from which on a hand counts in full: arms that hang are no gesture
_FADES = 0.5  # a gesture reaches to where the distance from rest is this share of its peak
_MIN_CONFIDENCE = 0.5  # of the wrists
_POINTS = 12  # of a trajectory
_MIN_APART = 0.35  # shoulder widths between the hands of two gestures, on average
_SEEN, _SEEN_HEIGHT, _LABEL_WIDTH = 6, 180, 150  # pictures of a gesture, and pixels


@dataclass(frozen=True, eq=False)
class Gesture:
    """A stretch away from rest."""

    cue: Cue
    peak: float  # largest distance from rest, 0..1
    path: np.ndarray  # float64 (points, 4): left x, y, right x, y from the middle of the shoulders, in shoulder widths


def suggest_cues(pack: CharacterPack, folder: Path) -> tuple[Path, list[MarkedCue]]:
    """Write gestures.png into a folder: a row of pictures for each gesture found, in their order in the character.

    Returns its path and the gestures, named gesture1, gesture2 and so on. Raises InputError if it cannot be written.
    """
    found = find_gestures(pack)
    cues = [marked(pack, gesture.cue) for gesture in found]
    sheet = folder / "gestures.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if found:
            rows = [_row(pack, gesture.cue, cue) for gesture, cue in zip(found, cues, strict=True)]
            sheet.write_bytes(cv2.imencode(".png", np.concatenate(rows)[..., ::-1])[1].tobytes())
    except OSError as error:
        raise InputError(f"{sheet}: cannot be written ({error.strerror or error})") from error
    return sheet, cues


def find_gestures(pack: CharacterPack) -> list[Gesture]:
    """At most 8 large gestures, in their order: the largest, then always the one that is farthest from those chosen.

    How far two are apart is the mean distance of the hands along them.
    """
    waiting = _candidates(pack)
    chosen: list[Gesture] = []
    while waiting and len(chosen) < MAX_GESTURES:
        if chosen:
            apart = [min(_apart(one, other) for other in chosen) for one in waiting]
            best = int(np.argmax(apart))
            if apart[best] < _MIN_APART:
                break
        else:
            best = int(np.argmax([one.peak for one in waiting]))
        picked = waiting[best]
        chosen.append(picked)
        waiting = [one for one in waiting if not set(one.cue.nodes) & set(picked.cue.nodes)]
    chosen.sort(key=lambda one: one.cue.first_node)
    return [replace(one, cue=replace(one.cue, name=f"gesture{number}")) for number, one in enumerate(chosen, 1)]


def _candidates(pack: CharacterPack) -> list[Gesture]:
    """The stretches around all large peaks of the distance from rest that can be played and were seen well."""
    joints, clip_start = pack["joints"], pack["clip_start"]
    shoulders = joints[:, [LEFT_SHOULDER, RIGHT_SHOULDER], :2].mean(axis=1)
    hands = np.stack([joints[:, hand, :2].mean(axis=1) - shoulders for hand in (LEFT_HAND, RIGHT_HAND)], axis=1)
    hands = hands.reshape(len(joints), 4).astype(np.float64) / pack.info.shoulder_px
    lowest = np.quantile(hands[:, [1, 3]], _LOW_SHARE)
    lift = (lowest - hands[:, [1, 3]].min(axis=1)).reshape(-1, FRAMES_PER_NODE).mean(axis=1)
    size = pack["rest"] * np.clip(lift / _LIFT, 0, 1)
    seen = pack["confidence"][:, [LEFT_WRIST, RIGHT_WRIST]].max(axis=1)
    found = []
    for start, stop in zip(clip_start[:-1].tolist(), clip_start[1:].tolist(), strict=True):
        away = np.convolve(np.pad(size[start:stop], 1, mode="edge"), np.ones(3) / 3, mode="valid")
        for peak in range(len(away)):
            if away[peak] < _LARGE or away[peak] < away[max(0, peak - 4) : peak + 5].max():
                continue
            first, n_nodes = _extent(away, peak)
            cue = Cue("gesture", start + first, n_nodes)
            frames = slice(FRAMES_PER_NODE * cue.first_node, FRAMES_PER_NODE * (cue.first_node + n_nodes))
            if why_no_stretch(pack.graph, cue.first_node, n_nodes) or seen[frames].mean() < _MIN_CONFIDENCE:
                continue
            places = np.linspace(frames.start, frames.stop - 1, _POINTS).round().astype(int)
            found.append(Gesture(cue, float(away[peak]), hands[places]))
    return found


def _extent(away: np.ndarray, peak: int) -> tuple[int, int]:
    """First node and number of nodes of the gesture around a peak, within its clip."""
    first = last = peak
    floor = _FADES * away[peak]
    while last - first + 1 < min(_MAX_NODES, len(away)):
        before = away[first - 1] if first else -1.0
        after = away[last + 1] if last + 1 < len(away) else -1.0
        if max(before, after) < floor and last - first + 1 >= _MIN_NODES:
            break
        if before >= after:
            first -= 1
        else:
            last += 1
    return first, last - first + 1


def _apart(one: Gesture, other: Gesture) -> float:
    difference = (one.path - other.path).reshape(_POINTS, 2, 2)
    return float(np.linalg.norm(difference, axis=2).mean())


def _row(pack: CharacterPack, cue: Cue, told: MarkedCue) -> np.ndarray:
    """Pictures of a gesture with its name and times: uint8 (height, width, 3), RGB."""
    info = pack.info
    decoder = GopDecoder(info.extradata, info.width, info.height, f"the video of {pack.path}")
    width = max(2, round(info.width * _SEEN_HEIGHT / info.height))
    label = np.full((_SEEN_HEIGHT, _LABEL_WIDTH, 3), 255, np.uint8)
    for line, text in enumerate((told.name, f"{told.from_s:.2f} s", f"to {told.to_s:.2f} s")):
        cv2.putText(label, text, (8, 40 + 26 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    pictures = [label]
    for place in np.linspace(0, FRAMES_PER_NODE * cue.n_nodes - 1, _SEEN).round().astype(int).tolist():
        node, frame = divmod(place, FRAMES_PER_NODE)
        picture = decoder.decode(pack.packets(cue.first_node + node))[frame]
        pictures.append(cv2.resize(picture, (width, _SEEN_HEIGHT), interpolation=cv2.INTER_AREA))
    return np.concatenate(pictures, axis=1)

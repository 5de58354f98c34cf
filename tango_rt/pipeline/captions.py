"""Text on the pictures: a label in the corner, a caption, the words as they are spoken. Light text on a dark box."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.character.info import PackInfo
from engine.errors import InputError
from engine.motion_graph.words import Word, parse_words
from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt.pipeline.stages import PictureStage, Shown

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["WORDS", "Box", "FixedText", "SpokenWords", "check_text", "missing_glyphs", "text_stages"]

WORDS = "words"
"""The caption that means: the words of the speech."""

_CAPTION_SIZE, _LABEL_SIZE = 1 / 20, 1 / 30  # of the letters, in picture heights
_NARROW = 1.2  # in portrait pictures, the height counts as at most this many widths
_MIN_SIZE_PX = 13  # smaller letters are illegible after encoding
_SMALLEST_SIZE_PX = 5  # for letters in pictures too narrow for that
_MARGIN = 0.04  # between text and picture edge, in picture heights
_PADDING = 0.35  # around the letters, in letter sizes
_MAX_WIDTH = 0.88  # of the picture
_MAX_HEIGHT = 0.34
_DARK, _LIGHT = 16, 235  # luma in limited range
_OPACITY = 0.72  # of the box
_PAUSE_S = 0.7  # a longer pause ends a caption
_LINGER_S = 0.3


@dataclass(frozen=True, eq=False)
class Box:
    """A text ready to be drawn on pictures. Left, top, width and height are even."""

    left: int
    top: int
    alpha: np.ndarray  # float32 (h, w): how much of the picture is hidden
    luma: np.ndarray  # float32 (h, w), 16..235, times alpha

    def draw(self, frames: np.ndarray) -> None:
        """Draw on uint8 (n, H * 3 / 2, W), planes Y, U, V, in place."""
        n, rows, width = frames.shape
        height = rows * 2 // 3
        top, left = self.top, self.left
        bottom, right = top + self.alpha.shape[0], left + self.alpha.shape[1]
        _lay(frames[:, top:bottom, left:right], self.alpha, self.luma)
        coarse = self.alpha.reshape(self.alpha.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
        colours = frames.reshape(n, -1)[:, height * width :].reshape(n, 2, height // 2, width // 2)
        _lay(colours[:, :, top // 2 : bottom // 2, left // 2 : right // 2], coarse, 128 * coarse)


class FixedText:
    """A PictureStage: the same text on every picture."""

    lookahead_s = None

    def __init__(self, text: str, box: Box) -> None:
        self.key = f"{text!r} at {box.left} {box.top} {box.alpha.shape}"
        self._box = box

    def apply(self, shown: Shown) -> Shown:
        frames = shown.pixels().copy()
        self._box.draw(frames)
        return shown.changed(frames)


class SpokenWords:
    """A PictureStage: the words of the speech, a line at a time, as they are spoken."""

    lookahead_s = None
    key = None

    def __init__(self, words: Sequence[Word], info: PackInfo) -> None:
        self._lines = _lines_of(words, info)
        self._starts_s = np.array([start_s for start_s, _, _ in self._lines])
        self._box = lru_cache(2)(lambda text: _caption(text, info))

    def apply(self, shown: Shown) -> Shown:
        texts = [self._text(shown, k) for k in range(FRAMES_PER_NODE)]
        if not any(texts):
            return shown
        frames = shown.pixels().copy()
        for k, text in enumerate(texts):
            if text:
                self._box(text).draw(frames[k : k + 1])
        return shown.changed(frames)

    def _text(self, shown: Shown, k: int) -> str:
        if shown.step.utterance is None:
            return ""
        time_s = (shown.step.first_frame + k + 0.5) / FPS
        number = int(np.searchsorted(self._starts_s, time_s, side="right")) - 1
        return self._lines[number][2] if number >= 0 and time_s < self._lines[number][1] else ""


def text_stages(
    info: PackInfo,
    label: str | None = None,
    caption: str | None = None,
    words: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[PictureStage]:
    """The stages that write on the pictures of a character. words: the timings, as JSON, for the caption WORDS.

    warn is called with a line about letters of `words` that cannot be drawn. Raises InputError for such letters in the
    other texts, for texts that are too long, and if WORDS has no timings.
    """
    stages: list[PictureStage] = []
    if caption == WORDS:
        if words is None:
            raise InputError("the caption 'words' needs word timings: add --words JSON")
        said = parse_words(words)
        if missing := missing_glyphs("".join(word.text for word in said)):
            warn(f"the font cannot draw {missing} in the words: boxes are shown instead")
        stages.append(SpokenWords(said, info))
    elif caption is not None:
        check_text(caption, "caption")
        stages.append(FixedText(caption, _caption(caption, info)))
    if label is not None:
        check_text(label, "label")
        stages.append(FixedText(label, _label(label, info)))
    return stages


def missing_glyphs(text: str) -> str:
    """Letters that the font cannot draw, each once, in code-point order."""
    font = _font(20)
    unknown = bytes(font.getmask("\U0010ffff"))
    return "".join(c for c in sorted(set(text)) if c.isprintable() and bytes(font.getmask(c)) == unknown)


def check_text(text: str, what: str) -> None:
    """Raises InputError for a text that is empty or cannot be drawn."""
    if not text.strip():
        raise InputError(f"the {what} is empty: omit it or give a text")
    if missing := missing_glyphs(text):
        raise InputError(f"the {what} {text!r}: the font cannot draw {missing}")


def _label(text: str, info: PackInfo) -> Box:
    """In the upper right corner."""
    lettering = _lettering([text], _fitting_size([text], _size(_LABEL_SIZE, info), info))
    margin = _even(_MARGIN * info.height)
    return _placed(lettering, info.width - margin - lettering.shape[1], margin)


def _caption(text: str, info: PackInfo) -> Box:
    """Centred at the bottom. Raises InputError if it would hide more than a third of the picture."""
    size = _size(_CAPTION_SIZE, info)
    lines = _wrapped(text.split(), size, info)
    lettering = _lettering(lines, _fitting_size(lines, size, info))
    if len(lines) > 1 and lettering.shape[0] > _MAX_HEIGHT * info.height:
        raise InputError(f"the caption has {len(lines)} lines and hides too much of the picture: shorten it")
    top = info.height - _even(_MARGIN * info.height) - lettering.shape[0]
    return _placed(lettering, (info.width - lettering.shape[1]) // 2, top)


def _lines_of(words: Sequence[Word], info: PackInfo) -> list[tuple[float, float, str]]:
    """Start, end (seconds) and text of each line: as many words as fit, up to the next pause."""
    groups: list[list[Word]] = []
    size = _size(_CAPTION_SIZE, info)
    for word in words:
        last = groups[-1] if groups else []
        fits = last and len(_wrapped([one.text for one in [*last, word]], size, info)) == 1
        if fits and word.start_s - last[-1].end_s < _PAUSE_S:
            last.append(word)
        else:
            groups.append([word])
    starts_s = [group[0].start_s for group in groups]
    nexts_s = [after for _, after in pairwise([*starts_s, np.inf])]
    return [
        (start_s, min(group[-1].end_s + _LINGER_S, next_s), " ".join(_shortened(word.text, info) for word in group))
        for start_s, next_s, group in zip(starts_s, nexts_s, groups, strict=True)
    ]


def _shortened(word: str, info: PackInfo) -> str:
    """As much of a word as fits into the picture: a recogniser's mistake must not fail a render."""
    if _width(word, _SMALLEST_SIZE_PX) <= _MAX_WIDTH * info.width:
        return word
    return _shortened(word.removesuffix("…")[:-1] + "…", info)


def _wrapped(words: Sequence[str], size: int, info: PackInfo) -> list[str]:
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer, size) <= _MAX_WIDTH * info.width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _size(share: float, info: PackInfo) -> int:
    return max(_MIN_SIZE_PX, round(share * min(info.height, _NARROW * info.width)))


def _fitting_size(lines: Sequence[str], size: int, info: PackInfo) -> int:
    """Reduced if a line is wider than the picture. Raises InputError if it would be too small to read."""
    while max(_width(line, size) for line in lines) > _MAX_WIDTH * info.width:
        size -= 1
        if size < _SMALLEST_SIZE_PX:
            raise InputError(f"{max(lines, key=len)!r} is too long for pictures of {info.width} px: shorten it")
    return size


def _width(text: str, size: int) -> float:
    return _font(size).getlength(text)


@lru_cache(64)
def _font(size: int) -> "FreeTypeFont":
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more; Pillow's has only ASCII."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _lettering(lines: Sequence[str], size: int) -> np.ndarray:
    """Centred lines, with padding: float32 (h, w), 1 is a letter."""
    from PIL import Image, ImageDraw

    font = _font(size)
    ascent, descent = font.getmetrics()
    padding = round(_PADDING * size)
    width = _even(max(_width(line, size) for line in lines) + 2 * padding)
    height = _even(len(lines) * (ascent + descent) + padding)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text(((width - _width(line, size)) / 2, padding // 2 + number * (ascent + descent)), line, 255, font)
    return np.asarray(image, np.float32) / 255


def _placed(lettering: np.ndarray, left: float, top: float) -> Box:
    alpha = np.maximum(lettering, np.float32(_OPACITY))
    return Box(int(left) // 2 * 2, int(top) // 2 * 2, alpha, alpha * (_DARK + lettering * (_LIGHT - _DARK)))


def _lay(plane: np.ndarray, alpha: np.ndarray, premultiplied: np.ndarray) -> None:
    plane[:] = np.rint(plane * (1 - alpha) + premultiplied).astype(np.uint8)


def _even(number: float) -> int:
    return 2 * round(number / 2)

"""Keyword matches, the other half of the retrieval of Gesture Video Reenactment (Zhou et al. 2022).

When the speech has a word that the person said in the reference, the gesture that accompanied it there costs less.
"""

import json
import math
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from engine.errors import InputError
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["KeywordOptions", "Word", "keyword_bonus", "parse_words"]

MAX_JSON_CHARS = 32 << 20
MAX_WORDS = 200_000
MAX_WORD_CHARS = 100
MAX_TIME_S = 24 * 3600.0
LATE_S = 1.0  # recognisers often end the last word a little after the sound

WANTED = 'expected a list of {"word": text, "start": seconds, "end": seconds}'

# Too common to carry a gesture; in other languages, frequency excludes such words.
_COMMON = (
    "a about after all also am an and any are as at be because been but by can could did do does for "
    "from had has have he her here him his how i i'm if in into is it it's its just like me more my no "
    "not now of on one or our out over she so some such than that that's the their them then there "
    "these they this those to too up us very was we well were what when where which who will with would "
    "yeah yes you your"
)
STOP_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Word:
    """A word and when it is spoken."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class KeywordOptions:
    """The bonus of a keyword, relative to similarities between -1 and 1."""

    # At the node where the word starts. A cut costs about 2 and the best node of a step is about 0.7 below the median:
    # over the nodes around a word, this pays for a cut there and back.
    weight: float = 4.0
    reach: int = 6  # nodes (0.8 s) over which the bonus fades on each side: a stroke with its preparation
    most_occurrences: int = 12  # a word that occurs more often in the reference does not identify a place


def parse_words(text: str, duration_s: float = MAX_TIME_S) -> tuple[Word, ...]:
    """Word timings from JSON text: a list, {"words": list} or a recogniser's segments with words.

    Sorted by start. Raises InputError if the content is anything else, or reaches beyond `duration_s`.
    """
    if len(text) > MAX_JSON_CHARS:
        raise InputError(f"the word timings are {len(text)} characters long, at most {MAX_JSON_CHARS} are allowed")
    try:
        entries = _entries(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the word timings are not JSON ({error}); {WANTED}") from error
    if len(entries) > MAX_WORDS:
        raise InputError(f"{len(entries)} words, at most {MAX_WORDS} are allowed")
    words = [_word(entry, number, duration_s) for number, entry in enumerate(entries)]
    return tuple(sorted(words, key=lambda word: word.start_s))


def _entries(content: Any) -> list[Any]:
    if isinstance(content, dict) and isinstance(segments := content.get("segments"), list):
        found = [segment.get("words") if isinstance(segment, dict) else None for segment in segments]
        if all(isinstance(words, list) for words in found):
            return [word for words in found for word in words or ()]
        raise InputError(f"a segment of the word timings has no list of words; {WANTED}")
    if isinstance(content, dict):
        content = content.get("words")
    if not isinstance(content, list):
        raise InputError(f"the word timings contain no list of words; {WANTED}")
    return content


def _word(entry: Any, number: int, duration_s: float) -> Word:
    text = entry.get("word") if isinstance(entry, dict) else None
    if not isinstance(text, str) or len(text) > MAX_WORD_CHARS:
        raise InputError(f"word {number} of the word timings is {str(entry)[:60]!r}; {WANTED}")
    times = [entry.get("start"), entry.get("end")]
    if not all(isinstance(time, int | float) and not isinstance(time, bool) for time in times):
        raise InputError(f"word {number} ({text!r}) of the word timings has no times in seconds; {WANTED}")
    # a JSON integer may be too large for a float: compare first, convert after
    if not all(0 <= time <= MAX_TIME_S for time in times) or times[1] < times[0]:
        raise InputError(f"word {number} ({text!r}) of the word timings is from {times[0]} to {times[1]} s")
    if times[0] > duration_s + LATE_S:
        raise InputError(
            f"word {number} ({text!r}) starts at {times[0]} s but the recording ends at {duration_s:.1f} s; "
            "give the timings of this recording"
        )
    return Word(text, float(times[0]), float(times[1]))


def _key(text: str) -> str:
    """The form that is compared: letters and digits, case-folded; empty for stop words and noise."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").strip()
    if folded.strip(".,;:!?-\"'()[]") in STOP_WORDS:
        return ""
    return "".join(letter for letter in folded if letter.isalnum())


def keyword_bonus(
    speech: tuple[Word, ...],
    reference: tuple[Word, ...],
    n_steps: int,
    node_start_s: np.ndarray,
    clip_start: np.ndarray,
    options: KeywordOptions | None = None,
) -> csr_array:
    """The bonus to subtract from node costs, sparse float32 (n_steps, N): costs[a:b] -= bonus[a:b].toarray().

    `node_start_s` (N,): when each node starts in the recording of the reference words, NaN for nodes of another one. A
    bonus runs along the diagonal through the step and the node where a word is said, within the clip, so that the
    gesture is played in step with the word. If several words overlap, the largest bonus counts.
    """
    options = options or KeywordOptions()
    said = _places(reference, node_start_s, options.most_occurrences)
    clip_of = np.repeat(np.arange(len(clip_start) - 1), np.diff(clip_start))
    best: dict[tuple[int, int], float] = {}
    for word in speech:
        at = math.floor(word.start_s * FPS / FRAMES_PER_NODE)
        for node in said.get(_key(word.text), ()):
            first, last = clip_start[clip_of[node]], clip_start[clip_of[node] + 1]
            for k in range(-options.reach, options.reach + 1):
                if 0 <= at + k < n_steps and first <= node + k < last:
                    bonus = options.weight * (1 - abs(k) / (options.reach + 1))
                    place = (at + k, int(node + k))
                    best[place] = max(best.get(place, 0.0), bonus)
    steps, nodes = np.array(list(best), dtype=np.int64).reshape(-1, 2).T
    values = np.fromiter(best.values(), np.float32, len(best))
    return csr_array((values, (steps, nodes)), shape=(n_steps, len(node_start_s)))


def _places(reference: tuple[Word, ...], node_start_s: np.ndarray, most: int) -> dict[str, list[int]]:
    """Content word -> the nodes where it starts."""
    keys = [_key(word.text) for word in reference]
    counts = Counter(keys)
    known = np.flatnonzero(np.isfinite(node_start_s))
    order = known[np.argsort(node_start_s[known], kind="stable")]
    starts = node_start_s[order]
    said: dict[str, list[int]] = defaultdict(list)
    for word, key in zip(reference, keys, strict=True):
        at = int(np.searchsorted(starts, word.start_s + 1e-6, side="right")) - 1
        # a word in a stretch that the build dropped belongs to no node
        if key and counts[key] <= most and at >= 0 and word.start_s - starts[at] < FRAMES_PER_NODE / FPS:
            said[key].append(int(order[at]))
    return said

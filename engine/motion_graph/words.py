"""Keyword matches, the other half of the retrieval of Gesture Video Reenactment (Zhou et al. 2022).

When the speech has a word that the person said in the reference, the gesture that accompanied it there costs less.
"""

import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from engine.errors import InputError
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = [
    "MAX_TIME_S",
    "MAX_WORD_CHARS",
    "NO_MATCHES",
    "KeywordOptions",
    "Keywords",
    "Matches",
    "Word",
    "keyword_bonus",
    "parse_words",
    "step_of",
    "words_text",
]

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


class Matches(NamedTuple):
    """Bonuses by step and node, in no order; of a node twice in a step, the largest counts."""

    step: np.ndarray  # int64 (B,)
    node: np.ndarray  # int32 (B,)
    value: np.ndarray  # float32 (B,), above 0


NO_MATCHES = Matches(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


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


def words_text(words: Sequence[Word], duration_s: float) -> str:
    """Words that start within a recording, as parse_words reads them."""
    within = [word for word in words if word.start_s <= duration_s]
    return json.dumps([{"word": word.text, "start": word.start_s, "end": word.end_s} for word in within])


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


class Keywords:
    """Where a reference says which words: prepared once, for any speech."""

    def __init__(
        self,
        reference: tuple[Word, ...],
        node_start_s: np.ndarray,
        clip_start: np.ndarray,
        options: KeywordOptions | None = None,
    ) -> None:
        """node_start_s (N,): when each node starts in the recording of the reference words, NaN for nodes of another
        one. clip_start (clips + 1,): the first node of each clip."""
        self.options = options or KeywordOptions()
        self.n_nodes = len(node_start_s)
        self._said = _places(reference, node_start_s, self.options.most_occurrences)
        clip = np.repeat(np.arange(len(clip_start) - 1), np.diff(clip_start))
        self._first, self._last = clip_start[clip], clip_start[clip + 1] - 1  # nodes of the clip of a node

    def nodes(self, word: Word) -> list[int]:
        """The nodes where the reference says it."""
        return self._said.get(_key(word.text), [])

    def matches(self, steps: np.ndarray, nodes: np.ndarray, first: int, end: int) -> Matches:
        """The bonuses in steps first .. end - 1 of words said at `steps`, (W,), and by the reference at `nodes`, (W,).

        A bonus runs along the diagonal through the step and the node, within the clip, so that the gesture is played in
        step with the word.
        """
        reach = self.options.reach
        ahead = np.arange(-reach, reach + 1)
        at, on = steps[:, None] + ahead, nodes[:, None] + ahead
        fade = np.broadcast_to(self.options.weight * (1 - np.abs(ahead) / (reach + 1)), at.shape)
        within = (first <= at) & (at < end) & (self._first[nodes][:, None] <= on) & (on <= self._last[nodes][:, None])
        return Matches(at[within], on[within].astype(np.int32), fade[within].astype(np.float32))


def step_of(word: Word) -> int:
    """The step in which a word starts."""
    return math.floor(word.start_s * FPS / FRAMES_PER_NODE)


def keyword_bonus(
    speech: tuple[Word, ...],
    reference: tuple[Word, ...],
    n_steps: int,
    node_start_s: np.ndarray,
    clip_start: np.ndarray,
    options: KeywordOptions | None = None,
) -> csr_array:
    """The bonus to subtract from node costs, sparse float32 (n_steps, N): costs[a:b] -= bonus[a:b].toarray().

    Arguments as for Keywords. If several words overlap, the largest bonus counts.
    """
    keywords = Keywords(reference, node_start_s, clip_start, options)
    pairs = [(step_of(word), node) for word in speech for node in keywords.nodes(word)]
    steps, nodes = np.array(pairs, np.int64).reshape(-1, 2).T
    found = keywords.matches(steps, nodes, 0, n_steps)
    order = np.lexsort((-found.value, found.node, found.step))
    place = found.step[order] * keywords.n_nodes + found.node[order]
    best = order[np.concatenate([[True], np.diff(place) > 0])] if len(order) else order
    return csr_array(
        (found.value[best], (found.step[best], found.node[best])), shape=(n_steps, keywords.n_nodes), dtype=np.float32
    )


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

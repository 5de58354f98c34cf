"""Which words are spoken when: recogniser output to text, and text-encoder tokens back to the recogniser's steps.

The recogniser emits one token every 20 ms; the text encoder reads words. To give every step a text feature, the
characters of both are matched as in the research release, with the standard library's sequence matcher.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ArtifactError, BackendError
from engine.extras import install_line
from engine.files import read_plain
from engine.records import as_object

__all__ = ["BAR", "CONTINUATION", "PAD", "TextTokens", "align", "read_ctc_vocabulary", "tokens_of", "transcribe"]

PAD = "<pad>"
BAR = "|"  # the recogniser's space
MAX_VOCABULARY_BYTES = 64 << 20
CONTINUATION = "##"  # the text encoder's mark of a token inside a word


def read_ctc_vocabulary(path: Path) -> list[str]:
    """Token of every recogniser output, from the vocab.json of the transformers layout.

    Raises:
        ArtifactError: no JSON object of token to id, ids other than 0 .. n - 1, or padding or bar missing.
    """
    try:
        ids = as_object(read_plain(path, MAX_VOCABULARY_BYTES).decode("utf-8"), path.name)
        vocabulary = sorted(ids, key=ids.__getitem__)
        complete = [ids[token] for token in vocabulary] == list(range(len(vocabulary)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: not the vocabulary of a recogniser (a JSON object of token to id): {error}"
        ) from error
    if not complete or not {PAD, BAR} <= set(vocabulary):
        raise ArtifactError(f"{path}: a recogniser's vocabulary numbers its tokens from 0 and contains {PAD} and {BAR}")
    return vocabulary


def tokens_of(logits: np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    """The most likely token of every step; logits (steps, len(vocabulary))."""
    return [vocabulary[token] for token in logits.argmax(1)]


def transcribe(tokens: Sequence[str]) -> str:
    """CTC decoding: repeats are merged, padding is dropped, a bar is a space; other special tokens stay in the text."""
    letters = (token for token, _ in groupby(tokens) if token != PAD)
    return "".join(" " if letter == BAR else letter for letter in letters).strip()


def align(steps: Sequence[str], text: Sequence[str]) -> np.ndarray:
    """Index of the text-encoder token that belongs to each step of the recogniser, int64 (len(steps),).

    steps: the most likely recogniser token of each step, including repeats. text: the text encoder's tokens of the
    transcription, the first and last being special tokens. Step 0 belongs to the first token; steps without a match
    copy the nearest matched step, the earlier one of two. The matcher has its defaults, as in the release: from 200
    characters on, frequent characters no longer start a match. Windows of a few seconds stay below that.
    """
    if not steps:
        return np.zeros(0, np.int64)
    spoken = [step for step, token in enumerate(steps) if token not in (PAD, BAR)]
    characters = [
        (character, index)
        for index, token in enumerate(text[1:-1], start=1)
        for character in token.replace(CONTINUATION, "")
    ]
    matcher = SequenceMatcher(
        None, [steps[step].lower() for step in spoken], [character for character, _ in characters]
    )
    known = {
        spoken[block.a + k]: characters[block.b + k][1]
        for block in matcher.get_matching_blocks()
        for k in range(block.size)
    }
    known[0] = 0
    return _fill(known, len(steps))


def _fill(known: dict[int, int], n_steps: int) -> np.ndarray:
    step = np.arange(n_steps)
    anchors = np.array(sorted(known))
    right = np.minimum(np.searchsorted(anchors, step), len(anchors) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(step - anchors[left]) <= np.abs(anchors[right] - step), anchors[left], anchors[right])
    return np.array([known[anchor] for anchor in nearest.tolist()], np.int64)


class TextTokens:
    """The text encoder's word pieces, from its vocab.txt or tokenizer.json."""

    def __init__(self, path: Path) -> None:
        """Raises ArtifactError if the file is not such a vocabulary, BackendError without the package tokenizers."""
        self._tokenizer = _open_tokenizer(path)

    def encode(self, transcription: str) -> tuple[np.ndarray, list[str]]:
        """Ids int64 (1, n) and the n tokens, from [CLS] to [SEP]."""
        encoding = self._tokenizer.encode(transcription)
        return np.array([encoding.ids], np.int64), list(encoding.tokens)


def _open_tokenizer(path: Path) -> Any:
    try:
        from tokenizers import BertWordPieceTokenizer, Tokenizer
    except ModuleNotFoundError as error:
        raise BackendError(f"the full embedding needs the package tokenizers: {install_line('full')}") from error
    if not path.is_file():
        raise ArtifactError(f"{path}: the vocabulary of the text encoder is missing")
    try:
        content = read_plain(path, MAX_VOCABULARY_BYTES)
        if path.suffix == ".json":
            tokenizer = Tokenizer.from_buffer(content)
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return tokenizer
        return BertWordPieceTokenizer(str(path), lowercase=True)
    # the package raises bare Exception and TypeError for whatever is wrong with a file
    except Exception as error:
        raise ArtifactError(f"{path}: not the vocabulary of a text encoder: {error}") from error

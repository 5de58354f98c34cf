"""Words of an utterance, for the messages of a session."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tango_rt.client.errors import InputError
from tango_rt.client.outbox import Request
from tango_rt.v1 import session_pb2

__all__ = ["SpokenWord", "word_messages"]

_MAX_WORDS = 1000  # servers take no more in a message


class SpokenWord(NamedTuple):
    """A word and when it is spoken, in samples of its utterance at the rate of the session."""

    text: str
    start_sample: int
    end_sample: int


def word_messages(words: Sequence[SpokenWord], utterance: str) -> Iterator[Request]:
    """Split words into messages that are short enough. Raises InputError for what no server accepts."""
    for first in range(0, len(words), _MAX_WORDS):
        part = [_word(word) for word in words[first : first + _MAX_WORDS]]
        yield Request(words=session_pb2.Words(utterance_id=utterance, words=part))


def _word(word: SpokenWord) -> session_pb2.Word:
    if not 0 <= word.start_sample <= word.end_sample < 1 << 63:
        raise InputError(f"the word {word.text!a} is from sample {word.start_sample} to {word.end_sample}")
    try:
        return session_pb2.Word(text=word.text, start_sample=word.start_sample, end_sample=word.end_sample)
    except UnicodeEncodeError as error:
        raise InputError(f"the word {word.text!a} is not valid text") from error

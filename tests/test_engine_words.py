"""Word timings: formats, bad content, and where a keyword makes nodes cheaper."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.motion_graph.words import KeywordOptions, Word, keyword_bonus, parse_words
from engine.timebase import FPS, FRAMES_PER_NODE

NODE_S = FRAMES_PER_NODE / FPS
LIST = [{"word": " Hello,", "start": 0.5, "end": 0.9}, {"word": "world", "start": 0, "end": 0.4, "score": 1}]


def said(*words: tuple[str, float]) -> tuple[Word, ...]:
    return tuple(Word(text, start, start + 0.2) for text, start in words)


def bonus_of(
    speech: tuple[Word, ...], reference: tuple[Word, ...], options: KeywordOptions | None = None
) -> np.ndarray:
    """60 steps, 100 nodes in two clips of 40 and 60 nodes."""
    starts = np.arange(100) * NODE_S
    return np.asarray(keyword_bonus(speech, reference, 60, starts, np.array([0, 40, 100]), options).toarray())


@pytest.mark.parametrize(
    "content",
    [
        LIST,
        {"words": LIST},
        {"text": "x", "segments": [{"words": LIST[:1]}, {"words": []}, {"id": 3, "words": LIST[1:]}]},
    ],
)
def test_formats(content: object) -> None:
    assert parse_words(json.dumps(content)) == (Word("world", 0.0, 0.4), Word(" Hello,", 0.5, 0.9))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("3", "no list of words"),
        ('{"words": {"word": "a"}}', "no list of words"),
        ('{"segments": [{"text": "hello"}]}', "no list of words"),
        ('["hello"]', "word 0"),
        ('[{"word": 3, "start": 0, "end": 1}]', "word 0"),
        ('[{"word": "a", "start": "0", "end": 1}]', "no times"),
        ('[{"word": "a", "start": 0}]', "no times"),
        ('[{"word": "a", "start": true, "end": 1}]', "no times"),
        ('[{"word": "a", "start": NaN, "end": 1}]', "is from nan"),
        ('[{"word": "a", "start": -1, "end": 1}]', "is from -1"),
        ('[{"word": "a", "start": 2, "end": 1}]', "is from 2 to 1"),
        (f'[{{"word": "a", "start": 0, "end": 1{"0" * 400}}}]', "is from 0"),
        ('[{"word": "a", "start": 70, "end": 71}]', "starts at 70 s but the recording ends at 60.0 s"),
        (json.dumps([{"word": "a" * 101, "start": 0, "end": 1}]), "word 0"),
    ],
)
def test_malformed_content_is_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_words(text, 60)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_too_many_words_are_refused() -> None:
    with pytest.raises(InputError, match="200001 words"):
        parse_words("[" + "0," * 200_000 + "0]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["word", "words", "segments", "start", "end"]), inner, max_size=5)
    ),
    max_leaves=10,
)


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_any_json_is_read_or_refused(content: object) -> None:
    try:
        words = parse_words(json.dumps(content))
    except InputError:
        return
    assert all(0 <= word.start_s <= word.end_s for word in words)


def test_a_keyword_draws_the_path_along_its_own_time() -> None:
    bonus = bonus_of(said(("Constitution!", 3.0)), said(("the", 1.0), ("constitution", 2.0)))
    step, node = int(3.0 / NODE_S), int(2.0 / NODE_S)
    options = KeywordOptions()
    assert bonus[step, node] == bonus.max() == np.float32(options.weight)
    for k in range(-10, 11):
        expected = options.weight * max(0, 1 - abs(k) / (options.reach + 1))
        assert bonus[step + k, node + k] == pytest.approx(expected)
    assert np.count_nonzero(bonus) == 2 * options.reach + 1


def test_every_place_where_a_word_is_said_counts() -> None:
    bonus = bonus_of(said(("freedom", 3.0)), said(("Freedom,", 1.0), ("FREEDOM", 8.0)))
    assert bonus[22, 7] == bonus[22, 60] == bonus.max()


def test_overlapping_words_do_not_add_up() -> None:
    both = said(("freedom", 2.0), ("reigns", 2.2))
    assert bonus_of(both, both).max() == np.float32(KeywordOptions().weight)


def test_bonuses_stay_inside_the_clip_and_the_speech() -> None:
    bonus = bonus_of(said(("freedom", 0.0), ("justice", 7.95)), said(("freedom", 39 * NODE_S), ("justice", 5.4)))
    assert bonus[0, 39] > 0
    assert not bonus[1, 40]
    assert bonus[59, 40] > 0
    assert not bonus[58, 39]


@pytest.mark.parametrize("word", ["the", "The,", "I'm", "I\u2019m", "...", "\u266a"])
def test_stop_words_and_noise_are_no_keywords(word: str) -> None:
    assert bonus_of(said((word, 3.0)), said((word, 2.0))).sum() == 0


def test_what_is_said_all_the_time_is_no_keyword() -> None:
    often = said(*(("basically", 0.5 * k) for k in range(13)))
    assert bonus_of(said(("basically", 3.0)), often).sum() == 0
    assert bonus_of(said(("basically", 3.0)), often[:12]).sum() > 0


def test_other_scripts_match() -> None:
    assert bonus_of(said(("Straße", 3.0)), said(("STRASSE", 2.0))).sum() > 0
    assert bonus_of(said(("自由", 3.0)), said(("自由。", 2.0))).sum() > 0


def test_words_in_dropped_stretches_belong_to_no_node() -> None:
    starts = np.array([0.0, NODE_S, 5.0, 5.0 + NODE_S, np.nan])
    clips = np.array([0, 2, 4, 5])
    reference = said(("dropped", 2.0), ("kept", 5.01), ("later", 9.0))
    bonus = keyword_bonus(said(("dropped", 1.0), ("kept", 1.0), ("later", 1.0)), reference, 20, starts, clips)
    assert set(bonus.nonzero()[1].tolist()) == {2, 3}
    assert bonus.dtype == np.float32


def test_nothing_in_common_gives_an_empty_matrix() -> None:
    bonus = keyword_bonus((), said(("freedom", 1.0)), 5, np.arange(10) * NODE_S, np.array([0, 10]))
    assert bonus.shape == (5, 10)
    assert bonus.nnz == 0

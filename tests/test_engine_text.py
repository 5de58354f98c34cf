"""Recogniser output to text, and text tokens back to the recogniser's steps."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ArtifactError
from engine.features.text import BAR, PAD, TextTokens, align, best_tokens, read_ctc_vocabulary, transcribe

VOCABULARY = [PAD, "<s>", "</s>", "<unk>", BAR, *"ETAONIH'"]
STEPS = st.lists(st.sampled_from(VOCABULARY), max_size=80)


def _split(transcription: str, every: int) -> list[str]:
    """Words in pieces of a few letters, as a text encoder would have them."""
    pieces = []
    for word in transcription.lower().split():
        for start in range(0, len(word), every):
            pieces.append(("##" if start else "") + word[start : start + every])
    return ["[CLS]", *pieces, "[SEP]"]


def test_transcription_collapses_repeats_and_keeps_marks() -> None:
    steps = [BAR, PAD, "T", "T", PAD, "T", "O", BAR, BAR, "<unk>", "<unk>", "N", PAD, BAR]
    assert transcribe(steps) == "TTO <unk>N"
    assert transcribe([]) == transcribe([PAD, BAR, PAD]) == ""


def test_tokens_are_the_likeliest() -> None:
    logits = np.eye(len(VOCABULARY))[[4, 0, 5]]
    assert best_tokens(logits, VOCABULARY) == [BAR, PAD, "E"]


def test_every_step_finds_its_letter() -> None:
    steps = [PAD, PAD, "T", "E", PAD, BAR, PAD, PAD, "H", "I", "I"]
    assert align(steps, ["[CLS]", "t", "##e", "hi", "[SEP]"]).tolist() == [0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 3]


def test_of_repeats_the_longest_match_decides() -> None:
    # "t e h i" matches from the second T on; the first lies as near to the start, which is on its left
    steps = [PAD, "T", "T", "E", "H", "I"]
    assert align(steps, ["[CLS]", "te", "##hi", "[SEP]"]).tolist() == [0, 0, 1, 1, 2, 2]


@given(STEPS, st.integers(1, 4))
def test_tokens_follow_each_other(steps: list[str], every: int) -> None:
    text = _split(transcribe(steps), every)
    index = align(steps, text)
    assert index.dtype == np.int64 and len(index) == len(steps)
    if steps:
        assert index[0] == 0
        assert np.all(np.diff(index) >= 0)
        assert index.max() < max(1, len(text) - 1)


@given(st.lists(st.booleans(), min_size=1, max_size=26))
def test_silent_steps_copy_the_nearest_one_the_left_of_two(spoken: list[bool]) -> None:
    # letters that all differ, one a word: nothing is left to the matcher
    letters = [chr(ord("a") + step) for step in range(len(spoken))]
    heard = [step for step, is_spoken in enumerate(spoken) if is_spoken]
    steps = [letters[step].upper() if is_spoken else PAD for step, is_spoken in enumerate(spoken)]
    steps = [step if len(step.lower()) == 1 else PAD for step in steps]
    index = align(steps, ["[CLS]", *(letters[step] for step in heard), "[SEP]"])
    known = {step: heard.index(step) + 1 for step in heard} | {0: 0}
    wanted = [known[min(known, key=lambda other: (abs(other - step), other))] for step in range(len(spoken))]
    assert index.tolist() == wanted


def test_vocabulary_is_ordered_by_id(tmp_path: Path) -> None:
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(dict(sorted(ids.items()))))
    assert read_ctc_vocabulary(path) == VOCABULARY


@pytest.mark.parametrize("content", ["[]", "{", '{"<pad>": 0}', '{"<pad>": 0, "|": 2}', '{"<pad>": "a", "|": 1}', "3"])
def test_bad_vocabularies_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(ArtifactError) as caught:
        read_ctc_vocabulary(path)
    assert "\n" not in str(caught.value)


def test_word_pieces_from_either_file(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "he", "##llo", "world", "'"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    plain = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    plain.enable_truncation(3)  # as some published files have it
    plain.save(str(tmp_path / "tokenizer.json"))
    for name in ("vocab.txt", "tokenizer.json"):
        ids, words = TextTokens(tmp_path / name).encode("HELLO WORLD'X")
        assert words == ["[CLS]", "he", "##llo", "world", "'", "[UNK]", "[SEP]"]
        assert ids.dtype == np.int64 and ids.tolist() == [[2, 5, 6, 7, 8, 1, 3]]
        assert TextTokens(tmp_path / name).encode("")[1] == ["[CLS]", "[SEP]"]


def test_no_word_pieces(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(ArtifactError, match="vocabulary of the text encoder is missing"):
        TextTokens(tmp_path / "vocab.txt")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match="not the vocabulary"):
        TextTokens(tmp_path / "tokenizer.json")


def test_vocabularies_that_would_hold_up_or_fill_the_memory(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    for name in ("vocab.json", "vocab.txt", "tokenizer.json"):
        path = tmp_path / name
        read = read_ctc_vocabulary if name == "vocab.json" else TextTokens
        os.mkfifo(path)
        with pytest.raises(ArtifactError):
            read(path)
        path.unlink()
        with path.open("wb") as file:
            file.truncate(1 << 40)  # sparse: costs no disk
        with pytest.raises(ArtifactError, match="at most"):
            read(path)
        path.unlink()
    (tmp_path / "vocab.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="not the vocabulary"):
        read_ctc_vocabulary(tmp_path / "vocab.json")

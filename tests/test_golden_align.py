"""Text and its alignment against what the research release computed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.features.text import TextTokens, align, transcribe

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden"))
FILES = sorted((GOLDEN / "align").glob("*.json"))
CHAINS = sorted((GOLDEN / "model").glob("chain_*.npz"))
pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden alignments in {GOLDEN}")


def _cases() -> Iterator[Any]:
    for file in FILES:
        for case in json.loads(file.read_text())["cases"]:
            yield pytest.param(case, id=f"{file.stem}-{case['seed']}-{case['name']}")


CASES = list(_cases())


@pytest.mark.parametrize("case", CASES)
def test_transcription(case: dict[str, Any]) -> None:
    assert transcribe(case["ctc_tokens"]) == case["transcription"]


@pytest.mark.parametrize("case", CASES)
def test_token_of_every_step(case: dict[str, Any]) -> None:
    np.testing.assert_array_equal(align(case["ctc_tokens"], case["bert_tokens"]), case["token_index"])


@pytest.mark.skipif(not CHAINS, reason=f"no golden chains in {GOLDEN}")
def test_word_pieces(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with np.load(CHAINS[0]) as chain:
        vocabulary = [str(token) for token in chain["bert_vocab"]]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokens = TextTokens(tmp_path / "vocab.txt")
    # the other cases were read with vocabularies that are not recorded
    cases = [case.values[0] for case in CASES if case.values[0]["tokenizer"] == "A"]
    assert cases
    for case in cases:
        ids, words = tokens.encode(case["transcription"])
        assert words == case["bert_tokens"]
        assert [vocabulary[index] for index in ids[0]] == words

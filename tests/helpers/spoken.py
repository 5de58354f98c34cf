"""A sentence of rare words, and a character who said it."""

from dataclasses import replace
from pathlib import Path

from engine.character.pack import CharacterPack
from engine.motion_graph.words import Word, words_text
from engine.timebase import FPS, FRAMES_PER_NODE
from tests.helpers.fakes import make_pack

NODE_S = FRAMES_PER_NODE / FPS
SENTENCE = [f"zanzi{letter}bar" for letter in "abcdefghijklmnop"]  # a word a node
SAID_FROM = 2  # node of the reference


def said_from(step: int) -> list[Word]:
    """The sentence, from a step on."""
    return [Word(text, (step + k) * NODE_S, (step + k + 0.9) * NODE_S) for k, text in enumerate(SENTENCE)]


def make_worded_pack(path: Path) -> CharacterPack:
    """A character who says the sentence at nodes SAID_FROM and after."""
    pack = make_pack(path)
    words = words_text(said_from(SAID_FROM), 99)
    (pack.path / "pack.json").write_text(replace(pack.info, words=words).to_json(), "utf-8")
    return CharacterPack.open(pack.path)

"""Words as they arrive: the bonuses of the whole list, step by step, without those that came too late."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.spoken import SpokenWords, joined
from engine.motion_graph.words import Keywords, Word, keyword_bonus
from engine.timebase import FPS, FRAMES_PER_NODE

NODE_S = FRAMES_PER_NODE / FPS
STARTS, CLIPS = np.arange(60) * NODE_S, np.array([0, 25, 60])
N_STEPS = 40


def said(text: str, step: int) -> Word:
    return Word(text, (step + 0.5) * NODE_S, (step + 1.2) * NODE_S)


REFERENCE = tuple(said(text, node) for text, node in (("zebra", 3), ("lion", 23), ("zebra", 30), ("tiger", 58)))
WORDS = st.lists(st.tuples(st.sampled_from(["zebra", "Lion", "tiger", "nobody", "the"]), st.integers(0, 45)))


def dense(bonus: object, n_steps: int) -> np.ndarray:
    table = np.zeros((n_steps, 60), np.float32)
    start, node, value = bonus  # type: ignore[misc]
    for step in range(n_steps):
        for k in range(start[step], start[step + 1]):
            table[step, node[k]] = max(table[step, node[k]], value[k])
    return table


@given(WORDS, st.integers(0, 30), st.integers(1, 20))
@settings(deadline=None)
def test_equals_the_bonus_of_the_whole_list(words: list[tuple[str, int]], first: int, n: int) -> None:
    speech = tuple(said(*word) for word in words)
    whole = keyword_bonus(speech, REFERENCE, N_STEPS, STARTS, CLIPS).toarray()
    spoken = SpokenWords(Keywords(REFERENCE, STARTS, CLIPS))
    assert spoken.add(speech[::2], 0) == spoken.add(speech[1::2], 0) == 0
    end = min(first + n, N_STEPS)
    found = spoken.matches(first, end)
    moved = joined([(found._replace(step=found.step - first), 0)], n)
    np.testing.assert_array_equal(dense(moved, n)[: max(end - first, 0)], whole[first:end])


@given(WORDS, WORDS, st.integers(0, 45))
@settings(deadline=None)
def test_late_words_change_nothing(words: list[tuple[str, int]], more: list[tuple[str, int]], decided: int) -> None:
    late = tuple(said(text, step) for text, step in more if step < decided)
    one, other = (SpokenWords(Keywords(REFERENCE, STARTS, CLIPS)) for _ in range(2))
    for spoken in (one, other):
        spoken.add(tuple(said(*word) for word in words), 0)
    assert one.add(late, decided) == len(late)
    for wanted, found in zip(one.matches(0, N_STEPS), other.matches(0, N_STEPS), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_memory_does_not_grow() -> None:
    spoken = SpokenWords(Keywords(REFERENCE, STARTS, CLIPS))
    sizes = []
    for step in range(0, 5000, 5):
        spoken.add([said("zebra", step + 8)], step)
        spoken.matches(step, step + 10)
        sizes.append(len(spoken._steps))
    assert max(sizes[100:]) <= max(sizes[:100]) <= 12

"""The fit to a person: what was planted is found on speech never seen, what was not is not; odd cases."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.features import fit as fit_module
from engine.features import validation
from engine.features.embedding import Embedding
from engine.features.fit import FitOptions, fit_embedding, make_contexts
from engine.features.fitted import FittedEmbedding
from engine.features.onset import OnsetEmbedding
from engine.features.recording import Recording
from engine.features.scores import CONTROL_SHIFTS, REACH
from engine.features.speech import N_COLUMNS, PITCH
from engine.features.validation import (
    MAX_LAG_FRAMES,
    SMOOTHING_FRAMES,
    FitReport,
    fit_person,
    fold_hits,
    folds,
    hear,
    lag_profile,
)
from tests.helpers.fakes_recording import (
    at_ease,
    noise,
    random_rows,
    recording_of,
    restless,
    syllables,
    unseen,
    voiced,
)
from tests.helpers.mirrored import in_a_mirror
from tests.helpers.planted_people import MINUTE, QUICK, fitted_to, person, rows_of, share_found


@pytest.fixture(scope="module")
def told() -> tuple[FittedEmbedding, Embedding, FitReport]:
    """The fit to somebody whose hands come a third of a second after the voice."""
    return fit_person(person(1, lag=10), QUICK)


def test_what_was_planted_is_found(told: tuple[FittedEmbedding, Embedding, FitReport]) -> None:
    fitted, chosen, report = told
    assert chosen is fitted and report.choice == "fitted" and not report.mouth
    assert report.scores["fitted"].low > 0.8 and report.control["fitted"] < 0.4
    assert report.scores["onset"].high < 0.2, "onsets look for it at the same time"
    assert report.gain.low > 0.5
    assert report.n_frames == sum(len(asked) for asked in folds(MINUTE)) > 600
    assert 15 < report.speech_s <= 40
    assert "fitted finds" in report.why and "%" in report.why
    assert json.loads(json.dumps(report.to_dict()))["scores"]["fitted"]["mean"] == report.scores["fitted"].mean


def test_it_holds_for_speech_of_the_same_person_that_the_fit_never_saw(
    told: tuple[FittedEmbedding, Embedding, FitReport],
) -> None:
    fitted, _, report = told
    later = person(2, lag=10)
    assert share_found(fitted, later) > 0.8
    floor = [share_found(fitted, later, shift) for shift in CONTROL_SHIFTS]
    assert np.mean(floor) < 0.4 and np.mean(floor) == pytest.approx(report.control["fitted"], abs=0.15)


@pytest.mark.parametrize("lag", [-13, -4, 0, 6, 14])
def test_the_lag_is_found(lag: int) -> None:
    recording = person(3, lag=lag)
    profile = lag_profile(recording, rows_of(recording))
    assert profile.shape == (2 * MAX_LAG_FRAMES + 1,)
    assert abs(int(profile.argmax()) - MAX_LAG_FRAMES - lag) <= 1


@pytest.mark.parametrize("seed", [100, 101])
def test_voice_and_motion_of_two_people_have_nothing_in_common(seed: int) -> None:
    voice, body = person(seed), person(seed + 50)
    _, chosen, report = fit_person(replace(body, samples=voice.samples), QUICK)
    assert report.choice == "onset" and isinstance(chosen, OnsetEmbedding)
    assert report.scores["fitted"].low <= report.control["fitted"]
    assert "time-shifted speech" in report.why


def jumping(seed: int, known: bool) -> Recording:
    """A body that trembles, another pose every 2 s; the voice pauses where it jumps."""
    rng = np.random.default_rng(seed)
    n_clips, nodes = 20, 15
    poses = np.repeat(rng.normal(0, 60, (n_clips, 75, 3)), 4 * nodes, axis=0)
    joints = restless(4 * nodes * n_clips, rng) + poses
    loud = syllables(len(joints), rng)
    for cut in range(0, len(joints) + 1, 4 * nodes):
        loud[max(cut - 7, 0) : cut + 7] = 0
    clips = (nodes,) * n_clips if known else ()
    return recording_of(joints.astype(np.float32), clips, samples=voiced(loud, rng))


def test_jump_cuts_in_noise_give_no_score() -> None:
    """Not known as cuts they are found by their pauses: that is what would be learned by mistake."""
    known, unknown = (fit_person(jumping(1, cuts_known), QUICK)[2] for cuts_known in (True, False))
    assert known.choice == "onset"
    assert known.scores["fitted"].mean < known.control["fitted"] + 0.1
    assert unknown.scores["fitted"].low > unknown.control["fitted"]


def test_a_fit_to_one_hand_serves_the_other(rng: np.random.Generator) -> None:
    one_handed = person(4)
    joints = one_handed.joints.copy()
    still = at_ease(MINUTE)
    for joint in (14, 16, *range(54, 75)):
        joints[:, joint] = still[:, joint]
    one_handed = replace(one_handed, joints=joints + rng.normal(0, 0.3, joints.shape).astype(np.float32))
    fitted = fitted_to(one_handed)
    other_handed = in_a_mirror(one_handed)
    np.testing.assert_allclose(fitted.motion(other_handed).low, fitted.motion(one_handed).low, atol=1e-3)
    assert share_found(fitted, other_handed) > 0.8


def test_folds_do_not_touch_and_ask_for_nothing_at_the_ends() -> None:
    asked = folds(1000)
    assert len(asked) == 5
    taken = np.concatenate(asked)
    assert len(set(taken.tolist())) == len(taken)
    reach = REACH + max(0, *(np.diff(np.sort(taken)) > 1))
    assert taken.min() >= reach and taken.max() < 1000 - reach
    assert folds(120) == []
    for n_frames in range(120, 500, 20):
        assert all(len(frames) for frames in folds(n_frames))


@pytest.mark.parametrize("half", [8, 24, 80])
def test_no_frame_that_a_query_sees_is_seen_by_the_fit(
    half: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shuffling what queries and candidates see leaves the fit as it is; one frame more does not."""
    recording = recording_of(at_ease(MINUTE), samples=noise(MINUTE, rng))
    rows = random_rows(MINUTE, rng) * 3
    body = rng.normal(0, 3, (MINUTE, 21))
    monkeypatch.setattr(fit_module, "steady_descriptors", lambda *_: body)
    options = FitOptions(scales=(half,), n_directions=4)
    asked = folds(MINUTE)[2]

    def similarity() -> np.ndarray:
        scales = [make_contexts(recording, rows, half, False)]
        (linear,) = validation._refit(scales, options, None)(asked).linear
        return linear.speech[half + 1] @ linear.body.T

    before = similarity()
    # the outermost frames in any context, and what smoothing sees beyond them
    first, last = asked[0] - REACH - half - SMOOTHING_FRAMES, asked[-1] + REACH + half + SMOOTHING_FRAMES
    order = rng.permutation(np.arange(first, last + 1))
    rows[first : last + 1], body[first : last + 1] = rows[order], body[order]
    np.testing.assert_allclose(similarity(), before, atol=1e-4 * np.abs(before).max())
    wide = slice(first - half - 2 * SMOOTHING_FRAMES, first)
    rows[wide] = rows[rng.permutation(np.arange(wide.start, wide.stop))]
    assert np.abs(similarity() - before).max() > 1e-2 * np.abs(before).max(), "what lies outside is seen"


def test_each_fold_is_asked_of_an_embedding_without_it() -> None:
    recording, seen = person(5), []
    hits = fold_hits(recording, rows_of(recording), lambda asked: seen.append(asked) or OnsetEmbedding(31))  # type: ignore[func-returns-value]
    assert [frames.tolist() for frames in seen] == [frames.tolist() for frames in folds(MINUTE)]
    assert [len(found) for found in hits.found] == [len(frames) for frames in seen]
    assert len(hits.control) == len(CONTROL_SHIFTS) * len(seen)
    assert hits.score.mean > 0.6 > 0.4 > hits.floor


@pytest.mark.parametrize("used", [False, True])
def test_the_mouth_is_reported_both_ways(used: bool) -> None:
    """Lips that follow the voice, on a body that does not."""
    rng = np.random.default_rng(40)
    loud = syllables(800, rng)
    lips = np.stack([loud, rng.normal(0, 0.1, 800)], axis=1).astype(np.float32)
    recording = recording_of(restless(800, rng), samples=voiced(loud, rng), mouth=lips)
    fitted, _, report = fit_person(recording, replace(QUICK, mouth=used))
    assert report.scores["fitted+mouth"].low > report.scores["fitted"].high
    assert (report.mouth, report.choice) == ((True, "fitted") if used else (False, "onset"))
    assert all(part.mouth == used for part in fitted.linear)


def odd(kind: str) -> Recording:
    rng = np.random.default_rng(0)
    n = {"4 s": 120, "12 s": 360, "16 s": 480}.get(kind, 400)
    usual = person(30, n)
    lips = rng.normal(size=(n, 2)).astype(np.float32)
    return {
        "silence": replace(usual, samples=np.zeros_like(usual.samples)),
        "a hum": replace(usual, samples=np.full_like(usual.samples, 0.5)),
        "a statue": replace(usual, joints=at_ease(n)),
        "nobody seen": unseen(usual, slice(None)),
        "one clip a node": replace(usual, clip_start=np.arange(n // 4 + 1)),
        "a silent statue": recording_of(at_ease(n)),
        "lips": replace(usual, mouth=lips),
        "lips of a statue": recording_of(at_ease(n), mouth=lips, samples=noise(n, rng)),
        "still lips": replace(usual, mouth=np.zeros((n, 2), np.float32)),
    }.get(kind, usual)


ODD = [
    *("silence", "a hum", "a statue", "nobody seen", "one clip a node", "a silent statue"),
    *("lips", "lips of a statue", "still lips", "4 s", "12 s", "16 s"),
]


@pytest.mark.parametrize("kind", ODD)
def test_odd_recordings_are_fitted_too(kind: str) -> None:
    # with 80 frames there is a fold of 12 s for which nothing is left to fit to
    recording, options = (
        odd(kind),
        FitOptions(scales=(80,) if kind.endswith("s") and kind[0].isdigit() else (8,), mouth=True),
    )
    fitted, chosen, report = fit_person(recording, options)
    json.dumps(report.to_dict(), allow_nan=False)
    nothing_there = {"silence", "a hum", "a statue", "nobody seen", "a silent statue", "4 s"}
    if kind in nothing_there:
        assert report.choice == "onset" and chosen.name == "onset"
    assert report.mouth == (kind in ("lips", "lips of a statue"))
    assert ("fitted+mouth" in report.scores) == report.mouth
    for features in (hear(fitted, rows_of(recording)), fitted.motion(recording)):
        assert len(features.low) == recording.n_frames and features.high.shape[1] == 0
        assert np.isfinite(features.low).all() and np.linalg.norm(features.low, axis=1).max() <= 1 + 1e-6
    loud = np.full((50, N_COLUMNS), 5, np.float32)  # of another speaker
    assert np.isfinite(hear(fitted, loud).low).all()


def test_without_a_relation_there_is_no_lag() -> None:
    for recording in (odd("silence"), odd("a statue"), odd("4 s")):
        assert np.isfinite(lag_profile(recording, rows_of(recording))).all()
    assert fit_person(odd("silence"), QUICK)[2].lag_frames == 0


def test_what_a_voice_never_had_says_nothing_with_another_one(rng: np.random.Generator) -> None:
    """Fitted to somebody who whispers, asked by somebody who does not."""
    recording = person(35, 400)
    rows = rows_of(recording)
    rows[:, PITCH] = 0
    whispered = fit_embedding([make_contexts(recording, rows, half, False) for half in (4, 24)], None, QUICK)
    before = hear(whispered, rows).low
    rows[:, PITCH] = rng.normal(size=len(rows))
    np.testing.assert_allclose(hear(whispered, rows).low, before, atol=1e-6)


def test_a_long_recording_is_looked_at_sparsely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "MAX_FRAMES", 300)
    recording = person(33)
    contexts = make_contexts(recording, rows_of(recording), 8, False)
    assert len(contexts.frames) <= 300 and contexts.frames[-1] > MINUTE - 10
    assert share_found(fitted_to(recording), person(34)) > 0.8

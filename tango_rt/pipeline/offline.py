"""A whole speech through the live object: its steps, and what became of the cues that were asked for."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.character.cues import CueOutcome, TimedCue
from engine.character.perform import Performance
from engine.character.steps import speech_steps
from engine.features.onset import OnsetEmbedding
from engine.timebase import FPS, FRAMES_PER_NODE, frame_count, frame_start
from tango_rt.pipeline.character import Character
from tango_rt.pipeline.cueing import RefusedCue
from tango_rt.pipeline.live import LiveOptions, Step

__all__ = ["perform_speech"]

_ASKED_AHEAD_STEPS = 32  # before its time a cue is asked for, and no sooner: only so many may wait


def perform_speech(character: Character, samples: np.ndarray, options: LiveOptions) -> tuple[list[Step], Performance]:
    """A whole speech through the live object, float32 (n,) at 16 kHz -> its steps, and the same as a path."""
    live = character.performer(options)
    live.push(samples, "speech")
    live.flush()
    steps: list[Step] = []
    asked = deque(options.perform.cues if options.lookahead_nodes is not None else ())
    while True:
        while asked and asked[0].step < len(steps) + _ASKED_AHEAD_STEPS:
            cue = asked.popleft()
            live.cue(cue.name, frame_start(FRAMES_PER_NODE * cue.step), cue.within_s, "speech")
        if (step := live.next()) is None:
            break
        steps.append(step)
    if live.plan is not None:
        return steps, live.plan
    live.drop_cues("the speech is over before it ends")
    entered = [t for t, step in enumerate(steps) if step.hard or step.cut_from is not None]
    return steps, Performance(
        nodes=np.array([step.node for step in steps], np.int32),
        cuts=np.array(entered, np.int64) - 1,
        n_frames=frame_count(len(samples)),
        speaking=speech_steps(OnsetEmbedding(), samples).speaking,
        cost=None,
        retrieval=live.retrieval,
        cues=_outcomes(options.perform.cues, steps, live.refused_cues()),
    )


def _outcomes(
    asked: Sequence[TimedCue], steps: Sequence[Step], refused: Sequence[RefusedCue]
) -> tuple[CueOutcome, ...]:
    """What became of each cue. Those of a name are refused in the order of their times; what is left over was begun."""
    begun = {
        (step.cue.name, t - step.cue.late_frames // FRAMES_PER_NODE): t for t, step in enumerate(steps) if step.cue
    }
    reasons: dict[str, deque[str]] = {}
    for one in refused:
        reasons.setdefault(one.name, deque()).append(one.reason)
    outcomes: list[CueOutcome] = []
    for cue in asked:
        began = begun.pop((cue.name, cue.step), None)
        if began is not None:
            outcomes.append(CueOutcome(cue.name, cue.at_s, round(began * FRAMES_PER_NODE / FPS, 3)))
        else:
            left = reasons.get(cue.name)
            reason = left.popleft() if left else "the speech is over before it"
            outcomes.append(CueOutcome(cue.name, cue.at_s, None, reason))
    for k in range(len(outcomes) - 1, -1, -1):
        left = reasons.get(outcomes[k].name)
        if left and outcomes[k].played_s is not None:
            outcomes[k] = replace(outcomes[k], reason=left.pop())
    return tuple(outcomes)

"""What the presenter does while she speaks, derived from the sound alone.

Speech is cut into phrases by its pauses, and its accents are the steep rises of loudness. Every gesture is the
classic sequence of preparation, stroke on an accent, hold with small beats on the following accents, and retraction to
rest before a pause. Arms travel on minimum-jerk paths (Flash and Hogan 1985), filtered by a slightly under-damped
spring, which rounds corners and overshoots a little, as arms do.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.signal import bilinear, lfilter, lfilter_zi
from scipy.spatial.transform import Rotation

from engine.timebase import FPS, SAMPLE_RATE, frame_count
from tango_rt.demo.anatomy import ALONG, BENDS, N_ARM, PALM, hand_frame
from tango_rt.demo.postures import GESTURES, POSTURES, REST, Gesture

__all__ = ["Motion", "Sound", "hear", "perform"]

HOP = SAMPLE_RATE // 100
SILENCE_DB = -45.0
PAUSE_S, REST_PAUSE_S = 0.30, 0.52
SPRING_HZ, SPRING_DAMPING = 3.4, 0.74
SPRING_DELAY_S = SPRING_DAMPING / (np.pi * SPRING_HZ)
RIGHT_HANDED = 0.62
# The first gesture has to leave the rest pose visible for a moment.
START_S = 1.0
# An arm needs this long from one posture to the next, and reaches the raised one this long before its stroke.
MOVE_S, PREPARED_S = 0.56, 0.20
# How often she lets the first words of a phrase pass, and how often she rests within one.
LISTENING, INTERLUDE = 0.35, 0.25


@dataclass(frozen=True)
class Sound:
    """The features of speech that drive gestures. Times in seconds."""

    phrases: list[tuple[float, float]]  # (start, end) between pauses
    accents: np.ndarray  # times at which loudness rises most
    strength: np.ndarray  # of the accents, 0..1
    open: np.ndarray  # float64 (n_frames,) 0..1, how far the mouth opens
    wide: np.ndarray  # float64 (n_frames,) 0..1, how far it is stretched sideways


@dataclass(frozen=True)
class Motion:
    """One row per frame. Lengths in units, angles in radians."""

    arms: np.ndarray  # (n, 2, N_ARM), the arm on the left of the picture first
    lift: np.ndarray  # (n,) shoulders up
    sway: np.ndarray  # (n,) chest sideways
    breath: np.ndarray  # (n,) 0..1
    head: np.ndarray  # (n, 3) turn, nod, tilt
    face: np.ndarray  # (n, 5) in the order of portrait.Face


@dataclass(frozen=True)
class _Move:
    """An arm must reach a posture at a time, moving for at most travel_s."""

    time_s: float
    travel_s: float
    arm: np.ndarray


def hear(speech: np.ndarray) -> Sound:
    """Phrases, accents and mouth shapes of speech, float32 (n_samples,) at 16 kHz."""
    n_frames = frame_count(len(speech))
    n = max(len(speech) // HOP, 2)
    padded = np.zeros(n * HOP)
    padded[: min(len(speech), len(padded))] = speech[: len(padded)]
    blocks = padded.reshape(n, HOP)
    level_db = 20 * np.log10(np.sqrt(np.mean(blocks**2, axis=1)) + 1e-6)
    loud = np.clip((level_db - SILENCE_DB) / 32.0, 0, 1)
    rise = np.maximum(np.gradient(gaussian_filter1d(loud, 4.0)), 0) * gaussian_filter1d(loud, 4.0)
    peaks = np.flatnonzero((rise == maximum_filter1d(rise, 25)) & (rise > 0.004))
    # An accent is perceived a little after the steepest rise, in the vowel.
    accents = (peaks + 5) * HOP / SAMPLE_RATE
    strength = rise[peaks] / max(rise.max(), 1e-9)
    hiss = np.mean(np.abs(np.diff(blocks, axis=1)), axis=1) / (np.mean(np.abs(blocks), axis=1) + 1e-4)
    at = np.arange(n_frames) / FPS * SAMPLE_RATE / HOP
    vowel = gaussian_filter1d(loud * np.clip(1.25 - hiss, 0.15, 1), 2.2)
    open_ = np.interp(at, np.arange(n), vowel)
    wide = np.interp(at, np.arange(n), gaussian_filter1d(loud * np.clip(hiss - 0.35, 0, 1), 4.0))
    return Sound(_phrases(level_db > SILENCE_DB), accents, strength, np.clip(open_, 0, 1), wide)


def _phrases(is_loud: np.ndarray) -> list[tuple[float, float]]:
    times = np.flatnonzero(is_loud) * HOP / SAMPLE_RATE
    if len(times) == 0:
        return []
    gaps = np.flatnonzero(np.diff(times) > PAUSE_S)
    starts, ends = np.concatenate([[0], gaps + 1]), np.concatenate([gaps, [len(times) - 1]])
    return [(float(times[a]), float(times[b])) for a, b in zip(starts, ends, strict=True)]


def perform(sound: Sound, seed: int = 0) -> Motion:
    """The motion for a sound; deterministic for a seed."""
    rng = np.random.default_rng(seed)
    n = len(sound.open)
    moves, lifts = _choreography(sound, rng)
    arms = np.stack([_arm_track(side, n) for side in moves], axis=1)
    _add_beats(arms, sound)
    arms = _spring(arms.reshape(n, -1)).reshape(arms.shape)
    time_s = np.arange(n) / FPS
    lift = _spring(_pulses(time_s, lifts, 0.30, 0.75))
    outward = arms[:, 1, 0] - arms[:, 0, 0]
    sway = 4.0 * _drift(rng, n, 2.6) + 0.02 * outward
    breath = 0.5 - 0.5 * np.cos(2 * np.pi * (0.24 * time_s + 0.25 * np.cumsum(_drift(rng, n, 4.0)) / FPS))
    head = _head(sound, outward, rng, n)
    return Motion(arms, lift, sway, breath, head, _face(sound, rng, n))


def _choreography(sound: Sound, rng: np.random.Generator) -> tuple[list[list[_Move]], list[tuple[float, float]]]:
    """Moves of both arms, and the shoulder lifts (time, height)."""
    moves: list[list[_Move]] = [[], []]
    lifts: list[tuple[float, float]] = []
    last = ""
    following = [*[start for start, _ in sound.phrases][1:], np.inf]
    free_s = START_S
    for (start, end), next_start in zip(sound.phrases, following, strict=False):
        if rng.random() < LISTENING:
            free_s = max(free_s, start + rng.uniform(0.5, 1.1))
        accents = [t for t in sound.accents if start + 0.12 <= t <= end - 0.15]
        while True:
            accents = [t for t in accents if t >= free_s]
            gesture = _choose(rng, last, len(accents))
            times = _stroke_times(accents, len(gesture.steps), rng) if gesture else []
            if gesture is None or len(times) < len(gesture.steps):
                break
            last = gesture.name
            _add_gesture(moves, gesture, times, rng)
            if gesture.lift:
                lifts.append((times[0], gesture.lift))
            free_s = times[-1] + rng.uniform(0.80, 1.7)
            if rng.random() < INTERLUDE and end - free_s > 1.6:
                free_s = _add_rest(moves, free_s, rng) + rng.uniform(0.3, 0.8)
        if next_start - end > REST_PAUSE_S:
            free_s = _add_rest(moves, max(end, free_s - 1.2), rng)
    return moves, lifts


def _add_rest(moves: list[list[_Move]], from_s: float, rng: np.random.Generator) -> float:
    """Return both hands to rest; returns the earliest time of the next stroke, in seconds."""
    there_s = from_s + 0.45
    for side in moves:
        side.append(_Move(there_s, 0.70, _vary(REST, rng, 0.35)))
    return there_s + MOVE_S + PREPARED_S


def _choose(rng: np.random.Generator, last: str, n_accents: int) -> Gesture | None:
    fitting = [g for g in GESTURES if g.name != last and len(g.steps) <= n_accents]
    if not fitting:
        return None
    weights = np.array([g.weight for g in fitting])
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def _stroke_times(accents: list[float], n: int, rng: np.random.Generator) -> list[float]:
    """The next n accents that are far enough apart for an arm to move between them."""
    times: list[float] = []
    earliest = 0.0
    for accent in accents:
        if accent >= earliest and len(times) < n:
            times.append(accent)
            earliest = accent + rng.uniform(MOVE_S, 0.75)
    return times


def _add_gesture(moves: list[list[_Move]], gesture: Gesture, times: list[float], rng: np.random.Generator) -> None:
    lead = 0 if rng.random() < RIGHT_HANDED else 1
    size = rng.uniform(0.86, 1.08)
    for step, ((name, other), time_s) in enumerate(zip(gesture.steps, times, strict=False)):
        for side, posture in ((lead, name), (1 - lead, other)):
            if posture is None:
                if step == 0 and moves[side]:
                    moves[side].append(_Move(time_s + 0.10, 0.60, _vary(REST, rng, 0.35)))
                continue
            arm = _vary(POSTURES[posture], rng, 1.0)
            arm[:3] = REST[:3] + (arm[:3] - REST[:3]) * size
            if step == 0:
                raised = arm.copy()
                raised[:3] += [-8.0, 26.0, -18.0]
                raised[BENDS] += 0.12
                moves[side].append(_Move(time_s - PREPARED_S, 0.66, raised))
            moves[side].append(_Move(time_s, MOVE_S, arm))


def _vary(arm: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    varied = arm.copy()
    varied[:3] += rng.normal(0, 7.0 * amount, 3)
    varied[3:9] += rng.normal(0, 0.05 * amount, 6)
    varied[10:19] += rng.normal(0, 0.03 * amount, 9)
    return varied


def _arm_track(moves: list[_Move], n: int) -> np.ndarray:
    """Minimum-jerk motion from posture to posture, (n, N_ARM)."""
    track = np.empty((n, N_ARM))
    track[:] = REST
    time_s = np.arange(n) / FPS + SPRING_DELAY_S
    ordered = sorted(moves, key=lambda move: move.time_s)
    previous = _Move(-1.0, 0.0, REST)
    for move, after in pairwise([*ordered, _Move(np.inf, 0.0, REST)]):
        far = float(np.linalg.norm(move.arm[:3] - previous.arm[:3]))
        travel = min(max(move.travel_s, 0.30 + far / 560.0), move.time_s - previous.time_s)
        begin = move.time_s - travel
        here = (time_s >= begin) & (time_s < after.time_s)
        u = np.clip((time_s[here] - begin) / max(travel, 1e-6), 0, 1)
        track[here] = _travel(previous.arm, move.arm, u**3 * (10 - 15 * u + 6 * u * u))
        previous = move
    return track


def _travel(a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """From one posture to another, s (n,) 0 to 1: the wrist arcs towards the viewer, the hand turns about an axis."""
    path = a + (b - a) * s[:, None]
    path[:, 2] += 0.10 * float(np.linalg.norm(b[:3] - a[:3])) * 4 * s * (1 - s)
    start, stop = (Rotation.from_matrix(hand_frame(arm[ALONG], arm[PALM])) for arm in (a, b))
    turn = (stop * start.inv()).as_rotvec()
    frames = (Rotation.from_rotvec(s[:, None] * turn) * start).as_matrix()
    path[:, ALONG], path[:, PALM] = frames[:, 0], frames[:, 2]
    return path


def _add_beats(arms: np.ndarray, sound: Sound) -> None:
    """Add small downward flicks of raised hands on every accent."""
    time_s = np.arange(len(arms)) / FPS + SPRING_DELAY_S
    pulses = _pulses(time_s, list(zip(sound.accents, 0.4 + 0.6 * sound.strength, strict=True)), 0.13, 0.30)
    for side in (0, 1):
        raised = np.clip((np.linalg.norm(arms[:, side, :3] - REST[:3], axis=1) - 25) / 60, 0, 1)
        arms[:, side, 1] -= 20.0 * pulses * raised
        arms[:, side, 2] += 10.0 * pulses * raised
        arms[:, side, 4] -= 0.14 * pulses * raised


def _pulses(time_s: np.ndarray, peaks: list[tuple[float, float]], rise_s: float, fall_s: float) -> np.ndarray:
    """Smooth bumps (time, height), up in rise_s and down in fall_s; where they overlap the higher one counts."""
    out = np.zeros_like(time_s)
    for peak_s, height in peaks:
        x = time_s - peak_s
        x = np.clip(np.where(x < 0, x / rise_s, x / fall_s), -1, 1)
        out = np.maximum(out, height * (0.5 + 0.5 * np.cos(np.pi * x)))
    return out


def _spring(track: np.ndarray) -> np.ndarray:
    """Each column smoothed by a spring; the first axis is time."""
    if len(track) == 0:
        return track
    omega = 2 * np.pi * SPRING_HZ
    b, a = bilinear([omega**2], [1, 2 * SPRING_DAMPING * omega, omega**2], FPS)
    state = lfilter_zi(b, a).reshape(-1, *[1] * (track.ndim - 1)) * track[:1]
    followed, _ = lfilter(b, a, track, axis=0, zi=state)
    return np.asarray(followed)


def _drift(rng: np.random.Generator, n: int, period_s: float) -> np.ndarray:
    """Slow noise of about unit size."""
    margin = int(4 * period_s * FPS)
    noise = gaussian_filter1d(rng.normal(size=n + 2 * margin), period_s * FPS / 2)[margin : margin + n]
    return noise * np.sqrt(period_s * FPS * np.sqrt(np.pi))


def _head(sound: Sound, outward: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    time_s = np.arange(n) / FPS
    strong = [(t, s) for t, s in zip(sound.accents, sound.strength, strict=True) if s > 0.35]
    nods = _spring(_pulses(time_s, strong, 0.18, 0.40))
    turn = 0.10 * _drift(rng, n, 1.5) + 0.0006 * gaussian_filter1d(outward, 6.0)
    nod = 0.035 * _drift(rng, n, 1.8) + 0.10 * nods
    tilt = 0.024 * _drift(rng, n, 2.0) - 0.12 * turn
    return np.stack([np.clip(turn, -0.32, 0.32), np.clip(nod, -0.15, 0.25), np.clip(tilt, -0.09, 0.09)], axis=1)


def _face(sound: Sound, rng: np.random.Generator, n: int) -> np.ndarray:
    time_s = np.arange(n) / FPS
    blinks: list[tuple[float, float]] = []
    at = 1.0
    while at < n / FPS:
        blinks.append((at, 1.0))
        at += rng.uniform(0.25, 0.5) if rng.random() < 0.08 else rng.uniform(2.0, 5.0)
    blinks += [(end + 0.12, 1.0) for _, end in sound.phrases]
    lid = np.clip(1.25 * _pulses(time_s, blinks, 0.09, 0.16), 0, 1)
    strong = [(t, float(s)) for t, s in zip(sound.accents, sound.strength, strict=True) if s > 0.55]
    brow = _spring(_pulses(time_s, strong, 0.25, 0.70)) + 0.10 * _drift(rng, n, 2.0)
    look = np.clip(0.7 * _drift(rng, n, 0.9), -1.8, 1.8)
    return np.stack([lid, np.clip(brow, -0.3, 1.2), sound.open, sound.wide, look], axis=1)

"""Noise schedules: what must hold in every one of them; the numbers themselves are in the goldens."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.blending.schedule import N_TIMESTEPS, Schedule, boundary_scales, make_schedule
from engine.errors import InputError

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden")) / "animate_anyone"
SCHEDULE = make_schedule()
# Largest differences, in float32 at values of about 3: a few roundings a step.
TABLES, STEPS = 2e-7, 1e-5

golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no goldens: {GOLDEN} is absent")
timesteps = st.integers(0, N_TIMESTEPS - 1)


def _files(pattern: str) -> dict[str, np.ndarray]:
    """All arrays of all files of a kind, the blind check's among them."""
    arrays: dict[str, np.ndarray] = {}
    for file in sorted(GOLDEN.glob(pattern)):
        with np.load(file) as data:
            arrays |= {name: data[name] for name in data.files}
    return arrays


def _close(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound


def _latents(seed: int) -> tuple[np.ndarray, np.ndarray]:
    clean, noise = np.random.default_rng(seed).standard_normal((2, 2, 4, 3, 5), np.float32)
    return clean, noise


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_a_schedule_goes_from_clean_to_pure_noise(kind: str) -> None:
    schedule = make_schedule(kind)  # type: ignore[arg-type]
    alphas = schedule.cumulative_alphas
    assert alphas.dtype == np.float32 and (np.diff(alphas) < 0).all()
    assert alphas[0] > 0.999 and alphas[-1] == 0
    assert schedule.alpha(-1) == 1
    with pytest.raises(ValueError, match="read-only"):
        alphas[0] = 0
    assert make_schedule(kind, zero_terminal_snr=False).cumulative_alphas[-1] > 1e-4  # type: ignore[arg-type]


@given(st.integers(1, N_TIMESTEPS))
def test_ddim_timesteps_fall_from_the_last_one(n_steps: int) -> None:
    found = SCHEDULE.ddim_timesteps(n_steps)
    assert len(found) == n_steps and found[0] == N_TIMESTEPS - 1 and found[-1] >= 0
    assert (np.diff(found) < 0).all()
    assert all(-1 <= SCHEDULE.ddim_previous(int(t), n_steps) < t for t in found)


@given(st.integers(1, 50))
def test_lcm_timesteps_fall_from_the_last_one(n_steps: int) -> None:
    found = SCHEDULE.lcm_timesteps(n_steps)
    assert len(found) == n_steps and found[0] == N_TIMESTEPS - 1 and (np.diff(found) < 0).all()


def test_step_counts_that_are_not_possible() -> None:
    for n_steps, of in ((0, SCHEDULE.ddim_timesteps), (1001, SCHEDULE.ddim_timesteps), (51, SCHEDULE.lcm_timesteps)):
        with pytest.raises(InputError, match=rf"{n_steps} denoising steps .* use 1 to"):
            of(n_steps)
    with pytest.raises(InputError, match="beta schedule 'cosine' is unknown"):
        make_schedule("cosine")  # type: ignore[arg-type]


@given(timesteps, st.integers(-1, N_TIMESTEPS - 1), st.integers(0, 9))
def test_a_true_prediction_leads_to_the_same_clip_with_less_noise(timestep: int, previous: int, seed: int) -> None:
    """Planted: with v as the network should predict it, every formula gives back what went in."""
    clean, noise = _latents(seed)
    noisy, v = SCHEDULE.add_noise(clean, noise, timestep), SCHEDULE.velocity(clean, noise, timestep)
    np.testing.assert_allclose(SCHEDULE.clean(noisy, v, timestep), clean, atol=1e-5)
    np.testing.assert_allclose(SCHEDULE.noise(noisy, v, timestep), noise, atol=1e-5)
    step = SCHEDULE.ddim_step(noisy, v, timestep, previous)
    np.testing.assert_allclose(step, SCHEDULE.add_noise(clean, noise, previous), atol=2e-5)
    assert step.dtype == np.float32


def test_both_ends_are_exact() -> None:
    clean, noise = _latents(0)
    assert np.array_equal(SCHEDULE.add_noise(clean, noise, N_TIMESTEPS - 1), noise)
    assert np.array_equal(SCHEDULE.add_noise(clean, noise, -1), clean)
    assert SCHEDULE.signal_to_noise(N_TIMESTEPS - 1) == 0 and SCHEDULE.min_snr_weight(N_TIMESTEPS - 1) == 1


def test_boundary_scales_hold_the_boundary() -> None:
    assert boundary_scales(0) == (1, 0)
    skip, out = boundary_scales(N_TIMESTEPS - 1)
    assert skip < 1e-8 and out == 1


@golden
def test_tables_and_timesteps() -> None:
    arrays = _files("scheduler_ddim*.npz")
    for kind, name in (("linear", "inference_linear"), ("scaled_linear", "training_scaled_linear")):
        schedule, plain = make_schedule(kind), make_schedule(kind, zero_terminal_snr=False)  # type: ignore[arg-type]
        _close(schedule.cumulative_alphas, arrays[f"{name}_alphas_cumprod"], TABLES)
        _close(plain.cumulative_alphas, arrays[f"{name}_alphas_cumprod_without_zero_snr"], 0)
        # the last betas are differences of neighbours that are all but equal
        _close(schedule.betas, arrays[f"{name}_betas"], 2e-6)
    lengths = [int(name.removeprefix("timesteps_")) for name in arrays if name.startswith("timesteps_")]
    assert lengths
    for n_steps in lengths:
        found = SCHEDULE.ddim_timesteps(n_steps)
        assert np.array_equal(found, arrays[f"timesteps_{n_steps}"])
        previous = [SCHEDULE.ddim_previous(int(t), n_steps) for t in found]
        assert np.array_equal(previous, np.maximum(arrays[f"prev_timesteps_{n_steps}"], -1))


@golden
def test_training_targets() -> None:
    arrays, schedule = _files("scheduler_ddim*.npz"), make_schedule("scaled_linear")
    for row, timestep in enumerate(arrays["train_t"].tolist()):
        clean, noise = arrays["train_x0"][row], arrays["train_noise"][row]
        _close(schedule.add_noise(clean, noise, timestep), arrays["train_noisy"][row], TABLES)
        _close(schedule.velocity(clean, noise, timestep), arrays["train_velocity"][row], TABLES)
        assert schedule.signal_to_noise(timestep) == pytest.approx(arrays["train_snr"][row], rel=1e-6)
        expected = arrays["train_min_snr_weight_gamma5_v"][row]
        assert schedule.min_snr_weight(timestep) == pytest.approx(expected, rel=1e-6)


def _runs(arrays: dict[str, np.ndarray], sampler: str) -> list[tuple[str, int]]:
    names = [name.removesuffix("_start") for name in arrays if name.endswith("_start") and sampler in name]
    assert names
    return [(name, int(name.rpartition(sampler)[2])) for name in names]


@golden
def test_ddim_trajectories_of_every_seed() -> None:
    arrays = _files("scheduler_ddim*.npz")
    for run, n_steps in _runs(arrays, "ddim"):
        x = arrays[f"{run}_start"]
        for step, timestep in enumerate(SCHEDULE.ddim_timesteps(n_steps).tolist()):
            v = arrays[f"{run}_model_output"][step]
            clean = SCHEDULE.clean(x, v, timestep)
            x = SCHEDULE.ddim_step(x, v, timestep, SCHEDULE.ddim_previous(timestep, n_steps))
            _close(x, arrays[f"{run}_x"][step], STEPS)
        _close(clean, arrays[f"{run}_pred_x0_last"], STEPS)


@golden
def test_lcm_trajectories_of_every_seed() -> None:
    arrays = _files("scheduler_lcm*.npz")
    _close(SCHEDULE.cumulative_alphas, arrays["lcm_alphas_cumprod"], TABLES)
    for run, n_steps in _runs(arrays, "lcm"):
        assert np.array_equal(SCHEDULE.lcm_timesteps(n_steps), arrays[f"lcm_timesteps_{n_steps}"])
        scales = np.array([boundary_scales(t) for t in SCHEDULE.lcm_timesteps(n_steps).tolist()])
        np.testing.assert_allclose(scales[:, 0], arrays[f"lcm_c_skip_{n_steps}"], rtol=1e-6)
        np.testing.assert_allclose(scales[:, 1], arrays[f"lcm_c_out_{n_steps}"], rtol=1e-6)
        _lcm_run(SCHEDULE, {name.removeprefix(f"{run}_"): array for name, array in arrays.items()}, n_steps)


def _lcm_run(schedule: Schedule, run: dict[str, np.ndarray], n_steps: int) -> None:
    x, timesteps = run["start"], [*schedule.lcm_timesteps(n_steps).tolist(), -1]
    for step, (timestep, previous) in enumerate(pairwise(timesteps)):
        v, noise = run["model_output"][step], run["noise_used_except_last"][step]
        _close(schedule.lcm_denoised(x, v, timestep), run["denoised"][step], STEPS)
        x = schedule.lcm_step(x, v, timestep, previous, noise)
        _close(x, run["x"][step], STEPS)

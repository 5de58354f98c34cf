"""The denoising loop against what can be said without it: planted clips, counted calls, windows by hand."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.blending.denoise import DenoiseOptions, Denoisers, Priors, context_windows, denoise
from engine.errors import InputError

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden")) / "animate_anyone"
OPTIONS = DenoiseOptions(steps=4, guidance=1, priors="none")
SHAPE = (6, 4, 3, 5)


class Oracle:
    """Knows the clip that is in the noise: predicts v as if it had seen it. Counts its calls."""

    def __init__(self, clip: np.ndarray, offset: float = 0) -> None:
        self.clip, self.offset = clip, offset
        self.calls: list[dict[str, np.ndarray]] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append({name: array.copy() for name, array in inputs.items()})
        frames = np.rint(inputs["features"][:, 0, 0, 0]).astype(int)
        alpha = OPTIONS.schedule.alpha(int(inputs["timestep"]))
        clean, noisy = self.clip[frames], inputs["latents"]
        # at a root of 1 the noise is not available from the two, and has no effect
        noise = (noisy - np.sqrt(alpha) * clean) / np.sqrt(1 - alpha)
        return {"v": np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * clean + np.float32(self.offset)}


def _arrays(n_frames: int = SHAPE[0]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A clip, noise, and features that say which frame it is."""
    clip, noise = np.random.default_rng(0).standard_normal((2, n_frames, *SHAPE[1:]), np.float32)
    features = np.broadcast_to(np.arange(n_frames, dtype=np.float32)[:, None, None, None], (n_frames, 2, *SHAPE[2:]))
    return clip, noise, features


@pytest.mark.parametrize("sampler", ["ddim", "lcm"])
@pytest.mark.parametrize("n_frames", [6, 30, 61])
def test_an_oracle_gets_its_clip_back(sampler: str, n_frames: int) -> None:
    clip, noise, features = _arrays(n_frames)
    oracle = Oracle(clip)
    options = replace(OPTIONS, sampler=sampler)  # type: ignore[arg-type]
    step_noise = list(np.random.default_rng(1).standard_normal((3, *noise.shape), np.float32))
    found = denoise(
        Denoisers(oracle.run), noise, features, {}, options, step_noise=step_noise if sampler == "lcm" else ()
    )
    # an LCM keeps a ten millionth of the noise
    np.testing.assert_allclose(found, clip, atol=5e-4)
    assert found.dtype == np.float32
    n_windows = len(context_windows(n_frames, 24, 4))
    timesteps = [int(call["timestep"]) for call in oracle.calls]
    assert timesteps == [t for t in options.timesteps().tolist() for _ in range(n_windows)]


def test_guidance_goes_beyond_the_plain_prediction_and_costs_one_call_each() -> None:
    clip, noise, features = _arrays()
    conditional, plain = Oracle(clip, offset=0.5), Oracle(clip, offset=0.25)
    reference = {"keys_00": np.ones((1, 2, 3), np.float32)}
    options = replace(OPTIONS, steps=1, guidance=3.0)
    found = denoise(Denoisers(conditional.run, plain.run), noise, features, reference, options)
    # one step from pure noise gives -v: 0.25 + 3 * (0.5 - 0.25) beyond the clip
    np.testing.assert_allclose(found, clip - 1.0, atol=1e-5)
    assert [set(call) for call in conditional.calls] == [{"latents", "timestep", "features", "keys_00"}]
    assert [set(call) for call in plain.calls] == [{"latents", "timestep", "features"}]
    assert conditional.calls[0]["timestep"].dtype == np.int64 and conditional.calls[0]["timestep"].shape == ()
    denoise(Denoisers(conditional.run, plain.run), noise, features, reference, OPTIONS)
    assert len(plain.calls) == 1  # no guidance, no second half


@pytest.mark.parametrize("form", ["noised", "clean"])
def test_prior_frames_are_in_place_before_every_call_and_at_the_end(form: str) -> None:
    clip, noise, features = _arrays()
    oracle = Oracle(np.zeros_like(clip))
    places = np.array([0, 1, 5])
    priors = Priors(places, clip[places], noise[places])
    options = replace(OPTIONS, priors=form)  # type: ignore[arg-type]
    before = noise.copy()
    found = denoise(Denoisers(oracle.run), noise, features, {}, options, priors)
    np.testing.assert_array_equal(noise, before)  # the caller's arrays stay as they are
    np.testing.assert_array_equal(found[places], clip[places])
    np.testing.assert_allclose(found[2:5], 0, atol=1e-5)
    for call in oracle.calls:
        timestep = int(call["timestep"])
        noised = options.schedule.add_noise(clip[places], noise[places], timestep)
        np.testing.assert_array_equal(call["latents"][places], noised if form == "noised" else clip[places])
    if form == "noised":
        np.testing.assert_array_equal(oracle.calls[0]["latents"], noise)  # at the first step all is noise


def test_progress_is_told() -> None:
    clip, noise, features = _arrays()
    told: list[int] = []
    denoise(Denoisers(Oracle(clip).run), noise, features, {}, OPTIONS, progress=lambda n, latents: told.append(n))
    assert told == [1, 2, 3, 4]


@given(st.integers(1, 200), st.integers(2, 30), st.data())
def test_windows_cover_every_frame(n_frames: int, context_frames: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, context_frames - 1))
    windows = context_windows(n_frames, context_frames, overlap)
    assert set(np.concatenate(windows).tolist()) == set(range(n_frames))
    assert all(len(set(window.tolist())) == len(window) == min(n_frames, context_frames) for window in windows)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no goldens: {GOLDEN} is absent")
def test_windows_of_the_reference() -> None:
    for file in sorted(GOLDEN.glob("context_windows*.json")):
        golden = json.loads(file.read_text())
        for n_frames, expected in golden["windows_by_video_length"].items():
            found = context_windows(int(n_frames), golden["context_frames"], golden["context_overlap"])
            assert [window.tolist() for window in found] == expected


def test_options_that_are_not_possible() -> None:
    for fields, message in (
        ({"sampler": "euler"}, "sampler 'euler' is unknown"),
        ({"priors": "some"}, "priors 'some' are not"),
        ({"guidance": 0.5}, "guidance is 0.5, expected 1 or more"),
        ({"guidance": np.nan}, "guidance is nan"),
        ({"steps": 0}, "0 denoising steps"),
        ({"steps": 60, "sampler": "lcm"}, "60 denoising steps are not possible: use 1 to 50"),
        ({"context_overlap": 24}, "windows of 24 frames cannot overlap by 24"),
    ):
        with pytest.raises(InputError, match=message):
            DenoiseOptions(**fields)  # type: ignore[arg-type]


def test_arrays_that_do_not_fit() -> None:
    clip, noise, features = _arrays()
    networks = Denoisers(Oracle(clip).run)
    places = np.array([0])
    for options, latents, guides, priors, message in (
        (OPTIONS, noise[0], features, None, r"latents of shape \(4, 3, 5\)"),
        (OPTIONS, noise, features[1:], None, "features of shape .* do not fit latents"),
        (replace(OPTIONS, priors="clean"), noise, features, None, "options.priors is 'clean', but there are no priors"),
        (replace(OPTIONS, priors="noised"), noise, features, Priors(places, clip[:1]), "priors without their noise"),
        (replace(OPTIONS, priors="clean"), noise, features, Priors(places, clip[:2]), "2 priors at 1 places"),
        (replace(OPTIONS, priors="clean"), noise, features, Priors(places, clip[:1, :, :2]), "prior frames of shape"),
        (replace(OPTIONS, sampler="lcm"), noise, features, None, "noise for 0 steps, expected 3"),
    ):
        with pytest.raises(ValueError, match=message):
            denoise(networks, latents, guides, {}, options, priors)
    with pytest.raises(InputError, match=r"guidance 2\.0 needs the network denoiser_plain"):
        denoise(networks, noise, features, {}, replace(OPTIONS, guidance=2.0))

"""Pictures in, pictures out: sizes, seeds, which network is run how often; networks are stand-ins of known answer."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.blending.acinterp import FRAMES, GIVEN, Interpolator, background_flow, clip_pixels, pictures
from engine.blending.denoise import DenoiseOptions
from engine.errors import InputError

SIZE = (64, 128)  # height, width
LATENT = (8, 16)
FAST = DenoiseOptions(steps=2, guidance=2.0)


class Networks:
    """A VAE that keeps every 8th pixel, guiders that keep them too, a denoiser that sees noise everywhere."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls[graph] += 1
        assert all(array.dtype in (np.float32, np.int64) and array.flags.c_contiguous for array in inputs.values())
        if graph == "image_encoder":
            return {"embedding": inputs["pixels"].mean(axis=(2, 3))[:, None]}
        if graph == "vae_encoder":
            pixels = inputs["pixels"]
            assert pixels.shape == (1, 3, *SIZE) and np.abs(pixels).max() <= 1
            small = pixels[:, :, ::8, ::8]
            return {"latents": np.concatenate([small, small[:, :1]], axis=1)}
        if graph == "vae_decoder":
            assert inputs["latents"].shape == (1, 4, *LATENT)
            return {"pixels": (inputs["latents"][:, :3].repeat(8, 2).repeat(8, 3) / 2 + 0.5).clip(0, 1)}
        if graph == "reference":
            return {"keys_00": inputs["latents"][:, 0], "vectors_00": inputs["embedding"][:, 0]}
        if graph in ("pose_guider", "background_guider"):
            fed = inputs["images" if graph == "pose_guider" else "flow"]
            return {"features": fed[:, :2, ::8, ::8]}
        assert ("keys_00" in inputs) == (graph == "denoiser")
        return {"v": inputs["latents"] * np.float32(0.5)}


def _pictures(n: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8)


def _between(seed: int, options: DenoiseOptions = FAST) -> tuple[np.ndarray, Networks]:
    networks = Networks()
    interpolator = Interpolator(networks, *SIZE, options)
    start, end = interpolator.latents(_pictures(4)), interpolator.latents(_pictures(4, seed=1))
    flow = background_flow(np.stack([np.eye(3)] * FRAMES), *SIZE)
    features = interpolator.features(_pictures(FRAMES), flow)
    reference = interpolator.reference(_pictures(1)[0])
    return interpolator.interpolate(reference, start, end, features, seed), networks


def test_eight_frames_come_out_and_nothing_is_run_twice() -> None:
    frames, networks = _between(3)
    assert frames.shape == (8, *SIZE, 3) and frames.dtype == np.uint8 and frames.std() > 5
    assert networks.calls == {
        "image_encoder": 1,
        "vae_encoder": 9,
        "reference": 1,
        "pose_guider": 1,
        "background_guider": 1,
        "denoiser": 2,
        "denoiser_plain": 2,
        "vae_decoder": 8,
    }


@pytest.mark.parametrize("sampler", ["ddim", "lcm"])
def test_equal_seeds_give_equal_frames(sampler: str) -> None:
    options = DenoiseOptions(steps=2, guidance=1, sampler=sampler)  # type: ignore[arg-type]
    one, networks = _between(3, options)
    assert np.array_equal(one, _between(3, options)[0]) and not np.array_equal(one, _between(4, options)[0])
    assert networks.calls["denoiser_plain"] == 0


def test_a_clip_without_priors_is_what_the_loop_gives() -> None:
    networks = Networks()
    interpolator = Interpolator(networks, *SIZE, FAST)
    noise = np.random.default_rng(0).standard_normal((5, 4, *LATENT), np.float32)
    features = interpolator.features(_pictures(5))
    found = interpolator.animate(interpolator.reference(_pictures(1)[0]), features, noise)
    assert found.shape == noise.shape and networks.calls["background_guider"] == 0


def test_pictures_of_another_size_are_resized_as_pillow_does() -> None:
    image = _pictures(1, (50, 70))[0]
    (seen,) = Interpolator(Networks(), *SIZE).latents([image])
    resized = np.asarray(Image.fromarray(image).resize((128, 64), Image.Resampling.LANCZOS), np.float32)
    np.testing.assert_allclose(seen[:3], (resized / 127.5 - 1).transpose(2, 0, 1)[:, ::8, ::8], atol=1e-6)
    pixels = clip_pixels(image)
    squeezed = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    assert pixels.shape == (1, 3, 224, 224) and pixels.dtype == np.float32
    deviation = squeezed.std(axis=(0, 1)) / pixels[0].std(axis=(1, 2))
    np.testing.assert_allclose(deviation, [0.26862954, 0.26130258, 0.27577711], rtol=1e-4)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_pictures_survive_the_way_to_pixels_and_back(seed: int) -> None:
    images = _pictures(2, (8, 8), seed)
    assert np.array_equal(pictures(images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)), images)
    assert pictures(np.array([[[[2.0]], [[-1.0]], [[0.5]]]])).tolist() == [[[[255, 0, 128]]]]


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_shift_is_the_same_everywhere(x: float, y: float) -> None:
    """Planted: the background moves by (x, y) pixels."""
    homography = np.array([[[1, 0, x], [0, 1, y], [0, 0, 1]]])
    flow = background_flow(homography, 40, 80)
    assert flow.shape == (1, 40, 80, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(flow, np.broadcast_to([x / 80, y / 80], flow.shape), atol=1e-6)


def test_zoom_grows_with_the_place() -> None:
    flow = background_flow(-3 * np.diag([2.0, 2.0, 1.0])[None], 40, 80)  # the same homography at any scale
    np.testing.assert_allclose(flow[0, 7, 11], [11 / 80, 7 / 80], atol=1e-6)


def test_what_does_not_fit_is_said() -> None:
    interpolator = Interpolator(Networks(), *SIZE, FAST)
    latents = np.zeros((GIVEN, 4, *LATENT), np.float32)
    features = np.zeros((FRAMES, 2, *LATENT), np.float32)
    for call, message in (
        (lambda: interpolator.interpolate({}, latents[1:], latents, features, 0), "start of 3 frames, expected 4"),
        (lambda: interpolator.interpolate({}, latents, latents, features[2:], 0), "features of 14 frames, expected 16"),
        (lambda: interpolator.features(_pictures(2), np.zeros((2, 8, 8, 2), np.float32)), "background flow of shape"),
        (lambda: interpolator.latents(_pictures(1)[..., :1]), r"uint8\[64, 128, 1\], expected RGB uint8"),
        (lambda: interpolator.latents(["a.png"]), "a picture is str, expected"),  # type: ignore[list-item]
        (lambda: background_flow(np.eye(3), 8, 8), "homographies of shape"),
        (lambda: background_flow(np.full((1, 3, 3), np.nan), 8, 8), "expected finite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="frames of 64x60 pixels, expected multiples of 64"):
        Interpolator(Networks(), 60, 64)
    with pytest.raises(InputError, match="inside out"):
        background_flow(np.array([[[1, 0, 0], [0, 1, 0], [-1, 0, 1.0]]]), 8, 8)

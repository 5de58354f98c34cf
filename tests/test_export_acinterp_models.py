"""ACInterp's networks: clips in a batch, any latent size, nothing left behind, the exported one computes the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from engine.errors import InputError  # noqa: E402
from export.models.acinterp import (  # noqa: E402
    Denoiser,
    GuiderConfig,
    MotionConfig,
    ReferenceNetwork,
    UNetConfig,
    block_names,
)

TINY = UNetConfig(
    channels=(32, 32),
    heads=(2, 4),
    attention=(True, False),
    layers=1,
    norm_groups=8,
    embedding_channels=16,
    motion=MotionConfig(heads=4, max_frames=8),
)

PUBLISHED = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": [*["CrossAttnDownBlock3D"] * 3, "DownBlock3D"],
    "up_block_types": ["UpBlock3D", *["CrossAttnUpBlock3D"] * 3],
    "use_motion_module": True,
    "motion_module_resolutions": [1, 2, 4, 8],
    "motion_module_mid_block": True,
    "motion_module_decoder_only": False,
    "motion_module_kwargs": {
        "num_attention_heads": 8,
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self", "Temporal_Self"],
        "temporal_position_encoding_max_len": 32,
    },
}


@pytest.fixture(autouse=True, scope="module")
def _no_grad(one_thread: None) -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny() -> tuple[ReferenceNetwork, Denoiser]:
    torch.manual_seed(0)
    return ReferenceNetwork(replace(TINY, motion=None)).eval(), Denoiser(TINY).eval()


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_clips_of_a_batch_do_not_touch_each_other(tiny: tuple[ReferenceNetwork, Denoiser]) -> None:
    reference, denoiser = tiny
    frames, clips = 3, 2
    latents, features = _noise(1, clips * frames, 4, 4, 6), _noise(2, clips * frames, 32, 4, 6)
    embedding, timesteps = _noise(3, clips, 1, 16), torch.tensor([999, 19])
    bank = reference(_noise(4, clips, 4, 8, 4), embedding)
    vectors, keys_values = denoiser.vectors(embedding), denoiser.keys_values(bank)
    together = denoiser(latents, timesteps, features, vectors, keys_values, frames)
    for clip in range(clips):
        rows, one = slice(clip * frames, (clip + 1) * frames), slice(clip, clip + 1)
        alone = denoiser(
            latents[rows],
            timesteps[clip],
            features[rows],
            [vector[one] for vector in vectors],
            [tensor[one] for tensor in keys_values],
            frames,
        )
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-5)


def test_no_embedding_is_a_zero_embedding(tiny: tuple[ReferenceNetwork, Denoiser]) -> None:
    _, denoiser = tiny
    latents, timestep = _noise(1, 2, 4, 4, 4), torch.tensor(500)
    zero = denoiser.vectors(torch.zeros(1, 1, 16))
    torch.testing.assert_close(
        denoiser(latents, timestep, None, None, None, 2), denoiser(latents, timestep, None, zero, None, 2)
    )


@settings(max_examples=10, deadline=None)
@given(height=st.integers(3, 9), width=st.integers(3, 9), frames=st.integers(1, 8))
def test_any_latent_size_and_window(height: int, width: int, frames: int) -> None:
    torch.manual_seed(0)
    reference, denoiser = ReferenceNetwork(replace(TINY, motion=None)).eval(), Denoiser(TINY).eval()
    bank = reference(_noise(1, 1, 4, height, width), _noise(2, 1, 1, 16))
    latents = _noise(3, frames, 4, height, width)
    v = denoiser(latents, torch.tensor(5), None, None, denoiser.keys_values(bank), frames)
    assert v.shape == latents.shape and v.isfinite().all()


def test_a_window_longer_than_the_table_is_refused(tiny: tuple[ReferenceNetwork, Denoiser]) -> None:
    with pytest.raises(ValueError, match="9 frames in a window, wanted 1 to 8"):
        tiny[1](_noise(1, 9, 4, 4, 4), torch.tensor(5), None, None, None, 9)


def test_nothing_stays_behind_on_the_modules(tiny: tuple[ReferenceNetwork, Denoiser]) -> None:
    """A run with another reference in between changes nothing."""
    reference, denoiser = tiny
    latents = _noise(1, 2, 4, 4, 4)

    def run(bank: tuple[Tensor, ...] | None) -> Tensor:
        keys_values = None if bank is None else denoiser.keys_values(bank)
        return denoiser(latents, torch.tensor(5), None, None, keys_values, 2)

    before = run(None)
    read = run(reference(_noise(2, 1, 4, 4, 4), _noise(3, 1, 1, 16)))
    assert (read - before).abs().max() > 1e-3
    torch.testing.assert_close(run(None), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_inflated_groupnorm": False}, "use_inflated_groupnorm False: only True"),
        ({"act_fn": "gelu"}, "act_fn 'gelu'"),
        ({"up_block_types": ["UpBlock2D"] * 4}, "levels differ"),
        ({"attention_head_dim": [8, 8]}, "levels differ"),
        ({"norm_eps": None}, "without norm_eps"),
        ({"block_out_channels": 320}, "a value of another type"),
        ({"motion_module_kwargs": {"attention_block_types": ["Spatial"]}}, "attention Spatial"),
    ],
)
def test_other_architectures_are_refused(changes: dict[str, object], said: str) -> None:
    raw = {**PUBLISHED, **changes}
    with pytest.raises(InputError, match=said):
        UNetConfig.from_dict({name: value for name, value in raw.items() if value is not None})


def test_the_published_config_is_the_default() -> None:
    assert UNetConfig.from_dict(PUBLISHED) == UNetConfig(motion=MotionConfig())
    assert len(block_names(UNetConfig())) == 16
    assert (
        GuiderConfig.from_dict(
            {
                "conditioning_channels": 3,
                "block_out_channels": [16, 32, 96, 256],
                "conditioning_embedding_channels": 320,
            }
        )
        == GuiderConfig()
    )


class _Read(nn.Module):
    """The denoiser as a graph has it: conditions one by one."""

    def __init__(self, denoiser: Denoiser, frames: int) -> None:
        super().__init__()
        self.denoiser, self.frames = denoiser, frames

    def forward(self, latents: Tensor, timestep: Tensor, keys_values: list[Tensor]) -> tuple[Tensor]:
        return (self.denoiser(latents, timestep, None, None, keys_values, self.frames),)


@pytest.mark.slow
def test_the_exported_denoiser_computes_the_same(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from export import onnx_export

    torch.manual_seed(0)
    # with a transformer and a motion module in the middle alone: the exporter takes long over each
    config = replace(TINY, attention=(False, False))
    reference = ReferenceNetwork(replace(config, motion=None)).eval()
    denoiser = Denoiser(replace(config, motion=MotionConfig(heads=4, downscales=()))).eval()
    frames = 3

    def trial(height: int, width: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        bank = reference(_noise(1, 1, 4, height, width), _noise(2, 1, 1, 16))
        return _noise(3, frames, 4, height, width), torch.tensor(519), list(denoiser.keys_values(bank))

    names = [f"{kind}_{block}" for block in range(len(block_names(config))) for kind in ("keys", "values")]
    latents, timestep, keys_values = trial(6, 8)
    dynamic = torch.export.Dim.DYNAMIC
    with onnx_export._quiet():
        program = torch.onnx.export(
            _Read(denoiser, frames).eval(),
            (latents, timestep, keys_values),
            input_names=["latents", "timestep", *names],
            dynamic_shapes=({2: dynamic, 3: dynamic}, {}, [{1: dynamic} for _ in names]),
            opset_version=onnx_export.OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(tmp_path / "read.onnx")
    nodes = onnx.load(tmp_path / "read.onnx").graph.node
    resizes = [node for node in nodes if node.op_type == "Resize"]
    assert resizes and all(len(node.input) == 3 for node in resizes), "upsampling depends on shapes"
    assert not any(node.op_type == "Tile" for node in nodes)
    session = onnxruntime.InferenceSession(tmp_path / "read.onnx", providers=["CPUExecutionProvider"])
    for size in ((6, 8), (8, 8), (2, 4)):
        latents, timestep, keys_values = trial(*size)
        feeds = dict(zip(["latents", "timestep", *names], (latents, timestep, *keys_values), strict=True))
        (v,) = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
        expected = denoiser(latents, timestep, None, None, keys_values, frames)
        torch.testing.assert_close(torch.from_numpy(v), expected, rtol=0, atol=1e-5)

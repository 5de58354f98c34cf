"""The two small towers: what a feature depends on, the ablations, and the bundle that comes of them."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from engine.errors import ArtifactError  # noqa: E402
from engine.features.embedding import embed_speech  # noqa: E402
from engine.features.mini import MiniEmbedding, motion_rows  # noqa: E402
from engine.features.recording import Recording  # noqa: E402
from engine.features.speech import N_COLUMNS, speech_features  # noqa: E402
from engine.inference.networks import Networks  # noqa: E402
from engine.timebase import frame_start  # noqa: E402
from export.bundle import write_bundle  # noqa: E402
from export.losses import global_loss  # noqa: E402
from export.models.mini import AuMoMini, MaxPooling, MiniConfig, MiniTower, TokenPooling  # noqa: E402
from export.recipes.mini import mini_recipe  # noqa: E402
from export.training.checkpoint import Checkpoint, write_checkpoint  # noqa: E402

SMALL = {"width": 8, "dilations": (1, 3), "high_dilations": (2,), "low_dim": 4, "high_dim": 6, "heads": 2}
ABLATIONS = [
    MiniConfig(window_frames=10, **SMALL),
    MiniConfig(window_frames=10, pooling="max", **SMALL),
    MiniConfig(window_frames=10, levels="low", **SMALL),
    MiniConfig(window_frames=10, layout="split", **SMALL),
    MiniConfig(window_frames=10, stop_gradient=False, **SMALL),
]
NAMES = ["token", "max", "low", "split", "no-stop"]


def _tower(config: MiniConfig, seed: int = 0) -> MiniTower:
    torch.manual_seed(seed)
    return AuMoMini(config).audio.eval()


def _checkpoint(config: MiniConfig, mouth: bool = False) -> Checkpoint:
    torch.manual_seed(0)
    weights = AuMoMini(config).state_dict()
    return Checkpoint(config, mouth, {}, [], 0, weights, weights, {})


def _recording(rng: np.random.Generator, clip_nodes: tuple[int, ...] = (30, 13)) -> Recording:
    start = np.cumsum([0, *clip_nodes])
    n = int(start[-1]) * 4
    joints = np.cumsum(rng.normal(0, 1, (n, 75, 3)), axis=0).astype(np.float32)
    samples = rng.normal(0, 0.1, frame_start(n)).astype(np.float32)
    return Recording("one", samples, joints, np.ones((n, 75), np.float32), start, 20.0)


@pytest.mark.parametrize("config", ABLATIONS, ids=NAMES)
def test_features_are_unit_vectors_of_the_declared_sizes(config: MiniConfig) -> None:
    model = AuMoMini(config).eval()
    for n_frames in (1, 7, 40):
        audio, motion = model(
            torch.randn(3, n_frames, config.audio_columns), torch.randn(3, n_frames, config.motion_columns)
        )
        high = config.high_dim if config.levels == "both" else 0
        for side in (audio, motion):
            assert side.low.shape == (3, n_frames, 4) and side.high.shape == (3, n_frames, high)
            assert side.cls.shape == (3, high)
            for values in (side.low, side.high, side.cls)[: 3 if high else 1]:
                torch.testing.assert_close(values.norm(dim=-1), torch.ones(values.shape[:-1]))


def test_default_size_is_small() -> None:
    low_only = sum(p.numel() for p in AuMoMini(MiniConfig(levels="low")).parameters())
    assert 45_000 < low_only < 60_000
    assert sum(p.numel() for p in AuMoMini(MiniConfig()).parameters()) < 100_000


@pytest.mark.parametrize("config", ABLATIONS, ids=NAMES)
def test_declared_context_is_what_a_feature_depends_on(config: MiniConfig) -> None:
    rows = torch.randn(1, 81, config.audio_columns, requires_grad=True)
    middle = 40
    features = _tower(config)(rows)
    reach = config.low_reach_frames
    assert _seen(features.low[0, middle], rows) == (middle - reach, middle + reach)
    if config.levels == "both" and config.pooling == "token":
        seen = _seen(features.high[0, middle], rows)
        own = config.low_reach_frames if config.stop_gradient and config.layout == "hierarchy" else 0
        # through the stopped gradient nothing is to be seen: there the low level's own reach is missing
        assert seen == (middle - config.lookback_frames + own, middle + config.lookahead_frames - own)


def _seen(value, rows) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """First and last frame on which a feature depends."""
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((value * direction).sum(), rows, retain_graph=True)
    frames = torch.nonzero(gradient[0].abs().sum(-1)).flatten()
    return int(frames[0]), int(frames[-1])


@pytest.mark.parametrize("config", [ABLATIONS[0], ABLATIONS[1], ABLATIONS[3]], ids=["token", "max", "split"])
def test_high_feature_of_the_middle_is_the_summary_of_its_window(config: MiniConfig) -> None:
    rows = torch.randn(2, config.window_frames, config.audio_columns)
    features = _tower(config)(rows)
    torch.testing.assert_close(features.high[:, config.window_frames // 2], features.cls)


@pytest.mark.parametrize("window", [4, 7, 128])
def test_sliding_pooling_equals_pooling_of_each_window(window: int) -> None:
    x = torch.randn(2, 20, 6)
    for pool in (TokenPooling(6, 3, window), MaxPooling(window)):
        sliding, _ = pool(x)
        for t in range(20):
            _, whole = pool(x[:, max(t - window // 2, 0) : t + (window - 1) // 2 + 1])
            torch.testing.assert_close(sliding[:, t], whole)


@pytest.mark.parametrize("config", ABLATIONS[:2] + ABLATIONS[3:], ids=NAMES[:2] + NAMES[3:])
def test_stopped_gradient_keeps_the_global_loss_out_of_the_low_level(config: MiniConfig) -> None:
    model = AuMoMini(config)
    audio, motion = model(torch.randn(4, 20, config.audio_columns), torch.randn(4, 20, config.motion_columns))
    global_loss(audio.cls, motion.cls)[0].backward()
    for tower in (model.audio, model.motion):
        low = [p.grad for p in tower.low.parameters()]
        assert any(g is not None and bool(g.abs().sum() > 0) for g in low) == (not config.stop_gradient)
        assert all(p.grad is not None for p in tower.high.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("config", [MiniConfig(**SMALL), ABLATIONS[1], ABLATIONS[2]], ids=["token", "max", "low"])
def test_bundle_gives_the_features_of_the_network(tmp_path: Path, config: MiniConfig, rng: np.random.Generator) -> None:
    checkpoint = _checkpoint(config)
    write_checkpoint(tmp_path / "a.ckpt", checkpoint)
    write_bundle(mini_recipe(tmp_path / "a.ckpt"), tmp_path / "mini")
    embedding = MiniEmbedding.of(Networks.open(tmp_path / "mini"))
    recording = _recording(rng)
    speech, motion = embed_speech(embedding, recording.samples), embedding.motion(recording)
    model = AuMoMini(config)
    model.load_state_dict(checkpoint.average)
    model.eval()
    with torch.no_grad():
        heard = model.audio(torch.from_numpy(speech_features(recording.samples)[None]))
        rows = motion_rows(recording)
        shown = [model.motion(torch.from_numpy(rows[None, clip])) for clip in recording.clips]
    for got, wanted in (
        (speech.low, heard.low[0]),
        (speech.high, heard.high[0]),
        (motion.low, torch.cat([part.low[0] for part in shown])),
        (motion.high, torch.cat([part.high[0] for part in shown])),
    ):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)
    embedding.close()
    manifest = tmp_path / "mini" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "mini"', '"name": "other"'))
    with pytest.raises(ArtifactError, match="bundle of 'other', expected 'mini'"):
        MiniEmbedding.of(Networks.open(tmp_path / "mini"))


def test_towers_of_another_width_of_rows_do_not_run() -> None:
    with pytest.raises(RuntimeError):
        _tower(ABLATIONS[0])(torch.randn(1, 10, N_COLUMNS + 1))

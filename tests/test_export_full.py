"""The published network as a bundle: exported, opened without torch, equal to torch from samples to features."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from engine.features.embedding import embed_speech  # noqa: E402
from engine.features.full import FullEmbedding  # noqa: E402
from engine.features.text import TextTokens, align, best_tokens, read_ctc_vocabulary, transcribe  # noqa: E402
from engine.inference.manifest import Bundle  # noqa: E402
from engine.inference.networks import NetworkOptions, Networks  # noqa: E402
from export.bundle import write_bundle  # noqa: E402
from export.recipes.full import make_recipe  # noqa: E402
from tests.helpers.fakes_full import small_full  # noqa: E402

N_SAMPLES = 40_000


pytestmark = pytest.mark.usefixtures("one_thread")


def _features(bundle: Bundle, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In torch, with separate trunks, of one window."""
    model = small_full()
    waveform = torch.from_numpy(((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)).astype(np.float32))[None]
    with torch.no_grad():
        raw_low, raw_high, ft_low, ft_high, logits = model.speech(share=False)(waveform)
        tokens = best_tokens(logits[0].numpy(), read_ctc_vocabulary(bundle.file("vocab.json")))
        ids, words = TextTokens(bundle.file("vocab.txt")).encode(transcribe(tokens))
        (hidden,) = model.text()(torch.from_numpy(ids))
        text = hidden[:, align(tokens, words)]
        low, _, cls, _ = model.audio()(raw_low, ft_low, raw_high, ft_high, text)
    return low[0].numpy(), cls[0].numpy()


@pytest.mark.slow
def test_bundle_computes_what_torch_computes(tmp_path: Path, rng: np.random.Generator) -> None:
    write_bundle(make_recipe(small_full()), tmp_path / "full")
    bundle = Bundle.open(tmp_path / "full")
    assert bundle.name == "full" and set(bundle.graphs) == {"speech", "text", "audio", "motion"}
    embedding = FullEmbedding(Networks.open(bundle, NetworkOptions(n_threads=1)))
    samples = rng.normal(size=N_SAMPLES).astype(np.float32)
    found = embedding.as_released(samples)
    low, cls = _features(bundle, samples)
    np.testing.assert_allclose(found.low, low / np.linalg.norm(low, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(found.high[0], cls / np.linalg.norm(cls), atol=1e-5)
    assert len(embed_speech(embedding, samples).low) == 75

"""What a user notices: the same path by the same networks, another by others; decibels of frames."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from engine.blending.acinterp import FRAMES, GIVEN
from engine.character.embeddings import write_embedding
from engine.character.pack import CharacterPack
from engine.character.perform import PerformOptions, perform
from engine.character.retrieval import RetrievalOptions
from engine.errors import InputError
from engine.features.learned import learned_embedding
from engine.inference.backends import BACKENDS
from engine.inference.engines import current_key, engines_folder, set_folder, write_engine
from engine.inference.manifest import MANIFEST, Bundle, GraphSpec, TensorSpec
from engine.inference.networks import Networks
from engine.inference.target import Target
from export.agreement import path_agreement, psnr_db, transition_agreement, transition_frames
from export.compile import CompileOptions, compile_bundle
from export.report import table
from export.verify import verify
from tests.helpers.fakes import make_pack
from tests.helpers.fakes_session import write_fake_bundle, write_manifest
from tests.helpers.mini_bundles import mini_bundle
from tests.helpers.speech import write_speech


@pytest.fixture(scope="module")
def character(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("made") / "anna.tango").path


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "talk.wav", 8)


@pytest.fixture
def mini(tmp_path: Path) -> Bundle:
    """Two networks that multiply, with a profile."""
    folder = mini_bundle(tmp_path / "mini")
    fields = json.loads((folder / MANIFEST).read_text())
    for graph in fields["graphs"].values():
        graph["profiles"] = {"live": {"batch": [1, 1, 1], "frames": [1, 200, 2000]}}
    write_manifest(folder, fields)
    return Bundle.open(folder)


def negated(onnx_file: Path) -> bytes:
    """The network with all its weights' signs turned."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(onnx_file))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    return bytes(model.SerializeToString())


def test_the_path_is_the_one_that_is_rendered(mini: Bundle, character: Path, speech: Path) -> None:
    from scipy.io import wavfile

    from export.agreement import _motion, retrieved_nodes

    pack, (_, samples) = CharacterPack.open(character), wavfile.read(speech)
    samples = (samples / 32768).astype(np.float32)
    with Networks.from_onnx(mini) as networks:
        embedding = learned_embedding(networks)
        write_embedding(character, embedding, pack.recording, {})
        nodes = retrieved_nodes(pack, _motion(pack, embedding), embedding, samples)
        options = PerformOptions(retrieval=RetrievalOptions("mini", networks))
        np.testing.assert_array_equal(nodes, perform(pack, samples, options).nodes)


def test_equal_networks_choose_equal_nodes(mini: Bundle, character: Path, speech: Path) -> None:
    with Networks.from_onnx(mini) as one, Networks.from_onnx(mini, "openvino") as other:
        found = path_agreement(one, other, character, speech)
    assert found.passed and found.share == 1 and found.asked == 0.99
    assert (found.n_nodes, found.character, found.speech) == (60, "anna.tango", "talk.wav")


def test_verification_catches_another_path(mini: Bundle, character: Path, speech: Path, tmp_path: Path) -> None:
    compile_bundle(mini.folder, CompileOptions(Target("onnxruntime"), verify=False, progress=False))
    unheard = verify(mini, Target("onnxruntime"))
    assert unheard.passed and unheard.paths is None
    assert "not measured: the retrieved path: it needs a character and a speech" in table(unheard)
    same = verify(mini, Target("onnxruntime"), character=character, speech=speech)
    assert same.passed and same.paths is not None and same.paths.share == 1 and not same.not_measured
    assert "retrieved path of anna.tango for talk.wav: 100.00% of 60 nodes alike (asked 99%), ok" in table(same)
    (tmp_path / "other").write_bytes(negated(mini.model("audio")))
    folder = set_folder(engines_folder(mini), Target("onnxruntime", "fp32", "live"), BACKENDS["onnxruntime"].machine())
    key = current_key(mini, "audio", Target("onnxruntime", "fp32", "live"))
    write_engine(folder, key, {"audio.engine": tmp_path / "other"}, {})
    other = verify(mini, Target("onnxruntime"), character=character, speech=speech)
    assert other.passed is False and other.paths is not None and not other.paths.passed
    assert "of the retrieved path is alike, wanted 99%" in other.why
    again = verify(mini, Target("onnxruntime"))
    assert again.passed is False and again.paths == other.paths, "who does not look again does not see it pass"


def test_motion_features_of_other_networks_are_not_used(mini: Bundle, tmp_path: Path, speech: Path) -> None:
    """A pack may hold those of a bundle of the same name."""
    pack = make_pack(tmp_path / "ben.tango")
    with Networks.from_onnx(mini) as networks:
        first = path_agreement(networks, networks, pack.path, speech)
        with Networks.from_onnx(Bundle.open(mini_bundle(tmp_path / "other", 0.3))) as others:
            write_embedding(pack.path, learned_embedding(others), pack.recording, {})
        assert path_agreement(networks, networks, pack.path, speech) == first


def test_what_cannot_be_compared(mini: Bundle, character: Path, speech: Path, tmp_path: Path) -> None:
    with Networks.from_onnx(mini) as networks:
        with pytest.raises(InputError):
            path_agreement(networks, networks, tmp_path / "nobody.tango", speech)
        with pytest.raises(InputError, match=r"cannot be read as a \.wav"):
            path_agreement(networks, networks, character, tmp_path / "nothing.wav")
        with pytest.raises(InputError, match=r"short\.wav has 1\.0 s of speech, wanted at least 2"):
            path_agreement(networks, networks, character, write_speech(tmp_path / "short.wav", 1))


LATENT = 16
SIZES = {"128": {"height": (LATENT,) * 3, "width": (LATENT,) * 3}}


class Painter:
    """The networks of ACInterp as plain arithmetic; `off` is added to every pixel that is decoded."""

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.calls: list[str] = []

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append(graph)
        if graph == "vae_encoder":
            pixels = inputs["pixels"]
            small = pixels.reshape(len(pixels), 3, LATENT, 8, LATENT, 8).mean(axis=(3, 5))
            return {"latents": np.concatenate([small, small[:, :1]], axis=1).astype(np.float32)}
        if graph == "vae_decoder":
            large = np.kron(inputs["latents"][:, :3], np.ones((1, 1, 8, 8), np.float32))
            return {"pixels": np.clip(0.5 + 0.1 * np.tanh(large) + self.off, 0, 1).astype(np.float32)}
        if graph in ("pose_guider", "background_guider"):
            given = inputs["images" if graph == "pose_guider" else "flow"]
            return {"features": np.zeros((len(given), 4, LATENT, LATENT), np.float32)}
        if graph == "image_encoder":
            return {"embedding": np.ones((1, 1, 8), np.float32)}
        if graph == "reference":
            return {"keys_00": inputs["latents"][:, :1].reshape(1, -1, 1)}
        return {"v": (0.1 * inputs["latents"] + (0 if graph == "denoiser_plain" else 0.05)).astype(np.float32)}


@pytest.fixture
def acinterp(tmp_path: Path) -> Bundle:
    latents = TensorSpec("latents", "float32", (FRAMES, 4, "height", "width"))
    spec = GraphSpec("denoiser", "d.onnx", (latents,), (replace(latents, name="v"),), {}, profiles=SIZES)
    return write_fake_bundle(tmp_path / "acinterp", {"d.onnx": b"x"}, {"denoiser": spec})


def test_transitions_of_equal_networks_are_equal(acinterp: Bundle) -> None:
    one, other = Painter(), Painter()
    frames = [transition_frames(painter, acinterp, "128") for painter in (one, other)]
    assert frames[0].dtype == np.uint8 and frames[0].shape == (FRAMES - 2 * GIVEN, 128, 128, 3)
    assert np.ptp(frames[0]) > 10, "there is something to compare"
    assert set(one.calls) == {
        "vae_encoder", "vae_decoder", "pose_guider", "background_guider", "image_encoder", "reference", "denoiser",
        "denoiser_plain",
    }  # fmt: skip
    found = transition_agreement(*frames)
    assert found.passed and found.psnr_db == 120 and (found.width_px, found.height_px) == (128, 128)


def test_decibels(acinterp: Bundle) -> None:
    expected = transition_frames(Painter(), acinterp, "128")
    for off, passed in ((2, True), (6, False)):  # of 255: 42.1 and 32.6 dB
        found = transition_agreement(expected, transition_frames(Painter(off / 255), acinterp, "128"))
        assert found.psnr_db == pytest.approx(20 * np.log10(255 / off), abs=0.1)
        assert found.passed is passed and found.asked_db == 35
    zeros, ones = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
    assert psnr_db(zeros, ones) == 0 and psnr_db(zeros, zeros) == 120


def test_profiles_that_are_not_there(acinterp: Bundle) -> None:
    with pytest.raises(KeyError):
        transition_frames(Painter(), acinterp, "512")
    with Networks.from_onnx(acinterp) as networks, pytest.raises(InputError, match="retrieval wants mini or full"):
        path_agreement(networks, networks, acinterp.folder, acinterp.folder / "x.wav")

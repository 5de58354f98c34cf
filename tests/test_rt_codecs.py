"""Pictures in every encoding: decodable alone and together, the same picture in all of them, cut short or whole."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.character.pack import CharacterPack
from engine.errors import ArtifactError
from tango_rt.options import Encoding
from tango_rt.video.codecs import FrameCoder, StepPictures
from tango_rt.video.gop import GopDecoder
from tests.helpers.fakes import HEIGHT, WIDTH, make_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> CharacterPack:
    return make_pack(tmp_path_factory.mktemp("codecs") / "anna.tango", (12, 8))


def drawn(pack: CharacterPack, node: int) -> StepPictures:
    return StepPictures(tuple(pack.packets(node)))


def stored(pack: CharacterPack, node: int) -> np.ndarray:
    return GopDecoder(pack.info.extradata, WIDTH, HEIGHT).decode(pack.packets(node))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def test_h264_is_a_stream_that_a_strange_decoder_takes_from_any_node_on(pack: CharacterPack) -> None:
    coder = FrameCoder("h264", pack.info)
    messages = [message for node in (3, 4, 15, 0) for message in coder.encode(drawn(pack, node))]
    assert all(pack.info.extradata in messages[k] for k in (0, 4, 8, 12))
    for first in (0, 4, 12):
        decoder = av.CodecContext.create("h264", "r")  # no extradata: all is in the stream
        pictures = [p for packet in decoder.parse(b"".join(messages[first:])) for p in decoder.decode(packet)]
        pictures += [p for packet in decoder.parse(b"") for p in decoder.decode(packet)] + decoder.decode(None)
        assert len(pictures) == 16 - first
    np.testing.assert_array_equal(
        pictures[-1].to_ndarray(), GopDecoder(pack.info.extradata, WIDTH, HEIGHT).decode_i420(pack.packets(0))[3]
    )


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_a_step_cut_short_decodes_and_what_follows_too(pack: CharacterPack, n_frames: int) -> None:
    coder = FrameCoder("h264", pack.info)
    messages = coder.encode(drawn(pack, 5), n_frames) + coder.encode(drawn(pack, 9))
    assert len(messages) == n_frames + 4
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = {"err_detect": "explode"}
    pictures = [p for message in messages for p in decoder.decode(av.Packet(message))] + decoder.decode(None)
    wanted = GopDecoder(pack.info.extradata, WIDTH, HEIGHT)
    expected = [*wanted.decode_i420(pack.packets(5))[:n_frames], *wanted.decode_i420(pack.packets(9))]
    np.testing.assert_array_equal([p.to_ndarray() for p in pictures], expected)
    for encoding in ("jpeg", "rgb24", "i420", "reference"):
        assert len(FrameCoder(encoding, pack.info).encode(drawn(pack, 5), n_frames)) == n_frames


def test_rgb_and_i420_are_the_decoded_pictures(pack: CharacterPack) -> None:
    rgb = FrameCoder("rgb24", pack.info).encode(drawn(pack, 7))
    np.testing.assert_array_equal([np.frombuffer(f, np.uint8).reshape(HEIGHT, WIDTH, 3) for f in rgb], stored(pack, 7))
    for k, data in enumerate(FrameCoder("i420", pack.info).encode(drawn(pack, 7))):
        assert len(data) == WIDTH * HEIGHT * 3 // 2
        picture = av.VideoFrame.from_ndarray(np.frombuffer(data, np.uint8).reshape(-1, WIDTH), format="yuv420p")
        back = picture.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
        assert psnr(back, stored(pack, 7)[k]) > 28  # chroma of half size, looked up without smoothing


def test_jpeg_has_the_colours(pack: CharacterPack) -> None:
    for data, frame in zip(FrameCoder("jpeg", pack.info).encode(drawn(pack, 7)), stored(pack, 7), strict=True):
        assert data[:3] == b"\xff\xd8\xff" and data[6:10] == b"JFIF"
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert psnr(picture, frame) > 28
        assert np.abs(picture.mean(axis=(0, 1)) - frame.mean(axis=(0, 1))).max() < 1.5


def test_reference_sends_only_what_the_pack_lacks(pack: CharacterPack) -> None:
    coder = FrameCoder("reference", pack.info)
    packets = tuple(pack.packets(2))
    assert coder.encode(StepPictures(packets)) == coder.encode(StepPictures(packets, "cut", late=True)) == [b""] * 4
    for blender in ("flow", "crossfade"):
        assert coder.encode(StepPictures(packets, blender)) == [pack.info.extradata + packets[0], *packets[1:]]


@pytest.mark.parametrize("encoding", ["jpeg", "rgb24", "i420"])
def test_damage_is_reported_and_forgotten(pack: CharacterPack, encoding: Encoding) -> None:
    coder = FrameCoder(encoding, pack.info)
    good = coder.encode(drawn(pack, 1))
    with pytest.raises(ArtifactError, match="damaged"):
        coder.encode(StepPictures((pack.packets(1)[0][:20], *pack.packets(1)[1:])))
    assert coder.encode(drawn(pack, 1)) == good


def test_i420_survives_encoding(pack: CharacterPack, tmp_path: Path) -> None:
    from tango_rt.video.gop import GopEncoder

    decoder = GopDecoder(pack.info.extradata, WIDTH, HEIGHT)
    planes = decoder.decode_i420(pack.packets(6))
    encoder = GopEncoder(WIDTH, HEIGHT, expected_extradata=pack.info.extradata)
    assert psnr(decoder.decode_i420(encoder.encode_i420(planes)), planes) > 38
    with pytest.raises(ValueError, match="wanted uint8"):
        encoder.encode_i420(planes[:3])

import resource
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest

from engine.errors import InputError
from tango_rt.sound.audio import audio_blocks
from tango_rt.video.gop import GopEncoder
from tango_rt.video.mp4 import Mp4Writer
from tests.helpers.moving_pictures import HEIGHT, WIDTH, moving_frames
from tests.helpers.signals import chirp, lag, rms

N_GOPS = 23


@pytest.fixture(scope="module")
def extradata() -> bytes:
    return GopEncoder(WIDTH, HEIGHT).extradata


@pytest.fixture(scope="module")
def gops() -> list[list[bytes]]:
    encoder = GopEncoder(WIDTH, HEIGHT)
    return [encoder.encode(moving_frames(4, seed=k)) for k in range(N_GOPS)]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out.mp4"
    assert {file.name for file in tmp_path.iterdir()} <= {"out.mp4"}, "left behind"


def write(
    target: Path,
    extradata: bytes,
    gops: list[list[bytes]],
    sound: np.ndarray,
    rate: int,
    limit: int | None = None,
) -> None:
    """Sound in uneven pieces, pictures in step with it."""
    with Mp4Writer(target, extradata, rate, limit) as writer:
        pieces = np.array_split(sound, 37)
        for n in range(max(len(pieces), len(gops))):
            for piece in pieces[n : n + 1]:
                writer.write_audio(piece)
            for gop in gops[n : n + 1]:
                writer.write_video(gop)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_the_sound_is_where_it_was_to_the_sample(
    target: Path, extradata: bytes, gops: list[list[bytes]], rate: int
) -> None:
    sound = chirp(rate, 3.0271)
    write(target, extradata, gops, sound, rate)
    decoded = np.concatenate(list(audio_blocks(target, rate)))
    assert len(decoded) == len(sound)
    assert lag(decoded, sound) == 0
    assert rms(decoded - sound) < 0.02
    with av.open(str(target)) as container:
        stream = container.streams.audio[0]
        assert abs(stream.duration * stream.time_base - Fraction(len(sound), rate)) <= Fraction(1, rate)


def test_pictures_are_the_same_bits_at_exactly_30_fps(target: Path, extradata: bytes, gops: list[list[bytes]]) -> None:
    write(target, extradata, gops, chirp(16000, 3), 16000)
    plain = av.CodecContext.create("h264", "r")
    plain.extradata = extradata
    wanted = [p for packet in chain.from_iterable(gops) for p in plain.decode(av.Packet(packet))]
    with av.open(str(target)) as container:
        pictures = list(container.decode(video=0))
        assert [p.pts * p.time_base for p in pictures] == [Fraction(n, 30) for n in range(4 * N_GOPS)]
        assert container.streams.video[0].average_rate == 30
        assert abs(Fraction(container.duration, av.time_base) - Fraction(4 * N_GOPS, 30)) < Fraction(1, 30)
    for picture, want in zip(pictures, wanted, strict=True):
        np.testing.assert_array_equal(picture.to_ndarray(), want.to_ndarray())


@pytest.mark.parametrize("limit", [1, 4, 10, 91])
def test_the_last_gop_is_trimmed(target: Path, extradata: bytes, gops: list[list[bytes]], limit: int) -> None:
    write(target, extradata, gops, chirp(16000, limit / 30), 16000, limit)
    with av.open(str(target)) as container:
        assert len(list(container.decode(video=0))) == limit
        assert abs(Fraction(container.duration, av.time_base) - Fraction(limit, 30)) < Fraction(1, 30)


def boxes(data: bytes) -> list[bytes]:
    """Names of the boxes of the file, in order."""
    names, at = [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def test_browsers_can_play_it(target: Path, extradata: bytes, gops: list[list[bytes]]) -> None:
    write(target, extradata, gops, chirp(16000, 3), 16000)
    data = target.read_bytes()
    names = boxes(data)
    assert names.index(b"moov") < names.index(b"mdat")
    head = data[: data.index(b"mdat")]
    assert b"avc1" in head and b"mp4a" in head
    assert b"colrnclx\x00\x01\x00\x01\x00\x01\x00" in head  # BT.709 thrice, limited range
    # The parameter sets in the header are those given, byte for byte, and none are left among the pictures.
    _, sps, pps = extradata.split(b"\x00\x00\x00\x01")
    sps_box = b"\xe1" + len(sps).to_bytes(2, "big") + sps
    assert sps_box + b"\x01" + len(pps).to_bytes(2, "big") + pps in head
    assert sps not in data[len(head) :]
    with av.open(str(target)) as container:
        video, audio = container.streams
        assert (video.type, video.codec_context.pix_fmt, video.codec_context.profile) == (
            "video",
            "yuv420p",
            "High",
        )
        assert (audio.type, audio.codec_context.name, audio.codec_context.layout.name) == (
            "audio",
            "aac",
            "mono",
        )


def test_seeking_lands_on_any_node(target: Path, extradata: bytes, gops: list[list[bytes]]) -> None:
    write(target, extradata, gops, chirp(16000, 3), 16000)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        for n in (0, 4, 5, 43, 60, 91):
            container.seek(int(Fraction(n, 30) / stream.time_base), stream=stream)
            picture = next(container.decode(stream))
            assert picture.key_frame
            assert picture.pts * picture.time_base == Fraction(n // 4 * 4, 30)


def test_pictures_and_sound_lie_side_by_side(target: Path, extradata: bytes, gops: list[list[bytes]]) -> None:
    """Otherwise a player that streams the file must fetch all of one before it can show the other."""
    write(target, extradata, gops, chirp(16000, 3), 16000)
    with av.open(str(target)) as container:
        packets = sorted((p for p in container.demux() if p.size), key=lambda packet: packet.pos)
        times = [float(packet.pts * packet.time_base) for packet in packets]
    assert np.abs(np.diff(times)).max() < 0.5


@pytest.mark.parametrize("sound_first", [False, True])
def test_one_after_the_other_works_too(
    target: Path, extradata: bytes, gops: list[list[bytes]], sound_first: bool
) -> None:
    sound = chirp(16000, 3)
    with Mp4Writer(target, extradata) as writer:
        if sound_first:
            writer.write_audio(sound)
        writer.write_video(chain.from_iterable(gops))
        if not sound_first:
            writer.write_audio(sound)
    decoded = np.concatenate(list(audio_blocks(target)))
    assert (len(decoded), lag(decoded, sound)) == (len(sound), 0)


def test_two_streams_are_drawn_in_step(target: Path, extradata: bytes, gops: list[list[bytes]]) -> None:
    sound = chirp(16000, N_GOPS * 4 / 30)
    taken_s = {"pictures": Fraction(0), "sound": Fraction(0)}
    ahead_s: list[Fraction] = []

    def pictures() -> Iterator[bytes]:
        for packet in chain.from_iterable(gops):
            taken_s["pictures"] += Fraction(1, 30)
            ahead_s.append(abs(taken_s["pictures"] - taken_s["sound"]))
            yield packet

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(sound), 1000):
            taken_s["sound"] += Fraction(1000, 16000)
            yield sound[start : start + 1000]

    with Mp4Writer(target, extradata) as writer:
        writer.write(pictures(), blocks())
    assert max(ahead_s) < Fraction(1, 5)
    decoded = np.concatenate(list(audio_blocks(target)))
    assert (len(decoded), lag(decoded, sound)) == (len(sound), 0)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("n_gops", [0, 1, N_GOPS])
def test_nothing_is_left_after_an_interrupt(
    target: Path, extradata: bytes, gops: list[list[bytes]], error: type[BaseException], n_gops: int
) -> None:
    target.write_bytes(b"the file of before")
    with pytest.raises(error), Mp4Writer(target, extradata) as writer:
        writer.write_audio(chirp(16000))
        for gop in gops[:n_gops]:
            writer.write_video(gop)
        raise error
    assert target.read_bytes() == b"the file of before"


def test_what_cannot_be_written(target: Path, extradata: bytes, gops: list[list[bytes]]) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Mp4Writer(target.parent / "absent" / "out.mp4", extradata)
    with pytest.raises(InputError, match="is a folder"):
        Mp4Writer(target.parent, extradata)
    with pytest.raises(InputError, match="no pictures"), Mp4Writer(target, extradata) as writer:
        writer.write_audio(chirp(16000))
    assert not target.exists()


@pytest.mark.parametrize("room_bytes", [1000, 20_000, -100])
def test_a_full_disk_is_one_clear_line(
    target: Path, extradata: bytes, gops: list[list[bytes]], room_bytes: int
) -> None:
    """Early, in the middle, and when the index is moved to the front; a limit on sizes stands for the disk."""
    write(target, extradata, gops, chirp(16000, 3), 16000)
    limit_bytes = room_bytes if room_bytes > 0 else target.stat().st_size + room_bytes
    target.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            write(target, extradata, gops, chirp(16000, 3), 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not target.exists()

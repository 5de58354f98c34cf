"""Who is taken, and at whose cost: prices, budgets, shares of a client, pictures that are made once, who gives way."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ArtifactError
from tango_rt.server import admission as admission_module
from tango_rt.server.admission import WRITING_BUDGET, Admission, UnpacedTurns
from tango_rt.server.checks import SessionPlan, plan_session
from tango_rt.server.config import ServerConfig
from tango_rt.server.prices import Price, Prices, measure_prices
from tango_rt.server.service import GestureService
from tango_rt.server.status import Refusal
from tango_rt.server.threads import Threads
from tango_rt.v1 import media_pb2, service_pb2, session_pb2
from tango_rt.video import codecs
from tango_rt.video.shared_pictures import SharedPictures
from tests.helpers.fakes import HEIGHT, WIDTH
from tests.helpers.live_server import FAST, Heard, Live, audio, config, converse, end, listen, run, speech

C = grpc.StatusCode
CONFIG = ServerConfig(Path("characters"), picture_cores=1.0)
SIZE = 960, 720
JPEG, RGB24, I420, H264, REFERENCE = (
    media_pb2.VIDEO_ENCODING_JPEG,
    media_pb2.VIDEO_ENCODING_RGB24,
    media_pb2.VIDEO_ENCODING_I420,
    media_pb2.VIDEO_ENCODING_H264,
    media_pb2.VIDEO_ENCODING_REFERENCE,
)


def prices(making: float, writing: float = 0.0, size: tuple[int, int] = SIZE) -> Prices:
    """By which a stream of this size takes so many cores, and so much of the loop."""
    per_pixel = 1 / 30 / size[0] / size[1]
    price = Price(making * per_pixel, writing * per_pixel)
    return Prices({"jpeg": price, "rgb24": price, "i420": price})


def plan(encoding: "media_pb2.VideoEncoding" = JPEG, **fields: Any) -> SessionPlan:
    wanted = session_pb2.SessionConfig(character="anna", video_encoding=encoding, **fields)
    return plan_session(wanted, CONFIG)


def taken(admission: Admission, stack: ExitStack, *plans: SessionPlan) -> None:
    for one in plans:
        stack.enter_context(admission.reservation(one, *SIZE))


def refusal(admission: Admission, one: SessionPlan, size: tuple[int, int] = SIZE) -> Refusal:
    with pytest.raises(Refusal) as refused, admission.reservation(one, *size):
        pass
    assert refused.value.code is C.RESOURCE_EXHAUSTED
    return refused.value


def test_dear_pictures_are_taken_as_far_as_the_budget_goes() -> None:
    async def work() -> None:
        admission = Admission(CONFIG, prices(0.3))
        with ExitStack() as stack:
            taken(admission, stack, plan(JPEG), plan(RGB24), plan(I420))
            full = refusal(admission, plan(JPEG))
            assert (full.reason, full.retry_s) == ("NO_CAPACITY", 1.0)
            assert full.metadata["admitted_encodings"] == "VIDEO_ENCODING_H264,VIDEO_ENCODING_REFERENCE"
            assert (full.metadata["cost_cores"], full.metadata["free_cores"]) == ("0.300", "0.100")
            assert "VIDEO_ENCODING_H264" in str(full)
            # a third of the pixels fits, and what is copied always does
            with admission.reservation(plan(JPEG), SIZE[0] // 3, SIZE[1]):
                taken(admission, stack, *[plan(H264), plan(REFERENCE)] * 100)
                taken(admission, stack, *[plan(JPEG, **FAST)] * 100)  # these give way instead
        taken_again = admission.reserved
        assert (taken_again.making, taken_again.writing, admission.n_paced) == (0.0, 0.0, 0)

    asyncio.run(work())


def test_what_never_fits_is_told_so_and_not_to_try_again() -> None:
    async def work() -> None:
        for price in (prices(1.1), prices(0.0, WRITING_BUDGET * 1.1)):
            refused = refusal(Admission(CONFIG, price), plan(RGB24))
            assert (refused.reason, refused.retry_s) == ("TOO_COSTLY", None)

    asyncio.run(work())


def test_writing_has_a_budget_of_its_own() -> None:
    async def work() -> None:
        admission = Admission(ServerConfig(Path("characters"), picture_cores=64), prices(0.01, WRITING_BUDGET / 2.5))
        with ExitStack() as stack:
            taken(admission, stack, plan(RGB24), plan(RGB24))
            assert refusal(admission, plan(RGB24)).reason == "NO_CAPACITY"

    asyncio.run(work())


@given(st.lists(st.tuples(st.sampled_from([JPEG, RGB24, H264]), st.integers(2, 4000)), max_size=30))
def test_no_order_of_sessions_exceeds_the_budget(asked: list[tuple[Any, int]]) -> None:
    async def work() -> None:
        admission = Admission(CONFIG, prices(0.4, 0.08))
        with ExitStack() as stack:
            for encoding, width in asked:
                try:
                    stack.enter_context(admission.reservation(plan(encoding), width, 720))
                except Refusal:
                    assert encoding != H264
                assert admission.reserved.making <= 1.0 and admission.reserved.writing <= WRITING_BUDGET

    asyncio.run(work())


def test_half_of_the_cores_are_for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "usable_cores", lambda: 16)

    async def work() -> None:
        assert Admission(ServerConfig(Path("characters")), Prices({})).budget.making == 8.0
        assert Admission(ServerConfig(Path("characters"), picture_cores=0.0), prices(0.1)).budget.making == 0.0

    asyncio.run(work())


def test_prices_are_measured_and_plausible() -> None:
    found = measure_prices()
    frame = {encoding: found.frame_s(encoding, 1280, 720) for encoding in ("h264", "reference", *codecs.DECODED)}
    assert frame["h264"] == frame["reference"] == admission_module.FREE
    assert 0 < frame["i420"].making < frame["jpeg"].making < 1
    assert 0 < frame["jpeg"].writing < frame["rgb24"].writing < 0.1
    stream, twice = found.stream("jpeg", 640, 480), found.stream("jpeg", 1280, 480)
    assert twice.making == pytest.approx(2 * stream.making) and stream.making == pytest.approx(
        30 * found.frame_s("jpeg", 640, 480).making
    )


def test_who_has_no_clock_gives_way() -> None:
    async def work() -> None:
        admission = Admission(CONFIG, prices(0.3))
        turns, fast = UnpacedTurns(admission), plan(JPEG, **FAST)
        assert [turns.due_in_s(fast, *SIZE, now_s=5.0) for _ in range(100)] == [0.0] * 100  # alone: as fast as it goes
        with admission.reservation(plan(H264), *SIZE):
            due = [turns.due_in_s(fast, *SIZE, now_s=6.0) for _ in range(4)]
            assert due == pytest.approx([0.0, 0.01, 0.02, 0.03])  # of one core: 10 ms a picture
            with ExitStack() as stack:
                taken(admission, stack, *[plan(JPEG)] * 3)
                due = [turns.due_in_s(fast, *SIZE, now_s=7.0) for _ in range(3)]
                assert due == pytest.approx([0.0, 0.1, 0.2])  # of the tenth of a core that is left
            assert turns.due_in_s(plan(H264, **FAST), *SIZE, now_s=9.0) == 0.0
            assert 0 < turns.due_in_s(plan(H264, **FAST), *SIZE, now_s=9.0) < 0.005  # copied: some hundred a second
        assert turns.due_in_s(fast, *SIZE, now_s=9.0) == 0.0

    asyncio.run(work())


def test_dear_and_unpaced_sessions_have_threads_of_their_own() -> None:
    paced = ThreadPoolExecutor(1)
    threads = Threads(paced, 2)
    try:
        assert threads.of(plan(H264)) is threads.of(plan(REFERENCE)) is paced
        dear = {threads.of(plan(encoding)) for encoding in (JPEG, RGB24, I420)}
        fast = {threads.of(plan(encoding, **FAST)) for encoding in (JPEG, H264)}
        assert len(dear) == len(fast) == 1 and len({paced, threads.opening, *dear, *fast}) == 4
    finally:
        threads.close()
        paced.shutdown()


def test_a_picture_is_made_once_for_all_who_ask() -> None:
    shared = SharedPictures(100)
    asked, made, go_on = threading.Barrier(4), [], threading.Event()

    def make() -> tuple[bytes, ...]:
        made.append(1)
        assert go_on.wait(10)
        return (b"x" * 40,)

    def ask() -> tuple[bytes, ...]:
        asked.wait(10)
        return shared.get(b"a", make)

    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask) for _ in range(3)]
        asked.wait(10)
        go_on.set()
        assert [answer.result(10) for answer in answers] == [(b"x" * 40,)] * 3
    assert len(made) == 1


def test_pictures_are_kept_within_their_bound_the_latest_shown_longest() -> None:
    shared = SharedPictures(100)
    for key in (b"a", b"b"):
        shared.get(key, lambda: (bytes(20), bytes(20)))
    shared.get(b"a", pytest.fail)
    shared.get(b"c", lambda: (bytes(40),))
    assert shared.n_bytes == 80
    shared.get(b"a", pytest.fail)
    assert shared.get(b"b", lambda: (b"again",)) == (b"again",)
    assert shared.get(b"large", lambda: (bytes(1000),)) == (bytes(1000),) and shared.n_bytes == 0


def test_a_picture_that_fails_is_tried_again() -> None:
    def fail() -> tuple[bytes, ...]:
        raise ArtifactError("damaged")

    shared = SharedPictures(100)
    with pytest.raises(ArtifactError):
        shared.get(b"a", fail)
    assert shared.get(b"a", lambda: (b"good",)) == (b"good",)


# --- over a socket


async def opened(live: Live, **fields: Any) -> Any:
    call = live.stub.StreamGestures()
    await call.write(config(**fields))
    assert (await call.read()).WhichOneof("message") == "accepted"
    return call


def test_the_price_is_asked_for_over_the_wire(characters: Path) -> None:
    async def talk(live: Live) -> tuple[Heard, Heard, Heard, Heard]:
        live.service.charge(prices(0.6, size=(WIDTH, HEIGHT)))
        call = await opened(live, video_encoding=JPEG)
        dear = await converse(live, [config(video_encoding=RGB24)])
        cheap = await converse(live, [config(), audio(speech(0.2)), end()])
        clip = Heard()
        request = service_pb2.RenderClipRequest(config=config(video_encoding=JPEG).config, audio=speech(0.2))
        await listen(live.stub.RenderClip(request), clip)
        call.cancel()
        await live.empty()
        return dear, cheap, clip, await converse(live, [config(video_encoding=RGB24), audio(speech(0.2)), end()])

    dear, cheap, clip, later = run(characters, talk, picture_cores=1.0)
    assert dear.code is C.RESOURCE_EXHAUSTED and dear.info is not None and dear.retry is not None
    assert dear.info.reason == "NO_CAPACITY" and dear.info.metadata["cost_cores"] == "0.600"
    assert cheap.code is clip.code is later.code is C.OK
    assert len(clip.frames) == 6 and later.frames


def test_watchers_of_one_character_share_its_pictures(characters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[bytes, ...]] = []
    real = codecs.decoded_pictures

    def counting(decoder: Any, encoding: Any, packets: Any) -> Any:
        made.append((encoding, *packets))
        return real(decoder, encoding, packets)

    monkeypatch.setattr(codecs, "decoded_pictures", counting)
    said = [audio(speech(1.0)), end()]

    async def talk(live: Live) -> list[Heard]:
        session = [config(video_encoding=JPEG, **FAST), *said]
        return [await converse(live, session), *await asyncio.gather(converse(live, session), converse(live, session))]

    first, *others = run(characters, talk)
    assert len(made) == len(set(made)) > 3
    for other in others:
        assert [frame.data for frame in other.frames] == [frame.data for frame in first.frames]


@pytest.mark.parametrize("most", [0, 1])
def test_a_client_may_be_given_a_share(characters: Path, most: int) -> None:
    async def talk(live: Live) -> tuple[Heard, Heard]:
        call = await opened(live)
        second = await converse(live, [config()])
        call.cancel()
        await live.empty()
        return second, await converse(live, [config(), audio(speech(0.2)), end()])

    second, third = run(characters, talk, max_sessions_per_client=most)
    if most:
        assert second.info is not None and second.info.reason == "TOO_MANY_SESSIONS_OF_CLIENT"
        assert second.code is C.RESOURCE_EXHAUSTED and second.retry is not None
    else:
        assert second.code is C.OK
    assert third.code is C.OK


def test_silence_takes_no_slot(characters: Path) -> None:
    async def talk(live: Live) -> tuple[Heard, list[Heard]]:
        silent, heard = [live.stub.StreamGestures() for _ in range(5)], [Heard() for _ in range(5)]
        listening = [asyncio.create_task(listen(call, one)) for call, one in zip(silent, heard, strict=True)]
        while sum(task.done() for task in listening) < 2:  # those that came first, in whichever order that was
            await asyncio.sleep(0.01)
        assert live.service.active_sessions == 0 and len(live.service.silent) == 3
        session = await converse(live, [config(), audio(speech(0.2)), end()])
        ended = [one for one, task in zip(heard, listening, strict=True) if task.done()]
        for call in silent:
            call.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        return session, ended

    def few(self: GestureService, *arguments: Any) -> None:
        real(self, *arguments)
        self.silent._most = 3

    real = GestureService.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GestureService, "__init__", few)
        session, ended = run(characters, talk, max_sessions=1, config_timeout_s=3600)
    assert session.code is C.OK
    assert len(ended) == 3  # the session was silent at first, too
    assert all(one.info is not None and one.info.reason == "CONFIG_TIMEOUT" for one in ended)  # long before its time


@pytest.mark.parametrize("name", ["\U00020000" * 64, "é" * 64])
def test_ids_of_wide_letters(characters: Path, name: str) -> None:
    async def talk(live: Live) -> tuple[Heard, Any]:
        request = service_pb2.ListCharactersRequest(page_token=name)
        speaking = [config(request_id=name, **FAST), audio(speech(0.2), name), end(name)]
        return await converse(live, speaking), await live.stub.ListCharacters(request)

    heard, page = run(characters, talk)
    assert heard.code is C.OK and heard.accepted.config.request_id == name
    assert [event.utterance_id for event in heard.finished] == [name]
    assert len(page.characters) <= 1

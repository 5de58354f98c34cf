"""The server as its operator meets it: warm-up, health, metrics, packs that come and go, the end in good order."""

import asyncio
import contextlib
import shutil
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tango_rt.pipeline.character import Character
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server import watch
from tango_rt.server.config import ServerConfig
from tango_rt.server.listening import GestureServer
from tango_rt.server.metrics import Metrics
from tango_rt.server.service import SERVICE
from tango_rt.v1 import service_pb2, service_pb2_grpc
from tests.helpers.operated_server import NOT_SERVING, PATIENCE_S, SERVING, begun, health_of, listening, refusal, within


def test_sessions_are_taken_when_all_is_warm(packs: Path) -> None:
    async def work() -> None:
        server = GestureServer(ServerConfig(packs, listen=("127.0.0.1:0",), metrics_listen="0"))
        async with contextlib.AsyncExitStack() as stack:
            async with server:
                to = await stack.enter_async_context(grpc.aio.insecure_channel(server.addresses[0]))
                health = health_pb2_grpc.HealthStub(to)
                gone, stays = (health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)) for _ in range(2))
                assert [(await watcher.read()).status for watcher in (gone, stays)] == [NOT_SERVING, NOT_SERVING]
                unknown = health.Watch(health_pb2.HealthCheckRequest(service="nobody"))
                assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                stub = service_pb2_grpc.GestureServiceStub(to)
                early = stub.GetServerInfo(service_pb2.GetServerInfoRequest())
                assert await refusal(early) == (grpc.StatusCode.UNAVAILABLE, "WARMING_UP")
                gone.cancel()
                await server.warm_up()
                assert (await stays.read()).status == SERVING
                assert (await health_of(to)).status == (await health_of(to, SERVICE)).status == SERVING
                with pytest.raises(grpc.aio.AioRpcError) as nobody:
                    await health_of(to, "nobody")
                assert nobody.value.code() == grpc.StatusCode.NOT_FOUND
                assert (await stub.GetServerInfo(service_pb2.GetServerInfoRequest())).active_sessions == 0
                text = await asyncio.to_thread(scraped, server.metrics_address)
                assert "tango_rt_ready 1.0" in text and "tango_rt_characters 1.0" in text
                assert 'tango_rt_refused_total{reason="WARMING_UP"} 1.0' in text
                for name in ("tango_rt_event_loop_lag_seconds", "tango_rt_sessions_active"):
                    assert f"\n{name} " in text
                assert "process_resident_memory_bytes" in text
                assert await server.drain()
                assert (await stays.read()).status == NOT_SERVING
                assert (await health_of(to)).status == NOT_SERVING
            assert await stays.read() is grpc.aio.EOF  # watchers are let go, and hold up nothing

    within(work)


def scraped(address: str | None) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.read().decode()


@pytest.mark.parametrize("told", [True, False])
def test_reflection_tells_the_services(packs: Path, told: bool) -> None:
    async def work() -> None:
        async with (
            listening(packs, reflection=told) as server,
            grpc.aio.insecure_channel(server.addresses[0]) as to,
        ):
            stub = reflection_pb2_grpc.ServerReflectionStub(to)
            asked = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            if told:
                names = {service.name for service in (await asked.read()).list_services_response.service}
                assert names >= {SERVICE, "grpc.health.v1.Health"}
            else:
                with pytest.raises(grpc.aio.AioRpcError) as unknown:
                    await asked.read()
                assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED

    within(work)


def test_packs_come_and_go_while_serving(packs: Path, made_packs: Path) -> None:
    async def work() -> None:
        async with listening(packs, look_s=0.05) as server, grpc.aio.insecure_channel(server.addresses[0]) as to:
            await server.warm_up()
            stub = service_pb2_grpc.GestureServiceStub(to)

            async def ids() -> list[str]:
                answer = await stub.ListCharacters(service_pb2.ListCharactersRequest())
                return [character.id for character in answer.characters]

            assert await ids() == ["anna"]
            shutil.copytree(made_packs / "anna.tango", packs / "bob.tango")
            (packs / "broken.tango").mkdir()
            while await ids() != ["anna", "bob"]:  # as of the next look
                await asyncio.sleep(0.02)
            while "tango_rt_characters 2.0\n" not in server.metrics.text():  # opened before anybody asks
                await asyncio.sleep(0.02)
            assert "tango_rt_characters_damaged 1.0" in server.metrics.text()
            shutil.rmtree(packs / "anna.tango")
            while await ids() != ["bob"]:
                await asyncio.sleep(0.02)
            gone = stub.GetCharacter(service_pb2.GetCharacterRequest(id="anna"))
            assert await refusal(gone) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_CHARACTER")

    within(work)


def test_pings_are_permitted_and_floods_are_not(packs: Path) -> None:
    pings = [
        ("grpc.keepalive_time_ms", 300),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            watchers = []
            for min_ping_s in (0.05, 60):
                server = await stack.enter_async_context(listening(packs, min_ping_s=min_ping_s))
                to = await stack.enter_async_context(grpc.aio.insecure_channel(server.addresses[0], options=pings))
                watchers.append(health_pb2_grpc.HealthStub(to).Watch(health_pb2.HealthCheckRequest()))
                assert (await watchers[-1].read()).status == NOT_SERVING
            often, too_often = (asyncio.create_task(watcher.read()) for watcher in watchers)
            with pytest.raises(grpc.aio.AioRpcError, match=r"(?i)too many pings"):
                await too_often
            assert not often.done()
            often.cancel()

    within(work)


def test_connections_are_limited_in_number_and_age(packs: Path) -> None:
    limits = {"max_connections": 2, "max_connection_age_s": 1.0, "max_connection_age_grace_s": 0.2}

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(listening(packs, **limits))
            apart = [("grpc.use_local_subchannel_pool", 1)]  # else all channels share one connection
            first, second, third = [
                await stack.enter_async_context(grpc.aio.insecure_channel(server.addresses[0], options=apart))
                for _ in range(3)
            ]
            watcher = health_pb2_grpc.HealthStub(first).Watch(health_pb2.HealthCheckRequest())
            assert (await watcher.read()).status == (await health_of(second)).status == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError):
                await health_of(third)
            with pytest.raises(grpc.aio.AioRpcError, match="max connection age"):
                await watcher.read()

    within(work)


def test_everything_is_counted() -> None:
    metrics = Metrics()
    metrics.session_opened()
    metrics.session_opened()
    metrics.session_closed("OK", 12.0)
    metrics.frames(4, "h264")
    metrics.dropped(3)
    metrics.underrun()
    metrics.transition("late")
    metrics.first_frame(0.05)
    metrics.speech_latency(0.11)
    metrics.late(-0.001)
    lines = metrics.text().splitlines()
    for line in (
        "tango_rt_sessions_opened_total 2.0",
        "tango_rt_sessions_active 1.0",
        'tango_rt_sessions_closed_total{reason="OK"} 1.0',
        'tango_rt_frames_sent_total{encoding="h264"} 4.0',
        "tango_rt_frames_dropped_total 3.0",
        "tango_rt_underruns_total 1.0",
        'tango_rt_transitions_total{source="late"} 1.0',
        'tango_rt_first_frame_seconds_bucket{le="0.05"} 1.0',
        'tango_rt_speech_latency_seconds_bucket{le="0.12"} 1.0',
        "tango_rt_frame_late_seconds_sum 0.0",
        'tango_rt_session_seconds_bucket{le="10.0"} 0.0',
    ):
        assert line in lines


def test_sessions_that_outlast_the_grace_are_cut_off(packs: Path) -> None:
    async def work() -> None:
        server = GestureServer(ServerConfig(packs, listen=("127.0.0.1:0",), grace_s=0.1))
        async with contextlib.AsyncExitStack() as stack:
            async with server:
                to = await stack.enter_async_context(grpc.aio.insecure_channel(server.addresses[0]))
                await server.warm_up()
                call = await begun(to, 20)
                assert not await server.drain()
                assert server.active_sessions == 1
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await call.read() is not grpc.aio.EOF:
                    pass
            status = rpc_status.from_call(ended.value)
            assert status is not None and b"DRAINING" in status.SerializeToString()
        assert server.active_sessions == 0

    within(work)


def test_the_watch_goes_on_whatever_a_pack_does(
    packs: Path, made_packs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Opened, prepared or verified: no fault of one takes the others, or the watch itself, with it."""
    shutil.copytree(made_packs / "anna.tango", packs / "bob.tango")
    damaged = packs / "bob.tango" / "video.h264"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    def fails(character: Character, *_: object) -> None:
        if character.id == "anna":
            raise ZeroDivisionError

    monkeypatch.setattr(watch, "prepare", fails)
    metrics = Metrics()
    folder = watch.FolderWatch(CharacterStore(packs), ServerConfig(characters=packs), metrics)
    folder.look()
    assert "tango_rt_characters 2.0\n" in metrics.text() and "ZeroDivisionError" in caplog.text
    folder.verify()
    folder.look()
    assert "tango_rt_characters 1.0\n" in metrics.text() and "tango_rt_characters_damaged 1.0\n" in metrics.text()
    assert "character unusable" in caplog.text

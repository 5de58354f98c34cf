"""Clients and neighbours that do harm, on purpose or not: none of them takes what the sessions of others need."""

import asyncio
import logging
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from engine import leftovers
from engine.errors import BackendError, InputError
from engine.folders import sibling_folder
from tango_rt.cli import main
from tango_rt.server import listening as listening_module
from tango_rt.server import metrics_endpoint
from tango_rt.server.clients import identify_client as client
from tango_rt.server.config import ServerConfig, from_sources
from tango_rt.server.gate import Gate, GateLimits
from tango_rt.server.metrics import Metrics
from tango_rt.server.refusals import RefusalLog
from tango_rt.server.rooms import SilentCalls
from tango_rt.server.security import load_credentials, parse_address, warn_about_files
from tango_rt.server.serve import serve
from tango_rt.server.service import GestureService
from tango_rt.v1 import service_pb2, service_pb2_grpc
from tests.helpers.live_server import Heard, config, listen, live_server
from tests.helpers.operated_server import NOT_SERVING, begun, health_of, listening, refusal, within

C = grpc.StatusCode
APART = [("grpc.use_local_subchannel_pool", 1)]


# --- calls of other kinds


async def settled(calls: list[Any]) -> list[str]:
    """Reasons of the calls that were refused; the others go on."""
    reasons = []
    for call in calls:
        try:
            await call.read()
        except grpc.aio.AioRpcError:
            heard = Heard()
            await heard.close(call)
            assert heard.code is C.RESOURCE_EXHAUSTED and heard.info is not None and heard.retry is not None
            reasons.append(heard.info.reason)
    return reasons


def test_watchers_are_few_and_keep_no_session_out(packs: Path) -> None:
    async def work() -> None:
        async with listening(packs, max_sessions=1, token="sesam", open_health=True) as server:
            await server.warm_up()
            address = server.addresses[0]
            channels = [grpc.aio.insecure_channel(address, options=APART) for _ in range(10)]
            calls = [
                health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                for channel in channels
                for _ in range(20)
            ]
            reasons = await settled(calls)
            assert set(reasons) == {"TOO_MANY_WATCHERS"} and len(reasons) == len(calls) - GateLimits().watchers
            assert (await health_of(channels[0])).status != NOT_SERVING
            metadata = (("authorization", "Bearer sesam"),)
            session = service_pb2_grpc.GestureServiceStub(channels[1]).StreamGestures(metadata=metadata)
            await session.write(config())
            assert (await session.read()).WhichOneof("message") == "accepted"
            session.cancel()
            for channel in channels:
                await channel.close()
            async with grpc.aio.insecure_channel(address, options=APART) as to:  # who leaves makes room
                while await settled([health_pb2_grpc.HealthStub(to).Watch(health_pb2.HealthCheckRequest())]):
                    await asyncio.sleep(0.02)

    within(work)


def test_reflection_streams_are_few_and_end(packs: Path) -> None:
    brief = GateLimits(reflection_s=0.5)

    async def work() -> None:
        async with listening(packs, brief) as server, grpc.aio.insecure_channel(server.addresses[0]) as to:
            stub = reflection_pb2_grpc.ServerReflectionStub(to)
            calls = [stub.ServerReflectionInfo() for _ in range(5)]
            for call in calls:
                await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert await settled(calls) == ["TOO_MANY_REFLECTIONS"] * 3
            for call in calls:
                ended = Heard()
                await ended.close(call)
                if ended.code is not C.RESOURCE_EXHAUSTED:
                    assert ended.info is not None and ended.info.reason == "REFLECTION_TIMEOUT"

    within(work)


def test_short_calls_have_room_of_their_own(packs: Path) -> None:
    full = GateLimits(short_calls=0)

    async def work() -> None:
        async with listening(packs, full) as server, grpc.aio.insecure_channel(server.addresses[0]) as to:
            await server.warm_up()
            stub = service_pb2_grpc.GestureServiceStub(to)
            info = stub.GetServerInfo(service_pb2.GetServerInfoRequest())
            assert await refusal(info) == (C.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
            (await begun(to, 1)).cancel()

    within(work)


def test_a_call_that_never_says_its_message_ends(packs: Path) -> None:
    async def work() -> None:
        async with listening(packs, idle_timeout_s=0.2) as server, grpc.aio.insecure_channel(server.addresses[0]) as to:
            await server.warm_up()
            for method, half_closes, reason in (
                ("RenderClip", False, "REQUEST_TIMEOUT"),
                ("ListCharacters", False, "REQUEST_TIMEOUT"),
                ("ListCharacters", True, "BAD_MESSAGE"),
            ):
                call = to.stream_stream(f"/tango_rt.v1.GestureService/{method}")()
                await (call.done_writing() if half_closes else call.wait_for_connection())
                heard = Heard()
                await listen(call, heard)
                assert heard.info is not None and heard.info.reason == reason

    within(work)


def test_a_message_that_is_too_large_is_told_the_limit(packs: Path) -> None:
    async def work() -> None:
        async with (
            listening(packs, max_message_bytes=100_000) as server,
            grpc.aio.insecure_channel(server.addresses[0]) as to,
        ):
            await server.warm_up()
            stub = service_pb2_grpc.GestureServiceStub(to)
            page = stub.ListCharacters(service_pb2.ListCharactersRequest(page_token="x" * 100_001))
            assert await refusal(page) == (C.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
            clip = stub.RenderClip(service_pb2.RenderClipRequest(audio=bytes(100_001)))
            assert await refusal(clip.read(), clip) == (C.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
            session = stub.StreamGestures()
            await session.write(config(request_id="x" * 100_001))
            assert await refusal(session.read(), session) == (C.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")

    within(work)


# --- who it is


def context(peer: str, token: str | None = None, names: list[bytes] | None = None) -> Any:
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    return SimpleNamespace(peer=lambda: peer, invocation_metadata=lambda: metadata, peer_identities=lambda: names)


def test_a_client_is_its_token_or_certificate_or_address(tmp_path: Path) -> None:
    here, there = "ipv4:10.0.0.1:5000", "ipv4:10.0.0.1:6000"
    plain = ServerConfig(tmp_path)
    assert client(context(here, "a"), plain) == client(context(there, "b"), plain)  # tokens nobody asked for
    assert client(context("ipv6:%5B::1%5D:5000"), plain) == client(context("ipv6:%5B::1%5D:6000"), plain)
    assert client(context("unix:"), plain) != client(context(here), plain)
    tokens = ServerConfig(tmp_path, token="a")
    assert client(context(here, "a"), tokens) == client(context("unix:", " a "), tokens)
    assert client(context(here, "a"), tokens) != client(context(here, "b"), tokens)
    mutual = ServerConfig(tmp_path, tls_cert=tmp_path, tls_key=tmp_path, tls_client_ca=tmp_path)
    assert client(context(here, names=[b"anna"]), mutual) == client(context("unix:", names=[b"anna"]), mutual)
    assert client(context(here, names=[b"anna"]), mutual) != client(context(here, names=[b"bert"]), mutual)


# --- what is said of it


def test_refusals_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        log = RefusalLog(0.05)
        for _ in range(1000):
            log.refused("TOKEN_MISSING", peer="ipv4:1.2.3.4:5")
        log.refused("TOKEN_WRONG")
        await asyncio.sleep(0.2)
        log.refused("TOKEN_MISSING")

    with caplog.at_level(logging.WARNING):
        asyncio.run(work())
    said = [record.__dict__ for record in caplog.records]
    assert [one["reason"] for one in said] == ["TOKEN_MISSING"] * 5 + ["TOKEN_WRONG"] + ["TOKEN_MISSING"] * 2
    assert [one.get("n_more") for one in said if "n_more" in one] == [995]


def test_a_thousand_calls_without_a_token_are_few_lines(packs: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with listening(packs, token="sesam") as server, grpc.aio.insecure_channel(server.addresses[0]) as to:
            for _ in range(50):
                assert (await refusal(health_of(to)))[1] == "TOKEN_MISSING"
            assert 'refused_total{reason="TOKEN_MISSING"} 50.0' in server.metrics.text()

    with caplog.at_level(logging.WARNING):
        within(work)
    assert len([record for record in caplog.records if record.message == "call refused"]) == 5


def test_sessions_that_are_not_taken_are_few_lines(packs: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with live_server(packs) as live:
            for _ in range(20):
                heard = Heard()
                call = live.stub.StreamGestures()
                await call.write(config(character="otto" if _ % 2 else ""))
                await listen(call, heard)
                assert heard.info is not None

    with caplog.at_level(logging.INFO):
        asyncio.run(talk())
    reasons = [record.__dict__["reason"] for record in caplog.records if hasattr(record, "reason")]
    assert reasons == ["BAD_FIELD", "UNKNOWN_CHARACTER"] * 5


def test_a_client_that_leaves_too_early_is_no_failure(packs: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Gone:
        """As gRPC answers where the client has gone and gRPC does not say so yet."""

        cancelled = done = staticmethod(lambda: False)
        peer = staticmethod(lambda: "unix:")
        read = staticmethod(lambda: asyncio.sleep(0, config()))

        async def write(self, _: Any) -> None:
            raise cygrpc.ExecuteBatchError("Failed to write")

    async def talk() -> Metrics:
        async with live_server(packs) as live:
            await live.service.StreamGestures(None, Gone())
            request = service_pb2.RenderClipRequest(config=config().config, audio=bytes(64_000))
            await live.service.RenderClip(request, Gone())
            return live.metrics

    with caplog.at_level(logging.WARNING):
        text = asyncio.run(talk()).text()
    assert 'sessions_closed_total{reason="CANCELLED"} 2.0' in text and "INTERNAL" not in text
    assert not caplog.records


@pytest.mark.parametrize("said", [grpc.aio.EOF, service_pb2.GetServerInfoRequest()], ids=["nothing", "a request"])
def test_a_client_that_leaves_before_it_is_answered_is_no_failure(packs: Path, said: Any) -> None:
    """Neither where it is refused nor where it is answered; gRPC logs an error of any call that raises another one."""

    async def gone(*_: Any) -> None:
        raise cygrpc.ExecuteBatchError("Failed to send")

    context = SimpleNamespace(
        peer=lambda: "ipv4:10.0.0.1:5000", read=lambda: asyncio.sleep(0, said), abort_with_status=gone, write=gone
    )

    async def work() -> None:
        config = ServerConfig(packs)
        door = Gate([], config, Metrics(), SilentCalls(10), RefusalLog())
        answer = grpc.unary_unary_rpc_method_handler(lambda *_: asyncio.sleep(0, "answer"))
        with pytest.raises(asyncio.CancelledError):
            await door._counted("/tango_rt.v1.GestureService/GetServerInfo", answer).stream_stream(None, context)
        cold = await door.intercept_service(None, SimpleNamespace(method="/tango_rt.v1.X/Y", invocation_metadata=()))
        with pytest.raises(asyncio.CancelledError):
            await cold.stream_stream(None, context)

    asyncio.run(work())


def test_a_clip_that_is_cut_off_by_the_end_is_told_why(packs: Path) -> None:
    async def talk() -> Heard:
        async with live_server(packs, max_session_s=4000.0) as live:
            request = service_pb2.RenderClipRequest(config=config().config, audio=bytes(32_000 * 100))
            call = live.stub.RenderClip(request)
            assert (await call.read()).WhichOneof("message") == "accepted"
            live.service.cut_off()
            heard = Heard()
            await listen(call, heard)
            return heard

    heard = asyncio.run(talk())
    assert heard.code is C.UNAVAILABLE and heard.info is not None and heard.info.reason == "DRAINING"
    assert heard.retry is not None


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_dead_task_ends_the_server_loudly(packs: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    async def dies(*_: Any) -> None:
        await asyncio.sleep(0.0 if when == "at once" else 0.3)
        raise KeyError("secret")

    monkeypatch.setattr(listening_module, "watch_loop", dies)

    async def work() -> None:
        with pytest.raises(BackendError, match="dies of the server has died"):
            await serve(ServerConfig(packs, listen=("127.0.0.1:0",)))

    within(work)


# --- the endpoint of metrics


def test_silent_connections_do_not_use_up_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    with Metrics().serve("127.0.0.1", 0) as endpoint:
        before = threading.active_count()
        silent = [socket.create_connection((endpoint.host, endpoint.port)) for _ in range(60)]
        try:
            with urllib.request.urlopen(f"http://{endpoint.host}:{endpoint.port}/metrics", timeout=10) as answer:
                assert b"tango_rt_ready" in answer.read()
            deadline = time.monotonic() + 10
            while threading.active_count() > before + metrics_endpoint._MAX_CONNECTIONS:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            for connection in silent:
                connection.close()


def test_a_silent_connection_to_the_metrics_ends() -> None:
    with (
        metrics_endpoint.MetricsEndpoint(Metrics().registry, "127.0.0.1", 0, max_silent_s=0.2) as endpoint,
        socket.create_connection((endpoint.host, endpoint.port), timeout=10) as silent,
    ):
        assert silent.recv(1) == b""


def test_metrics_beyond_this_machine_are_warned_of(packs: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with listening(packs, metrics_listen="0.0.0.0:0"):
            pass
        async with listening(packs, metrics_listen="0"):
            pass

    with caplog.at_level(logging.WARNING):
        within(work)
    assert [record.message for record in caplog.records] == ["anybody can read the metrics"]


# --- secrets, addresses, sockets


@pytest.mark.parametrize("value", ["123456789", "['123456789']", "true", "'  '"])
def test_a_token_is_never_echoed(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    (tmp_path / "server.toml").write_text(f"characters = '.'\ntoken = {value}\n")
    with pytest.raises(SystemExit) as left:
        main(["serve", "--config", str(tmp_path / "server.toml")])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "server.toml: token: expected some text" in said and "123456789" not in said
    with pytest.raises(InputError) as refused:
        ServerConfig(tmp_path, token=123456789)  # type: ignore[arg-type]
    assert "123456789" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.1", "0", "2130706433", "0x7f000001", "0x7f.0.0.1", "127.0.1"])
def test_addresses_that_are_cut_short(host: str) -> None:
    with pytest.raises(InputError, match="a full address"):
        parse_address(f"{host}:50051")


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_a_unix_socket_is_for_its_owner(packs: Path, tmp_path: Path, mode: str) -> None:
    at = tmp_path / "socket"

    async def work() -> None:
        before = os.umask(0)
        try:
            async with listening(packs, listen=(f"unix:{at}",), socket_mode=mode) as server:
                assert stat.S_IMODE(at.stat().st_mode) == int(mode, 8)
                assert os.umask(0) == 0
                async with grpc.aio.insecure_channel(server.addresses[0]) as to:
                    assert (await health_of(to)).status == NOT_SERVING
        finally:
            os.umask(before)

    within(work)


@pytest.mark.parametrize("mode", ["600", "0999", "rw", 600])
def test_a_mode_is_octal(tmp_path: Path, mode: Any) -> None:
    if mode == "600":
        assert ServerConfig(tmp_path, socket_mode=mode).socket_mode == "600"
    else:
        with pytest.raises(InputError, match="octal"):
            ServerConfig(tmp_path, socket_mode=mode)


def test_the_help_says_that_a_socket_asks_for_no_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Unix sockets use neither TLS nor client certificates" in said


def test_secrets_that_others_can_read_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {name: tmp_path / name for name in ("key", "tokens", "server.toml")}
    for file in files.values():
        file.write_text("characters = '.'\ntoken = 'sesam'\n")
    with caplog.at_level(logging.WARNING):
        for bits, wanted in ((0o600, set()), (0o640, set(files)), (0o602, set(files))):
            for file in files.values():
                file.chmod(bits)
            caplog.clear()
            warn_about_files(
                ServerConfig(tmp_path, tls_cert=files["key"], tls_key=files["key"], token_file=files["tokens"])
            )
            warn_about_files(from_sources({}, {}, files["server.toml"]))
            assert {Path(record.__dict__["file"]).name for record in caplog.records} == wanted


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """past.pem, today.pem and future.pem of one key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine to make certificates with")
    folder = tmp_path_factory.mktemp("dated")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\n"
        "policy = p\n[p]\ncommonName = supplied\n"
    )
    (folder / "index").touch()
    (folder / "index.attr").write_text("unique_subject = no\n")
    (folder / "serial").write_text("01\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key"]
    openssl(folder, "req", *key, "-subj", "/CN=localhost", "-out", "request")
    for name, first, last in (("past", 2020, 2021), ("today", 2020, 2099), ("future", 2098, 2099)):
        dates = ["-startdate", f"{first}0101000000Z", "-enddate", f"{last}0101000000Z"]
        signing = ["-selfsign", "-keyfile", "key", "-in", "request", "-out", f"{name}.pem", "-batch", "-notext"]
        openssl(folder, "ca", "-config", "ca.cnf", *signing, *dates)
    return folder


def openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(("name", "problem"), [("past", "has expired"), ("today", ""), ("future", "not valid yet")])
def test_certificates_out_of_date_are_said(
    dated: Path, caplog: pytest.LogCaptureFixture, name: str, problem: str
) -> None:
    with caplog.at_level(logging.WARNING):
        load_credentials(ServerConfig(dated, tls_cert=dated / f"{name}.pem", tls_key=dated / "key"))
    assert len(caplog.records) == bool(problem) and problem in caplog.text


# --- what killed processes leave behind


@pytest.fixture
def leavings(tmp_path: Path) -> Iterator[dict[str, Path]]:
    names = {"dead": ".tango-dead", "held": ".tango-held", "young": ".tango-young", "other": ".tango"}
    folders = {name: tmp_path / folder for name, folder in names.items()}
    for folder in folders.values():
        folder.mkdir()
        (folder / "video.h264").write_bytes(b"x")
    (tmp_path / ".tango-file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".tango-link").symlink_to("elsewhere")
    for path in tmp_path.iterdir():
        if path != folders["young"]:
            os.utime(path, (0, 0), follow_symlinks=False)
    lock = leftovers.lock_folder(folders["held"])
    if lock is None:
        pytest.skip("folders cannot be locked here")
    yield folders
    os.close(lock)


def test_what_the_dead_left_is_removed_and_nothing_else(leavings: dict[str, Path], tmp_path: Path) -> None:
    assert leftovers.sweep(tmp_path, ".tango-") == [leavings["dead"]]
    assert not leavings["dead"].exists()
    assert all(leavings[name].is_dir() for name in ("held", "young", "other"))
    assert (tmp_path / ".tango-file").exists() and (tmp_path / "elsewhere").is_dir()


def test_a_build_that_goes_on_is_not_swept(tmp_path: Path) -> None:
    folder = sibling_folder(tmp_path / "anna.tango")
    os.utime(folder, (0, 0))
    assert leftovers.sweep(tmp_path, ".tango-") == []
    with leftovers.scratch_folder("tango-rt-blank-", tmp_path) as scratch:
        os.utime(scratch, (0, 0))
        assert leftovers.sweep(tmp_path, "tango-rt-blank-") == []
    folder.rename(tmp_path / "anna.tango")
    sibling_folder(tmp_path / "bert.tango")  # lets go of the one before
    os.utime(tmp_path / "anna.tango", (0, 0))
    assert leftovers.sweep(tmp_path, "anna") == [tmp_path / "anna.tango"]


def test_a_server_clears_its_folder_when_it_starts(packs: Path) -> None:
    (packs / ".tango-dead").mkdir()
    os.utime(packs / ".tango-dead", (0, 0))

    async def work() -> None:
        async with listening(packs) as server:
            await server.warm_up()

    within(work)
    assert not (packs / ".tango-dead").exists() and (packs / "anna.tango").is_dir()


def test_the_service_counts_nobody_twice(packs: Path) -> None:
    """A slot that is refused is none."""

    async def talk() -> int:
        async with live_server(packs, max_sessions=1) as live:
            service: GestureService = live.service
            call = live.stub.StreamGestures()
            await call.write(config())
            await call.read()
            for _ in range(3):
                heard = Heard()
                await listen(live.stub.StreamGestures(), heard)
                assert heard.info is not None and heard.info.reason == "TOO_MANY_SESSIONS"
            n_active = service.active_sessions
            call.cancel()
            await live.empty()
            return n_active

    assert asyncio.run(talk()) == 1

"""Who may connect, and how: addresses, TLS, mutual TLS, tokens."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from tango_rt.cli import main
from tango_rt.server import gate
from tango_rt.server.config import ServerConfig
from tango_rt.server.listening import GestureServer
from tango_rt.server.security import parse_address
from tango_rt.v1 import service_pb2, service_pb2_grpc
from tests.helpers.certificates import make_certificate
from tests.helpers.operated_server import NOT_SERVING, health_of, listening, refusal, within


def test_token(packs: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# the old one goes at the end of the year\nsesam\nneu\n")

    async def work() -> None:
        async with listening(packs, token_file=file) as server, grpc.aio.insecure_channel(server.addresses[0]) as to:
            for token in ("sesam", "neu"):
                assert (await health_of(to, token=token)).status == NOT_SERVING
            for token in ("", "sesa", "sesamm", "Sesam", "sesam neu", "#"):
                assert await refusal(health_of(to, token=token)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_WRONG")
            assert await refusal(health_of(to)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
            stub = service_pb2_grpc.GestureServiceStub(to)
            for call in (  # calls of every kind, also those whose client says nothing
                stub.GetServerInfo(service_pb2.GetServerInfoRequest()),
                reading(stub.RenderClip(service_pb2.RenderClipRequest())),
                reading(stub.StreamGestures()),
            ):
                assert await code_of(call) == grpc.StatusCode.UNAUTHENTICATED
            for header in ("Basic sesam", "sesam", "Bearer", ""):
                call = stub.GetServerInfo(service_pb2.GetServerInfoRequest(), metadata=(("authorization", header),))
                assert (await refusal(call))[1] == "TOKEN_WRONG"
        async with (
            listening(packs, token="sesam", open_health=True) as server,
            grpc.aio.insecure_channel(server.addresses[0]) as to,
        ):
            assert (await health_of(to)).status == NOT_SERVING
            assert await code_of(stub_info(to)) == grpc.StatusCode.UNAUTHENTICATED

    within(work)


async def reading(call: Any) -> Any:
    return await call.read()


def stub_info(channel: Any) -> Any:
    return service_pb2_grpc.GestureServiceStub(channel).GetServerInfo(service_pb2.GetServerInfoRequest())


async def code_of(call: Awaitable[Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code()


@given(st.text(max_size=30))
def test_every_token_is_compared_with_all_in_constant_time(given_token: str) -> None:
    compared = []
    real = gate.hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate.hmac, "compare_digest", counting)
        door = gate.Gate(["one", "two", "three"], ServerConfig(Path("packs")), *[None] * 3)  # type: ignore[arg-type]
        assert door._is_known(f"Bearer {given_token}") == (given_token.strip() in ("one", "two", "three"))
    assert compared == [(32, 32)] * 3  # all of them, and digests of one length


@given(st.integers(0, 65_535), st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "localhost", "10.1.2.3"]))
def test_addresses(port: int, host: str) -> None:
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    address = parse_address(text)
    assert (str(address), address.host, address.port) == (text, host, port)
    assert address.is_local == (host in ("127.0.0.1", "::1", "localhost"))


@pytest.mark.parametrize(
    "text",
    ["", "host", ":1", "host:", "host:x", "host:65536", "host:-1", "::1:5", "[::1]", "[h]x:1", "unix:", "h:\u0663"],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_address(text)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a refusal with exit code 2."""
    with pytest.raises(SystemExit) as left:
        main(["serve", *(str(argument) for argument in arguments)])
    assert left.value.code == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tango-rt: ") and not said.out, (lines, said.out)
    return lines[0]


def test_what_cannot_be_served_is_refused_in_one_line(
    packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("--characters", packs, "--listen")
    assert "not a folder of characters" in refused(capsys, "--characters", tmp_path / "absent")
    assert "--characters" in refused(capsys)
    for beyond in ("0.0.0.0:0", "[::]:0"):
        assert "--insecure" in refused(capsys, *here, beyond)
    assert "--insecure" in refused(capsys, *here, "127.0.0.1:0", "--listen", "0.0.0.0:0")
    assert "HOST:PORT" in refused(capsys, *here, "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "already in use" in refused(capsys, *here, f"127.0.0.1:{port}")
        assert "metrics" in refused(capsys, *here, "127.0.0.1:0", "--metrics-listen", port)
    assert "assign" in refused(capsys, *here, "192.0.2.1:0", "--insecure")
    assert "No such file" in refused(capsys, *here, f"unix:{tmp_path}/no/socket")
    (tmp_path / "file").write_text("no socket")
    assert "exists" in refused(capsys, *here, f"unix:{tmp_path}/file")
    (tmp_path / "bad.toml").write_text("max_sessions = 0")
    assert "bad.toml" in refused(capsys, "--config", tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("colour = 'red'")
    assert "unknown option 'colour'" in refused(capsys, "--config", tmp_path / "bad.toml")
    assert "cannot read tokens" in refused(capsys, *here, "127.0.0.1:0", "--token-file", tmp_path / "absent")
    (tmp_path / "empty").write_text("\n# nothing\n")
    assert "no token" in refused(capsys, *here, "127.0.0.1:0", "--token-file", tmp_path / "empty")
    assert "no bundle" in refused(capsys, *here, "127.0.0.1:0", "--bundle", tmp_path / "absent")
    absent = ("--tls-cert", tmp_path / "absent", "--tls-key", tmp_path / "file")
    assert "absent" in refused(capsys, *here, "127.0.0.1:0", *absent)
    wrong = ("--tls-cert", tmp_path / "file", "--tls-key", tmp_path / "file")
    assert "PEM" in refused(capsys, *here, "127.0.0.1:0", *wrong)


def test_a_port_is_not_shared_with_another_server(packs: Path) -> None:
    async def work() -> None:
        async with listening(packs) as server:
            with pytest.raises(InputError, match="already in use"):
                GestureServer(ServerConfig(packs, listen=server.addresses))

    within(work)


def test_several_addresses_and_unix_sockets(packs: Path, tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/tango.sock"

    async def work() -> None:
        for _ in range(2):  # what a server leaves behind is no obstacle
            with socket.socket(socket.AF_UNIX) as left_behind, contextlib.suppress(OSError):
                left_behind.bind(f"{tmp_path}/tango.sock")
            async with listening(packs, listen=("127.0.0.1:0", at, "localhost:0")) as server:
                assert len(server.addresses) == 3 and server.addresses[1] == at
                assert not any(address.endswith(":0") for address in server.addresses)
                for address in server.addresses:
                    async with grpc.aio.insecure_channel(address) as to:
                        assert (await health_of(to)).status == NOT_SERVING
                with pytest.raises(InputError, match="already in use"):
                    GestureServer(ServerConfig(packs, listen=(at,)))

    within(work)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it signed for the server and for a client: NAME.pem and NAME.key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    for name, signed_by in (("ca", None), ("server", "ca"), ("client", "ca"), ("renewed", "ca"), ("stranger", None)):
        make_certificate(folder, name, signed_by)
    return folder


def secure_channel(address: str, folder: Path, client: str | None = None, authority: str = "ca") -> Any:
    pair = (None, None)
    if client is not None:
        pair = ((folder / f"{client}.key").read_bytes(), (folder / f"{client}.pem").read_bytes())
    credentials = grpc.ssl_channel_credentials((folder / f"{authority}.pem").read_bytes(), *pair)
    return grpc.aio.secure_channel(address, credentials)


async def answers(channel: Any) -> bool:
    """Whether the other side talks to us at all."""
    async with channel:
        try:
            return (await health_of(channel)).status == NOT_SERVING
        except grpc.aio.AioRpcError as failed:
            assert failed.code() == grpc.StatusCode.UNAVAILABLE
            return False


def test_tls(packs: Path, certificates: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    shutil.copy(certificates / "server.pem", cert)
    shutil.copy(certificates / "server.key", key)

    async def work() -> None:
        at = ("localhost:0", f"unix:{tmp_path}/socket")
        async with listening(packs, listen=at, tls_cert=cert, tls_key=key) as server:
            address = server.addresses[0]
            assert await answers(secure_channel(address, certificates))
            assert not await answers(secure_channel(address, certificates, authority="stranger"))
            assert not await answers(grpc.aio.insecure_channel(address))
            assert await answers(grpc.aio.insecure_channel(server.addresses[1]))  # has an owner and permissions
            shutil.copy(certificates / "renewed.pem", cert)
            assert await answers(secure_channel(address, certificates))  # half of it: the one before still counts
            shutil.copy(certificates / "renewed.key", key)
            assert await answers(secure_channel(address, certificates))
            assert await asyncio.to_thread(shown_name, address, certificates) == "renewed"

    within(work)


def shown_name(address: str, certificates: Path) -> str:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        return dict(pair for part in tls.getpeercert()["subject"] for pair in part)["commonName"]


def test_mutual_tls(packs: Path, certificates: Path) -> None:
    async def work() -> None:
        files = {name: certificates / file for name, file in (("tls_cert", "server.pem"), ("tls_key", "server.key"))}
        async with listening(packs, **files, tls_client_ca=certificates / "ca.pem") as server:
            address = server.addresses[0].replace("127.0.0.1", "localhost")
            assert await answers(secure_channel(address, certificates, "client"))
            assert not await answers(secure_channel(address, certificates, "stranger"))
            assert not await answers(secure_channel(address, certificates))

    within(work)


def test_certificates_that_do_not_fit(packs: Path, certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    subprocess.run(
        ["openssl", "ec", "-in", certificates / "server.key", "-aes128", "-passout", "pass:secret", "-out", "locked"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    server, key = certificates / "server.pem", certificates / "server.key"
    for files, hint in (
        ((server, certificates / "client.key", None), "mismatch"),
        ((server, tmp_path / "locked", None), "passphrase"),
        ((server, key, tmp_path / "text"), "authority"),
        ((server, key, tmp_path / "absent"), "no such file"),
    ):
        cert, private, authority = files
        with pytest.raises(InputError, match=hint) as refused_by:
            GestureServer(ServerConfig(packs, tls_cert=cert, tls_key=private, tls_client_ca=authority))
        assert "\n" not in str(refused_by.value)

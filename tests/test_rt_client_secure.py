"""The clients and `tango-rt send` against a server that wants TLS, a certificate of ours and a token."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tango_rt.client import AsyncClient, Client, ConnectOptions, ServerError
from tests.helpers.certificates import make_certificate
from tests.helpers.commands import run_json
from tests.helpers.fakes import make_pack
from tests.helpers.real_server import real_server
from tests.helpers.speech import write_speech

TOKEN = "a-secret-of-some-length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine to make certificates with")
    folder = tmp_path_factory.mktemp("secure")
    for name, signed_by in (("ca", None), ("server", "ca"), ("client", "ca"), ("stranger", None)):
        make_certificate(folder, name, signed_by)
    (folder / "characters").mkdir()
    make_pack(folder / "characters" / "anna.tango")
    (folder / "token").write_text(TOKEN + "\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Any:
    pem = {"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}
    with real_server(folder / "characters", token=TOKEN, **{key: folder / name for key, name in pem.items()}) as target:
        yield target


@pytest.fixture
def ours(folder: Path) -> ConnectOptions:
    return ConnectOptions(TOKEN, ca=folder / "ca.pem", cert=folder / "client.pem", key=folder / "client.key")


def test_who_brings_everything_is_served(server: str, ours: ConnectOptions) -> None:
    async def version() -> str:
        async with AsyncClient(server, ours) as client:
            return (await client.info()).version

    with Client(server, ours) as client:
        assert client.info().version == asyncio.run(version())


def test_who_brings_less_is_told_in_one_line(server: str, ours: ConnectOptions, folder: Path) -> None:
    for options, code, reason in (
        (replace(ours, token=None), "UNAUTHENTICATED", "TOKEN_MISSING"),
        (replace(ours, token="wrong"), "UNAUTHENTICATED", "TOKEN_WRONG"),
        (replace(ours, cert=None, key=None), "UNAVAILABLE", "UNAVAILABLE"),
        (replace(ours, ca=folder / "stranger.pem"), "UNAVAILABLE", "UNAVAILABLE"),
        (replace(ours, cert=folder / "stranger.pem", key=folder / "stranger.key"), "UNAVAILABLE", "UNAVAILABLE"),
        (ConnectOptions(TOKEN), "UNAVAILABLE", "UNAVAILABLE"),  # plaintext
    ):
        with Client(server, options) as client, pytest.raises(ServerError) as refused:
            client.info()
        assert (refused.value.code, refused.value.reason) == (code, reason)
        assert "\n" not in str(refused.value) and TOKEN not in str(refused.value)


def test_send(server: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = write_speech(tmp_path / "speech.wav", 1.0)
    keys = ["--tls-ca", folder / "ca.pem", "--tls-cert", folder / "client.pem", "--tls-key", folder / "client.key"]
    arguments = ["send", server, "--character", "anna", speech, "-o", tmp_path / "out.mp4", "--fast", *keys]
    assert run_json(capsys, *arguments, "--token-file", folder / "token")["n_frames"] == 30


def test_the_token_of_the_environment(
    server: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANGO_RT_TOKEN", TOKEN)
    speech = write_speech(tmp_path / "speech.wav", 1.0)
    keys = ["--tls-ca", folder / "ca.pem", "--tls-cert", folder / "client.pem", "--tls-key", folder / "client.key"]
    arguments = ["send", server, "--character", "anna", speech, "-o", tmp_path / "out.mp4", "--fast", *keys]
    assert run_json(capsys, *arguments)["n_frames"] == 30

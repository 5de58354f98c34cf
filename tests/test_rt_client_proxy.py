"""Proxies of the environment: never for this machine, named where the way to others fails, never given plaintext."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import tango_rt
from tango_rt.client import AsyncClient, Client, ConnectOptions, InputError, ServerError, SessionOptions
from tango_rt.client.channel import credentials
from tango_rt.client.route import Proxy, route_to
from tests.helpers.fakes_proxy import Proxy as FakeProxy
from tests.helpers.fakes_proxy import fake_proxy
from tests.helpers.fakes_server import Response, accept, fake_server

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
OTHER_VARIABLES = ("no_grpc_proxy", "no_proxy", "GRPC_ADDRESS_HTTP_PROXY", "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES")
TO_OTHERS = ConnectOptions(timeout_s=5)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES + OTHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proxy() -> Iterator[FakeProxy]:
    with fake_proxy() as proxy:
        yield proxy


def ask(target: str, options: ConnectOptions | None = None, asynchronous: bool = False) -> None:
    async def asked() -> None:
        async with AsyncClient(target, options) as client:
            await client.info()

    if asynchronous:
        asyncio.run(asked())
    else:
        with Client(target, options) as client:
            client.info()


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])


def listening(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
    yield accept(next(requests))
    assert [request.audio.data for request in requests] == [b"\1\0"]


@both
@pytest.mark.parametrize("variable", PROXY_VARIABLES)
def test_a_session_within_this_machine_meets_no_proxy(
    variable: str, asynchronous: bool, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://user:secret@{proxy.address}")

    async def speak(target: str) -> None:
        async with AsyncClient(target) as client, client.stream(SessionOptions("anna")) as session:
            await session.send_audio(b"\1\0")
            await session.finish()
            assert [event async for event in session] == []

    with fake_server(listening) as target:
        target = target.replace("127.0.0.1", "localhost")
        if asynchronous:
            asyncio.run(speak(target))
        else:
            with Client(target) as client, client.stream(SessionOptions("anna")) as session:
                session.send_audio(b"\1\0")
                session.finish()
                assert list(session) == []
    assert proxy.asked == []


LOOPBACKS = [
    *("localhost", "LocalHost", "127.0.0.1", "127.9.8.7", "0.0.0.0"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::1%lo]", "[::ffff:127.0.0.1]", "[::]"),
]
OURS = ["localhost.", "anna.localhost", "127.1", "0", "2130706433"]


@pytest.mark.parametrize("host", LOOPBACKS + OURS)
def test_no_proxy_is_asked_for_any_name_of_this_machine(
    host: str, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    with fake_server(None) as target, pytest.raises(ServerError) as failed:
        # whether there is a server behind such a name is up to the machine
        ask(f"{host}:{target.rpartition(':')[2]}", ConnectOptions(insecure=True, timeout_s=1))
    assert proxy.asked == [] and "proxy" not in str(failed.value)


def test_no_proxy_is_asked_for_this_machine_by_its_own_name_and_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    for host in (socket.gethostname(), socket.gethostname().upper(), socket.gethostname().partition(".")[0]):
        assert route_to(f"{host}:1").here
    try:
        found = socket.getaddrinfo(socket.gethostname(), 1, type=socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this machine does not know its own name")
    for family, _, _, _, place in found:
        address = f"[{place[0]}]" if family == socket.AF_INET6 else str(place[0])
        assert route_to(f"{address}:1").proxy is None


def test_the_proxy_by_addresses_is_not_asked_either(proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", proxy.address)
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8")
    with fake_server(None) as target, pytest.raises(ServerError, match=r"does not speak tango_rt\.v1"):
        ask(target)
    assert proxy.asked == []


def test_nothing_else_opens_channels() -> None:
    root = Path(tango_rt.__file__).parents[1]
    files = [file for package in ("engine", "export", "tango_rt") for file in (root / package).rglob("*.py")]
    opening = {file.name for file in files if "secure_channel(" in file.read_text("utf-8")}
    assert opening == {"aio.py", "plain.py"}


def test_sockets_in_the_file_system(proxy: FakeProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    with pytest.raises(ServerError, match="no server answers there"):
        ask(f"unix:{tmp_path}/socket")
    assert proxy.asked == []


@both
@pytest.mark.parametrize("variable", PROXY_VARIABLES)
def test_the_proxy_to_another_machine_is_named_where_the_way_fails(
    variable: str, asynchronous: bool, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://user:secret@{proxy.address}/")
    with pytest.raises(ServerError) as failed:
        ask("gestures.invalid:443", TO_OTHERS, asynchronous)
    said = str(failed.value)
    assert f"gestures.invalid:443 through the proxy {proxy.address} ({variable}; " in said and "403" in said
    assert "no_grpc_proxy=gestures.invalid bypasses it" in said
    assert "secret" not in said and "user" not in said and "\n" not in said
    assert set(proxy.asked) == {"CONNECT gestures.invalid:443 HTTP/1.1"}


@both
def test_a_proxy_that_hangs_is_named(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ConnectOptions(timeout_s=0.5)

    async def stream(target: str) -> None:
        async with AsyncClient(target, options) as client, client.stream(SessionOptions("anna")):
            pass

    with fake_proxy(answer=b"") as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        said = rf"through the proxy {proxy.address} \(http_proxy; .* within 0\.5 s"
        with pytest.raises(ServerError, match=said):
            if asynchronous:
                asyncio.run(stream("gestures.invalid:443"))
            else:
                with Client("gestures.invalid:443", options) as client, client.stream(SessionOptions("anna")):
                    pass


@both
def test_plaintext_is_given_to_no_proxy(asynchronous: bool, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    with pytest.raises(InputError, match=rf"through the proxy {proxy.address} .* without TLS: .* use TLS or bypass"):
        ask("gestures.invalid:443", ConnectOptions(token="token", insecure=True), asynchronous)
    assert proxy.asked == []
    monkeypatch.setenv("no_proxy", "gestures.invalid")
    with pytest.raises(ServerError) as failed:
        ask("gestures.invalid:443", ConnectOptions(insecure=True, timeout_s=1), asynchronous)
    assert proxy.asked == [] and "proxy" not in str(failed.value)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://b:1"}, Proxy("http_proxy", "b:1", used=True)),
        ({"https_proxy": "http://a:1", "http_proxy": "http://b:1"}, Proxy("https_proxy", "a:1", used=True)),
        ({"grpc_proxy": "http://c:1", "https_proxy": "http://a:1"}, Proxy("grpc_proxy", "c:1", used=True)),
        ({"grpc_proxy": "", "https_proxy": "http://a:1"}, None),
        ({"https_proxy": "http://me:pw@a:1/path"}, Proxy("https_proxy", "a:1", used=True)),
        ({"https_proxy": "https://me:pw@a:1"}, Proxy("https_proxy", "https://a:1", used=False)),
        ({"https_proxy": "socks5://a:1"}, Proxy("https_proxy", "socks5://a:1", used=False)),
        ({"https_proxy": "proxy.example:1"}, Proxy("https_proxy", "no http:// address", used=False)),
        ({"http_proxy": "http://b:1", "no_proxy": "other.example"}, Proxy("http_proxy", "b:1", used=True)),
        ({"http_proxy": "http://b:1", "no_proxy": "*"}, Proxy("http_proxy", "b:1", used=True)),
        ({"http_proxy": "http://b:1", "no_proxy": "a, example.ORG"}, None),
        ({"http_proxy": "http://b:1", "no_proxy": "192.0.2.0/24"}, Proxy("http_proxy", "b:1", used=True)),
        (
            {"http_proxy": "http://b:1", "no_proxy": "example.org", "no_grpc_proxy": "a"},
            Proxy("http_proxy", "b:1", True),
        ),
        ({"http_proxy": "http://b:1", "no_grpc_proxy": ".example.org"}, None),
    ],
)
def test_what_the_environment_says(
    environment: dict[str, str], proxy: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert route_to("gestures.example.org:443").proxy == proxy


@pytest.mark.parametrize(
    "environment",
    [
        {"https_proxy": "{}", "http_proxy": "http://127.0.0.1:1"},
        {"grpc_proxy": "", "https_proxy": "{}"},
        {"https_proxy": "https://127.0.0.1:1"},
        {"http_proxy": "{}", "no_proxy": "invalid"},
        {"http_proxy": "{}", "no_proxy": "*"},
        {"http_proxy": "{}", "no_proxy": "gestures.INVALID, a"},
        {"http_proxy": "{}", "no_proxy": "gestures.invalid", "no_grpc_proxy": "a"},
        {"http_proxy": "{}", "no_proxy": "gestures.invalid:443"},
    ],
    ids=str,
)
def test_grpc_reads_the_environment_as_we_say(
    environment: dict[str, str], proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(f"http://{proxy.address}"))
    said = route_to("gestures.invalid:443").proxy
    with pytest.raises(ServerError) as failed:
        ask("gestures.invalid:443", TO_OTHERS)
    assert bool(proxy.asked) == (said is not None and said.used)
    assert ("proxies alone" in str(failed.value)) == (said is not None and not said.used)


def test_networks_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://b:1")
    monkeypatch.setenv("no_proxy", "192.0.2.0/24,2001:db8::/32,nonsense/99")
    assert route_to("192.0.2.7:1").proxy is None and route_to("[2001:db8::7]:1").proxy is None
    assert route_to("198.51.100.7:1").proxy is not None


@pytest.mark.parametrize("target", [*(f"{host}:1" for host in LOOPBACKS), "unix:/tmp/s"])
def test_plaintext_within_this_machine(target: str) -> None:
    route = route_to(target)
    assert route.loopback and route.here and str(route) == target
    assert credentials(route, ConnectOptions()) is None
    assert credentials(route, ConnectOptions(insecure=True)) is None
    assert credentials(route, ConnectOptions(tls=True)) is not None


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "example.org", "localhost.example.org", "anna.localhost", "[2001:db8::1]"]
)
def test_tls_where_a_name_server_could_send_us_elsewhere(host: str) -> None:
    route = route_to(f"{host}:443")
    assert not route.loopback
    assert credentials(route, ConnectOptions()) is not None
    assert credentials(route, ConnectOptions(insecure=True)) is None

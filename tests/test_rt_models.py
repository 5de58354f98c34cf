"""Published networks on this machine: out of folders, wheels and package indexes, never with another content."""

import hashlib
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.errors import BackendError, InputError
from tango_rt.cli import main
from tango_rt.models.fetch import FetchOptions, fetch
from tango_rt.models.folder import ensure_models, file_states, models_folder
from tango_rt.models.index import configured_index, download_wheel
from tango_rt.models.published import HOLISTIC
from tests.helpers.commands import run_json
from tests.helpers.planted_models import CONTENT, PLANTED, WHEEL, wheel_bytes


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / WHEEL
    path.write_bytes(wheel_bytes())
    return path


class Index(BaseHTTPRequestHandler):
    """A package index with one wheel, as JSON or HTML, behind a password if there is one; counts what was asked."""

    wheel = wheel_bytes()
    as_json = True
    password = ""
    sha256: str | None = None
    asked: tuple[str, ...] = ()

    def do_GET(self) -> None:
        type(self).asked += (self.path,)
        if self.password and self.headers.get("Authorization") != self.password:
            self._answer(401, "text/plain", b"who are you")
        elif self.path == "/simple/planted-nets/":
            sha256 = self.sha256 or hashlib.sha256(self.wheel).hexdigest()
            link = f"../../files/{WHEEL}"
            if self.as_json:
                files = [
                    {"filename": WHEEL, "url": link, "hashes": {"sha256": sha256}},
                    {"filename": "planted_nets-0.9-py3-none-any.whl", "url": "old", "hashes": {"sha256": sha256}},
                    {"filename": "planted_nets-1.0.tar.gz", "url": "source", "hashes": {}},
                ]
                page = {"meta": {"api-version": "1.0"}, "name": "planted-nets", "files": files}
                self._answer(200, "application/vnd.pypi.simple.v1+json", json.dumps(page).encode())
            else:
                page = f'<html><body><a href="{link}#sha256={sha256}">{WHEEL}</a><a name="x">none</a></body></html>'
                self._answer(200, "text/html", page.encode())
        elif self.path == f"/files/{WHEEL}":
            self._answer(200, "application/octet-stream", self.wheel)
        else:
            self._answer(404, "text/plain", b"nothing here")

    def _answer(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[tuple[str, type[Index]]]:
    """Address of an index and the class that answers, to be set up by the test."""
    handler = type("Planted", (Index,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)


def assert_whole(folder: Path) -> None:
    assert file_states(folder, PLANTED) == {"one.tflite": "ok", "two.tflite": "ok"}
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "one.tflite", "two.tflite"]


def test_out_of_a_wheel_and_out_of_a_filled_folder(wheel: Path, tmp_path: Path) -> None:
    first, second, unpacked = tmp_path / "first", tmp_path / "second", tmp_path / "unpacked"
    fetch(PLANTED, first, FetchOptions(wheel))
    assert_whole(first)
    zipfile.ZipFile(wheel).extractall(unpacked)
    fetch(PLANTED, second, FetchOptions(unpacked))
    assert_whole(second)
    (second / "one.tflite").write_bytes(b"first netw0rk")
    (second / "two.tflite").unlink()
    assert file_states(second, PLANTED) == {"one.tflite": "damaged", "two.tflite": "absent"}
    fetch(PLANTED, second, FetchOptions(first))
    assert_whole(second)


def test_another_content_is_never_kept(tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    other.write_bytes(wheel_bytes({**CONTENT, "planted/b/two.tflite": b"another network"}))
    with pytest.raises(InputError, match=r"other\.whl: its two\.tflite is not the one of planted_nets 1\.0"):
        fetch(PLANTED, tmp_path / "folder", FetchOptions(other))
    assert file_states(tmp_path / "folder", PLANTED)["two.tflite"] == "absent"


def flagged_as_encrypted(wheel: bytes) -> bytes:
    """Bit 0 of the flags of every member, in its local header and in the directory."""
    content = bytearray(wheel)
    for head, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(head)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(head, at + 1)
    return bytes(content)


def damaged_inside(wheel: bytes) -> bytes:
    """The packed content of the first member, behind its local header of 30 bytes and name."""
    start = 30 + len("planted/a/one.tflite")
    return wheel[:start] + b"\xff" * 8 + wheel[start + 8 :]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"no zip at all", r"wrong\.whl: is no wheel"),
        (flagged_as_encrypted(wheel_bytes()), r"wrong\.whl: not a wheel, or a damaged one"),
        (damaged_inside(wheel_bytes()), r"wrong\.whl: not a wheel, or a damaged one"),
        (wheel_bytes({"planted/a/one.tflite": b"first network"}), r"wrong\.whl: has no two\.tflite"),
        (wheel_bytes()[:-40], r"wrong\.whl: is no wheel"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(content: bytes, match: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.whl"
    wrong.write_bytes(content)
    with pytest.raises(InputError, match=match):
        fetch(PLANTED, tmp_path / "folder", FetchOptions(wrong))
    with pytest.raises(InputError, match="absent: no such file"):
        fetch(PLANTED, tmp_path / "folder", FetchOptions(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: has no one\.tflite"):
        fetch(PLANTED, tmp_path / "folder", FetchOptions(tmp_path / "empty"))


@pytest.mark.parametrize("as_json", [True, False])
def test_without_pip_the_index_itself_is_read(
    index: tuple[str, type[Index]], as_json: bool, without_pip: None, tmp_path: Path
) -> None:
    address, handler = index
    handler.as_json = as_json
    fetch(PLANTED, tmp_path / "folder", FetchOptions(index=address))
    assert_whole(tmp_path / "folder")
    assert handler.asked == ("/simple/planted-nets/", f"/files/{WHEEL}")


def test_the_password_of_an_index_goes_to_it_and_into_no_message(
    index: tuple[str, type[Index]], tmp_path: Path
) -> None:
    address, handler = index
    handler.password = "Basic dXNlcjpwQHNz"  # user:p@ss
    with_password = address.replace("//", "//user:p%40ss@")
    assert download_wheel(with_password, "planted_nets", "1.0", tmp_path).read_bytes() == handler.wheel
    with pytest.raises(BackendError, match="401") as error:
        download_wheel(address.replace("//", "//user:secret@"), "planted_nets", "1.0", tmp_path)
    assert "secret" not in str(error.value)


def test_a_wheel_with_another_hash_is_refused(index: tuple[str, type[Index]], tmp_path: Path) -> None:
    address, handler = index
    handler.sha256 = "0" * 64
    with pytest.raises(BackendError, match="hash"):
        download_wheel(address, "planted_nets", "1.0", tmp_path)
    with pytest.raises(BackendError, match=r"no wheel of planted_nets 2\.0"):
        download_wheel(address, "planted_nets", "2.0", tmp_path)
    with pytest.raises(BackendError, match="https://HOST/simple"):
        download_wheel("ftp://example.invalid/simple", "planted_nets", "1.0", tmp_path)


@pytest.mark.parametrize("has_pip", [True, False])
def test_offline_one_line_says_what_to_do(has_pip: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not has_pip:
        monkeypatch.setitem(sys.modules, "pip", None)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(BackendError, match=r"planted networks cannot be fetched: .*models fetch --from") as error:
        fetch(PLANTED, tmp_path / "folder", FetchOptions(index="http://127.0.0.1:9/simple"))
    assert "\n" not in str(error.value)


def test_by_pip_from_an_index(index: tuple[str, type[Index]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="this environment has no pip")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    fetch(PLANTED, tmp_path / "folder", FetchOptions(index=index[0]))
    assert_whole(tmp_path / "folder")
    assert f"/files/{WHEEL}" in index[1].asked


def test_the_index_is_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert configured_index() == "https://pypi.org/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.example/simple")
    assert configured_index() == "https://mirror.example/simple"


def test_first_use_fetches_and_says_so_once(
    index: tuple[str, type[Index]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    without_pip: None,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TANGO_RT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_INDEX_URL", index[0])
    assert ensure_models(PLANTED) == ensure_models(PLANTED) == tmp_path / "models"
    assert_whole(tmp_path / "models")
    assert len(index[1].asked) == 2
    assert capsys.readouterr().err.count("fetching the planted networks") == 1


def test_a_folder_filled_by_somebody_else_is_used(wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TANGO_RT_MODELS", raising=False)
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models" / "planted_nets-1.0"
    assert models_folder(PLANTED) == place
    fetch(PLANTED, place, FetchOptions(wheel))
    (tmp_path / "cache").chmod(0o555)
    assert models_folder(PLANTED) == place
    assert ensure_models(PLANTED) == place


def test_the_command_lists_and_fetches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = ensure_models()
    monkeypatch.setenv("TANGO_RT_MODELS", str(tmp_path / "models"))
    listed = run_json(capsys, "models", "list")
    assert set(listed["files"].values()) == {"absent"} and len(listed["files"]) == len(HOLISTIC.files)
    fetched = run_json(capsys, "models", "fetch", "--from", source)
    assert fetched == {
        "folder": str(tmp_path / "models"),
        "fetched": True,
        "files": dict.fromkeys(listed["files"], "ok"),
    }
    main(["models", "fetch"])
    assert "7 networks were there" in capsys.readouterr().out
    main(["models", "list"])
    assert capsys.readouterr().out.count(" ok") == 7
    with pytest.raises(SystemExit) as left:
        main(["models", "fetch", "--from", str(tmp_path / "nowhere")])
    assert left.value.code == 2 and "nowhere: no such file" in capsys.readouterr().err

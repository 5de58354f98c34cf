"""Signatures of this user on this machine: who has the key signs, nobody else; a key that leaked is made again."""

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.inference.signing import KEY, is_own, sign
from engine.warn import warn_once

CONTENT = {"passed": True, "engines": {"linear": "0" * 64}, "seconds": 1.25, "why": "Grüße", "none": None}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tango-rt"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_signed_is_own_through_json(state: Path) -> None:
    umask = os.umask(0)
    try:
        said = sign(CONTENT)
    finally:
        os.umask(umask)
    assert said.items() >= CONTENT.items() and len(said["signature"]) == 64
    assert is_own(json.loads(json.dumps(said, indent=1)))
    assert is_own(dict(reversed(said.items())))
    assert (mode(state), mode(state / KEY)) == (0o700, 0o600)
    assert [file.name for file in state.iterdir()] == [KEY] and (state / KEY).stat().st_size == 32
    assert sign(CONTENT) == said  # the key stays


@pytest.mark.parametrize(
    "change",
    [
        {"passed": False},
        {"passed": 1},
        {"more": ""},
        {"seconds": float("nan")},
        {"signature": None},
        {"signature": ""},
        {"signature": "ü" * 64},
        {"signature": "\ud800"},
        {"signature": ["0"] * 64},
        {"signature": "0" * 64},
    ],
)
def test_whatever_is_changed_is_not_own(change: dict[str, object]) -> None:
    said = sign(CONTENT)
    assert not is_own({**said, **change})
    assert not is_own(CONTENT)


def test_nothing_is_made_to_look(state: Path) -> None:
    assert not is_own({**CONTENT, "signature": "0" * 64})
    assert not state.parent.exists()


def test_others_and_other_machines_sign_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = sign(CONTENT)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        assert not is_own(said) and sign(CONTENT) != said
    (tmp_path / "machine-id").write_text("f00d\n")
    assert is_own(said) and not is_own(said, tmp_path / "machine-id")


def test_relative_places_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the specification of the variable has it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for given in ("", "state"):
        monkeypatch.setenv("XDG_STATE_HOME", given)
        assert is_own(sign(CONTENT))
    assert (home / ".local" / "state" / "tango-rt" / KEY).is_file()


def as_readable(key: Path) -> None:
    key.chmod(0o640)


def as_open_folder(key: Path) -> None:
    key.parent.chmod(0o770)


def as_link(key: Path) -> None:
    key.rename(key.with_name("other"))
    key.symlink_to("other")


def as_short(key: Path) -> None:
    key.write_bytes(b"short")


def as_long(key: Path) -> None:
    key.write_bytes(bytes(33))


def as_fifo(key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)


def as_another_users(key: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(key, 12345, 12345)


DAMAGE = [as_readable, as_open_folder, as_link, as_short, as_long, as_fifo, as_another_users]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_key_that_is_not_for_this_user_alone_is_made_anew(state: Path, damage: object) -> None:
    said = sign(CONTENT)
    before = (state / KEY).read_bytes()
    damage(state / KEY)  # type: ignore[operator]
    assert not is_own(said)
    again = sign(CONTENT)
    assert again != said and is_own(again) and not is_own(said)
    assert (mode(state), mode(state / KEY)) == (0o700, 0o600) and not (state / KEY).is_symlink()
    assert (state / KEY).read_bytes() != before


WITHOUT = """
import json, sys
from engine.inference.signing import is_own, sign
said = sign({"passed": True})
sign({"passed": False})
print(json.dumps([said, is_own(said)]))
"""


@pytest.mark.parametrize("home", ["/nonexistent", "/dev/null", "file"])
def test_without_a_place_it_is_a_key_of_the_process(tmp_path: Path, home: str) -> None:
    """What it compiles it can use itself, and nobody else; that is said once."""
    (tmp_path / "file").touch()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / home)}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, check=True)
    said, own = json.loads(done.stdout)
    assert own and not is_own(said)
    assert done.stderr.count("--trust-engines") == 1 and done.stderr.count("\n") == 1


def test_a_folder_that_is_not_this_users(state: Path, monkeypatch: pytest.MonkeyPatch, caplog: object) -> None:
    said = sign(CONTENT)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)  # as sudo leaves the variables of who called it
    warn_once.cache_clear()
    assert not is_own(said)
    assert not is_own({**sign(CONTENT), "passed": False})
    assert isinstance(caplog, pytest.LogCaptureFixture)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert mode(state) == 0o700 and [file.name for file in state.iterdir()] == [KEY]

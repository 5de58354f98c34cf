"""Whose engines these are: what this user compiled and verified on this machine is told from what came with a folder.

A compiled network runs as a program does: the libraries that load it believe every byte. So the records and reports of
engines carry a signature, an HMAC-SHA256 with a key of this user: 32 random bytes, made when something is first signed
and kept in $XDG_STATE_HOME/tango-rt or ~/.local/state/tango-rt (folder 0700, key 0600). Who cannot read the key cannot
sign, and who can is this user already. The number of the machine is signed too, where it has one: a home that several
machines share, or a copy of it, does not make one machine answer for another.
"""

import functools
import hmac
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.files import open_plain, read_plain
from engine.folders import private_folder, state_place
from engine.inference.engine_key import content_digest

__all__ = ["KEY", "is_own", "signed"]

KEY = "engines.key"
KEY_BYTES = 32
_FIELD = "signature"
MACHINE_ID = Path("/etc/machine-id")
_MAX_ID_BYTES = 1 << 10
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_log = logging.getLogger(__name__)


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the signature of this user on this machine over all the rest of it.

    Where no key can be kept it is by a key of this process alone, and that is said once.
    """
    key = _kept_key() or _new_key()
    if key is None:
        _say_not_kept()
    return {**content, _FIELD: _signature(key or _process_key(), content)}


def is_own(content: Mapping[str, Any], machine_id: Path = MACHINE_ID) -> bool:
    """Whether a JSON object is what `signed` gave this user on this machine, unchanged."""
    found = content.get(_FIELD)
    try:
        rest = {name: content[name] for name in content if name != _FIELD}
        wanted = _signature(_kept_key() or _process_key(), rest, machine_id)
    except (ValueError, RecursionError):  # what JSON reads but does not write, as NaN
        return False
    return isinstance(found, str) and hmac.compare_digest(wanted.encode(), found.encode("utf-8", "replace"))


def _signature(key: bytes, content: Mapping[str, Any], machine_id: Path = MACHINE_ID) -> str:
    return hmac.new(key, _number_in(machine_id) + content_digest(content).encode(), "sha256").hexdigest()


def _number_in(machine_id: Path) -> bytes:
    """Many containers have none: then the key alone decides."""
    with suppress(OSError):
        return read_plain(machine_id, _MAX_ID_BYTES).strip()
    return b""


def _kept_key() -> bytes | None:
    """None where there is none, or where another user may have read it or put it there."""
    folder = state_place()
    if folder is None:
        return None
    try:
        descriptor = open_plain(folder / KEY, follow_links=False)
        try:
            alone = _of_this_user_alone(os.stat(folder)) and _of_this_user_alone(os.fstat(descriptor))
            key = os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return key if alone and len(key) == KEY_BYTES else None


def _new_key() -> bytes | None:
    """A key in place of one that is missing or not this user's alone; None where there is no place for it."""
    folder = state_place()
    if folder is None or not private_folder(folder, once_shared=True):
        return None
    try:
        handle, made = tempfile.mkstemp(dir=folder)  # for its owner alone
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        os.replace(made, folder / KEY)
    except OSError:  # a full disk, for example
        return None
    return _kept_key()


def _of_this_user_alone(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS


@functools.cache
def _process_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


@functools.cache
def _say_not_kept() -> None:
    _log.warning(
        "no key of this user can be kept, so other processes run these engines with --trust-engines alone: there is no "
        "home that can be written, XDG_STATE_HOME may name a folder in its place"
    )

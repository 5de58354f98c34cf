"""Whose engines these are: tells what this user compiled and verified on this machine from what came with a folder.

A compiled network is as dangerous as a program: the libraries that load it trust every byte. So the records and reports
of engines carry a signature, an HMAC-SHA256 with a key of this user: 32 random bytes, generated when something is first
signed and kept in $XDG_STATE_HOME/tango-rt or ~/.local/state/tango-rt (folder 0700, key 0600). Only this user can read
the key, and so sign. The machine id, if there is one, is signed too, so that a home folder shared between machines, or
copied, does not make one machine vouch for another.
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
from engine.warn import warn_once

__all__ = ["KEY", "is_own", "sign"]

KEY = "engines.key"
KEY_BYTES = 32
_FIELD = "signature"
MACHINE_ID = Path("/etc/machine-id")
_MAX_ID_BYTES = 1 << 10
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_NOT_KEPT = (
    "no signing key can be stored, so other processes run these engines only with --trust-engines: there is no "
    "writable home folder, set XDG_STATE_HOME to one"
)

_log = logging.getLogger(__name__)


def sign(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with this user's signature on this machine added.

    If no key can be stored, a key of this process is used, with one warning.
    """
    key = _kept_key() or _new_key()
    if key is None:
        warn_once(_log, _NOT_KEPT)
    return {**content, _FIELD: _signature(key or _process_key(), content)}


def is_own(content: Mapping[str, Any], machine_id: Path = MACHINE_ID) -> bool:
    """Whether a JSON object was signed by this user on this machine, and is unchanged."""
    found = content.get(_FIELD)
    try:
        rest = {name: content[name] for name in content if name != _FIELD}
        wanted = _signature(_kept_key() or _process_key(), rest, machine_id)
    except (ValueError, RecursionError):  # values that JSON reads but does not write, such as NaN
        return False
    return isinstance(found, str) and hmac.compare_digest(wanted.encode(), found.encode("utf-8", "replace"))


def _signature(key: bytes, content: Mapping[str, Any], machine_id: Path = MACHINE_ID) -> str:
    return hmac.new(key, _number_in(machine_id) + content_digest(content).encode(), "sha256").hexdigest()


def _number_in(machine_id: Path) -> bytes:
    """Empty if there is none, as in many containers: then the key alone decides."""
    with suppress(OSError):
        return read_plain(machine_id, _MAX_ID_BYTES).strip()
    return b""


def _kept_key() -> bytes | None:
    """None if there is none, or if another user may have read it or put it there."""
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
    """Replace a key that is missing or not private to this user; None if it cannot be stored."""
    folder = state_place()
    if folder is None or not private_folder(folder, once_shared=True):
        return None
    try:
        handle, made = tempfile.mkstemp(dir=folder)  # private to its owner
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

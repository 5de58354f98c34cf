"""A wheel from a package index, for environments without pip: the simple API in JSON or HTML (PEP 503, 691)."""

import base64
import hashlib
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.errors import BackendError
from engine.records import as_object, as_text

__all__ = ["configured_index", "download_wheel"]

_VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
_PYPI = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_TIMEOUT_S = 30
_MAX_PAGE_BYTES = 32 * 2**20
_MAX_WHEEL_BYTES = 256 * 2**20
_CHUNK_BYTES = 2**18


def configured_index() -> str:
    """The index that the environment sets for pip or uv, else PyPI."""
    return next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), _PYPI)


@dataclass(frozen=True)
class _Link:
    file: str
    url: str
    sha256: str


def download_wheel(index: str, distribution: str, version: str, folder: Path) -> Path:
    """Any wheel of that version, checked against the hash given by the index. Raises BackendError."""
    project = re.sub(r"[-_.]+", "-", distribution).lower()
    page = f"{index.rstrip('/')}/{project}/"
    try:
        wheels = [link for link in _links(page) if link.file.startswith(f"{distribution}-{version}-")]
        # the Linux wheel first: it is the smallest
        wheels.sort(key=lambda link: ("manylinux" not in link.file, link.file))
        if not wheels:
            raise BackendError(f"{_without_password(page)} has no wheel of {distribution} {version} with a hash")
        return _download(wheels[0], page, folder)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise BackendError(f"{_without_password(page)}: {reason}") from error


def _links(page: str) -> list[_Link]:
    with _open(page, page) as answer:
        content = answer.read(_MAX_PAGE_BYTES)
        base = answer.url
    text = content.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        found = _listed(as_object(text, "the answer"))
    else:
        parser = _AnchorParser()
        parser.feed(text)
        found = parser.found
    return [_Link(link.file, urllib.parse.urljoin(base, link.url), link.sha256) for link in found if link.sha256]


def _listed(page: dict[str, Any]) -> list[_Link]:
    try:
        return [
            _Link(as_text(file["filename"]), as_text(file["url"]), as_text(file.get("hashes", {}).get("sha256", "")))
            for file in page.get("files", [])
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer does not list files with their URLs: {error!r:.100}") from error


class _AnchorParser(HTMLParser):
    """The links of a page: the file is their last part, the hash their fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Link] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            url, _, fragment = href.partition("#")
            name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
            self.found.append(_Link(name, url, fragment.removeprefix("sha256=") if "sha256=" in fragment else ""))


def _download(link: _Link, page: str, folder: Path) -> Path:
    path = folder / "downloaded.whl"
    digest = hashlib.sha256()
    with _open(link.url, page) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, desc="fetching", unit="B", unit_scale=True, disable=None) as bar:
            while chunk := answer.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > _MAX_WHEEL_BYTES:
                    raise BackendError(f"{link.file} is far too large")
    if digest.hexdigest() != link.sha256:
        raise BackendError(f"{link.file} does not have the hash given by the index")
    return path


def _open(url: str, page: str) -> Any:
    """Open an http(s) or file URL; the user and password of the index are sent only to its own host."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise BackendError(f"{_without_password(url)}: wanted a URL such as https://HOST/simple")
    request = urllib.request.Request(_without_password(url), headers={"Accept": _ACCEPT})
    owner = urllib.parse.urlsplit(page)
    if owner.username and parts.hostname == owner.hostname:
        user = f"{urllib.parse.unquote(owner.username)}:{urllib.parse.unquote(owner.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise BackendError(f"{_without_password(url)}: {error.code} {error.reason}") from error


def _without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

"""Who may connect, and how: addresses, TLS, tokens."""

import errno
import ipaddress
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from engine.errors import InputError
from engine.files import read_plain
from tango_rt.server.config import ServerConfig, flag_name, variable_name

__all__ = [
    "Address",
    "check_free",
    "check_plaintext",
    "load_credentials",
    "load_tokens",
    "parse_address",
    "socket_permissions",
    "warn_about_files",
]

_log = logging.getLogger(__name__)

_MAX_PORT = 65_535
_MAX_FILE_BYTES = 1 << 20  # of tokens, of a certificate, of a key
_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_OUT_OF_DATE = {9: "is not valid yet", 10: "has expired"}  # X509_V_ERR of OpenSSL


@dataclass(frozen=True)
class Address:
    """host and port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it. A name is local if all of its addresses are."""
        if self.path:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return all(ipaddress.ip_address(str(found[4][0])).is_loopback for found in self._found())

    def _found(self) -> list[Any]:
        try:
            return socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise InputError(f"{self}: unknown host ({error.strerror})") from error


def parse_address(text: str, option: str = "listen") -> Address:
    """HOST:PORT, [IPV6]:PORT or unix:PATH. Raises InputError for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path.startswith("///"):
            path = path[2:]
        if not path or path.startswith("//"):
            raise InputError(f"{option} is {text!r}: expected unix:PATH")
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host == f"[{bare}]"
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not colon or not bare or {*"[]"} & {*bare} or (":" in bare) != bracketed or not 0 <= number <= _MAX_PORT:
        raise InputError(f"{option} is {text!r}: expected HOST:PORT (0.0.0.0:50051, [::1]:50051) or unix:PATH")
    if _is_short_for_an_address(bare):
        raise InputError(f"{option} is {text!r}: expected a full address of four numbers, such as 127.0.0.1:50051")
    return Address(bare, number)


def _is_short_for_an_address(host: str) -> bool:
    """127.1, 0x7f000001 and the like: some libraries take them for addresses and others for names."""
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return host.count(".") != 3 or not all(part.isdecimal() for part in host.split("."))


def check_plaintext(addresses: Iterable[Address], config: ServerConfig) -> None:
    """Raises InputError for an address beyond this machine without TLS, unless config.insecure."""
    if config.tls_cert is not None or config.insecure:
        return
    for address in addresses:
        if not address.is_local:
            raise InputError(
                f"{address} can be reached from other machines, and traffic would not be encrypted: "
                "give --tls-cert and --tls-key, or --insecure if the network itself is trusted"
            )


def check_free(address: Address) -> None:
    """Raises InputError if listening is impossible: gRPC does not say why, and takes over sockets in use."""
    try:
        if address.path:
            _check_socket_file(address.path)
        else:
            family, kind, protocol, _, place = address._found()[0]
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(place)
                trial.listen(1)
    except OSError as error:
        advice = ": is another server running?" if error.errno == errno.EADDRINUSE else ""
        raise InputError(f"cannot listen at {address}: {os.strerror(error.errno or 0)}{advice}") from error


@contextmanager
def socket_permissions(path: str, mode: str) -> Iterator[None]:
    """A Unix socket bound in here has these permissions (octal digits) from its first moment."""
    if not path:
        yield
        return
    before = os.umask(0o777 & ~int(mode, 8))
    try:
        yield
    finally:
        os.umask(before)
    os.chmod(path, int(mode, 8))


def _check_socket_file(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(path)
        except FileNotFoundError:
            if not Path(path).absolute().parent.is_dir():
                raise
            return
        except ConnectionRefusedError:  # left behind by a server that is gone
            if Path(path).is_socket():
                return
            raise FileExistsError(errno.EEXIST, "") from None
    raise OSError(errno.EADDRINUSE, "")


def load_tokens(config: ServerConfig) -> tuple[str, ...]:
    """The tokens that are accepted; empty: no token is required. Raises InputError for a file without tokens."""
    if config.token is not None:
        return (config.token,)
    if config.token_file is None:
        return ()
    try:
        lines = read_plain(config.token_file, _MAX_FILE_BYTES).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{config.token_file}: cannot read tokens ({_reason(error)})") from error
    tokens = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not tokens:
        raise InputError(f"{config.token_file}: no token in it, expected one per line")
    return tokens


def warn_about_files(config: ServerConfig) -> None:
    """Warn about secrets that other users of this machine can read or change."""
    said_in = config.origins.get("token", "")
    written = said_in not in ("", flag_name("token"), variable_name("token"))  # in a file of options
    files = [config.tls_key, config.token_file, Path(said_in) if written else None]
    for file in files:
        with suppress(OSError):
            if file is not None and (mode := file.stat().st_mode) & _OTHERS:
                about = {"file": str(file), "mode": stat.filemode(mode)}
                _log.warning("other users of this machine can read or change a secret: chmod 600 it", extra=about)


def load_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """TLS as configured; None: plaintext. Certificates that change on disk are used for new connections.

    Raises InputError for files that cannot be read or do not match.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    certificates = _Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(
        certificates.read(), certificates.renewed, require_client_authentication=config.tls_client_ca is not None
    )


class _Certificates:
    """The files of TLS, read again when they change."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._files = [cert, key] if client_ca is None else [cert, key, client_ca]
        self._seen = self._times()

    def read(self) -> Any:
        """The configuration for gRPC. Raises InputError."""
        cert, key, *authority = (_read_pem(file) for file in self._files)
        _check_pair(self._files[0], self._files[1])
        if problem := _problem_of_date(self._files[0], self._files[1]):
            _log.warning(f"the certificate {problem}: no client will accept it", extra={"file": str(self._files[0])})
        if authority:
            _check_authority(self._files[2], authority[0])
        return grpc.ssl_server_certificate_configuration([(key, cert)], authority[0] if authority else None)

    def renewed(self) -> Any:
        """Called at every handshake: the new configuration, or None if unchanged."""
        times = self._times()
        if times == self._seen:
            return None
        self._seen = times
        try:
            configuration = self.read()
        except InputError as error:  # perhaps half-written: the next change will complete it
            _log.warning("certificates not renewed", extra={"error": str(error)})
            return None
        _log.info("certificates renewed", extra={"file": str(self._files[0])})
        return configuration

    def _times(self) -> list[int]:
        times = []
        for file in self._files:
            try:
                times.append(file.stat().st_mtime_ns)
            except OSError:
                times.append(0)
        return times


def _read_pem(file: Path) -> bytes:
    try:
        return read_plain(file, _MAX_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({_reason(error)})") from error


def _check_pair(cert: Path, key: Path) -> None:
    """Checked here because gRPC accepts anything and then fails every handshake."""

    def no_password() -> str:
        raise InputError(f"{key}: the key is encrypted, expected one without a passphrase")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, no_password)
    except (ssl.SSLError, OSError) as error:
        raise InputError(
            f"{cert} and {key}: not a certificate and its private key in PEM ({_reason(error)})"
        ) from error


def _problem_of_date(cert: Path, key: Path) -> str:
    """Empty if the certificate is valid today: checked by a handshake with a client that trusts it."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(cert, key)
    client.check_hostname = False
    client.load_verify_locations(cert)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (asking, answering, asking):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return _OUT_OF_DATE.get(error.verify_code, "")
        except ssl.SSLError:
            return ""
    return ""


def _check_authority(file: Path, pem: bytes) -> None:
    try:
        ssl.create_default_context(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise InputError(f"{file}: no certificates of an authority in PEM ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    named = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(named).replace("_", " ").lower()

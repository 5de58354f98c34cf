"""Options of the server: one frozen dataclass, filled from flags, environment, a TOML file and defaults, in this order.

Every option is a flag (--max-sessions), an environment variable (TANGO_RT_MAX_SESSIONS) and a TOML key (max_sessions).
"""

# ruff: noqa: RUF009  (every default is a dataclass field, made by a function of options)
import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from engine.errors import InputError
from engine.files import read_plain
from engine.inference.backends import BACKENDS
from engine.inference.target import PRECISIONS, Precision
from tango_rt.options import AUTO, DEFAULT_LOOKAHEAD_NODES, MAX_LOOKAHEAD_NODES
from tango_rt.server.options import addresses, choice, mode, number, path, read_option, seconds, switch, text, whole

__all__ = ["ServerConfig", "describe", "flag_name", "from_sources", "misspelt_variables", "options", "variable_name"]

_PREFIX = "TANGO_RT_"
_CONFIG_VARIABLE = _PREFIX + "CONFIG"
_MAX_TOML_BYTES = 1 << 20
_DAY_S = 86_400

_LISTEN = (
    "where to listen, HOST:PORT or unix:PATH; may be repeated; port 0 is any free port; "
    "Unix sockets use neither TLS nor client certificates but file permissions (socket_mode)"
)
_SOCKET_MODE = "permissions of Unix sockets; 0600 allows only the user of the server"
_OF_CLIENT = (
    "sessions and clips at once per client, told apart by token, else certificate, else address; 0 is no limit, "
    "because all users of a gateway count as one client"
)
_PICTURE_CORES = (
    "cores that JPEG, RGB24 and I420 of sessions in real time may use together; further sessions are refused; "
    "default: half of the cores"
)
_LABEL = (
    "text in the corner of every frame, such as 'AI-generated'; costs 40 to 60 ms of a core for each node of 1280x720 "
    "that is shown, up to half of real time, unless it is in the picture cache (picture_cache_mb)"
)


@dataclass(frozen=True)
class ServerConfig:
    """The options of the server. Raises InputError for a value out of range, or for options that exclude each other."""

    characters: Path = path("DIR", "folder of character packs; packs added or deleted later are noticed", True)
    listen: tuple[str, ...] = addresses(("127.0.0.1:50051",), _LISTEN)
    socket_mode: str = mode("0600", _SOCKET_MODE)
    max_sessions: int = whole(64, 1, 100_000, "sessions and clips at once; more are refused")
    max_sessions_per_client: int = whole(0, 0, 100_000, _OF_CLIENT)
    picture_cores: float | None = number(None, 0, 10_000, _PICTURE_CORES)
    picture_cache_mb: int = whole(128, 0, 1 << 20, "memory for pictures that may be shown again")
    label: str | None = text("TEXT", _LABEL)
    lookahead_nodes: int = whole(
        DEFAULT_LOOKAHEAD_NODES,
        0,
        MAX_LOOKAHEAD_NODES,
        "nodes of 4 frames that a session looks ahead unless it asks otherwise",
    )
    config_timeout_s: float = seconds(5, 0.05, 3600, "how long a new stream may take to send its configuration")
    idle_timeout_s: float = seconds(30, 0.05, _DAY_S, "a session ends if its client sends nothing for this long")
    max_session_s: float = seconds(4 * 3600, 0.05, 30 * _DAY_S, "longest session")
    max_chunk_s: float = seconds(10, 0.01, 3600, "most speech in one message of a session")
    max_queued_audio_s: float = seconds(
        60, 0.1, 3600, "most speech queued ahead of the performance; beyond that, clients wait"
    )
    max_message_bytes: int = whole(16 << 20, 1 << 10, 1 << 30, "largest message that is received")
    max_late_s: float = seconds(
        1, 0.05, 3600, "frames that a client has not read this long after they are due are dropped"
    )
    grace_s: float = seconds(10, 0, _DAY_S, "how long sessions may continue after SIGTERM")
    draw_workers: int = whole(1, 1, 256, "processes that draw transitions ahead of time")
    threads: int = whole(2, 1, 256, "threads that search and encode")
    transition_cache_mb: int = whole(2048, 0, 1 << 30, "most disk space for the drawn transitions of one pack")
    tls_cert: Path | None = path("PEM", "certificate chain of the server; read again when it changes")
    tls_key: Path | None = path("PEM", "private key of the certificate")
    tls_client_ca: Path | None = path("PEM", "admit only clients with a certificate of this authority")
    token: str | None = text(
        "TOKEN", "bearer token that clients must send; as a flag, other users of this machine can read it", True
    )
    token_file: Path | None = path("FILE", "bearer tokens, one per line; each is accepted")
    insecure: bool = switch(False, "allow addresses beyond this machine without TLS")
    open_health: bool = switch(False, "answer health checks without a token, as container probes need")
    reflection: bool = switch(True, "list the services to clients that ask (gRPC reflection)")
    metrics_listen: str | None = text("HOST:PORT", "serve Prometheus metrics by HTTP; a PORT alone means loopback")
    max_connections: int = whole(1000, 1, 1_000_000, "connections at once; more are closed")
    keepalive_s: float = seconds(20, 1, _DAY_S, "a connection that is silent for this long is pinged")
    keepalive_timeout_s: float = seconds(10, 0.1, 3600, "and closed if it does not answer within this time")
    min_ping_s: float = seconds(
        10, 0, 3600, "least time between pings of a client; those that ping more often are cut off"
    )
    max_connection_idle_s: float = seconds(600, 1, 30 * _DAY_S, "connections without calls are closed after this time")
    max_connection_age_s: float | None = seconds(
        None, 1, 30 * _DAY_S, "clients are asked to reconnect after this time, so that load reaches new servers"
    )
    max_connection_age_grace_s: float = seconds(600, 0.1, 30 * _DAY_S, "how long their calls may continue after that")
    log_format: Literal["text", "json"] = choice("text", ("text", "json"), "logs as text or as one JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = choice(
        "info", ("debug", "info", "warning", "error"), "how much is logged"
    )
    bundle: Path | None = path("DIR", "networks made by 'tango-export bundle'")
    backend: str = choice(
        "auto", (AUTO, *BACKENDS), "what runs the networks; auto is the fastest that is installed and verified"
    )
    precision: Precision | None = choice(None, PRECISIONS, "of the networks, as given to 'tango-export compile'")
    profile: str | None = text("NAME", "shapes that the networks were compiled for, if they have several profiles")
    engines: Path | None = path("DIR", "compiled networks, if they are not in the bundle's own folder")
    unverified: bool = switch(False, "run networks that no verification report vouches for")
    trust_engines: bool = switch(
        False, "run engines made by another user or machine; trust them as you would a program"
    )
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where each value that is not the default comes from: name of the option -> flag, variable or file."""

    def __post_init__(self) -> None:
        for option in options():
            read_option(option, getattr(self, option.name), option.name)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("tls_cert and tls_key belong together: only one of them is set")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InputError("tls_client_ca needs tls_cert and tls_key: certificates of clients are part of TLS")
        if self.token is not None and self.token_file is not None:
            raise InputError("token and token_file are both set: keep one of them")

    def __repr__(self) -> str:  # without secrets, in case it is printed or logged
        return f"ServerConfig({', '.join(f'{name}={value!r}' for name, value in redacted_values(self).items())})"


def options() -> tuple[Field[Any], ...]:
    """The options: fields with metadata `about` (help), `metavar` (None: a switch)."""
    return tuple(option for option in fields(ServerConfig) if option.metadata)


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable_name(name: str) -> str:
    return _PREFIX + name.upper()


def from_sources(flags: Mapping[str, Any], environ: Mapping[str, str], toml: Path | None = None) -> ServerConfig:
    """flags: those given, by option name; toml: the file, else the one in TANGO_RT_CONFIG, if any.

    Empty variables count as absent. Relative paths in the file are relative to its folder. Raises InputError for
    unknown keys, invalid values and unreadable files.
    """
    if toml is None and environ.get(_CONFIG_VARIABLE):
        toml = Path(environ[_CONFIG_VARIABLE])
    written = {} if toml is None else _read_toml(toml)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in options():
        name, variable = option.name, variable_name(option.name)
        if name in flags:
            values[name], origins[name] = read_option(option, flags[name], flag_name(name)), flag_name(name)
        elif environ.get(variable):
            values[name], origins[name] = read_option(option, environ[variable], variable), variable
        elif name in written:
            assert toml is not None
            value = read_option(option, written[name], f"{toml}: {name}")
            values[name], origins[name] = (toml.parent / value if isinstance(value, Path) else value), str(toml)
    if "characters" not in values:
        raise InputError(f"no character folder given: use --characters DIR, or set {variable_name('characters')}")
    return ServerConfig(**values, origins=origins)


def redacted_values(config: ServerConfig) -> dict[str, Any]:
    """The effective options as JSON values, secrets hidden."""
    values: dict[str, Any] = {}
    for option in options():
        value = getattr(config, option.name)
        hidden = option.metadata["secret"] and value is not None
        values[option.name] = "***" if hidden else str(value) if isinstance(value, Path) else value
    return values


def describe(config: ServerConfig) -> str:
    """The effective options as a TOML file, secrets hidden; comments say where values other than defaults come from."""
    lines = []
    for name, value in redacted_values(config).items():
        origin = config.origins.get(name)
        if value is None or name == "token":  # TOML knows no null
            line = f"# {name} = {'unset' if value is None else 'hidden'}"
        else:
            line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
        lines.append(line + (f"  # {origin}" if origin else ""))
    return "\n".join(lines)


def misspelt_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that look misspelt -> what was probably meant.

    Others with our prefix are left alone: Kubernetes sets some itself for a service named tango-rt.
    """
    known = [_CONFIG_VARIABLE, *(variable_name(option.name) for option in options())]
    close = {
        name: difflib.get_close_matches(name, known, 1, 0.9)
        for name in environ
        if name.startswith(_PREFIX) and name not in known
    }
    return {name: meant[0] for name, meant in close.items() if meant}


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        written = tomllib.loads(read_plain(file, _MAX_TOML_BYTES).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: not a TOML file ({error})") from error
    known = [option.name for option in options()]
    for key in written:
        if key not in known:
            meant = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {meant[0]!r}?" if meant else "'tango-rt serve --help' lists all options"
            raise InputError(f"{file}: unknown option {key!r}; {hint}")
    return written

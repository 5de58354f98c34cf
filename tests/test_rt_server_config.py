"""Options of the server: who goes before whom, what is refused in one line, what is never shown."""

import io
import json
import logging
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from tango_rt.server.config import (
    ServerConfig,
    describe,
    flag_name,
    from_sources,
    misspelt_variables,
    options,
    redacted_values,
    variable_name,
)
from tango_rt.server.logs import logging_to

HERE = {"characters": "packs"}


def written(folder: Path, text: str) -> Path:
    file = folder / "server.toml"
    file.write_text(text)
    return file


def test_flags_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "max_sessions = 1\nthreads = 1\ngrace_s = 1\ncharacters = 'packs'\n")
    environ = {"TANGO_RT_MAX_SESSIONS": "2", "TANGO_RT_THREADS": "2", "TANGO_RT_IDLE_TIMEOUT_S": ""}
    config = from_sources({"max_sessions": "3"}, environ, file)
    assert (config.max_sessions, config.threads, config.grace_s) == (3, 2, 1.0)
    assert config.idle_timeout_s == ServerConfig(Path("packs")).idle_timeout_s  # set to nothing: as if it were not
    assert config.characters == tmp_path / "packs"  # paths of a file start from its folder
    assert {"max_sessions": "--max-sessions", "threads": "TANGO_RT_THREADS", "grace_s": str(file)}.items() <= dict(
        config.origins
    ).items()
    assert from_sources({}, {"TANGO_RT_CONFIG": str(file)}) == from_sources({}, {}, file)


def test_several_addresses_from_every_source(tmp_path: Path) -> None:
    wanted = ("127.0.0.1:1", "unix:/run/tango.sock")
    file = written(tmp_path, f"listen = {json.dumps(wanted)}")
    assert from_sources(HERE, {}, file).listen == wanted
    assert from_sources(HERE, {"TANGO_RT_LISTEN": ", ".join(wanted)}).listen == wanted
    assert from_sources({**HERE, "listen": list(wanted)}, {}).listen == wanted


@given(st.integers(-5, 20), st.sampled_from(["flag", "variable", "file"]))
def test_a_number_is_taken_or_refused_alike_by_every_source(
    tmp_path_factory: pytest.TempPathFactory, number: int, source: str
) -> None:
    file = written(tmp_path_factory.mktemp("toml"), f"lookahead_nodes = {number}" if source == "file" else "")
    flags = {**HERE, **({"lookahead_nodes": str(number)} if source == "flag" else {})}
    environ = {"TANGO_RT_LOOKAHEAD_NODES": str(number)} if source == "variable" else {}
    if 0 <= number <= 8:
        assert from_sources(flags, environ, file).lookahead_nodes == number
    else:
        with pytest.raises(InputError, match=r"(?i)lookahead.nodes is '?-?\d+'?: expected a whole number from 0 to 8"):
            from_sources(flags, environ, file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_sessions", "many"),
        ("max_sessions", "1.5"),
        ("max_sessions", "\u0967"),
        ("idle_timeout_s", "nan"),
        ("idle_timeout_s", "inf"),
        ("idle_timeout_s", "soon"),
        ("reflection", "perhaps"),
        ("log_format", "xml"),
        ("listen", ""),
        ("listen", ",,"),
        ("token", " "),
        ("characters", "a\0b"),
    ],
)
def test_values_that_cannot_be_used(name: str, value: str) -> None:
    with pytest.raises(InputError) as refused:
        from_sources({**HERE, name: value}, {})
    assert flag_name(name) in str(refused.value) and "\n" not in str(refused.value)
    assert "expected" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "max_sessions = '\\u00e9'",
        "max_sessions = true",
        "max_sessions = 1.0",
        "grace_s = [1]",
        "listen = 5",
        "token = 3",
    ],
)
def test_file_with_values_of_another_kind(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"server\.toml: \w+( is .*)?: expected"):
        from_sources(HERE, {}, written(tmp_path, text))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    for text, hint in (
        ("max_session = 1", "did you mean 'max_sessions'"),
        ("[server]", "unknown option 'server'"),
        ("origins = {}", "unknown option 'origins'"),
        ("max_sessions 1", "not a TOML file"),
    ):
        with pytest.raises(InputError, match=hint):
            from_sources(HERE, {}, written(tmp_path, text))
    (tmp_path / "server.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a TOML file"):
        from_sources(HERE, {}, tmp_path / "server.toml")
    with pytest.raises(InputError, match="cannot be read"):
        from_sources(HERE, {}, tmp_path / "absent.toml")


def test_options_that_contradict_each_other() -> None:
    for flags, hint in (
        ({}, "--characters"),
        ({**HERE, "tls_cert": "a"}, "belong together"),
        ({**HERE, "tls_client_ca": "a"}, "needs tls_cert"),
        ({**HERE, "token": "a", "token_file": "b"}, "keep one"),
    ):
        with pytest.raises(InputError, match=hint):
            from_sources(flags, {})
    with pytest.raises(InputError, match="max_sessions"):
        ServerConfig(Path("packs"), max_sessions=0)


@given(st.text(min_size=5, alphabet=st.characters(categories=["L", "N"])))
def test_token_is_shown_nowhere(token: str) -> None:
    config = from_sources({**HERE, "token": token}, {})
    plain = from_sources(HERE, {})
    assert config.token == token
    for shown, without in (
        (describe(config), describe(plain)),
        (json.dumps(redacted_values(config), ensure_ascii=False), json.dumps(redacted_values(plain))),
        (repr(config), repr(plain)),
    ):
        assert token not in shown or token in without or token in ("hidden", "token", "--token")


def test_description_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    flags = {"characters": "/packs", "max_sessions": "5", "listen": ["[::1]:1", "unix:a b"], "reflection": False}
    config = from_sources(flags, {"TANGO_RT_TLS_CERT": "/c", "TANGO_RT_TLS_KEY": "/k"})
    text = describe(config)
    assert "max_sessions = 5  # --max-sessions" in text and "TANGO_RT_TLS_KEY" in text
    assert set(tomllib.loads(text)) <= {option.name for option in options()}
    assert from_sources({}, {}, written(tmp_path, text)) == config


def test_limits_are_those_of_the_rooms_that_keep_them() -> None:
    from tango_rt.options import DEFAULT_LOOKAHEAD_NODES, MAX_LOOKAHEAD_NODES

    config = ServerConfig(Path("packs"), lookahead_nodes=MAX_LOOKAHEAD_NODES)
    assert config.lookahead_nodes == MAX_LOOKAHEAD_NODES
    assert ServerConfig(Path("packs")).lookahead_nodes == DEFAULT_LOOKAHEAD_NODES
    with pytest.raises(InputError):
        ServerConfig(Path("packs"), lookahead_nodes=MAX_LOOKAHEAD_NODES + 1)


def test_slips_of_the_pen_in_the_environment_are_noticed() -> None:
    environ = {"TANGO_RT_MAX_SESSION": "1", "TANGO_RT_PORT": "tcp://10.0.0.1:50051", "TANGO_RT_CACHE": "x", "HOME": "/"}
    assert misspelt_variables(environ) == {"TANGO_RT_MAX_SESSION": variable_name("max_sessions")}


def logged(form: Any, message: str, **extra: object) -> str:
    out = io.StringIO()
    with logging_to("info", form, out):
        logging.getLogger("tango_rt.test").info(message, extra=extra)
        logging.getLogger("tango_rt.test").debug("not this one")
    return out.getvalue()


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_record_is_one_line_whatever_a_client_puts_into_it(message: str, value: str) -> None:
    text = logged("text", message, request_id=value, duration_s=0.25)
    assert text.count("\n") == 1 and text.endswith(" duration_s=0.25\n")
    assert all(line.isprintable() for line in text.splitlines())
    entry = json.loads(logged("json", message, request_id=value, duration_s=math.nan))
    assert (entry["message"], entry["request_id"], entry["duration_s"]) == (message, value, "nan")
    assert {"time", "level", "logger"} <= set(entry)


def test_fields_cannot_be_forged_and_errors_keep_their_trace() -> None:
    line = logged("text", "opened", request_id='x" reason=OK', peers=["a", "b c"])
    assert 'request_id="x\\" reason=OK"' in line and 'peers=a,"b c"' in line
    out = io.StringIO()
    with logging_to("info", "json", out):
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("tango_rt.test").exception("failed")
    entry = json.loads(out.getvalue())
    assert entry["level"] == "error" and "ValueError: why" in entry["trace"]


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            release.wait(20)
            return super().write(text)

    import threading

    release, out = threading.Event(), Stuck()
    with logging_to("info", "json", out):
        for number in range(12_000):  # more than is kept waiting; would hang here
            logging.getLogger("tango_rt.test").info("record", extra={"number": number})
        release.set()
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    lost = [entry["n_lost"] for entry in entries if "n_lost" in entry]
    assert sum(lost) + len(entries) - len(lost) == 12_000 and sum(lost) > 0

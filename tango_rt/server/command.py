"""tango-rt serve: the command line of the server."""

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from tango_rt.console import add_command
from tango_rt.server.config import (
    ServerConfig,
    describe,
    described_values,
    flag_of,
    from_sources,
    misspelt_variables,
    options,
    variable_of,
)

__all__ = ["add_serve"]

_CUT_SHORT = 130  # as any command that was interrupted

EXAMPLES = """Every option is also an environment variable, TANGO_RT_MAX_SESSIONS for example, and a key of the --config
file, max_sessions; flags go before the environment, the environment before the file.

examples:
  tango-rt serve --characters packs                               on this machine, port 50051
  tango-rt serve --characters packs --listen unix:/run/tango.sock
  tango-rt serve --characters packs --listen 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem --token-file tokens
  tango-rt serve --config server.toml --metrics-listen 9464 --log-format json

--json prints one object on standard output when sessions are taken: addresses with real ports, characters, pid.
SIGTERM: no new sessions, those there are may go on for --grace-s; a second one ends all at once.
Without a home that can be written to, as in many containers, TANGO_RT_CACHE names a folder for what is slow to make.
"""


def add_serve(commands: Any) -> None:
    """The command `serve` of a parser's commands (what add_subparsers gave)."""
    parser: argparse.ArgumentParser = add_command(
        commands, "serve", "live gesture video for many at once, by gRPC", EXAMPLES, _serve
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"options in TOML ({variable_of('config')})")
    for option in options():
        about = option.metadata["about"]
        default = option.default
        if default not in (None, False) and not isinstance(default, type(parser)) and option.name != "characters":
            shown = ", ".join(default) if isinstance(default, tuple) else default
            about += f" (default: {'yes' if shown is True else f'{shown:g}' if isinstance(shown, float) else shown})"
        how: dict[str, Any] = {"metavar": option.metadata["metavar"]}
        if option.metadata["metavar"] is None:
            how = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            how["action"] = "append"
        parser.add_argument(
            flag_of(option.name), dest=option.name, default=argparse.SUPPRESS, help=about.replace("%", "%%"), **how
        )


def _serve(arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    flags = {option.name: given[option.name] for option in options() if option.name in given}
    config = from_sources(flags, os.environ, arguments.config)
    # gRPC's own log is neither text nor JSON of ours, and anybody who connects can fill it
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from tango_rt.server.logs import logging_to

    with logging_to(config.log_level, config.log_format):
        try:
            in_order = _run(config, arguments.json)
        except KeyboardInterrupt:  # before it listened, or when all was over
            in_order = True
    _leave(0 if in_order else _CUT_SHORT)


def _run(config: ServerConfig, as_json: bool) -> bool:
    import asyncio
    import gc
    import logging

    import cv2

    cv2.setNumThreads(1)  # the sessions share the cores already
    from tango_rt.server.serve import Ready, serve

    def listening() -> None:
        log = logging.getLogger(__name__)
        if config.log_format == "json":
            log.info("configuration", extra=described_values(config))
        else:
            print(describe(config), file=sys.stderr, flush=True)
        for name, meant in misspelt_variables(os.environ).items():
            log.warning("unknown environment variable", extra={"variable": name, "meant": meant})

    def ready(said: Ready) -> None:
        # what is there now stays; to look through all of it again would stop every stream for 45 ms now and then
        gc.collect()
        gc.freeze()
        if as_json:
            print(json.dumps(said.to_dict()), flush=True)

    return asyncio.run(serve(config, listening, ready))


def _leave(code: int) -> None:
    """Exit, also where a thread compiles or opens a character: nobody waits for what it is at."""
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)

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
    flag_name,
    from_sources,
    misspelt_variables,
    options,
    redacted_values,
    variable_name,
)

__all__ = ["add_serve"]

_CUT_SHORT = 130  # like any interrupted command

EXAMPLES = """Every option is also an environment variable (as in TANGO_RT_MAX_SESSIONS) and a key of the --config
file (max_sessions). Flags override the environment, which overrides the file.

examples:
  tango-rt serve --characters packs                               on this machine, port 50051
  tango-rt serve --characters packs --listen unix:/run/tango.sock
  tango-rt serve --characters packs --listen 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem --token-file tokens
  tango-rt serve --config server.toml --metrics-listen 9464 --log-format json

--json prints one object on standard output once sessions are accepted: addresses with real ports, characters, pid.
SIGTERM: no new sessions; running ones may continue for --grace-s; a second SIGTERM ends all of them at once.
Without a writable home, as in many containers, set TANGO_RT_CACHE to a folder for cached files.
"""


def add_serve(commands: Any) -> None:
    """Add the command `serve` to a parser's commands (from add_subparsers)."""
    parser: argparse.ArgumentParser = add_command(
        commands, "serve", "serve live gesture video to many clients by gRPC", EXAMPLES, _serve
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"options in TOML ({variable_name('config')})")
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
            flag_name(option.name), dest=option.name, default=argparse.SUPPRESS, help=about.replace("%", "%%"), **how
        )


def _serve(arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    flags = {option.name: given[option.name] for option in options() if option.name in given}
    config = from_sources(flags, os.environ, arguments.config)
    # gRPC's own log has neither of our formats, and anybody who connects can fill it
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from tango_rt.server.logs import logging_to

    with logging_to(config.log_level, config.log_format):
        try:
            in_order = _run(config, arguments.json)
        except KeyboardInterrupt:  # before it listened, or after the last session
            in_order = True
    _leave(0 if in_order else _CUT_SHORT)


def _run(config: ServerConfig, as_json: bool) -> bool:
    import asyncio
    import gc
    import logging

    import cv2

    cv2.setNumThreads(1)  # sessions already use all cores
    from tango_rt.server.serve import Ready, serve

    def listening() -> None:
        log = logging.getLogger(__name__)
        if config.log_format == "json":
            log.info("configuration", extra=redacted_values(config))
        else:
            print(describe(config), file=sys.stderr, flush=True)
        for name, meant in misspelt_variables(os.environ).items():
            log.warning("unknown environment variable", extra={"variable": name, "meant": meant})

    def ready(state: Ready) -> None:
        # what is allocated now stays; collecting it again and again would stop every stream for 45 ms
        gc.collect()
        gc.freeze()
        if as_json:
            print(json.dumps(state.to_dict()), flush=True)

    return asyncio.run(serve(config, listening, ready))


def _leave(code: int) -> None:
    """Exit without waiting for threads that compile or open a character."""
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)

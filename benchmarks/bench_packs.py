"""What do packs cost: opening and checking one, fifty of them open, hundreds of them in the folder of a server?

    python -m benchmarks.bench_packs PACK.tango [--quick] [--json]

Every figure of memory is of a process of its own. `hour` is a made-up pack of 27,000 nodes, 48 edges each. The server
of many packs may have 1,024 descriptors and no more. --quick: a tenth of everything.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_live import markdown
from benchmarks.hour_pack import hour_pack
from benchmarks.live_server import LiveServer
from engine.character.pack import CharacterPack, folder_bytes
from engine.cores import usable_cores
from tango_rt.client import Client, ServerError, SessionOptions
from tango_rt.pipeline.character import character_from_pack
from tango_rt.server.config import ServerConfig
from tango_rt.server.warm import prepare
from tests.helpers.fakes import make_pack

__all__ = ["packs"]

Row = dict[str, Any]

_HOUR_NODES = 27_000
_N_OPEN, _N_SERVED, _N_EMPTY, _N_ASKING = 50, 600, 5000, 20
_N_FILES = 1024
_IDLE_S = 10


def one_pack(path: Path) -> Row:
    """Opening with its checks, reading all of it, performing for the first time: medians of 5."""
    character = character_from_pack(CharacterPack.open(path))
    config = ServerConfig(path.parent)
    prepare(character, config)  # compiles kernels
    rss_before = _rss_mb()
    first = character_from_pack(CharacterPack.open(path))
    prepare(first, config)
    rss_mb = _rss_mb() - rss_before
    info = first.pack.info
    return {
        "pack": path.stem,
        "nodes": info.n_nodes,
        "edges": len(first.pack["graph_indices"]),
        "disk MB": round(folder_bytes(path) / 1e6, 1),
        "open and check ms": _median_ms(lambda: CharacterPack.open(path)),
        "verify ms": _median_ms(lambda: CharacterPack.open(path).verify()),
        "open and prepare ms": _median_ms(lambda: prepare(character_from_pack(CharacterPack.open(path)), config)),
        "memory, opened and prepared, MB": round(rss_mb, 1),
    }


def _median_ms(act: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        began_s = time.perf_counter()
        act()
        times.append(time.perf_counter() - began_s)
    return round(1000 * float(np.median(times)), 1)


def many_open(path: Path, n: int) -> Row:
    """Memory of n characters opened and prepared, copies of one pack."""
    config = ServerConfig(path.parent)
    prepare(character_from_pack(CharacterPack.open(path)), config)
    before, files, held = _rss_mb(), len(os.listdir("/proc/self/fd")), []
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(n):
            shutil.copytree(path, f"{scratch}/{k}.tango")
            held.append(character_from_pack(CharacterPack.open(f"{scratch}/{k}.tango")))
            prepare(held[-1], config)
        opened = len(os.listdir("/proc/self/fd")) - files
    added = _rss_mb() - before
    return {"open": n, "pack": path.stem, "before MB": round(before), "MB a pack": round(added / n, 2), "files": opened}


def _rss_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def many_served(n: int) -> Row:
    """A server that may open 1,024 files, over a folder of n small packs: its start, and a session on the last."""
    with tempfile.TemporaryDirectory() as name:
        characters = Path(name)
        few_files = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (_N_FILES, _N_FILES))
        one = make_pack(characters / "p0000.tango")
        for k in range(1, n):
            shutil.copytree(one.path, characters / f"p{k:04}.tango", copy_function=os.link)
        began_s = time.monotonic()
        with LiveServer(characters / f"p{n - 1:04}.tango", keep=True, before=few_files) as server:
            row: Row = {"packs": n, "serving after s": round(time.monotonic() - began_s, 1), "files": server.n_files()}
            row |= {"first frame s": first_frame_s(server), "files then": server.n_files()}
            row |= {"rss MB": round(server.rss_mb()), "usable": int(server.metric("characters"))}
            return row | _at_rest(server)


def first_frame_s(server: LiveServer) -> float:
    """Seconds from a new connection to the first frame of a session on it."""
    began_s = time.monotonic()
    with Client(server.target) as client, client.stream(SessionOptions(server.character)) as session:
        next(frame for frame in session if hasattr(frame, "kind"))
        return round(time.monotonic() - began_s, 3)


def _at_rest(server: LiveServer) -> Row:
    time.sleep(2)
    cpu_s = server.cpu_s()
    time.sleep(_IDLE_S)
    return {"idle CPU %": round(100 * (server.cpu_s() - cpu_s) / _IDLE_S, 1)}


def many_empty(pack: Path, n: int) -> Row:
    """A folder of n empty packs and one good one; a session is opened while 20 clients ask for unknown ids."""
    with tempfile.TemporaryDirectory() as name:
        characters = Path(name)
        shutil.copytree(pack, characters / pack.name)
        for k in range(n):
            (characters / f"x{k}.tango").mkdir()
        began_s = time.monotonic()
        with LiveServer(characters / pack.name, keep=True) as server:
            row = {"empty packs": n, "serving after s": round(time.monotonic() - began_s, 1)}
            row |= _at_rest(server) | {"first frame s": first_frame_s(server)}
            ending = threading.Event()
            answers = [0] * _N_ASKING
            asking = [threading.Thread(target=_ask, args=(server, ending, answers, k)) for k in range(_N_ASKING)]
            for thread in asking:
                thread.start()
            time.sleep(1)
            times = [first_frame_s(server) for _ in range(5)]
            ending.set()
            for thread in asking:
                thread.join()
            row |= {
                "first frame s next to them, median": round(float(np.median(times)), 3),
                "first frame s next to them, most": max(times),
            }
            return row | {"ids asked for": sum(answers)}


def _ask(server: LiveServer, ending: threading.Event, answers: list[int], k: int) -> None:
    with Client(server.target) as client:
        while not ending.is_set():
            with suppress(ServerError):
                client.character(f"nobody{k}")
            answers[k] += 1


def packs(pack: Path, quick: bool) -> dict[str, list[Row]]:
    tenth = 10 if quick else 1
    with tempfile.TemporaryDirectory() as scratch:
        hour = _apart(hour_pack, Path(scratch), _HOUR_NODES // tenth)
        one = [_apart(one_pack, pack), _apart(one_pack, hour)]
    return {
        "one pack": one,
        "open at once": [_apart(many_open, pack, _N_OPEN // tenth)],
        "a folder of packs": [many_served(_N_SERVED // tenth)],
        "a folder of empty packs": [many_empty(pack, _N_EMPTY // tenth)],
    }


def _apart(act: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(act, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = packs(arguments.pack.resolve(), arguments.quick)
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{platform.machine()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("\n".join(markdown(results)))


if __name__ == "__main__":
    main()

"""What a soak does on the disk, to packs that nobody but the attackers performs and to the cache of all."""

import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

from benchmarks.soak_target import Target, message, read_for, refused_calls, sound
from engine.timebase import SAMPLE_RATE
from tango_rt.characters.install import install
from tango_rt.client import SessionOptions
from tango_rt.v1 import service_pb2

__all__ = ["copied_over", "damaged_pack", "installed", "rubbish_in_cache"]

_disk = threading.Lock()


def damaged_pack(target: Target, rng: random.Random) -> None:
    """A pack with some bytes changed, placed, asked for and removed."""
    name = f"bad{rng.randrange(4)}"
    place, copy = Path(target.characters) / f"{name}.tango", Path(target.sources) / "bad"
    with _disk:
        shutil.copytree(Path(target.sources) / "b" / f"{target.pack}.tango", copy)
        file = rng.choice([file for file in sorted(copy.rglob("*")) if file.is_file()])
        content = bytearray(file.read_bytes())
        for _ in range(rng.choice((1, 1, 20))):
            content[rng.randrange(min(len(content), rng.choice((128, 1 << 30))))] ^= 1 << rng.randrange(8)
        file.write_bytes(content[: rng.choice((len(content), len(content), len(content) // 2))])
        shutil.rmtree(place, ignore_errors=True)
        copy.rename(place)
    refused_calls(target, "GetCharacter", iter([service_pb2.GetCharacterRequest(id=name)]))
    stream = target.stream()
    stream.send(message(config=SessionOptions(name).to_config()))
    stream.send(sound(rng, SAMPLE_RATE))
    read_for(stream, rng.uniform(0.5, 4))
    stream.close()
    with _disk:
        shutil.rmtree(place, ignore_errors=True)


def installed(target: Target, rng: random.Random) -> None:
    with _disk:
        install(Path(target.sources) / rng.choice("ab") / f"{target.pack}.tango", Path(target.characters))


def copied_over(target: Target, rng: random.Random) -> None:
    """File by file, as `cp` does it, the files becoming shorter and longer under those who read them."""
    with _disk:
        source = Path(target.sources) / rng.choice("ab") / f"{target.pack}.tango"
        subprocess.run(["cp", "-r", f"{source}/.", f"{target.characters}/{target.victim}.tango/"], check=True)


def rubbish_in_cache(target: Target, rng: random.Random) -> None:
    """A FIFO, a huge sparse file, a folder or noise where a drawn transition was, or will be looked for."""
    with _disk:
        cache = rng.choice(sorted(Path(target.characters).glob("*.tango"))) / "transitions"
        keys = [key for key in cache.glob("*") if key.is_dir()] or [cache / ("0" * 16)]
        key = rng.choice(keys)
        key.mkdir(parents=True, exist_ok=True)
        names = [*(file.name for file in key.glob("*.gops")), f"{rng.randrange(99)}-{rng.randrange(99)}.gops"]
        file = key / rng.choice(names)
        file.unlink() if file.exists() and not file.is_dir() else shutil.rmtree(file, ignore_errors=True)
        kind = rng.randrange(4)
        if kind == 0:
            os.mkfifo(file)
        elif kind == 1:
            file.mkdir()
        else:
            file.write_bytes(rng.randbytes(rng.choice((0, 10, 100_000))))
            if kind == 2:
                os.truncate(file, 3 << 30)

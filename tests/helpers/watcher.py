"""Runs a command and tells whom it asked for what, and what it wrote where.

Where strace is there and allowed, all of it is seen, of every process and of native code. Else it is what the Python
code of the command and of its Python children does: look-ups of names, connections, datagrams, files opened for
writing, programs run; and the kernel kills a command that needs no network where any code of it asks for a socket of
one (seccomp, on Linux). In both cases the home of the command is new and empty, and what lies in it afterwards was
written by somebody.
"""

import ipaddress
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Watched", "watch"]

_PLACES = ("creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat")
_CALLS = ",".join(
    ("network", "execve", "?openat", "?open", *(f"?{name}" for name in _PLACES))
)  # not every machine has all
# the kernel stops a process for these calls alone: else it would crawl
_STRACE = ("strace", "--seccomp-bpf", "-ff", "-y", "-qq", "-s", "300", "-e", f"trace={_CALLS}")
_ADDRESS = re.compile(
    r'(?:sin_port|sin6_port)=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")'
)
_OPENED = re.compile(r"^open(?:at)?\(.*O_(?:WRONLY|RDWR|CREAT|TRUNC).* = \d+<(/[^>]*)>$")
_PLACED = re.compile(rf'^(?:{"|".join(_PLACES)})\(.*"([^"]*)".* = 0$')
_RAN = re.compile(r'^execve\("([^"]*)".* = 0$')
_NOBODYS = re.compile(r"^/(dev|proc|sys)/|^/memfd:| \(deleted\)$")  # devices, shared memory, what has no name

# put before everything else in every Python process by its own means
_AUDITED = """
import os, shutil, sys

def _note(event, arguments, _log=os.open(os.environ["WATCHER_LOG"], os.O_WRONLY | os.O_APPEND)):
    if event == "socket.getaddrinfo":
        line = "asked\\tname %r" % (arguments[0],)
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        line = "asked\\t%s %s" % arguments[1][:2]
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        line = "wrote\\t" + os.path.abspath(os.fsdecode(arguments[0]))
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system"):
        if shutil.which(arguments[0]) is None:  # it will not be found
            return
        line = "ran\\t" + os.fsdecode(arguments[0])
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink"):
        line = "wrote\\t" + os.path.abspath(os.fsdecode(arguments[0 if event == "os.mkdir" else 1]))
    else:
        return
    os.write(_log, line.encode("utf-8", "replace") + b"\\n")

sys.addaudithook(_note)
"""

# the kernel kills a process that asks for a socket of IPv4 or IPv6, and likewise every process that it starts
_SEALED = """
import ctypes, os, platform, struct, sys

NUMBER, ARCHITECTURE = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[platform.machine()]
LOAD, EQUAL, RETURN, KILL, ALLOW = 0x20, 0x15, 0x06, 0x80000000, 0x7FFF0000
steps = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 6, ARCHITECTURE), (LOAD, 0, 0, 0), (EQUAL, 0, 4, NUMBER),
    (LOAD, 0, 0, 16), (EQUAL, 1, 0, 2), (EQUAL, 0, 1, 10), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
if prctl(38, 1, None, 0, 0) or prctl(22, 2, ctypes.addressof(program), 0, 0):
    sys.exit("no seccomp here")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Watched:
    """asked: addresses beyond this machine, and look-ups of names, which leave it too. wrote: files and folders outside
    of those that were given. ran: programs but Python. All empty where all is well."""

    code: int
    stdout: str
    stderr: str
    asked: tuple[str, ...]
    wrote: tuple[str, ...]
    ran: tuple[str, ...]


def watch(
    command: Sequence[object], folder: Path, given: Sequence[Path], sockets: bool = False, **environment: str
) -> Watched:
    """Run a command in a new folder with a home of its own. given: where it may write; temporary files do not count.

    sockets: it needs the network within this machine.
    """
    home, temporary, log = (folder / name for name in ("home", "tmp", "log"))
    for new in (home, temporary, log):
        new.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TANGO_", "XDG_", "MPL"))}
    told = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [str(word) for word in command]
    tracing = can_trace()
    if tracing:
        words = [*_STRACE, "-o", str(log / "of"), *words]
    else:
        told |= _audit(log)
        if not sockets and can_seal():
            words = [sys.executable, "-S", "-E", "-c", _SEALED, *words]
    done = subprocess.run(words, env={**kept, **told, **environment}, cwd=folder, capture_output=True, text=True)
    asked, wrote, ran = _traced(log) if tracing else _audited(log)
    if done.returncode == -signal.SIGSYS:
        asked.add("a socket of the network")
    inside = [place.resolve() for place in (*given, temporary, log)]
    outside = {path for path in wrote if not _NOBODYS.search(path) and not _lies_in(Path(path), inside)}
    outside |= {str(path) for path in home.rglob("*") if not _lies_in(path, inside)}
    return Watched(
        done.returncode, done.stdout, done.stderr, tuple(sorted(asked)), tuple(sorted(outside)), tuple(sorted(ran))
    )


@cache
def can_trace() -> bool:
    """It may be absent, and a container may forbid it."""
    if shutil.which("strace") is None:
        return False
    command = [*_STRACE, "-o", "/dev/null", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


@cache
def can_seal() -> bool:
    return subprocess.run([sys.executable, "-S", "-E", "-c", _SEALED, "true"], capture_output=True).returncode == 0


def _lies_in(path: Path, places: Sequence[Path]) -> bool:
    path = path.parent.resolve() / path.name
    return any(place == path or place in path.parents for place in places)


def _traced(log: Path) -> tuple[set[str], set[str], set[str]]:
    asked: set[str] = set()
    wrote: set[str] = set()
    ran: set[str] = set()
    for file in log.iterdir():
        for line in file.read_text("utf-8", "replace").splitlines():
            asked |= set(_addresses(line))
            if found := _OPENED.match(line) or _PLACED.match(line):
                wrote.add(str(log.parent / found[1]))
            elif found := _RAN.match(line):
                ran.add(found[1])
    return asked, wrote, _programs(ran)


def _programs(ran: set[str]) -> set[str]:
    return {program for program in ran if not Path(program).name.startswith("python")}


def _addresses(line: str) -> Iterator[str]:
    """Of one call; the resolver of a machine may listen on the machine itself, and still asks others."""
    if line.startswith(("connect(", "sendto(", "sendmsg(", "sendmmsg(")):
        for port, four, six in _ADDRESS.findall(line):
            address = ipaddress.ip_address(four or six)
            address = getattr(address, "ipv4_mapped", None) or address
            if port == "53" or not (address.is_loopback or address.is_unspecified):
                yield f"{address} port {port}"


def _audit(log: Path) -> dict[str, str]:
    (log / "seen").touch()
    (log / "sitecustomize.py").write_text(_AUDITED)
    paths = [str(log), *filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()])]
    return {"WATCHER_LOG": str(log / "seen"), "PYTHONPATH": os.pathsep.join(paths)}


def _audited(log: Path) -> tuple[set[str], set[str], set[str]]:
    asked: set[str] = set()
    wrote: set[str] = set()
    ran: set[str] = set()
    for line in (log / "seen").read_text("utf-8").splitlines():
        kind, _, what = line.partition("\t")
        if kind == "wrote":
            wrote.add(what)
        elif kind == "ran":
            ran.add(what)
        elif not re.match(r"(name )?'?(localhost|127\.|::1|0\.0\.0\.0|None)", what):
            asked.add(what)
    return asked, wrote, _programs(ran)

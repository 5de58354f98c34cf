"""What a document says that can be checked: commands parse, links lead somewhere, names name something.

A checker takes a text and gives its problems, one line each; none of them runs a command.
"""

import argparse
import ast
import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from export.cli import _parser as tango_export_parser
from tango_rt.cli import _parser as tango_rt_parser
from tango_rt.client.small_command import _parser as client_parser
from tango_rt.server.config import options, variable_name
from tango_rt.server.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("engine", "export", "tango_rt", "tests", "docs", "benchmarks", "protos", "integrations", "examples")
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "tango-rt": tango_rt_parser,
    "tango-export": tango_export_parser,
    "tango-rt-client": client_parser,
}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_INDENTED = re.compile(r"^ {4,}(?:tango-rt|tango-export|make|pip|python)\b.*", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?:{'|'.join(ROOMS)})/[\w./*{{}},-]*")
_MODULE = re.compile(rf"(?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_FILE = re.compile(r"[\w-]+\.(?:py|md|proto|sh)")


@dataclass(frozen=True)
class Document:
    """A Markdown text as its parts. blocks: (language, content); prose: all else; inline: what has backticks in it."""

    path: Path
    text: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        return _FENCE.findall(self.text)

    @property
    def prose(self) -> str:
        return _FENCE.sub("", self.text)

    @property
    def inline(self) -> list[str]:
        return [" ".join(code.split()) for code in _INLINE.findall(self.prose)]


def documents() -> list[Path]:
    """Every Markdown file of the project, relative to its root."""
    places = ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "integrations/*/*.md", "tango_rt/**/*.md")
    return sorted(file.relative_to(ROOT) for place in places for file in ROOT.glob(place))


def read(path: Path) -> Document:
    return Document(path, (ROOT / path).read_text("utf-8"))


def problems(document: Document) -> Iterator[str]:
    """Everything that is wrong with a document."""
    for language, content in document.blocks:
        yield from _block_problems(language, content)
    for code in document.inline:
        yield from _inline_problems(code)
    yield from (f"{line.strip()}: a command belongs into a block" for line in _INDENTED.findall(document.prose))
    yield from _link_problems(document)


def shell_problems(text: str) -> Iterator[str]:
    """Commands of a shell text, whole: everything that is required must be there."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in _commands(line):
            if problem := _command_problem(command, whole=True):
                yield f"{' '.join(command)}: {problem}"


def _block_problems(language: str, content: str) -> Iterator[str]:
    if language == "sh":
        yield from shell_problems(content)
    elif language == "python":
        yield from _python_problems(content)
    elif language == "toml":
        known = {option.name for option in options()}
        yield from (f"{key} is no option of the server" for key in tomllib.loads(content) if key not in known)
    elif language == "text":
        yield from (f"{name} does not exist" for name in _PATH.findall(content) if not _exists(name))
    elif language not in ("json", "xml", ""):
        yield f"what is a block of {language}?"


def _commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, without variables that are set for them, pipes and comments."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    words.whitespace_split = True
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("|&;<>"):
            if command:
                yield command
            command = []
        elif command or not re.fullmatch(r"[A-Z_]+=.*", word):
            command.append(word)


def _command_problem(command: Sequence[str], whole: bool) -> str | None:
    program, *words = command
    if program in PARSERS:
        return _parse_problem(PARSERS[program](), words, whole)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        wrong = [word for word in words if "=" not in word and word not in targets]
        return f"no target {wrong[0]} in the Makefile" if wrong else None
    if program == "python":
        return _program_problem(words)
    if program == "pip":
        return _pip_problem(words)
    if program.endswith("pytest"):
        wrong = [word for word in words if word.startswith("tests/") and not _exists(word)]
        return f"{wrong[0]} does not exist" if wrong else None
    return None


def _parse_problem(parser: argparse.ArgumentParser, words: Sequence[str], whole: bool) -> str | None:
    if not whole:
        _require_nothing(parser)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(words)
    except SystemExit as end:
        return said.getvalue().strip().splitlines()[-1] if end.code else None
    return None


def _require_nothing(parser: argparse.ArgumentParser) -> None:
    """A command that is only mentioned need not be whole, but every word of it must be right."""
    for action in parser._actions:
        action.required = False
        if action.option_strings and action.nargs is None:
            action.nargs = "?"
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _require_nothing(inner)


def _program_problem(words: Sequence[str]) -> str | None:
    if words[0] == "-m":
        return None if find_spec(words[1]) else f"no module {words[1]}"
    return None if words[0] == "-c" or _exists(words[0]) else f"{words[0]} does not exist"


def _pip_problem(words: Sequence[str]) -> str | None:
    for word in words:
        found = re.fullmatch(r"(\.[\w./]*?)(?:\[([\w,-]+)\])?", word)
        if found is None:
            continue
        project = ROOT / found[1] / "pyproject.toml"
        if not project.is_file():
            return f"{found[1]} holds no project"
        extras = tomllib.loads(project.read_text("utf-8"))["project"].get("optional-dependencies", {})
        extras = extras or {"numpy": ()}  # the client's are made when it is built
        if wrong := [extra for extra in (found[2] or "").split(",") if extra and extra not in extras]:
            return f"no extra {wrong[0]} in {project.relative_to(ROOT)}"
    return None


def _python_problems(content: str) -> Iterator[str]:
    """Python that parses, and imports what there is."""
    try:
        tree = ast.parse(content)
    except SyntaxError as error:
        yield f"Python that does not parse: {error}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = __import__(node.module, fromlist=[name.name for name in node.names])
            yield from (f"no {one.name} in {node.module}" for one in node.names if not hasattr(module, one.name))


def _inline_problems(code: str) -> Iterator[str]:
    program = code.split(" ")[0]
    if program in PARSERS or program in ("make", "python", "pip"):
        for command in _commands(code):
            if problem := _command_problem(command, whole=False):
                yield f"{code}: {problem}"
    elif _PATH.fullmatch(code) or _FILE.fullmatch(code):
        if not _exists(code):
            yield f"{code} does not exist"
    elif _MODULE.fullmatch(code):
        if not _is_module_or_name(code):
            yield f"{code} is neither a module nor a name in one"
    elif _CONSTANT.fullmatch(code):
        if code not in _constants():
            yield f"{code} stands nowhere in the code"
    elif code.startswith("tango_rt_"):
        if code.removesuffix("_total") not in _metrics():
            yield f"{code} is no metric"
    elif re.match(r"--[a-z]", code) and (flag := code.split(" ")[0].split("=")[0]) not in _flags():
        yield f"no command has an option {flag}"


def _link_problems(document: Document) -> Iterator[str]:
    for target in _LINK.findall(document.prose):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / document.path).parent / name
        if not file.exists():
            yield f"the link {target} leads nowhere"
        elif anchor and anchor not in _anchors(file.read_text("utf-8") if name else document.text):
            yield f"the link {target} leads to no heading"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _exists(name: str) -> bool:
    """A file or folder of the project, with * and {a,b} as a shell has them; a bare file name lies anywhere."""
    if found := re.search(r"\{([^}]*)\}", name):
        return all(_exists(name[: found.start()] + part + name[found.end() :]) for part in found[1].split(","))
    if "/" not in name:
        return name in _file_names()
    return any(ROOT.glob(name.rstrip("/").rstrip(".,")))


@cache
def _file_names() -> frozenset[str]:
    """Of all files in the rooms and of those beside them."""
    inside = {file.name for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file()}
    return frozenset(inside | {file.name for file in ROOT.iterdir() if file.is_file()})


def _is_module_or_name(dotted: str) -> bool:
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:n])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            return n == len(parts) or re.search(rf"\b{parts[n]}\b", file.read_text("utf-8")) is not None
    return ROOT.joinpath(*parts).is_dir()


@cache
def _constants() -> frozenset[str]:
    """Every word in capitals of code, protocol and tests, and the variables of the server's options."""
    files = [file for room in ROOMS for ending in ("py", "proto") for file in (ROOT / room).rglob(f"*.{ending}")]
    words = {word for file in files for word in _CONSTANT.findall(file.read_text("utf-8"))}
    return frozenset(words | {variable_name(option.name) for option in options()})


@cache
def _metrics() -> frozenset[str]:
    lines = Metrics().text().splitlines()
    return frozenset(line.split()[2].removesuffix("_total") for line in lines if line.startswith("# TYPE"))


@cache
def _flags() -> frozenset[str]:
    """Of all commands together."""
    return frozenset(flag for parser in PARSERS.values() for flag in _flags_below(parser()))


def _flags_below(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _flags_below(inner)

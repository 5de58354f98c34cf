"""Documents are true: their commands parse, their links lead somewhere, what they name exists. Nothing is run."""

import re
from pathlib import Path

import pytest

from tests.helpers.documents import ROOT, Document, documents, problems, read, shell_problems


@pytest.mark.parametrize("path", documents(), ids=str)
def test_a_document_is_true(path: Path) -> None:
    found = list(problems(read(path)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.sh")), ids=lambda path: path.name)
def test_an_example_for_the_shell_is_true(path: Path) -> None:
    assert not list(shell_problems(path.read_text("utf-8")))


@pytest.mark.parametrize(("name", "most"), [("README.md", 120), ("ARCHITECTURE.md", 150)])
def test_what_everybody_reads_is_short(name: str, most: int) -> None:
    assert len(read(Path(name)).text.splitlines()) <= most


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        file = waiting.pop()
        reached.add(file.relative_to(ROOT))
        links = re.findall(r"\]\(([^)\s#]+\.md)", file.read_text("utf-8"))
        found = {(file.parent / link).resolve() for link in links if not link.startswith("http")}
        waiting += [one for one in found if one.is_file() and one.relative_to(ROOT) not in reached]
    # the changelog is found by its name; the notes on the demo's speeches lie with them
    assert set(documents()) - reached <= {Path("CHANGELOG.md"), Path("tango_rt/demo/speech/README.md")}


@pytest.mark.parametrize("decision", sorted((ROOT / "docs" / "decisions").glob("[!R]*.md")), ids=lambda path: path.stem)
def test_a_decision_is_short_and_whole(decision: Path) -> None:
    lines = decision.read_text("utf-8").splitlines()
    headings = [line for line in lines if line.startswith("#")]
    assert 10 <= len(lines) <= 40
    assert headings[1:] == ["## Context", "## Decision", "## Consequences"]


BLOCKS = {
    "an option that does not exist": ("sh", "tango-rt render anna.tango speech.wav -o out.mp4 --louder"),
    "a choice that does not exist": ("sh", "tango-rt render anna.tango speech.wav -o out.mp4 --blender magic"),
    "an output that is missing": ("sh", "tango-rt character build talk.mp4"),
    "behind a variable and a pipe": ("sh", "A=1 cat speech.wav | tango-rt render anna.tango"),
    "over two lines": ("sh", "tango-export compile full \\\n  --backend abacus"),
    "a target that does not exist": ("sh", "make coffee"),
    "a module that does not exist": ("sh", "python -m benchmarks.bench_moon"),
    "an extra that does not exist": ("sh", "pip install '.[moon]'"),
    "a test that does not exist": ("sh", ".venv/bin/pytest tests/test_moon.py"),
    "Python that does not parse": ("python", "with Client( as client: ..."),
    "an import that does not exist": ("python", "from tango_rt.client import Moon"),
    "an option that a server does not have": ("toml", "max_moons = 3"),
    "a folder that does not exist": ("text", "engine/moon/   what is there"),
    "a language that nobody checks": ("bash", "true"),
}
INLINE = {
    "a command": "`tango-rt dance`",
    "an option of a command": "`tango-rt serve --moon`",
    "an option": "`--moonlight`",
    "a file": "`engine/moon.py`",
    "a file by its name": "`moon.py`",
    "one of several folders": "`engine/{blending,moon}/`",
    "a module": "`engine.moon`",
    "a name in a module": "`engine.timebase.MOON`",
    "a constant": "`PACING" + "_BY_THE_MOON`",  # in pieces, because this file is searched, too
    "a metric": "`tango_rt_moons_total`",
    "a command without a block": "this:\n\n    tango-rt demo\n",
    "a link": "[moon](docs/moon.md)",
    "a heading": "[install](docs/install.md#on-the-moon)",
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_an_error_in_a_block_is_found(block: tuple[str, str]) -> None:
    language, content = block
    assert list(problems(Document(Path("README.md"), f"# Title\n\n```{language}\n{content}\n```\n")))


@pytest.mark.parametrize("text", INLINE.values(), ids=INLINE)
def test_an_error_in_a_line_is_found(text: str) -> None:
    assert list(problems(Document(Path("README.md"), f"# Title\n\nThere is {text} for you.\n")))


RIGHT = """# Title

`tango-rt character install` and `tango-rt serve --max-sessions` may be mentioned without the rest. `engine/files.py`,
`engine/{blending,features}/`, `engine.timebase.SAMPLE_RATE`, `timebase.py`, `PACING_FAST`, `TANGO_RT_MAX_SESSIONS`,
`tango_rt_refused_total`, [the title](#title), [install](docs/install.md#add-what-you-need), `out.mp4`, `packs/`.

```sh
TANGO_RT_CACHE=/tmp/cache tango-rt render anna.tango speech.wav -o out.mp4 --seed 7 --json | jq .  # a comment's quote
make OUT=somewhere demo
```

```toml
max_sessions = 3
```
"""


def test_what_is_right_is_not_complained_of() -> None:
    assert list(problems(Document(Path("README.md"), RIGHT))) == []

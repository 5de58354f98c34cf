"""`tango-rt` as it is called on the command line: what it prints as JSON, and how it refuses."""

import json

import pytest

from tango_rt.cli import main
from tests.helpers.json_keys import check_keys


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """What a command prints with --json; that it prints the keys that it should is checked each time."""
    main([str(argument) for argument in arguments] + ["--json"])
    printed = json.loads(capsys.readouterr().out)
    check_keys("tango-rt", arguments, printed)
    return dict(printed)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a refusal with exit code 2."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tango-rt: "), lines
    return lines[0]

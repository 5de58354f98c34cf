"""What the command lines share: tables, and the keys of the last release in what is printed as JSON."""

import json
from argparse import Namespace
from typing import Any

import pytest

from tango_rt.console import aligned, print_result


def printed(capsys: pytest.CaptureFixture[str], command: str, result: dict[str, Any]) -> dict[str, Any]:
    print_result(Namespace(json=True, command=command), result, "")
    return json.loads(capsys.readouterr().out)


def test_old_keys_stand_beside_the_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    rendered = {"nodes": [1, 2], "took_s": 3.5}
    demo = {"output": "a", "render": rendered, "live": {"output": "b", "nodes": []}}
    assert printed(capsys, "tango-rt demo", demo) == {
        "output": "a",
        "video": "a",
        "render": {"nodes": [1, 2], "path": [1, 2], "took_s": 3.5, "seconds": 3.5},
        "live": {"output": "b", "path": "b", "nodes": []},
    }
    assert set(rendered) == {"nodes", "took_s"}
    listed = printed(capsys, "tango-export list", {"bundles": [{"bundle": "x"}, {"bundle": "y", "error": "bad"}]})
    assert [one["folder"] for one in listed["bundles"]] == ["x", "y"]
    compiled = {"took_s": 1, "networks": {"a": {"build_s": 2}}, "report": None}
    assert printed(capsys, "tango-export compile", compiled)["networks"] == {"a": {"build_s": 2, "seconds": 2}}
    assert printed(capsys, "tango-rt models list", {"folder": "z"}) == {"folder": "z"}


def test_columns_of_figures_stand_to_the_right_with_their_heads() -> None:
    rows = [
        ("linear", 1.5, "-", "12.0 MB", "ok"),
        ("a longer name", 10, "1e-05", "3 MB", "2 missed"),
        ("c", "", "", "", ""),
    ]
    assert aligned(rows, ("network", "ms", "cosine", "size", "gate")) == [
        "network         ms  cosine     size  gate",
        "linear         1.5       -  12.0 MB  ok",
        "a longer name   10   1e-05     3 MB  2 missed",
        "c",
    ]


def test_tables_without_head_or_rows() -> None:
    assert aligned([("a", 1), ("bcd", 200)]) == ["a      1", "bcd  200"]
    assert aligned([("figures", "1"), ("words", "one")]) == ["figures  1", "words    one"]
    assert aligned([]) == [] and aligned([], ("name", "ms")) == ["name  ms"]

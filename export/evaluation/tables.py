"""The figures as tables, for a terminal and for Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from engine.features.validation import MIN_SPEECH_S
from tango_rt.console import aligned

__all__ = ["Table", "markdown", "summarize", "tables"]


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the row."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def summarize(result: dict[str, Any]) -> str:
    """Tables with aligned columns, and the notes."""
    parts = []
    for table in tables(result):
        lines = aligned(table.rows, table.header)
        parts.append("\n".join([table.title, *wrap(table.note, _NOTE_WIDTH), "", *lines]))
    return "\n\n".join([*parts, *result["notes"]])


def markdown(result: dict[str, Any], level: int = 3) -> str:
    """The same with headings of that level."""
    parts = []
    for table in tables(result):
        lines = ["| " + " | ".join(row) + " |" for row in (table.header, *table.rows)]
        lines.insert(1, "|---" * len(table.header) + "|")
        note = [table.note, ""] if table.note else []
        parts.append("\n".join(["#" * level + " " + table.title, "", *note, *lines]))
    notes = ["\n".join(f"- {note}" for note in result["notes"])] if result["notes"] else []
    return "\n\n".join([*parts, *notes]) + "\n"


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Every table for which the result has figures."""
    yield from _accuracies(result)
    if result.get("shown"):
        yield _shown(result)
    if "lookahead" in result:
        yield _lookahead(result)
        if result["learning"]:
            yield _learning(result)
        yield _costs(result["costs"])
    if "voices" in result:
        yield _changed(result)
        if result["voices"]["foreign"]:
            yield _foreign(result)


_NOTE_WIDTH = 120
_MEASURES = (
    "Low: the best of 32 motion frames around a frame of speech lies within 4 frames of the truth, %, with its 95 % "
    "interval; control: the same with time-shifted speech, the true floor. Gains are paired, in points. First window: "
    "the true one of up to 256 windows of 4.27 s is best; far beaten: share of windows elsewhere that score lower. r: "
    "voice energy against body speed inside the window chosen at another time."
)
_GAINS = {name: f"over {name}" for name in ("onset", "onset, trial, 13", "onset, trial, 32")}


def _accuracies(result: dict[str, Any]) -> Iterator[Table]:
    header = ["row", "low", "control", *_GAINS.values(), "first window", "chance", "far beaten", "r chosen/true/random"]
    n_long = sum(one["speech_s"] >= MIN_SPEECH_S for one in result["people"])
    titles = {"pooled": f"All people, pooled: {len(result['people'])}"}
    if n_long:
        titles = {"pooled_15s": f"People with at least {MIN_SPEECH_S:.0f} s of speech, pooled: {n_long}", **titles}
    if n_long == len(result["people"]):
        del titles["pooled"]
    for key, title in titles.items():
        rows = [[row["row"], *_pooled_cells(row[key])] for row in result["rows"] if row[key] is not None]
        yield Table(title, _MEASURES, header, rows)
    names = [one["name"] for one in result["people"]]
    yield Table(
        "Low level by person",
        "The 95 % interval is in brackets, followed by the control.",
        ["row", *(f"{one['name']}, {one['speech_s']:.0f} s of speech" for one in result["people"])],
        [[row["row"], *(_low_cell(row["people"].get(name)) for name in names)] for row in result["rows"]],
    )
    fits = {row["row"]: row["people"] for row in result["rows"] if row["row"] in ("fitted", "fitted+mouth")}
    yield Table(
        "Gain by person, low level",
        "Points, paired frame by frame, with their 95 % intervals.",
        ["person", *(f"{fit}, {gain}" for fit in fits for gain in _GAINS.values())],
        [
            [name, *(_share(each[name]["gain"].get(gain)) for each in fits.values() for gain in _GAINS)]
            for name in names
        ],
    )
    yield Table(
        "Windows by person",
        "First window % (chance %), share of far windows beaten %, r chosen (r true).",
        ["row", *names],
        [[row["row"], *(_window_cell(row["people"].get(name)) for name in names)] for row in result["rows"][1:]],
    )


def _pooled_cells(figures: dict[str, Any]) -> list[str]:
    r = " / ".join(_number(figures["r"][name]["mean"]) for name in ("chosen", "true", "random"))
    return [
        _share(figures["low"]),
        _percent(figures["control"]["mean"]),
        *(_share(figures["gain"].get(name)) for name in _GAINS),
        _share(figures["first"]),
        _percent(figures["first_chance"], 1),
        _share(figures["far_beaten"]),
        r if figures["windows"] else "-",
    ]


def _low_cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    return f"{_share(figures['low'])} {_percent(figures['control']['mean'])}".removesuffix(" -")


def _window_cell(figures: dict[str, Any] | None) -> str:
    if figures is None or not figures["windows"]:
        return "-"
    first = f"{_percent(figures['first']['mean'])} ({_percent(figures['first_chance'], 1)})"
    r = f"r {_number(figures['r']['chosen']['mean'])} ({_number(figures['r']['true']['mean'])})"
    return f"{first}, {_percent(figures['far_beaten']['mean'])}, {r}"


def _shown(result: dict[str, Any]) -> Table:
    rows = result["shown"]
    names = list(dict.fromkeys(name for row in rows for name in row["people"]))
    recorded = ["as recorded", *(_interval(_first(rows, name)["r"]["true"]) for name in names), "0", "-"]
    by_chance = {name: _first(rows, name)["r"] for name in names}
    off = sum(abs(r["random"]["mean"] - r["true"]["mean"]) for r in by_chance.values()) / len(names)
    random = ["at random", *(_interval(r["random"]) for r in by_chance.values()), _number(off), "-"]
    shown = [
        [
            row["row"],
            *(_interval(row["people"].get(name, {}).get("r", {}).get("shown")) for name in names),
            _number(row["pooled"]["off"]),
            _number(row["pooled"]["s_between_cuts"], 1),
        ]
        for row in rows
    ]
    note = (
        "r of voice energy and body speed when unseen speech is performed with the person's other motion; off: how far "
        "that is from the person's own r, mean over people."
    )
    return Table("Shown path", note, ["row", *names, "off", "s between cuts"], [recorded, *shown, random])


def _first(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row["people"][name] for row in rows if name in row["people"])


def _lookahead(result: dict[str, Any]) -> Table:
    found = result["lookahead"]
    columns = {**{one["name"]: found["people"][one["name"]] for one in result["people"]}, "all": found["pooled"]}
    if found["pooled_15s"]:
        columns[f"with {MIN_SPEECH_S:.0f} s of speech"] = found["pooled_15s"]
    rows = [[waited, *(_share(column[waited]) for column in columns.values())] for waited in found["pooled"]]
    return Table("Look-ahead of `fitted`, low level", "Frames of 33 ms.", ["frames", *columns], rows)


def _learning(result: dict[str, Any]) -> Table:
    curves = result["learning"]
    seconds = sorted({key for curve in curves.values() for key in curve["fitted"]}, key=int)
    rows = []
    for name, curve in curves.items():
        for label, key in (("", "fitted"), (", with prior", "prior")):
            if curve[key]:
                rows.append([name + label, *(_share(curve[key].get(one)) for one in seconds), _share(curve["onset"])])
    note = "`fitted` to the given number of seconds, tested on the last fifth of the recording."
    return Table("Learning curve, low level", note, ["person", *(f"{one} s" for one in seconds), "onset"], rows)


def _costs(costs: dict[str, Any]) -> Table:
    rows = [
        ["recording", f"{costs['name']}, {costs['duration_s']:.1f} s"],
        ["fit, CPU s", f"{costs['fit_cpu_s']:.2f}"],
        ["fit with cross-validation, CPU s", f"{costs['fit_and_cross_validation_cpu_s']:.2f}"],
        ["speech rows, times real time", f"{costs['rows_times_real_time']:.0f}"],
        ["rows and `fitted`, streamed by nodes, times real time", f"{costs['streaming_times_real_time']:.0f}"],
        ["ms of compute per node, median", f"{costs['node_ms_p50']:.3f}"],
        ["ms of compute per node, 99th percentile", f"{costs['node_ms_p99']:.3f}"],
    ]
    return Table("What `fitted` costs", "", ["what", "figure"], rows)


def _changed(result: dict[str, Any]) -> Table:
    voices = result["voices"]
    pooled = voices["pooled_15s"] or voices["pooled"]
    names = [one["name"] for one in result["people"]]
    rows = [
        [effect, _share(figures["low"]), _share(figures["gain"])]
        + [_share(voices["people"][name][effect]["low"]) for name in names]
        for effect, figures in pooled.items()
    ]
    note = "`fitted` to the voice as recorded, queried with unseen speech that was changed; low level."
    return Table("The same voice, changed", note, ["change", "pooled", "against unchanged", *names], rows)


def _foreign(result: dict[str, Any]) -> Table:
    fitted = next(row for row in result["rows"] if row["row"] == "fitted")
    rows = []
    for name, figures in result["voices"]["foreign"].items():
        own = fitted["people"][name]["r"]
        rows.append(
            [name, _interval(own["true"]), _interval(own["chosen"])]
            + [_interval(figures.get(key)) for key in ("chosen", "random", "alike", "alike_control")]
            + [_share(figures.get(key)) for key in ("same", "same_control")]
        )
    note = (
        "Speech of other people queries a fit to this one. r of voice energy and body speed: the person's own, in the "
        "window chosen for own unseen speech, in the one chosen for foreign speech, in all of them. Alike: r of the "
        "scores that fits to both halves of the recording give the person's windows; same: both choose the same "
        "second, %; control: speech of one fit shifted."
    )
    header = ["person", "own", "own, chosen", "foreign, chosen", "random", "alike", "control", "same", "control"]
    return Table("Other voices", note, header, rows)


def _percent(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(found: dict[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    return f"{_percent(found['mean'])} [{_percent(found['low'])}, {_percent(found['high'])}]"


def _interval(found: dict[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    return f"{_number(found['mean'])} [{_number(found['low'])}, {_number(found['high'])}]"

"""`tango-export evaluate aumoclip`: people in, figures of every embedding out, as JSON, tables and a picture."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.errors import InputError
from engine.features.fit import FitOptions
from engine.features.validation import MIN_SPEECH_S
from export.evaluation.curves import learning_curve, lookahead_hits, lookahead_summary, measure_costs
from export.evaluation.measures import Measured, measure, summary
from export.evaluation.people import Person, read_people
from export.evaluation.rivals import Rival, bundle_rival, make_rivals
from export.evaluation.shown import Shown, show, shown_summary
from export.evaluation.tables import markdown, summarize
from export.evaluation.voices import changed_hits, changed_summary, foreign, foreign_summary

__all__ = ["EvaluateOptions", "evaluate", "summarize"]

BASELINES = ("onset", "onset, trial, 13", "onset, trial, 32")


@dataclass(frozen=True)
class EvaluateOptions:
    """bundles: of mini or full, tested unchanged. output: folder for the report. mini: train the paper's ablations,
    which takes many minutes. shown, curves, voices: include those sections.
    """

    bundles: tuple[Path, ...] = ()
    output: Path | None = None
    mini: bool = False
    shown: bool = True
    curves: bool = True
    voices: bool = True
    fit: FitOptions = field(default_factory=FitOptions)
    progress: bool = True


@dataclass(frozen=True)
class _Trial:
    """The people under test, and notes for the report."""

    tried: list[Person]
    options: EvaluateOptions
    notes: list[str]
    advance: Callable[[str], Any]


def evaluate(data: Sequence[Path], options: EvaluateOptions | None = None) -> dict[str, Any]:
    """Test every embedding on every recording (see export.recordings); each counts as a different person.

    A fit uses nothing that a query or a candidate depends on; bundles are tested unchanged, whatever they were trained
    on. Returns everything measured, for JSON (None: no such figure); `summarize` turns it into text.

    Raises:
        InputError: unusable data, or no recording that is long enough.
        ArtifactError: a damaged pack or bundle.
    """
    options = options or EvaluateOptions()
    if options.output is not None and options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output} is a file: give a folder for the report")
    people = read_people(data)
    tried = [person for person in people if person.asked]
    if not tried:
        longest = max(person.recording.duration_s for person in people)
        raise InputError(f"the longest of {len(people)} recordings has {longest:.1f} s: give one of 12 s or more")
    rivals = _rivals(people, options)
    notes = [
        f"{person.name}: {person.recording.duration_s:.1f} s are too short for a test"
        for person in people
        if not person.asked
    ]
    sections = int(options.shown) + int(options.curves) + int(options.voices)
    with tqdm(
        total=len(rivals) + sections * len(tried), unit=" parts", disable=None if options.progress else True
    ) as bar:

        def advance(what: str) -> None:
            bar.set_postfix_str(what)
            bar.update()

        result = _measured(_Trial(tried, options, notes, advance), rivals)
    result = _plain(result)
    if options.output is not None:
        _write(result, options.output)
    return result


def _rivals(people: Sequence[Person], options: EvaluateOptions) -> list[Rival]:
    rivals = make_rivals(people, options.fit)
    if options.mini:
        from export.evaluation.networks import NetworkOptions, network_rivals

        rivals += network_rivals(people, NetworkOptions())
    return rivals + [bundle_rival(folder) for folder in options.bundles]


def _measured(trial: _Trial, rivals: Sequence[Rival]) -> dict[str, Any]:
    options = trial.options
    result: dict[str, Any] = {
        "people": [
            {"name": one.name, "duration_s": one.recording.duration_s, "speech_s": one.speech_s, "pack": bool(one.pack)}
            for one in trial.tried
        ],
        "rows": _rows(trial, rivals),
    }
    if options.shown:
        result["shown"] = _shown(trial, [rival for rival in rivals if rival.shown])
    if options.curves:
        result |= _curves(trial)
    if options.voices:
        result["voices"] = _voices(trial)
    return {**result, "notes": trial.notes}


def _rows(trial: _Trial, rivals: Sequence[Rival]) -> list[dict[str, Any]]:
    measured: dict[str, dict[Person, Measured]] = {}
    for rival in rivals:
        measured[rival.name] = {}
        for person in trial.tried:
            try:
                measured[rival.name][person] = measure(rival, person)
            except InputError as error:  # a bundle may need something that a recording lacks
                trial.notes.append(f"{rival.name} could not be tested: {error}")
        trial.advance(rival.name)
    floor = {person: Measured(found=one.control) for person, one in measured["fitted"].items()}
    rows = [{"row": "control", "ablation": False, **_pooled(floor, {})}]
    for rival in rivals:
        if measured[rival.name]:
            others = {name: measured[name] for name in BASELINES if name != rival.name}
            rows.append({"row": rival.name, "ablation": rival.ablation, **_pooled(measured[rival.name], others)})
    return rows


def _pooled(found: dict[Person, Measured], others: dict[str, dict[Person, Measured]]) -> dict[str, Any]:
    def over(people: Sequence[Person]) -> dict[str, Any]:
        baselines = {name: [each[one] for one in people] for name, each in others.items()}
        return summary([found[one] for one in people], baselines)

    long = [person for person in found if person.speech_s >= MIN_SPEECH_S]
    return {
        "people": {person.name: over([person]) for person in found},
        "pooled": over(list(found)),
        "pooled_15s": over(long) if long else None,
    }


def _shown(trial: _Trial, rivals: Sequence[Rival]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Shown]] = {rival.name: {} for rival in rivals}
    for person in trial.tried:
        for rival in rivals:
            try:
                shown = show(rival, person)
            except InputError:  # noted among the rows already
                continue
            if shown is not None and shown.true:
                found[rival.name][person.name] = shown
        trial.advance("shown path")
    return [
        {
            "row": name,
            "people": {key: shown_summary([one]) for key, one in each.items()},
            "pooled": shown_summary(list(each.values())),
        }
        for name, each in found.items()
        if each
    ]


def _curves(trial: _Trial) -> dict[str, Any]:
    fit = trial.options.fit
    hits, learning = {}, {}
    for person in trial.tried:
        hits[person] = lookahead_hits(person, fit)
        others = [other for other in trial.tried if other is not person]
        learning[person.name] = learning_curve(person, fit, others)
        trial.advance("curves")
    long = [hits[person] for person in hits if person.speech_s >= MIN_SPEECH_S]
    longest = max(trial.tried, key=lambda person: person.recording.n_frames)
    return {
        "lookahead": {
            "people": {person.name: lookahead_summary([one]) for person, one in hits.items()},
            "pooled": lookahead_summary(list(hits.values())),
            "pooled_15s": lookahead_summary(long) if long else None,
        },
        "learning": {name: curve for name, curve in learning.items() if curve},
        "costs": {"name": longest.name, **measure_costs(longest, fit)},
    }


def _voices(trial: _Trial) -> dict[str, Any]:
    fit = trial.options.fit
    hits, crossed = {}, {}
    for person in trial.tried:
        hits[person] = changed_hits(person, fit)
        others = [other for other in trial.tried if other is not person]
        if others:
            crossed[person.name] = foreign_summary(foreign(person, others, fit))
        trial.advance("voices")
    long = [hits[person] for person in hits if person.speech_s >= MIN_SPEECH_S]
    return {
        "people": {person.name: changed_summary([one]) for person, one in hits.items()},
        "pooled": changed_summary(list(hits.values())),
        "pooled_15s": changed_summary(long) if long else None,
        "foreign": crossed,
    }


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(result: dict[str, Any], folder: Path) -> None:
    from export.evaluation.picture import draw

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1), "utf-8")
    (folder / "evaluation.md").write_text("# Evaluation\n\n" + markdown(result, level=2), "utf-8")
    draw(result, folder / "evaluation.png")

"""The result of gpu_check as Markdown: what ran how fast, against torch and the roofline, and what was left out."""

from collections.abc import Iterator
from typing import Any

__all__ = ["markdown"]

COLUMNS = (
    *(
        "contender",
        "mode",
        "calls",
        "p50 ms",
        "p90",
        "p99",
        "p99/p50",
        "times eager fp32",
        "times eager, same precision",
    ),
    *("of the roofline", "cosine", "rel. L2", "max abs", "MB", "open s"),
)


def markdown(result: dict[str, Any]) -> list[str]:
    """Lines: the machine, a table per case, the cost of building engines, what is missing."""
    lines = ["## On a GPU" if result["options"]["device"] == "cuda" else "## The GPU script on a CPU", ""]
    lines += [*_machine(result), ""]
    for case in dict.fromkeys(name.split(":")[1] for name in result["sections"] if not name.startswith("bundle")):
        rows = [row for row in _rows(result, case) if "p50_ms" in row]
        if rows:
            lines += [f"### {case}", "", *_table(rows), "", *_notes(result, case), ""]
    missing = list(_missing(result))
    return [*lines, "### Left out or failed", "", *(missing or ["nothing"])]


def _machine(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    gpu = machine["gpu"] or {}
    yield (
        f"{gpu.get('name') or machine['torch'].get('gpu') or 'no GPU'}, driver {gpu.get('driver_version', 'none')}, "
        f"{machine['cpu']}, {machine['cores']} cores, {result['started']}, {result.get('seconds', 0)} s; "
        + ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    )
    if result["options"]["quick"]:
        yield "Small networks and few calls: the figures say that everything runs, not how fast the real ones are."


def _rows(result: dict[str, Any], case: str) -> Iterator[dict[str, Any]]:
    for name, section in result["sections"].items():
        if name.split(":")[1] == case and not name.startswith("bundle"):
            yield from section.get("rows", [])


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    eager = {row["precision"]: row["p50_ms"] for row in rows if row["mode"] == "eager"}
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for row in rows:
        agreement = row.get("against_torch", {})
        values = (
            row["contender"],
            row["mode"],
            row["n_calls"],
            *(row[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p99_over_p50")),
            *(_times(eager.get(precision), row["p50_ms"]) for precision in ("fp32", row["precision"])),
            row.get("roofline_share"),
            *(agreement.get(name) for name in ("cosine", "relative_l2", "max_abs")),
            row.get("memory_mb"),
            row.get("opened_s"),
        )
        yield f"| {' | '.join(map(_cell, values))} |"


def _notes(result: dict[str, Any], case: str) -> Iterator[str]:
    """What the table has no column for, a line a contender; how the networks were exported."""
    told: dict[str, list[str]] = {}
    for row in _rows(result, case):
        told.setdefault(row.get("contender", ""), []).extend(_facts(row))
    yield from (f"- {contender}: {'; '.join(facts)}" for contender, facts in told.items() if facts)
    for row in result["sections"].get(f"bundle:{_case_bundle(case)}", {}).get("rows", []):
        if "onnx_max_abs" in row:
            worst = ", ".join(f"{network} {value:.1e}" for network, value in row["onnx_max_abs"].items())
            yield f"- exported in {row['seconds']} s; ONNX against torch on the CPU, max abs: {worst}"


def _facts(row: dict[str, Any]) -> Iterator[str]:
    if "networks" in row:
        yield f"built in {row['build_s']} s, {row['bytes'] / 1e6:.1f} MB"
    if "rebuild_s" in row:
        yield f"with the timing cache in {row['rebuild_s']} s"
    if "hit_s" in row:
        yield f"again in {row['hit_s']} s, {row['built']} built"
    if "after_pause_ms" in row:
        pauses = ", ".join(f"{value:g}" for value in row["after_pause_ms"])
        yield f"first call after pauses of {row['pause_s']:g} s: {pauses} ms"
    if "equal_to_graphs_on" in row:
        yield f"outputs without CUDA graphs are {'equal' if row['equal_to_graphs_on'] else 'NOT equal'}"
    for graph, cost in row.get("shape_change", {}).items():
        shown = ", ".join(f"{name} {c['first_ms']:g} then {c['steady_ms']:g} ms" for name, c in cost.items())
        yield f"{graph} after another shape: {shown}"
    if "report" in row:
        yield "verified" if row["report"]["passed"] else f"not verified: {row['report']['why']}"


def _case_bundle(case: str) -> str:
    from benchmarks.gpu_networks import CASES

    return CASES[case].bundle


def _missing(result: dict[str, Any]) -> Iterator[str]:
    for library, reason in result["machine"]["left_out"].items():
        if reason:
            yield f"- {library}: {reason}"
    for name, section in result["sections"].items():
        for row in (section, *section.get("rows", [])):
            for key in ("left_out", "failed"):
                if key in row:
                    where = " ".join(filter(None, (name, row.get("contender"), row.get("step"))))
                    yield f"- {where}, {key.replace('_', ' ')}: {row[key]}"


def _times(eager_ms: float | None, ms: float) -> str:
    return "-" if eager_ms is None else f"{eager_ms / ms:.2f}"


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

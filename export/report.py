"""A verification report as text: a table, then what a user would notice, then what was not measured."""

from collections.abc import Iterator

from engine.inference.report import Agreement, Latency, NetworkReport, Report
from tango_rt.console import aligned

__all__ = ["table", "verdict"]

_HEADS = ("network", "in", "output", "max abs", "mean abs", "cosine", "rel L2", "gate", "ms", "p99", "onnxruntime ms")
_MAX_OUTPUTS = 4  # lines per network


def table(report: Report) -> str:
    """What was required and reached, by network and output; "-" if nothing was measured."""
    named = f"{report.bundle} {report.target}"
    machine = report.machine.gpu or report.machine.cpu or "a machine without GPU"
    lines = [f"{named} on {machine}: {verdict(report)}"]
    if report.networks:
        rows = [row for graph, network in report.networks.items() for row in _rows(graph, network)]
        lines += aligned(rows, _HEADS)
        gates = {network.precision: network.asked for network in report.networks.values()}
        lines += [f"gate of {precision}: {gate}" for precision, gate in gates.items()]
        lines += _notes(report)
        lines += _against_torch(report)
    if report.paths is not None:
        paths = report.paths
        alike = f"{paths.share:.2%} of {paths.n_nodes} nodes alike (asked {paths.asked:.0%})"
        lines.append(f"retrieved path of {paths.character} for {paths.speech}: {alike}, {_word(paths.passed)}")
    if report.transition is not None:
        frames = report.transition
        size = f"{frames.width_px}x{frames.height_px}, {frames.n_steps} steps"
        reached = f"{frames.psnr_db:.1f} dB (asked {frames.asked_db:g})"
        lines.append(f"frames of a transition at equal seed, {size}: {reached}, {_word(frames.passed)}")
    lines += [f"not measured: {what}" for what in report.not_measured]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return "\n".join((*lines, f"{versions}; {report.seconds:.1f} s"))


def verdict(report: Report) -> str:
    """One line: passed or not, and why."""
    if report.passed is None:
        return f"not verified ({report.why})"
    return "passed" if report.passed else f"FAILED ({report.why})"


def _rows(graph: str, network: NetworkReport) -> Iterator[tuple[str, ...]]:
    """A line per output; of many, those that missed the gate, or the worst. Common figures are in the first line."""
    head: tuple[str, str] = (graph, network.precision)
    times = _times(network)
    for name, output in _shown(network).items():
        figures = f"{output.max_abs:.1e}", f"{output.mean_abs:.1e}", f"{output.cosine:.6f}", f"{output.relative_l2:.1e}"
        yield (*head, name, *figures, _word(network.asked.passes(output)), *times)
        head, times = ("", ""), ("", "", "")


def _shown(network: NetworkReport) -> dict[str, Agreement]:
    if len(network.reached) <= _MAX_OUTPUTS:
        return dict(network.reached)
    missed = {name: output for name, output in network.reached.items() if not network.asked.passes(output)}
    if missed:
        return dict(list(missed.items())[:_MAX_OUTPUTS])
    name, worst = max(network.reached.items(), key=lambda item: item[1].relative_l2)
    return {f"{name}, worst of {len(network.reached)}": worst}


def _notes(report: Report) -> Iterator[str]:
    """Notes, each once for all networks that share it."""
    notes: dict[str, list[str]] = {}
    for graph, network in report.networks.items():
        for note in network.notes:
            notes.setdefault(note, []).append(graph)
    for note, graphs in notes.items():
        yield f"{'all networks' if len(graphs) == len(report.networks) > 1 else ', '.join(graphs)}: {note}"


def _times(network: NetworkReport) -> tuple[str, str, str]:
    return _ms(network.latency), _ms(network.latency, p99=True), _ms(network.reference)


def _ms(latency: Latency | None, p99: bool = False) -> str:
    if latency is None:
        return "-"
    return f"{latency.p99_ms if p99 else latency.median_ms:.2f}"


def _against_torch(report: Report) -> Iterator[str]:
    figures = [network.torch for network in report.networks.values() if network.torch]
    if figures:
        most, least = max(part["max_abs"] for part in figures), min(part["cosine"] for part in figures)
        yield f"onnxruntime against torch, when the bundle was made: max abs {most:.1e}, cosine {least:.7f}"


def _word(passed: bool) -> str:
    return "ok" if passed else "MISSED"

"""What is in a bundle, for people and as JSON; needs no torch."""

from typing import Any

from engine.manifest import Bundle, TensorSpec

__all__ = ["describe", "summarize"]


def describe(bundle: Bundle) -> dict[str, Any]:
    """All that the manifest says, and the size on disk."""
    return {**bundle.to_dict(), "bytes": sum(spec.bytes for spec in bundle.files.values())}


def summarize(bundle: Bundle) -> str:
    """One line a fact."""
    versions = ", ".join(f"{package} {version}" for package, version in bundle.versions.items())
    lines = [
        f"{bundle.folder}: {bundle.name}, {describe(bundle)['bytes'] / 1e6:.1f} MB",
        f"sha256    {bundle.sha256}",
        f"licence   {bundle.licence}",
        f"made with {versions}",
    ]
    for graph in bundle.graphs.values():
        lines.append(f"{graph.name}: {_tensors(graph.inputs)} -> {_tensors(graph.outputs)}")
        for backend, parity in graph.parity.items():
            worst = max((output["max_abs"] for output in parity["reached"].values()), default=0.0)
            least = min((output["cosine"] for output in parity["reached"].values()), default=1.0)
            lines.append(f"  {backend} against torch: max abs {worst:.1e}, cosine {least:.7f}")
    return "\n".join(lines)


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype}[{', '.join(map(str, t.shape))}]" for t in tensors)

"""The words that options of the engine take, each once. Nothing is imported here, so that a command's help is quick.

Blenders and back ends have tables of their own: engine.blending.blender, engine.inference.backends.
"""

from typing import Literal, get_args

__all__ = ["GRAPH_RULES", "RETRIEVALS", "SEARCHES", "GraphRule", "RetrievalName", "SearchName"]

RetrievalName = Literal["auto", "fitted", "generic", "onset", "mini", "full"]
"""What compares speech and motion; auto is what cross-validation chose when the pack was built."""
SearchName = Literal["viterbi", "official"]
"""viterbi: exact, with a minimum time between cuts; official: the research release's."""
GraphRule = Literal["window", "paper", "official"]
"""What admits a cut: the distance of the blended frames, of the two nodes, or the release's votes of joints."""

RETRIEVALS: tuple[RetrievalName, ...] = get_args(RetrievalName)
SEARCHES: tuple[SearchName, ...] = get_args(SearchName)
GRAPH_RULES: tuple[GraphRule, ...] = get_args(GraphRule)

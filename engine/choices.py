"""The values of the engine's options, each defined once. Imports nothing, so that a command's help is quick.

Blenders and back ends have their own tables: engine.blending.blender, engine.inference.backends.
"""

from typing import Literal, get_args

__all__ = ["GRAPH_RULES", "RETRIEVALS", "SEARCHES", "GraphRule", "RetrievalName", "SearchName"]

RetrievalName = Literal["auto", "fitted", "generic", "onset", "mini", "full"]
"""How speech and motion are compared; auto uses what cross-validation chose when the pack was built."""
SearchName = Literal["viterbi", "official"]
"""viterbi: exact, with a minimum time between cuts; official: as in the research release."""
GraphRule = Literal["window", "paper", "official"]
"""What admits a cut: the distance of the blended frames, that of the two nodes, or the release's vote of joints."""

RETRIEVALS: tuple[RetrievalName, ...] = get_args(RetrievalName)
SEARCHES: tuple[SearchName, ...] = get_args(SearchName)
GRAPH_RULES: tuple[GraphRule, ...] = get_args(GraphRule)

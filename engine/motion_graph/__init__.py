"""Nodes, cuts and the paths through them: distances, connection, offline and online search."""

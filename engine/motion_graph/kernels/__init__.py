"""Numba kernels of graph and search. Public wrappers check their arguments, the jitted functions below them do not."""

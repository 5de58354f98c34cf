"""Numba kernels of graph and search. Public wrappers check; the jitted functions below them check nothing."""

"""Numba kernels of speech and motion features; they check nothing."""

"""Numba kernels of speech and motion features; they do not check their arguments."""

"""Numba kernels. Public wrappers check; the jitted functions below them check nothing."""

__all__ = ["FASTMATH"]

# Every relaxation that leaves NaN and infinity honest: path search uses inf for "unreachable".
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

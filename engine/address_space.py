"""How much memory a process may map (ulimit -v), and whether commands can work with it.

Where mapping fails, libraries do not: OpenBLAS tries again for ever and hears no signal, others end the process or
leave an import half done. So it is asked before they are loaded.
"""

import sys

from engine.errors import BackendError

__all__ = ["MIN_BYTES", "THREAD_BYTES", "address_space", "check_address_space"]

MIN_BYTES = 2_000_000_000  # builds and renders with two threads were measured to map 1.4 GB, most of it never used
THREAD_BYTES = MIN_BYTES // 4
"""Of it, how much a thread of a numerical library is given; OpenBLAS maps 80 MB for each, in two copies of it."""


def address_space() -> int | None:
    """Bytes that this process may map; None for any number."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def check_address_space() -> None:
    """Raises BackendError where a process may not map enough to load the libraries of this project and work."""
    limit = address_space()
    if limit is not None and limit < MIN_BYTES:
        raise BackendError(
            f"a process may map {limit / 1e9:.1f} GB here (ulimit -v), too little for NumPy and Numba: allow "
            f"{MIN_BYTES / 1e9:g} GB and more, or bound what is really used, by a control group"
        )

"""How much memory a process may map (ulimit -v), and whether commands can work with it.

Libraries handle failed mappings badly: OpenBLAS retries for ever and ignores signals, others kill the process or leave
an import half done. So the limit is checked before they are loaded.
"""

import sys

from engine.errors import BackendError

__all__ = ["MIN_BYTES", "THREAD_BYTES", "address_space", "check_address_space"]

MIN_BYTES = 2_000_000_000  # builds and renders with two threads map 1.4 GB (measured), most of it never used
THREAD_BYTES = MIN_BYTES // 4
"""Share allowed for each thread of a numerical library; OpenBLAS maps 80 MB per thread, and is loaded twice."""


def address_space() -> int | None:
    """Bytes that this process may map; None if unlimited."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def check_address_space() -> None:
    """Raises BackendError if this process may not map enough memory to load this project's libraries and work."""
    limit = address_space()
    if limit is not None and limit < MIN_BYTES:
        raise BackendError(
            f"a process may map {limit / 1e9:.1f} GB here (ulimit -v), too little for NumPy and Numba: allow "
            f"{MIN_BYTES / 1e9:g} GB or more, or limit the memory in use with a control group instead"
        )

"""tango-rt holds all of tango-rt-client: the files are the same as long as both have the same version."""

import warnings

__all__ = ["warn_of_mixture"]

_NAMES = ("tango-rt", "tango-rt-client")


def warn_of_mixture() -> None:
    """Where both are installed in different versions, each has replaced some files of the other."""
    from importlib.metadata import PackageNotFoundError, version  # dear, and this package is imported by --help

    try:
        versions = [version(name) for name in _NAMES]
    except PackageNotFoundError:
        return
    if len(set(versions)) > 1:
        found = " and ".join(f"{name} {number}" for name, number in zip(_NAMES, versions, strict=True))
        warnings.warn(
            f"{found} are installed in one environment and share files, which are a mixture of both now: uninstall "
            "tango-rt-client, then pip install --force-reinstall --no-deps tango-rt, which holds the client too",
            stacklevel=4,
        )

"""tango-rt contains all of tango-rt-client: the files are the same as long as both have the same version."""

import warnings

__all__ = ["warn_about_mixture"]

_NAMES = ("tango-rt", "tango-rt-client")


def warn_about_mixture() -> None:
    """Warn if both are installed in different versions: each has then replaced some files of the other."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and --help imports this package

    try:
        versions = [version(name) for name in _NAMES]
    except PackageNotFoundError:
        return
    if len(set(versions)) > 1:
        found = " and ".join(f"{name} {number}" for name, number in zip(_NAMES, versions, strict=True))
        warnings.warn(
            f"{found} are installed in one environment and share files, which are now a mixture of both: uninstall "
            "tango-rt-client, then pip install --force-reinstall --no-deps tango-rt, which contains the client too",
            stacklevel=4,
        )

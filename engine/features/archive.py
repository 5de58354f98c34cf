"""Arrays from a .npz file that anybody may have made: nothing in it runs, and none is larger than it says on disk."""

import zipfile
from pathlib import Path

import numpy as np

__all__ = ["read_arrays"]


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an uncompressed .npz by name.

    Raises ValueError for a file that holds anything else, OSError where it cannot be read.
    """
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.zip.infolist()):
                raise ValueError("its arrays are compressed")
            arrays = {name: archive[name] for name in archive.files}
    # what numpy and zipfile raise for damaged files, and for headers that claim more than there is memory
    except (zipfile.BadZipFile, EOFError, MemoryError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"not an archive of arrays: {error}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds more than arrays")
    return arrays

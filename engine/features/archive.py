"""Arrays from a .npz file that anybody may have made: nothing in it runs, and none is larger than it says on disk."""

import os
import zipfile
from pathlib import Path

import numpy as np

from engine.files import open_plain

__all__ = ["read_arrays"]

MAX_BYTES = 1 << 30


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an uncompressed .npz by name.

    Raises ValueError for a file that holds anything else, OSError where it cannot be read.
    """
    try:
        with open(open_plain(file), "rb") as content, np.load(content, allow_pickle=False) as archive:
            members = archive.zip.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its arrays are compressed")
            # members may lie over each other
            if sum(member.file_size for member in members) > min(os.fstat(content.fileno()).st_size, MAX_BYTES):
                raise ValueError("its arrays are larger than it is itself, or than is read")
            arrays = {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:  # numpy, zipfile and tokenize raise many kinds for damaged files
        raise ValueError(f"not an archive of arrays: {error}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds more than arrays")
    return arrays

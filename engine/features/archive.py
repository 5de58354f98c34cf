"""Arrays from a .npz file that anybody may have made: nothing in it runs, and none is larger than it says on disk."""

import io
import zipfile

import numpy as np

__all__ = ["read_arrays"]


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """All arrays of an uncompressed .npz by name. Raises ValueError for a file that holds anything else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            members = archive.zip.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its arrays are compressed")
            if sum(member.file_size for member in members) > len(content):  # they may lie one over the other
                raise ValueError("its arrays are larger than the file")
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy and zipfile raise at least eight kinds for damaged files
        raise ValueError(f"not an archive of arrays: {error}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds more than arrays")
    return arrays

"""Constants of an ONNX file, one at a time: for networks over 2 GiB they are in files next to it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from engine.errors import ArtifactError
from engine.inference.session import one_line

__all__ = ["WeightWriter", "Weights"]

MIN_BESIDE_BYTES = 1 << 10  # smaller ones stay in the network's own file
ALIGNMENT_BYTES = 4096  # so that a file can be mapped into memory


class Weights:
    """The initialisers and the Constant nodes of a graph."""

    def __init__(self, graph: onnx.GraphProto, folder: Path) -> None:
        self._tensors: Mapping[str, TensorProto] = {
            **{tensor.name: tensor for tensor in graph.initializer},
            **{node.output[0]: value for node in graph.node if (value := _value(node)) is not None},
        }
        self._folder = folder
        self._last: tuple[str, np.ndarray] | None = None

    @property
    def names(self) -> Mapping[str, TensorProto]:
        return self._tensors

    @property
    def bytes(self) -> int:
        """Size of all of them, wherever they are stored."""
        return sum(_bytes(tensor) for tensor in self._tensors.values())

    def array(self, name: str) -> np.ndarray:
        """Content of a constant; the latest one stays in memory."""
        if self._last is None or self._last[0] != name:
            self._last = None
            tensor = self._tensors[name]
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor = TensorProto()  # to_array stores the external data in the tensor it is given
                tensor.CopyFrom(self._tensors[name])
            try:
                self._last = (name, numpy_helper.to_array(tensor, str(self._folder)))
            except Exception as error:  # onnx's errors have no common base
                raise ArtifactError(f"weights {name[:100]} in {self._folder} are damaged: {one_line(error)}") from error
        return self._last[1]


class WeightWriter:
    """Collects initialisers; their content goes straight to `file` if there is one."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self.tensors: list[TensorProto] = []
        self._file = file

    def write(self, name: str, array: np.ndarray) -> None:
        if self._file is None or array.nbytes < MIN_BESIDE_BYTES:
            self.tensors.append(numpy_helper.from_array(array, name))
            return
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT_BYTES))
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        place = {"location": Path(self._file.name).name, "offset": self._file.tell(), "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(np.ascontiguousarray(array).view(np.uint8).data)
        self.tensors.append(tensor)

    def copy(self, weights: Weights, name: str) -> None:
        """Copy a constant unchanged from another network."""
        self.write(name, weights.array(name))


def _value(node: onnx.NodeProto) -> TensorProto | None:
    """The value of a Constant node; None for any other node, and for strings and sparse tensors."""
    if node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    content = onnx.helper.get_attribute_value(attribute)
    if isinstance(content, TensorProto):
        return content
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    dtype = dtypes.get(attribute.name)
    return numpy_helper.from_array(np.array(content, dtype)) if dtype else None


def _bytes(tensor: TensorProto) -> int:
    return math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize

"""What a network is to be run with."""

from typing import Literal, get_args

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "Precision"]

Backend = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

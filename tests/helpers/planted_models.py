"""A set of published networks that nobody published, and the wheel that holds them."""

import hashlib
import io
import zipfile

from tango_rt.models.published import ModelFile, ModelSet

CONTENT = {"planted/a/one.tflite": b"first network", "planted/b/two.tflite": b"second network" * 1000}
LICENCE = "planted_nets-1.0.dist-info/LICENSE"
PLANTED = ModelSet(
    title="planted networks",
    distribution="planted_nets",
    version="1.0",
    licence=LICENCE,
    files=tuple(ModelFile(name, hashlib.sha256(content).hexdigest()) for name, content in CONTENT.items()),
    platform="manylinux2014_x86_64",
    python="3.12",
    wheel_mb=1,
)
WHEEL = "planted_nets-1.0-py3-none-any.whl"


def wheel_bytes(content: dict[str, bytes] = CONTENT) -> bytes:
    buffer = io.BytesIO()
    info = "planted_nets-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in content.items():
            wheel.writestr(name, data)
        wheel.writestr(LICENCE, "Apache-2.0")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: planted_nets\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()

#!/usr/bin/env bash
# Regenerate the committed Python code of the protocol: protos/generate.sh [DIR]; tests compare it with what is committed.
# grpcio-tools is pinned (pyproject.toml): the generator sets the oldest protobuf and grpcio that users may have.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc -Iprotos \
  --python_out="${1:-.}" --pyi_out="${1:-.}" --grpc_python_out="${1:-.}" protos/tango_rt/v1/*.proto

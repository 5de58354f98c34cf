"""Certificates of a test, made by openssl."""

import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path, name: str, signed_by: str | None) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]
    about = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    if signed_by is None:  # Python from 3.13 on asks for it
        about += ["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
    by = [] if signed_by is None else ["-CA", f"{signed_by}.pem", "-CAkey", f"{signed_by}.key"]
    command = ["openssl", "req", "-x509", *key, *about, *by, "-out", f"{name}.pem"]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    if done.returncode:
        pytest.skip(f"openssl here cannot sign in one step, 3.0 can: {done.stderr.decode(errors='replace')[:200]}")

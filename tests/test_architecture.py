"""The run time lives without torch, importing stays cheap, and the packages are the ones of this checkout."""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import engine
import export
import tango_rt

ROOT = Path(__file__).resolve().parent.parent


def _modules(*packages: object) -> list[str]:
    names = []
    for package in packages:
        names.append(package.__name__)  # type: ignore[attr-defined]
        names += [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]  # type: ignore[attr-defined]
    return names


def test_every_run_time_module_imports_with_torch_blocked() -> None:
    names = _modules(engine, tango_rt)
    code = (
        "import sys, importlib\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
    ) + "".join(f"importlib.import_module({name!r})\n" for name in names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert len(names) > 15
    assert done.returncode == 0, done.stderr


def test_help_needs_no_heavy_import() -> None:
    heavy = [
        "numba",
        "ai_edge_litert",
        "cv2",
        "av",
        "matplotlib",
        "scipy",
        "networkx",
        "numpy",
        "grpc",
        "prometheus_client",
    ]
    code = (
        "import sys\nfrom tango_rt.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:] + done.stderr


def test_packages_belong_together() -> None:
    folders = {Path(p.__path__[0]).parent for p in (engine, export, tango_rt)}
    assert len(folders) == 1, f"another distribution shadows one of ours: {folders}"


def test_every_package_folder_is_a_package() -> None:
    for package in ("engine", "export", "tango_rt"):
        for file in (ROOT / package).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), f"{file.parent} lacks __init__.py"


def test_libraries_with_a_life_of_their_own_are_imported_in_one_place() -> None:
    """Numba writes where it likes, OpenVINO and ONNX Runtime report to their makers: unless they are held to more."""
    places = {
        "engine/jit.py": r"from numba import .*\bn?jit\b|\bnumba\.n?jit\b|cache=True",
        "engine/inference/backends/libraries.py": r"^\s*(import|from) (openvino|onnxruntime)\b(?!\.frontend)",
    }
    for place, use in places.items():
        found = {
            str(file.relative_to(ROOT))
            for room in ("engine", "export", "tango_rt")
            for file in (ROOT / room).rglob("*.py")
            if re.search(use, file.read_text("utf-8"), re.MULTILINE)
        }
        assert found <= {place}


def test_what_tests_share_lives_in_their_helpers() -> None:
    files = [file for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    borrowers = [file.name for file in files if re.search(r"(from|import) tests\.test_", file.read_text("utf-8"))]
    assert len(files) > 100 and borrowers == []


def test_private_names_are_not_patched() -> None:
    """They may change without a test: what one has to replace is a parameter, or a public name."""
    # an object or a path in dots, one part of which is private; the new value may say what it likes
    private = re.compile(r"(?:set|del)attr\(\s*(?:[\w.]*\._|[\w.]+,\s*[\"']_|[\"'][\w.]*\._)[a-zA-Z]")
    patches = ('setattr(gate, "_ROOM", 1)', 'setattr(\n    "a.b._c", 1)', "delattr(a._B, 'c')")
    others = ('setattr(os, "open", self._open)', 'setattr("a.b", lambda c, *_: d._e)', 'setattr(A, "__init__", 1)')
    assert all(map(private.search, patches)) and not any(map(private.search, others))
    files = [file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__).resolve()]
    assert len(files) > 100 and [file.name for file in files if private.search(file.read_text("utf-8"))] == []

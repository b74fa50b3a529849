"""Imports point one way: entropy <- models <- codec <- tools. entropy needs no torch on a CPU, and `import laconic` loads none."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ON_DEVICE = ("device_tables", "likelihood", "rans_cuda")  # of entropy, what works on tensors
ALLOWED = {
    "entropy": ("laconic.entropy",),
    "models": ("laconic.entropy", "laconic.models"),
    "codec": ("laconic",),
    "tools": ("laconic",),
}


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            if name.split(".")[0] == "laconic":
                inside = any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[folder])
                assert inside and (folder == "tools" or not name.startswith("laconic.tools")), f"{path}: {name}"
            assert folder != "entropy" or name.split(".")[0] != "torch" or path.stem in ON_DEVICE, f"{path}: {name}"


@pytest.mark.parametrize("module", ["laconic", "laconic.entropy", "laconic.tools.cli"])
def test_importing_loads_neither_torch_nor_numba(module: str) -> None:
    script = f"import sys, {module}; assert not {{'torch', 'numba'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)

"""Imports point one way: entropy <- models <- codec <- tools."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "entropy": {"laconic.entropy"},
    "models": {"laconic.entropy", "laconic.models"},
    "codec": {"laconic"},
}


def test_imports_point_one_way() -> None:
    for folder, allowed in ALLOWED.items():
        for path in sorted((ROOT / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in names:
                    if name.split(".")[0] == "laconic":
                        assert any(name == a or name.startswith(a + ".") for a in allowed), f"{path}: {name}"
                        assert not name.startswith("laconic.tools"), f"{path}: {name}"

"""Imports point one way: entropy <- models <- codec <- tools, and nowhere in a circle.

entropy needs no torch on a CPU, and `import laconic` loads neither torch nor numba.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
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

# What counts as an import when circles are looked for: every import statement that can run, inside functions too; the
# name of a module in a string; and in a module that makes names of modules, import_module(f"laconic.{name}"), every
# string that completes one. Imports under TYPE_CHECKING do not count, since they never run. `from laconic import
# container` is an import of that module alone, though Python runs codec/__init__.py before it: packages may import what
# is in them.


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def module_name(path: Path) -> str:
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["laconic", *([] if folder == "codec" else [folder]), *(p for p in parts if p != "__init__")])


def running(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it, without what stands under `if TYPE_CHECKING`."""
    left = [node]
    while left:
        node = left.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
            left += node.orelse
        else:
            left += ast.iter_child_nodes(node)


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what import statements name; `from a import b` gives a.b."""
    for node in running(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            yield from (alias.name.split(".")[0] for alias in node.names if not alias.asname)  # the name that is bound


def arguments(tree: ast.AST, *functions: str) -> list[ast.expr]:
    """The first argument of each call of these functions."""
    calls = (node for node in running(tree) if isinstance(node, ast.Call) and node.args)
    return [call.args[0] for call in calls if ast.unparse(call.func).split(".")[-1] in functions]


def strings(tree: ast.AST) -> Iterator[str]:
    """All strings but those of `__all__` and the packages in which files are looked up."""
    public = [n for n in running(tree) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    skipped = {below for node in [*public, *arguments(tree, "files")] for below in ast.walk(node)}
    for node in running(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


def completed(tree: ast.AST, texts: list[str]) -> Iterator[str]:
    """What import_module can be called with: its argument, or the strings that can follow the argument's beginning."""
    for argument in arguments(tree, "import_module", "__import__"):
        made = argument.values if isinstance(argument, ast.JoinedStr) else [getattr(argument, "left", argument)]
        if isinstance(made[0], ast.Constant):
            yield from (f"{made[0].value!s}{text}" for text in ("", *texts))


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """The modules that each module imports, by the text of each; a.b is the attribute b of a where no module is a.b."""

    def modules(names: Iterable[str]) -> set[str]:
        return {name if name in sources else name.rpartition(".")[0] for name in names}

    edges: dict[str, set[str]] = {}
    for module, text in sources.items():
        tree = ast.parse(text)
        texts = list(strings(tree))
        named = modules(t for t in texts if t.startswith("laconic.")) - {"laconic"}  # "laconic.assets" is no module
        found = modules(imports(tree)) | named | set(completed(tree, texts))
        edges[module] = found & sources.keys() - {module}
    return edges


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Circles of imports, each as the modules on the way round; once one is found, its last import is left out."""
    edges, found = {module: set(others) for module, others in edges.items()}, list[list[str]]()
    while True:
        try:
            TopologicalSorter(edges).prepare()
            return found
        except CycleError as error:
            found.append(error.args[1][::-1])
            edges[found[-1][-2]].remove(found[-1][-1])


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    for path in files(folder):
        for name in imports(ast.parse(path.read_text())):
            if name.split(".")[0] == "laconic":
                inside = any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[folder])
                assert inside and (folder == "tools" or not name.startswith("laconic.tools")), f"{path}: {name}"
            assert folder != "entropy" or name.split(".")[0] != "torch" or path.stem in ON_DEVICE, f"{path}: {name}"


def test_what_is_above_the_media_knows_none_of_them() -> None:
    """Only the names of the package lead to one, and the tool that trains what archives are coded by."""
    above = [path for folder in ("codec", "tools") for path in (ROOT / folder).glob("*.py")]
    known = {path.name for path in above if any("laconic.media." in n for n in imports(ast.parse(path.read_text())))}
    assert known <= {"lossless_table.py"}
    asked = re.compile(r"\.(medium|number) *(==|!=|in) *[\d({\"']")
    assert not [path.name for path in above if path.parent.name == "codec" and asked.search(path.read_text())]


@pytest.fixture(scope="module")
def all_circles() -> list[list[str]]:
    return circles(graph({module_name(path): path.read_text() for folder in ALLOWED for path in files(folder)}))


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_no_circles(folder: str, all_circles: list[list[str]]) -> None:
    members = {module_name(path) for path in files(folder)}
    found = [" -> ".join(circle) for circle in all_circles if members & set(circle)]
    assert not found, f"circles of imports: {'; '.join(found)}"


@pytest.mark.parametrize(
    "one",
    [
        "import laconic.two",
        "from laconic import two",
        "from laconic.two import something",
        "def f():\n    from laconic.two import something",
        "if TYPE_CHECKING:\n    import numpy\nelse:\n    import laconic.two",
        "KERNELS = {'fast': 'laconic.two'}",
        "MODEL = 'laconic.two.Model'",
        "from importlib import import_module\nTABLE = {'Two': 'two'}\nimport_module(f'laconic.{TABLE[name]}')",
        "import importlib\nTABLE = ['two']\nimportlib.import_module('laconic.' + TABLE[0])",
        "import laconic",
        "from laconic import compress",
        "__import__('laconic')",
    ],
)
def test_circles_are_found_wherever_they_hide(one: str) -> None:
    sources = {"laconic": "from laconic import one, two", "laconic.one": one, "laconic.two": "from laconic import one"}
    expected = {"laconic.one", "laconic" if "two" not in one else "laconic.two"}
    assert expected in [set(circle) for circle in circles(graph(sources))]


@pytest.mark.parametrize(
    "one",
    [
        "if TYPE_CHECKING:\n    from laconic import two",
        "if typing.TYPE_CHECKING:\n    import laconic",
        "from importlib.resources import files\nfiles('laconic.assets')",
        "'''It does what laconic.two does.'''",
        "from importlib import import_module\n__all__ = ['two']\nimport_module(f'laconic.{name}')",
    ],
)
def test_what_does_not_run_makes_no_circle(one: str) -> None:
    sources = {"laconic": "from laconic import one, two", "laconic.one": one, "laconic.two": "from laconic import one"}
    assert circles(graph(sources)) == []


@pytest.mark.parametrize("module", ["laconic", "laconic.entropy", "laconic.tools.cli"])
def test_importing_loads_neither_torch_nor_numba(module: str) -> None:
    script = f"import sys, {module}; assert not {{'torch', 'numba'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)

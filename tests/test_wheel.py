"""The wheel that users install: every module and data file of the sources, the commands, the codecs for zarr, the extras."""

from __future__ import annotations

import configparser
import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("build", reason="build: extra dev")
ROOT = Path(__file__).parent.parent
FOLDERS = {"codec": "laconic", "entropy": "laconic/entropy", "models": "laconic/models", "tools": "laconic/tools"}
FOLDERS["assets"] = "laconic/assets"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the sources, so that no build folder of an earlier one is in it."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "WEIGHTS-LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").iterdir()
    assert re.fullmatch(r"laconic_codec-[\d.]+-py3-none-any\.whl", built.name)
    return zipfile.ZipFile(built)


def text_of(wheel: zipfile.ZipFile, name: str) -> str:
    """A file of the wheel's .dist-info."""
    (found,) = [member for member in wheel.namelist() if member.endswith(f".dist-info/{name}")]
    return wheel.read(found).decode()


def test_every_module_and_data_file_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder, package in FOLDERS.items():
        for module in (ROOT / folder).rglob("*.py"):
            assert f"{package}/{module.relative_to(ROOT / folder).as_posix()}" in names
    tracked = subprocess.run(["git", "ls-files", "assets"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for name in tracked.split():
        assert f"laconic/{name}" in names or name.startswith("assets/published/"), name
    assert {"laconic/py.typed", "laconic/tools/report.html"} <= names
    assert not any(name.startswith(("tests/", "laconic/tests/")) for name in names)


def test_the_entry_points_lead_to_what_they_name(wheel: zipfile.ZipFile) -> None:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names keep their case
    parser.read_string(text_of(wheel, "entry_points.txt"))
    points = {group: dict(parser[group]) for group in parser.sections()}
    assert {group: set(names) for group, names in points.items()} == {
        "console_scripts": {"laconic", "laconic-codec"},
        "zarr.codecs": {"laconic.image", "laconic.sound"},
        "numcodecs.codecs": {"laconic.image", "laconic.sound"},
    }
    assert len(set(points["console_scripts"].values())) == 1
    for group, found in points.items():
        if group != "console_scripts":
            pytest.importorskip(group.split(".")[0], reason=f"{group}: extra zarr")
        for target in found.values():
            module, _, name = target.partition(":")
            assert f"{module.replace('.', '/')}.py" in wheel.namelist()
            assert callable(getattr(importlib.import_module(module), name))


def test_the_page_on_installing_has_every_extra(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(text_of(wheel, "METADATA"))
    extras = set(metadata.get_all("Provides-Extra") or [])
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(extras)
    assert metadata["Name"] == "laconic-codec" and metadata["Requires-Python"] == ">=3.11"

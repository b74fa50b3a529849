"""What the documents say is run and looked up: their code in order, their links, the sections that the code cites."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laconic import entropy
from laconic.tools import bench

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "FORMAT.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(page: Path) -> list[str]:
    """Return the Python of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


CODE = {page.name: [code for code in code_of(page) if "compressai" not in code] for page in PAGES}
ENTROPY = ROOT / "docs" / "entropy.md"
(EXAMPLE,) = [code for code in code_of(ENTROPY) if "compressai" in code]
(PICTURE_EXAMPLE,) = [code for code in code_of(ROOT / "docs" / "new-model.md") if "compressai" in code]
COMMANDS = re.findall(r"^    python -m laconic\.tools\.bench (.*)", ENTROPY.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [name for name, code in CODE.items() if code])
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """Run all blocks as one program, in a process of its own: what it registers must not reach other tests."""
    script = tmp_path / "page.py"
    script.write_text("".join(CODE[page]))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pages_that_promise_code_have_some() -> None:
    assert {"dataset.md", "entropy.md", "new-model.md", "new-medium.md", "circuits.md"} <= {name for name, code in CODE.items() if code}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: no {target}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_sections_that_the_code_cites_exist() -> None:
    titles = set(re.findall(r"^#+ (.*)", (ROOT / "FORMAT.md").read_text(), re.MULTILINE))
    folders = [ROOT / name for name in ("codec", "entropy", "models", "tools", "tests")]
    sources = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    places = re.findall(r'FORMAT\.md,? sections? ("[^"\n]+"(?:(?:, | and |, and )"[^"\n]+")*)', sources)
    cited = {title for place in places for title in re.findall(r'"([^"]+)"', place)}
    assert cited and cited <= titles, cited - titles


def run(code: str, folder: Path) -> dict[str, Any]:
    """Return the names that code leaves."""
    path = folder / "page.py"
    path.write_text(code)
    return runpy.run_path(str(path))


def test_the_compressai_example_is_short() -> None:
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 15


def test_the_compressai_example_codes_as_compressai_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With random weights all symbols would be 0: here the latent is scaled up to about 2 bits a symbol."""
    zoo = pytest.importorskip("compressai.zoo", reason="compressai is not installed: it needs numpy 1")
    import torch

    random = zoo.mbt2018_mean

    def scaled(**options: Any) -> Any:
        torch.manual_seed(1)
        model = random(**options)
        with torch.no_grad():
            model.g_a[-1].weight *= 30
            model.h_s[-1].bias[: model.M] += 1  # the scales
        return model

    monkeypatch.setattr(zoo, "mbt2018_mean", scaled)
    names = run(EXAMPLE, tmp_path)
    assert len(np.unique(names["symbols"])) > 5
    rows = names["rows"].reshape(names["y"].shape)
    theirs = names["gaussian"].compress(names["y"], torch.from_numpy(rows), means=names["means"])[0]
    assert len(names["data"]) < 1.002 * len(theirs) + 4 * 8  # states of 8 lanes


def test_the_example_of_a_picture_of_compressai_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With small random weights under the name of the published ones."""
    models = pytest.importorskip("compressai.models", reason="compressai is not installed: pip install laconic-codec[zoo]")
    import torch
    from compressai.zoo.image import model_urls
    from PIL import Image

    weights = tmp_path / "hub" / "checkpoints" / model_urls["mbt2018-mean"]["mse"][3].rsplit("/", 1)[1]
    weights.parent.mkdir(parents=True)
    torch.save(models.MeanScaleHyperprior(8, 12).state_dict(), weights)
    Image.new("RGB", (70, 40), (90, 120, 130)).save(tmp_path / "photo.png")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run(PICTURE_EXAMPLE, tmp_path)
    with Image.open("back.png") as back:
        assert back.size == (70, 40)


@pytest.mark.parametrize("command", [*COMMANDS, "entropy", "adaptive"])
def test_the_benchmark_runs(command: str, tmp_path: Path) -> None:
    """On few symbols; each contestant's round trip is checked by the command itself."""
    few = ["--symbols", "2000", "--rounds", "1", "--json", str(tmp_path / "cases.json")]
    assert bench.main([*shlex.split(command), *few]) == 0
    cases = json.loads((tmp_path / "cases.json").read_text())
    for workload in {case["workload"] for case in cases if "workload" in case}:
        sizes = {case["name"]: case["bytes"] for case in cases if case.get("workload") == workload}
        assert sizes["simd"] == sizes["numba"] == sizes["reference"]
        assert set(entropy.BACKENDS) - {"constriction"} <= set(sizes)

"""What docs/entropy.md says is run: its code in order, the CompressAI example where that is installed, its command."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laconic import entropy
from laconic.tools import bench

PAGE = Path(__file__).parent.parent / "docs" / "entropy.md"
CODE = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    python -m laconic\.tools\.bench (.*)", PAGE.read_text(), re.MULTILINE)


PLAIN = [code for code in CODE if "compressai" not in code]
(EXAMPLE,) = [code for code in CODE if "compressai" in code]


def run(code: str, folder: Path) -> dict[str, Any]:
    """The names that code leaves."""
    path = folder / "page.py"
    path.write_text(code)
    return runpy.run_path(str(path))


def test_the_code_runs(tmp_path: Path) -> None:
    assert PLAIN
    run("".join(PLAIN), tmp_path)


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

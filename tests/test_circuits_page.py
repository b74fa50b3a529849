"""What docs/circuits.md says is run, its code in order; its command is one that exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from laconic.tools import z_prior

PAGE = (Path(__file__).parent.parent / "docs" / "circuits.md").read_text()
LINES = ["^40 places to learn from, 40 to measure on", "bits per place, circuit", "^saved -?[0-9]+ of [0-9]+ bytes"]
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_code_runs(tmp_path: Path) -> None:
    assert len(CODE) == 3
    path = tmp_path / "page.py"
    path.write_text("".join(CODE))
    names = runpy.run_path(str(path))
    assert 6 * np.log2(3) - 0.1 < names["bits"]["chain"] < 11  # six steps of three ways each


def test_the_command_measures_z(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On two small pictures; a folder without any is said."""
    (command,) = re.findall(r"^    python -m laconic\.tools\.z_prior (.*)", PAGE, re.MULTILINE)
    folders = [str(tmp_path) if word.isupper() else word for word in command.split()]
    assert z_prior.main(folders) == 1 and "found no photo" in capsys.readouterr().err
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).resize((300, 200)).save(tmp_path / f"{seed}.png")
    assert z_prior.main([*folders, "--states", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(re.search(pattern, line) for pattern, line in zip(LINES, lines, strict=True))

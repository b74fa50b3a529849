"""plot and report: what they write, and the page in a browser."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from laconic.tools import cli

PUBLISHED = Path(__file__).parent.parent.parent / "assets/published"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    (root / "pictures").mkdir()
    y, x = np.mgrid[:96, :128]
    for i in range(2):
        noise = np.random.default_rng(i).normal(0, 10, (96, 128, 3))
        pixels = np.stack([x, y * 2, x + y + 20 * i], -1) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "pictures" / ("p0.png", "<!--<script>@@DATA@@.png")[i])
    rates = ["--rates", "jpeg=5,20,50,80", "--rates", "webp=5,20,50,80"]
    options = ["--codecs", "jpeg,webp", "--metrics", "psnr", *rates]
    (root / "pictures" / "z.png").write_text("no picture: named, and left out")
    assert cli.main(["eval", str(root / "pictures"), "-o", str(root / "r"), *options]) == 1
    return root / "r"


def test_plot_draws_every_metric(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = ["--published", str(PUBLISHED / "kodak-vtm.json")]
    for out in ("a", "b"):
        assert cli.main(["plot", str(results), *published, "-o", str(tmp_path / out), "--window", "25", "29"]) == 0
    names = {"rd-psnr-rgb.png", "rd-psnr-rgb.svg", "speed-psnr-rgb.png", "speed-psnr-rgb.svg", "table.md"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    svg = (tmp_path / "a" / "rd-psnr-rgb.svg").read_text()
    assert "vtm (published)" in svg and "stroke-dasharray" in svg
    assert "| jpeg | +0.0 | 25.0.." in capsys.readouterr().out


def test_plot_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", str(tmp_path)]) == 1
    assert "RESULTS: found no curve" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "manifest.json, expected a folder that laconic eval has finished" in capsys.readouterr().err


def test_a_page_without_curves_is_written(results: Path, tmp_path: Path) -> None:
    shutil.copy(results / "rows.csv", tmp_path)
    manifest = json.loads((results / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"codecs": {}}))
    assert cli.main(["report", str(tmp_path), "--files", "0"]) == 0
    assert "No curves" in (tmp_path / "report.html").read_text()


def test_sounds_are_compared_at_low_rates(tmp_path: Path) -> None:
    import soundfile

    pytest.importorskip("bokeh")
    (tmp_path / "sounds").mkdir()
    t = np.arange(32000) / 16000
    voice = np.sign(np.sin(2 * np.pi * 120 * t)) * np.sin(2 * np.pi * 2 * t) + np.random.default_rng(0).normal(0, 0.05, len(t))
    soundfile.write(tmp_path / "sounds" / "a.wav", 0.2 * voice, 16000)
    options = ["--codecs", "opus,flac", "--rates", "opus=6,8,12,24,32", "--rates", "flac=5", "--metrics", "si-sdr"]
    cli.main(["eval", str(tmp_path / "sounds"), "-o", str(tmp_path / "r"), *options])  # 1 where torchmetrics is missing
    assert cli.main(["report", str(tmp_path / "r")]) == 0
    page = (tmp_path / "r" / "report.html").read_text()
    content = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    [entry] = content["compare"]
    assert entry["levels"] == [3, 6, 16, 64] and entry["seconds"] == 2
    shown = {(one["codec"], one["level"]): one for one in entry["shown"]}
    assert len(shown) == 9 and all(one["image"].startswith("data:image/webp") for one in shown.values())
    assert shown["opus", 3]["off"] and all(shown["flac", level]["off"] for level in entry["levels"])
    near = shown["opus", 16]  # at most 5 % off, or it says so
    assert near["off"] == (abs(near["bytes"] / 4000 - 1) > 0.05) and near["src"].startswith("data:audio/ogg")


@pytest.fixture
def browser() -> Iterator[Any]:
    if not CHROMIUM or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def test_the_page_works_offline(results: Path, tmp_path: Path, browser: Any) -> None:
    page = tmp_path / "moved" / "report.html"
    page.parent.mkdir()
    assert cli.main(["report", str(results), "-o", str(page), "--rates", "1", "3"]) == 0
    browser.set_window_size(1200, 900)
    browser.get(page.as_uri())
    ask = browser.execute_script

    def wait_for(script: str) -> None:
        deadline = time.monotonic() + 20
        while not ask(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)

    wait_for("return document.querySelectorAll('.bk-Figure').length == 1")
    wait_for("return [...document.querySelectorAll('#stage img')].every(i => i.complete && i.naturalWidth == 128)")
    assert ask("return performance.getEntriesByType('resource').filter(e => e.name.startsWith('http')).length") == 0
    # The slider moves the line, and the left picture with it.
    before = ask("return document.getElementById('line').style.left")
    ask("const s = document.getElementById('split'); s.value = 200; s.dispatchEvent(new Event('input'))")
    assert before == "50%" and ask("return document.getElementById('line').style.left") == "20%"
    assert "80%" in ask("return document.querySelectorAll('#stage .layer')[1].style.clipPath")
    # Another codec is another picture, and its caption says its bytes.
    source = ask("return document.querySelector('#stage img[alt=left]').src")
    ask("const s = document.getElementById('left'); s.value = 'webp'; s.dispatchEvent(new Event('change'))")
    assert ask("return document.querySelector('#stage img[alt=left]').src") != source
    assert "webp: " in ask("return document.querySelector('.captions').textContent")
    ask("document.getElementById('zoom-in').click()")
    assert "scale(2)" in ask("return document.querySelector('#stage img').style.transform")
    # The table sorts as numbers, both ways.
    column = ask("return [...document.querySelectorAll('#rows th')].findIndex(h => h.textContent == 'bytes')")
    for rising in (True, False):
        ask("document.querySelectorAll('#rows th')[arguments[0]].click()", column)
        shown = ask(
            "return [...document.querySelectorAll('#rows tbody tr')].map(r => +r.cells[arguments[0]].textContent)",
            column,
        )
        assert len(shown) == 16 and shown == sorted(shown, reverse=not rising)
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wait_for("return document.documentElement.scrollWidth <= 390")
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []

"""The front door: what a type checker is told, options stated once, media beside ours."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic import media, options
from laconic.medium import Region, shared
from laconic.options import TARGETS, CompressOptions

ROOT = Path(__file__).parent.parent.parent
REVEALED = {
    "laconic.decompress(b'')": "Image | .*Sound",
    "laconic.decompress(b'', as_array=True)": "ndarray.* | .*Sound",
    "laconic.decompress(b'', region=(0, 0, 1, 1))": "Image.Image",
    "laconic.decompress(b'', region=(0, 0, 1, 1), as_array=True)": "ndarray",
    "laconic.decompress(b'', seek=1.0)": "Sound",
    "laconic.decompress(b'', duration=1.0, threads=2)": "Sound",
    "laconic.Codec().decompress(b'', member=3, as_array=True)": "ndarray",
    "laconic.Codec().decompress(b'', member='a', partial=True)": "Image.Image",
    "laconic.compress('x.png', quality=3)": "bytes",
    "laconic.info(b'')": "FileInfo",
    "laconic.open_archive(b'').member(3)": "ndarray",
}


def test_a_type_checker_knows_what_comes_back(tmp_path: Path) -> None:
    types = ROOT / "build" / "types"
    pytest.importorskip("mypy")
    if not (types / "laconic").is_dir():
        pytest.skip("the folder of types is not laid out: make types")
    wrong = ("laconic.decompress(b'', seek=1.0, regoin=3)", "laconic.compress('x', qualty=3)", "laconic.Codec().decompress(3)")
    lines = ["import laconic", *(f"reveal_type({call})" for call in REVEALED), *wrong]
    (tmp_path / "user.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "user.py")]
    cache = ROOT / ".mypy_cache"
    if not os.access(cache if cache.exists() else ROOT, os.W_OK):  # another user's: mypy fails where it cannot write
        command += ["--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if "user.py:" in line]
    for number, (call, expected) in enumerate(REVEALED.items(), 2):
        (found,) = [line.split("Revealed type is ")[1] for line in said if f"user.py:{number}: note: Revealed" in line]
        assert all(part.strip(".* ") in found for part in expected.split("|")), (call, found)
        assert ("Sound" in found) == ("Sound" in expected) and ("ndarray" in found) == ("ndarray" in expected), (call, found)
    for number in range(len(REVEALED) + 2, len(lines) + 1):
        assert any(f"user.py:{number}: error" in line for line in said), lines[number - 1]


@pytest.mark.parametrize("function", [laconic.compress, laconic.Codec.compress])
def test_options_are_the_same_everywhere(function: Any) -> None:
    named = set(inspect.signature(function).parameters) - {"self", "source", "options"}
    assert named == set(CompressOptions.__annotations__)
    assert {target.name for target in TARGETS} <= named


def test_every_medium_holds_to_the_protocol() -> None:
    numbers = [medium.number for medium in media.installed()]
    assert len(set(numbers)) == len(numbers) and all(media.of(number).number == number for number in numbers)
    known = {target.name for target in TARGETS}
    for medium in media.installed():
        assert media.named(medium.name) is medium and {target for _, target in medium.accepts} <= known
        assert all(suffix.startswith(".") for suffix in medium.outputs) and medium.kinds


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bpp": 5}, "target of a sound: found 'bpp', expected one of bitrate, lossless, quality, size"),
        ({"lossless": True, "medium": "photo"}, "target of a sound as photo: found 'lossless', expected one of none"),
        ({"lossless": True, "medium": "fax"}, "medium: found 'fax', expected one of photo, lossless picture, sound"),
    ],
)
def test_what_no_medium_does_is_said(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(laconic.BadInput, match=expected):
        laconic.compress(np.zeros(80, np.int16), sample_rate=8000, **options)


def test_media_of_ones_own_keep_to_their_numbers_and_names() -> None:
    photo = media.named("photo")
    with pytest.raises(laconic.BadInput, match="medium number: found 1, expected 128 to 255"):
        media.register(photo)

    class Twin:
        number, name = 200, "photo"

    with pytest.raises(laconic.BadInput, match="medium name: found 'photo', expected a name not in use"):
        media.register(Twin())  # type: ignore[arg-type]
    with pytest.raises(laconic.UnsupportedFile, match="medium: found 77, expected one of 1 .photo"):
        media.of(77)


def test_the_slack_of_a_target_is_least_at_the_target() -> None:
    for target in (options.Bpp(0.5), options.Size(900), options.Psnr(30)):
        low, high = target.window()
        assert low <= target.value <= high and target.slack(target.value) == 0
        assert target.slack(low) >= 0 and target.slack(high) >= 0


@given(*[st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))] * 2)
def test_what_rectangles_share(a: Region, b: Region) -> None:
    canvas = np.arange(400).reshape(20, 20)
    parts = [canvas[y : y + h, x : x + w] for x, y, w, h in (a, b)]
    both, found = np.intersect1d(*parts), shared(a, b)
    assert (found is not None) == bool(both.size)
    for part, place in zip(parts, found or (), strict=False):
        assert np.array_equal(part[place].ravel(), both)


def test_a_chosen_medium_is_taken_and_written_to_a_pipe() -> None:
    class Pipe(io.RawIOBase):
        content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.content += bytes(data)
            return len(data)

    out = Pipe()
    laconic.Codec().compress_to(out, np.zeros((4, 4), np.uint8), max_error=1, medium="lossless picture")  # type: ignore[arg-type]
    assert laconic.info(out.content).medium == "lossless picture"

"""No kernel reads or writes outside its arrays: all of them run in a child process in which numba checks every index.

`python tests/models/test_bounds.py` is what the child runs: tiny pictures and sounds at their extremes, whole and damaged.
Checks are compiled in, so that the child compiles all kernels anew; without inlining, which is most of the work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laconic.entropy import adaptive
from laconic.entropy.errors import BadFile
from laconic.models import mixing
from laconic.models.lossless_photo import TileKind, code_planes, decode_tile
from laconic.models.lossless_sound import decode_segment, encode_segment

SHAPES = [(1, 1, 1), (1, 9, 2), (7, 1, 3), (19, 18, 3), (6, 20, 4)]
ERRORS = [0, 1, 26, 255, 65535]
KINDS = [TileKind.MODEL | level for level in range(4)]
KINDS += [TileKind.MODEL | TileKind.GUESSED | level for level in (0, 3)]
DAMAGES = 2
RUN = """
import numba, runpy, sys
njit = numba.njit
numba.njit = lambda *function, forceinline=False, inline="never", cache=False, **options: njit(*function, **options)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_no_kernel_leaves_its_arrays(tmp_path: Path) -> None:
    checked = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, __file__], check=False, env=checked, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["checked", "mixing", "adaptive", "pictures", "sounds"]


def child() -> None:
    """Run all kernels. An index out of bounds is an IndexError."""
    assert numba_checks()
    for part in (check_mixing, check_adaptive, check_pictures, check_sounds):
        part(np.random.default_rng(0))
        print(part.__name__.removeprefix("check_"))


def numba_checks() -> bool:
    """Are indices checked in this process? Otherwise the rest would prove nothing."""
    with suppress(IndexError):
        mixing.counter(np.zeros(1, np.uint32), 1)
        return False
    print("checked")
    return True


def check_mixing(random: np.random.Generator) -> None:
    for m in (0, 1, 2, 1023, 1024, (1 << 32) - 1, (1 << 64) - 1):
        assert -(1 << 15) < mixing.logarithm(np.uint64(m)) < 1 << 18
    for x in (-(1 << 40), -mixing.LIMIT, 0, mixing.LIMIT, 1 << 40):
        assert 1 <= mixing.squash(x) < mixing.ONE and 0 <= mixing.logistic(x) <= 1 << mixing.MASS_BITS
    maps, weights, inputs = mixing.new_maps(2), np.zeros(16, np.int32), np.full(8, mixing.LIMIT, np.int32)
    for x in (-mixing.LIMIT, mixing.LIMIT):
        for bit in (0, 1):
            mixing.follow(maps, mixing.refine(maps, 1, x)[1], bit, 6)
            mixing.learn(weights, 8, inputs, (bit << 16) - mixing.squash(x), 1023)
    assert mixing.stretch(0) == -mixing.stretch((1 << 16) - 1)


def check_adaptive(random: np.random.Generator) -> None:
    for alphabet, order, strips in ((2, 3, 1), (16, 1, 4), (200, 1, 8), (1 << 16, 0, 32)):
        symbols = random.integers(0, alphabet, 70)
        data = adaptive.encode(symbols, alphabet, order, strips)
        assert np.array_equal(adaptive.decode(data, 70, alphabet, order), symbols)
        for bad in damaged(data, random):
            with suppress(BadFile):
                adaptive.decode(bad, 70, alphabet, order)


def check_pictures(random: np.random.Generator) -> None:
    """Code each scene with one kind of tile and largest error after the other."""
    ways = list(product(KINDS, ERRORS))
    for i, (shape, bits, scene) in enumerate(product(SHAPES, (8, 16), range(5))):
        samples = picture(scene, shape, (1 << bits) - 1, random)
        for kind, max_error in ways[i % 3 :: 3] if i % 10 else ways:
            data = code_planes(samples, kind, max_error)
            back = decode_tile(data, *shape, bits, max_error)
            assert int(np.abs(back.astype(int) - samples).max()) <= max_error
            for bad in damaged(data, random):
                with suppress(BadFile):
                    decode_tile(bad, *shape, bits, max_error)


def picture(scene: int, shape: tuple[int, int, int], top: int, random: np.random.Generator) -> NDArray[np.uint16]:
    """Samples 0 to top: noise, black and white, small noise at either end, a slope, stripes that recur."""
    y, x, c = np.indices(shape)
    scenes = (
        random.integers(0, top + 1, shape),
        random.integers(0, 2, shape) * top,
        np.abs(random.integers(0, 3, shape) - top * (x % 5 == 4)),
        (x + y * 2 + c) % (top + 1),
        (x // 2 % 2 * (top - c) + y % 3 * c) % (top + 1),
    )
    return scenes[scene].clip(0, top).astype(np.uint16)


def check_sounds(random: np.random.Generator) -> None:
    for bits, channels, effort in ((8, 1, 1), (16, 2, 6), (32, 3, 9), (24, 8, 1)):
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        noise = random.integers(low, high, (90, channels), endpoint=True)
        for samples in (noise, np.where(noise < 0, low, high), noise >> bits - 3, np.cumsum(noise >> bits - 2, 0)):
            given = samples.clip(low, high).astype(np.int32)
            data = encode_segment(given, bits, effort)
            assert np.array_equal(decode_segment(data, 90, channels, bits), given)
            for bad in damaged(data, random):
                with suppress(BadFile):
                    decode_segment(bad, 90, channels, bits)


def damaged(data: bytes, random: np.random.Generator) -> Iterator[bytes]:
    """Bytes with one changed."""
    for _ in range(DAMAGES):
        bad = bytearray(data)
        bad[random.integers(len(bad))] ^= int(random.integers(1, 256))
        yield bytes(bad)


if __name__ == "__main__":
    child()

"""Damage in a child process: no crash, no hang; an error, or other symbols of the right number. Files: always an error.

`python tests/entropy/test_fuzz.py BACKEND` is the child; it prints what came of its cases.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import laconic
from laconic import entropy
from laconic.entropy import blocks, coder, varint
from laconic.entropy.pmf import TOTAL

STREAMS, DAMAGES = 32, 12  # damaged versions of each stream
CUTS = (5, 6)  # of the kinds of damage, those that leave less than is needed
SECONDS = 1800  # for all cases of a child, which take half a minute on a slow machine, and ten on one that others slow down


@pytest.mark.parametrize("backend", ["simd", "numba", "reference"])
def test_damaged_streams_neither_crash_nor_hang(backend: str) -> None:
    outcomes = child(backend)
    assert outcomes["refused"] + outcomes["decoded"] == STREAMS * DAMAGES
    assert outcomes["refused"] > STREAMS * DAMAGES / 2


def test_damaged_streams_are_read_within_bounds(tmp_path: Path) -> None:
    """By the kernels whose every access numba checks; one outside of an array is an IndexError, which ends the child."""
    outcomes = child("numba", NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))
    assert outcomes["refused"] + outcomes["decoded"] == STREAMS * DAMAGES


def test_damaged_files_are_refused() -> None:
    assert child("files")["refused"] > 5000


def child(what: str, **environment: str) -> dict[str, int]:
    """Outcomes of the cases, counted by a process of their own."""
    command = [sys.executable, __file__, what]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=env)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-3000:]}"
    counts = iter(done.stdout.split())
    return {name: int(n) for name, n in zip(counts, counts, strict=True)}


def fuzz_streams(backend: str) -> Counter[str]:
    outcomes = Counter({"refused": 0, "decoded": 0})
    for seed in range(STREAMS):
        rng = np.random.RandomState(seed)
        symbols, rows, tables = source(rng)
        good = stream(symbols, rows, tables, lane_code=seed % 4)
        assert np.array_equal(entropy.decode(good, rows, tables, backend), symbols), seed
        for kind in range(DAMAGES):
            data, indices = damage(good, rows, tables, kind, rng)
            try:
                found = entropy.decode(data, indices, tables, backend)
            except entropy.BadFile:
                outcomes["refused"] += 1
                continue
            assert found.dtype == np.int16 and found.shape == indices.shape, (seed, kind)
            assert kind not in CUTS, seed
            outcomes["decoded"] += 1
    return outcomes


def source(rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, entropy.Tables]:
    """Symbols with escapes, of random rows, of the Gaussian ones, or of more rows than a byte can name."""
    kind, n = rng.randint(3), rng.choice([1, 40, 300, 1500]) + rng.randint(33)
    if kind == 0:
        tables = entropy.gaussian_tables()
    else:
        n_rows = (3, 300)[kind - 1]
        cuts = [np.sort(rng.choice(TOTAL - 1, rng.randint(0, 40), replace=False)) + 1 for _ in range(n_rows)]
        masses = [np.diff(np.concatenate([[0], cut, [TOTAL]])) for cut in cuts]
        tables = entropy.Tables.from_masses(masses, rng.randint(-30, 10, n_rows))
    rows = rng.randint(0, len(tables.sizes), n)
    symbols = tables.offsets[rows] + (tables.sizes[rows] * rng.rand(n)).astype(int)
    symbols[rng.rand(n) < 0.01] = rng.randint(-(1 << 15), 1 << 15)
    return symbols.astype(np.int16), rows, tables


def stream(symbols: np.ndarray, rows: np.ndarray, tables: entropy.Tables, lane_code: int) -> bytes:
    """A block in a number of lanes that `encode` would choose for longer or shorter ones only."""
    n_lanes = blocks.LANES[lane_code]
    states, words, escapes = coder.load("reference").encode_block(symbols, rows, tables, n_lanes)
    side = blocks.write_escapes(symbols[escapes], rows[escapes], tables)
    head = varint.write_varint(len(words) << 3 | (4 if side else 0) | lane_code)
    head += varint.write_varint(len(side)) if side else b""
    return head + np.array(states, "<u4").tobytes() + words.astype("<u2").tobytes() + side


def damage(
    good: bytes, rows: np.ndarray, tables: entropy.Tables, kind: int, rng: np.random.RandomState
) -> tuple[bytes, np.ndarray]:
    """A stream or its table indices, changed in one of DAMAGES ways."""
    data, rows = bytearray(good), rows.copy()
    at, n = rng.randint(len(data)), len(data)
    match kind:
        case 0 | 1 | 2:  # bits
            for place in rng.randint(0, n, 1 + kind * 3):
                data[place] ^= 1 << rng.randint(8)
        case 3:  # the head, where the lengths are
            data[rng.randint(min(n, 4))] ^= rng.randint(1, 256)
        case 4:  # the states
            data[min(n - 1, 2 + rng.randint(8))] ^= rng.randint(1, 256)
        case 5 | 6:  # the end missing
            del data[at:]
        case 7:  # a piece missing, another one added
            del data[at : at + rng.randint(1, 9)]
            data += rng.bytes(rng.randint(12))
        case 8:  # noise from a place on
            data[at:] = rng.bytes(n - at)
        case 9:  # nothing but noise
            data[:] = rng.bytes(n)
        case 10:  # other tables
            rows[rng.randint(0, len(rows), 5)] = rng.randint(0, len(tables.sizes), 5)
        case 11:  # fewer or more symbols
            rows = rows[: rng.randint(len(rows))] if rng.randint(2) else np.append(rows, rows)
    return bytes(data), rows


def fuzz_files() -> Counter[str]:
    """A bit of each byte of the golden files flipped, all of the first 1024, each end cut off, noise: all must be refused."""
    outcomes = Counter({"refused": 0})
    for path in sorted(Path(str(files("laconic.assets") / "golden")).glob("*.lac")):
        for bad in damaged_files(path.read_bytes()):
            try:
                laconic.decompress(bad)
            except laconic.BadFile:
                outcomes["refused"] += 1
            else:
                raise AssertionError(f"{path.name}: a picture came out of {bad.hex()}")
    return outcomes


def damaged_files(good: bytes) -> Iterator[bytes]:
    rng = np.random.RandomState(len(good))
    bits = list(range(8 * min(len(good), 1024)))
    bits += [8 * place + int(rng.randint(8)) for place in range(1024, len(good))]
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
    for end in range(len(good)):
        yield good[:end]
    for _ in range(300):
        at, burst = rng.randint(len(good)), rng.bytes(rng.randint(1, 9))
        noisy = (good[:at] + burst + good[at + len(burst) :])[: len(good)]
        if noisy != good:
            yield noisy


if __name__ == "__main__":
    faulthandler.dump_traceback_later(SECONDS // 2, exit=True)  # says where it hangs
    faulthandler.enable()
    counted = fuzz_files() if sys.argv[1] == "files" else fuzz_streams(sys.argv[1])
    print(*(f"{name} {n}" for name, n in counted.items()))

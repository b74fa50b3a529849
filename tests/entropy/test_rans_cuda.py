"""The GPU's kernels give the bytes of the CPU's, and refuse what it refuses.

They run on a GPU where there is one, else in Triton's interpreter, where no access may leave the tensors of a launch.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic import entropy
from laconic.entropy import blocks, device_tables, varint
from laconic.entropy.pmf import TOTAL
from laconic.entropy.tables import gaussian_tables

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = ["find_intervals", "sample_costs", "push_blocks", "copy_spans", "parse_streams", "pop_blocks", "fill_escapes"]
LANE_BYTES = {1: (9e9, 9e9, 9e9), 4: (0, 9e9, 9e9), 8: (0, 0, 9e9), 32: (0, 0, 0)}
COMPILE = """
import json, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from laconic.entropy import cuda_kernels

for name, types, options in json.load(sys.stdin):
    kernel = getattr(cuda_kernels, name)
    source = ASTSource(kernel, dict(zip(kernel.arg_names, types, strict=True)))
    for capability in (80, 90):
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        print(name, *types, capability, len(compiled.asm["cubin"]) > 0)
"""
Case = tuple[np.ndarray, np.ndarray, list[int], entropy.Tables]


def load() -> tuple[Any, ModuleType, ModuleType]:
    """Triton chooses between a GPU and its interpreter when it reads a kernel, its own ones too."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        triton = pytest.importorskip("triton", reason="no Triton here: its wheels are for Linux")
        return triton, *(importlib.import_module(f"laconic.entropy.{name}") for name in ("rans_cuda", "cuda_kernels"))


triton, rans_cuda, cuda_kernels = load()


@pytest.fixture(scope="module", autouse=True)
def bounded_interpreter() -> Iterator[None]:
    """Loads and stores are held to the tensors of the launch. For speed, Triton's language is patched once, not a call."""
    if DEVICE == "cuda":
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    tensors: list[Any] = []

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        tensors[:] = [a for a in args if isinstance(a, torch.Tensor)]
        run(self, *args, **kwargs)

    def within(pointers: Any, mask: Any) -> None:
        at = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].astype(np.int64)
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        spans = [(t.data_ptr(), t.data_ptr() + t.nbytes - size) for t in tensors]
        assert np.logical_or.reduce([(first <= at) & (at <= last) for first, last in spans]).all(), "out of bounds"

    def bounded_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        within(pointers, mask)
        return masked_load(self, pointers, mask, *rest)

    def bounded_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        within(pointers, mask)
        return masked_store(self, pointers, value, mask, *rest)

    one = interpreter.interpreter_builder
    run, masked_load, masked_store = executor.__call__, builder.create_masked_load, builder.create_masked_store
    scopes = [interpreter._patch_lang(kernel.fn) for kernel in (cuda_kernels.push_blocks, triton.language.sum)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setattr(executor, "__call__", launch)
        patch.setattr(builder, "create_masked_load", bounded_load)
        patch.setattr(builder, "create_masked_store", bounded_store)
        patch.setattr(interpreter, "_patch_lang", lambda fn: SimpleNamespace(restore=lambda: None))
        patch.setattr(one, "options", dataclasses.replace(one.options, sanitize_overflow=False))
        yield
    for scope in reversed(scopes):
        scope.restore()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred symbols are several blocks, in any number of lanes."""
    monkeypatch.setattr(blocks, "BLOCK", 96)
    monkeypatch.setattr(blocks, "LANE_BYTES", (6, 20, 60))


def tables_of_all_kinds(rng: np.random.Generator) -> entropy.Tables:
    """Rows of one symbol, of two very unequal ones, skewed, with the most entries a bin can have, flat, random."""
    cuts = np.sort(rng.choice(TOTAL - 1, 60, replace=False) + 1)
    random = np.diff(np.concatenate([[0], cuts, [TOTAL]]))
    masses = [
        [TOTAL],
        [1, TOTAL - 1],
        [TOTAL - 1, 1],
        [TOTAL - 3, 1, 2],
        [1] * 200 + [TOTAL - 200],
        [128] * 256,
        random,
        [128] * 255 + [88] + [1] * 40,  # the widest row, and the last: a search must not go on beyond it
    ]
    return entropy.Tables.from_masses(masses, rng.integers(-40, 20, len(masses)))


def case(seed: int, lengths: Sequence[int], tables: entropy.Tables | None = None, escapes: float = 0.05) -> Case:
    """Any entry of any row, and some symbols outside them."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    tables = tables or tables_of_all_kinds(rng)
    indices = rng.integers(0, len(tables.sizes), n)
    symbols = tables.offsets[indices] + (tables.sizes[indices] * rng.random(n)).astype(np.int32)
    symbols = np.where(rng.random(n) < escapes, rng.choice([-32_768, 32_767, 300, -300], n), symbols)
    kind = np.uint8 if len(tables.sizes) <= 256 else np.int16
    return symbols.clip(-32_768, 32_767).astype(np.int16), indices.astype(kind), list(lengths), tables


def put(*arrays: Any) -> list[Any]:
    return [torch.from_numpy(np.ascontiguousarray(a)).to(DEVICE) for a in arrays]


def expected(symbols: np.ndarray, indices: np.ndarray, lengths: list[int], tables: entropy.Tables) -> list[bytes]:
    parts = [slice(end - n, end) for n, end in zip(lengths, accumulate(lengths), strict=True)]
    return [entropy.encode(symbols[p], indices[p], tables, backend="numba", threads=1) for p in parts]


def expect_same_bytes_and_symbols(symbols: np.ndarray, indices: np.ndarray, lengths: list[int], tables: Any) -> None:
    streams = expected(symbols, indices, lengths, tables)
    on_device, rows = put(symbols, indices)
    data, sizes = rans_cuda.encode_batch(on_device, rows, lengths, tables)
    assert sizes.tolist() == list(map(len, streams))
    assert data.cpu().numpy().tobytes() == b"".join(streams)
    back = rans_cuda.decode_batch(data, sizes, rows, lengths, tables)
    assert back.dtype == torch.int16 and np.array_equal(back.cpu().numpy(), symbols)


@pytest.mark.parametrize("n_lanes, last", [(1, 12), (4, 17), (8, 17), (32, 33)])
def test_tails_of_every_length(monkeypatch: pytest.MonkeyPatch, n_lanes: int, last: int) -> None:
    monkeypatch.setattr(blocks, "LANE_BYTES", LANE_BYTES[n_lanes])
    expect_same_bytes_and_symbols(*case(n_lanes, range(last + 1)))


@settings(deadline=None, max_examples=14, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 30), st.lists(st.sampled_from([0, 1, 40, 96, 97, 250]), max_size=3), st.floats(0, 0.5))
def test_batches(small_blocks: None, seed: int, lengths: list[int], escapes: float) -> None:
    """Empty streams, several blocks a stream, all numbers of lanes."""
    expect_same_bytes_and_symbols(*case(seed, lengths, escapes=escapes))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_more_than_256_rows(kind: type) -> None:
    gaussian = gaussian_tables()
    masses = [np.diff(c[: n + 1].astype(int)) for c, n in zip(gaussian.cdf, gaussian.sizes.tolist(), strict=True)]
    tables = entropy.Tables.from_masses([[TOTAL]] * 256 + masses, [0] * 256 + gaussian.offsets.tolist())
    symbols, indices, lengths, _ = case(1, [20, 3], tables)
    expect_same_bytes_and_symbols(symbols, indices.astype(kind), lengths, tables)


def test_rows_that_have_no_table_of_a_cpu(small_blocks: None) -> None:
    """Far apart, and beyond 16 bits: escapes of up to 5 bytes."""
    tables = entropy.Tables.from_masses([[100, TOTAL - 100]] * 4, [-(1 << 30), 1 << 30, 32_767, -32_768])
    assert tables.encode_lut is None and tables.decode_lut is None
    expect_same_bytes_and_symbols(*case(2, [50, 3], tables))


def test_many_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 bytes each, more than are read at a time."""
    monkeypatch.setattr(blocks, "LANE_BYTES", LANE_BYTES[32])
    tables = entropy.Tables.from_masses([[100, TOTAL - 100]], [0])
    symbols = np.random.default_rng(8).choice([-32_768, 20_000, 32_767], 400).astype(np.int16)
    expect_same_bytes_and_symbols(symbols, np.zeros(400, np.uint8), [400], tables)


def test_default_blocks() -> None:
    """Of 4 lanes, by what they cost."""
    tables = entropy.Tables.from_masses([[1] * 300 + [TOTAL - 300]], [-150])
    symbols = np.random.default_rng(3).integers(-150, 150, 1100).astype(np.int16)
    expect_same_bytes_and_symbols(symbols, np.zeros(1100, np.uint8), [1100], tables)


def test_lanes_are_chosen_as_on_a_cpu() -> None:
    """By the same float64, so by limits that an estimate just meets, or does not."""
    symbols, indices, lengths, tables = case(
        4, [1, 1023, 1024, 1025, 1279, 1280, 1535, 9_000, 30_000, 200_000, 300_000]
    )
    cut = rans_cuda.Cut.of(lengths, torch.device(DEVICE))
    bounds = cut.bounds.tolist()
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    estimates = [blocks.estimated_bytes(symbols[p], indices[p], tables) for p in parts]
    on_device = device_tables.on_device(tables, cut.bounds.device)
    for estimate in estimates:
        limits = (estimate, float(np.nextafter(estimate, np.inf)), np.inf)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "LANE_BYTES", limits)
            codes = rans_cuda.lane_codes(*put(symbols, indices), cut, on_device)
        assert codes.tolist() == [sum(e >= limit for limit in limits) for e in estimates]


@pytest.mark.skipif(DEVICE == "cpu", reason="minutes in the interpreter")
@pytest.mark.parametrize("n", [100, 5_000, 20_000, 80_000, 300_000, 1_000_000])
def test_long_streams(n: int) -> None:
    expect_same_bytes_and_symbols(*case(n, [n, 0, n // 7, 1], gaussian_tables(), escapes=1e-4))


def outcome(decode: Any, *args: Any) -> list[int] | str:
    try:
        return list(decode(*args).tolist())
    except entropy.BadFile as error:
        assert ": found " in str(error) and ", expected " in str(error)
        return str(error)


def expect_same_outcome(data: bytes, indices: np.ndarray, tables: entropy.Tables) -> list[int] | str:
    """The symbols, or the message."""
    raw, rows = put(np.frombuffer(bytearray(data), np.uint8), indices)
    found = outcome(rans_cuda.decode, raw, rows, tables)
    assert found == outcome(entropy.decode, data, indices, tables, "reference")
    return found


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.data())
def test_damage_is_what_the_reference_says(small_blocks: None, seed: int, data: st.DataObject) -> None:
    symbols, indices, lengths, tables = case(seed, [110], escapes=0.2)
    good = expected(symbols, indices, lengths, tables)[0]
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 2))):
        bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    expect_same_outcome(bytes(bad), indices, tables)
    assert isinstance(expect_same_outcome(good[: data.draw(st.integers(0, len(good) - 1))], indices, tables), str)


def test_every_field_is_bounded() -> None:
    """Of blocks of one lane, two symbols and two escapes, by hand."""
    tables = entropy.Tables.from_masses([[TOTAL]], [0])
    indices, state = np.zeros(2, np.uint8), (1 << 16).to_bytes(4, "little")
    for head in (
        b"",
        b"\x80",
        b"\x84\x00",
        b"\xff" * 4 + b"\x80",
        b"\xff" * 5 + b"\x00",
        b"\x1c",
        b"\x1d",
        b"\x1e\x02",
    ):
        assert isinstance(expect_same_outcome(head + state + b"\x04\x02", indices, tables), str)
    for length in (b"", b"\x00", b"\x01", b"\x03", b"\x82\x00", b"\xff" * 4 + b"\x7f", b"\xff" * 9):
        assert isinstance(expect_same_outcome(b"\x04" + length + state + b"\x04\x02", indices, tables), str)
    sides = (
        b"\x84\x00\x02",
        b"\x04\x80",
        b"\x04",
        b"\x04\x02\x02",
        b"\x02" + b"\x80" * 5 + b"\x01",
        b"\x02\xff\xff\x07",
    )
    for side in sides:
        found = expect_same_outcome(b"\x04" + bytes([len(side)]) + state + side, indices, tables)
        assert isinstance(found, str) and "escape" in found
    assert expect_same_outcome(b"\x04\x04" + state + b"\xff\xff\x03\x03", indices, tables) == [-32_768, -2]
    assert "states" in expect_same_outcome(b"\x04\x02\xff\xff\x00\x00\x04\x02", indices, tables)
    assert "final states" in expect_same_outcome(b"\x04\x02\x00\x00\x02\x00\x04\x02", indices, tables)
    assert "states" in expect_same_outcome(b"\x0c\x02\x01\x00\x00\x00\x00\x00\x04\x02", indices, tables)
    assert "words" in expect_same_outcome(b"\x0c\x02" + state + b"\x00\x00\x04\x02", indices, tables)


@pytest.mark.parametrize("n_lanes", [1, 32])
def test_words_that_run_out_are_not_read(monkeypatch: pytest.MonkeyPatch, n_lanes: int) -> None:
    monkeypatch.setattr(blocks, "LANE_BYTES", LANE_BYTES[n_lanes])
    tables, indices = entropy.Tables.from_masses([[1, TOTAL - 1]], [0]), np.zeros(70, np.uint8)
    good = expected(np.zeros(70, np.int16), indices, [70], tables)[0]
    head, position = varint.read_varint(good, 0, "head")
    assert head >> 3 > 9
    for missing in (1, 9):
        cut = varint.write_varint(head - 8 * missing) + good[position : len(good) - 2 * missing]
        assert "more: the stream ends early" in expect_same_outcome(cut, indices, tables)


def test_damage_names_the_stream(small_blocks: None) -> None:
    symbols, indices, lengths, tables = case(5, [10, 0, 20, 5])
    streams = expected(symbols, indices, lengths, tables)
    sizes = list(map(len, streams))
    raw, rows = put(np.frombuffer(b"".join(streams), np.uint8).copy(), indices)
    raw[sizes[0]] ^= 128
    with pytest.raises(entropy.BadFile, match="stream 2: .*found .*, expected"):
        rans_cuda.decode_batch(raw, sizes, rows, lengths, tables)
    raw[sizes[0]] ^= 128
    with pytest.raises(entropy.BadFile, match="stream 1: coded symbols: found '1 bytes more', expected the end"):
        rans_cuda.decode_batch(raw, [sizes[0], 1, sizes[2] - 1, sizes[3]], rows, lengths, tables)


@pytest.mark.parametrize(
    "field, symbols, indices, lengths",
    [
        ("symbols", np.zeros(2, np.int32), np.zeros(2, np.uint8), [2]),
        ("symbols", np.zeros((1, 2), np.int16), np.zeros(2, np.uint8), [2]),
        ("symbols", np.zeros(3, np.int16), np.zeros(2, np.uint8), [2]),
        ("indices", np.zeros(2, np.int16), np.zeros(2, np.float32), [2]),
        ("indices", np.zeros(2, np.int16), np.array([0, 64], np.uint8), [2]),
        ("indices", np.zeros(2, np.int16), np.array([-1, 0], np.int32), [2]),
        ("lengths", np.zeros(2, np.int16), np.zeros(2, np.uint8), [1]),
        ("lengths", np.zeros(2, np.int16), np.zeros(2, np.uint8), [3, -1]),
    ],
)
def test_bad_input_is_named(field: str, symbols: np.ndarray, indices: np.ndarray, lengths: list[int]) -> None:
    with pytest.raises(entropy.BadInput, match=f"{field}: found .*, expected"):
        rans_cuda.encode_batch(*put(symbols, indices), lengths, gaussian_tables())


@pytest.mark.parametrize("sizes", [[6], [5, 2], [7, -1], [1 << 63, 6 - (1 << 63)]])
def test_bad_sizes_are_named(sizes: list[int]) -> None:
    data, indices = put(np.zeros(6, np.uint8), np.zeros(2, np.uint8))
    with pytest.raises(entropy.BadInput, match="sizes: found .*, expected"):
        rans_cuda.decode_batch(data, sizes, indices, [1, 1], gaussian_tables())
    with pytest.raises(entropy.BadInput, match="data: found .*, expected"):
        rans_cuda.decode(data.to(torch.int16), indices, gaussian_tables())


def test_kernels_compile_for_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the types that they are launched with here, in a process where Triton compiles; no GPU is needed."""
    launches: set[str] = set()
    kernel_type = type(cuda_kernels.push_blocks)
    run = kernel_type.run

    def noted(self: Any, *args: Any, grid: Any, warmup: bool, **options: int) -> Any:
        types = [triton.runtime.jit.mangle_type(a) for a in args]
        launches.add(json.dumps([self.__name__, types, options]))
        return run(self, *args, grid=grid, warmup=warmup, **options)

    monkeypatch.setattr(kernel_type, "run", noted)
    symbols, indices, lengths, tables = case(6, [7])
    expect_same_bytes_and_symbols(symbols, indices, lengths, tables)
    assert {json.loads(launch)[0] for launch in launches} == set(KERNELS)
    child = subprocess.run(
        [sys.executable, "-c", COMPILE],
        input=f"[{','.join(launches)}]",
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout.count("True") == 2 * len(launches)


def test_it_is_a_backend_for_arrays() -> None:
    rng = np.random.default_rng(4)
    for tables in (gaussian_tables(), entropy.Tables.from_pmf([np.full(9, 1 / 9)] * 300, [-4] * 300)):
        symbols, rows = rng.integers(-40, 40, 300), rng.integers(0, len(tables.sizes), 300)
        data = entropy.encode(symbols, rows, tables, backend="cuda")
        assert data == entropy.encode(symbols, rows, tables)
        found, rest = entropy.decode_next(data + b"rest", rows, tables, backend="cuda")
        assert np.array_equal(found, symbols) and bytes(rest) == b"rest"
        with pytest.raises(entropy.BadFile):
            entropy.decode(data[:-1], rows, tables, backend="cuda")

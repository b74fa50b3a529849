"""Circuit coding on a GPU gives the bytes of the CPU's, and refuses what it refuses.

It runs on a GPU where there is one, else in Triton's interpreter, where no access may leave the tensors of a launch.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import registry
from laconic.entropy.errors import BadFile, BadInput
from laconic.media import archive
from laconic.medium import Run
from laconic.models.hclt import Hclt
from laconic.models.hclt_reference import encode_reference

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = ["mix", "absorb", "multiply", "push_blocks", "pop_blocks"]
COMPILE = """
import json, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from laconic.models import hclt_cuda

for name, types, constants, options in json.load(sys.stdin):
    kernel = getattr(hclt_cuda, name)
    signature = dict(zip(kernel.arg_names, types, strict=True))
    source = ASTSource(kernel, signature, constants)
    for capability in (80, 90):
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        print(name, *types, capability, len(compiled.asm["cubin"]) > 0)
"""


def load() -> tuple[Any, ModuleType]:
    """Triton chooses between a GPU and its interpreter when it reads a kernel, its own ones too."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        triton = pytest.importorskip("triton", reason="no Triton here: its wheels are for Linux")
        return triton, importlib.import_module("laconic.models.hclt_cuda")


triton, hclt_cuda = load()
circuits = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_hclt.py"))))
model_of = circuits.random_model


@pytest.fixture(scope="module", autouse=True)
def bounded_interpreter() -> Iterator[None]:
    """Loads and stores are held to the tensors of the launch."""
    if DEVICE == "cuda":
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    run, masked_load, masked_store = executor.__call__, builder.create_masked_load, builder.create_masked_store
    tensors: list[Any] = []

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        tensors[:] = [a for a in args if isinstance(a, torch.Tensor)]
        run(self, *args, **kwargs)

    def within(pointers: Any, mask: Any) -> None:
        at = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)].astype(np.int64)
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        spans = [(t.data_ptr(), t.data_ptr() + t.nbytes - size) for t in tensors]
        assert np.logical_or.reduce([(first <= at) & (at <= last) for first, last in spans]).all(), "out of bounds"

    def bounded_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        within(pointers, mask)
        return masked_load(self, pointers, mask, *rest)

    def bounded_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        within(pointers, mask)
        return masked_store(self, pointers, value, mask, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setattr(executor, "__call__", launch)
        patch.setattr(builder, "create_masked_load", bounded_load)
        patch.setattr(builder, "create_masked_store", bounded_store)
        yield


def pictures_for(model: Hclt, n: int, seed: int) -> np.ndarray:
    return circuits.pictures_for(model, n, ("noise", "extremes", "constant")[seed % 3], seed)


def expect_same(model: Hclt, blocks: list[np.ndarray]) -> None:
    """Bytes of the kernels and of the reference, from all blocks at once; and the pictures back."""
    streams = hclt_cuda.encode(model, blocks)
    assert streams == [model.encode(block) for block in blocks]
    assert streams == [encode_reference(model, block) for block in blocks]
    back = hclt_cuda.decode(model, streams, [len(block) for block in blocks])
    assert all(np.array_equal(a, b) for a, b in zip(back, blocks, strict=True))


@settings(deadline=None, max_examples=8)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(0, 1 << 30), st.lists(st.integers(1, 3), min_size=1, max_size=3)
)
def test_bytes_are_the_kernels_and_the_references(height: int, width: int, seed: int, sizes: list[int]) -> None:
    """Of several blocks at once, so each is also what it is alone."""
    model = model_of(height, width, seed, most=(1, 5, 17)[seed % 3])
    expect_same(model, [pictures_for(model, n, seed + n) for n in sizes])


def test_blocks_beyond_the_memory_are_coded_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = model_of(1, 2, 3), [2, 2, 1, 3, 2]

    def groups() -> list[list[int]]:
        return [sizes[part] for part in hclt_cuda.grouped(model, sizes)]

    assert groups() == [sizes]
    deepest, classes = int(model.plan[:, 1].max()) + 1, int(model.n_contexts.max())
    a_picture = 8 * (2 * deepest * int(model.states.max()) + 257 * classes + 5 * 2)
    for most, expected in ((1, [[2], [2], [1], [3], [2]]), (4, [[2, 2], [1, 3], [2]])):
        monkeypatch.setattr(hclt_cuda, "AT_ONCE", most * a_picture)
        assert groups() == expected
        expect_same(model, [pictures_for(model, n, n) for n in sizes])


def test_no_blocks_and_no_pictures() -> None:
    model = model_of(1, 2, 1)
    assert hclt_cuda.encode(model, []) == [] and hclt_cuda.decode(model, [], []) == []
    empty = pictures_for(model, 0, 0)
    streams = hclt_cuda.encode(model, [empty])
    assert streams == [model.encode(empty)]
    assert hclt_cuda.decode(model, streams, [0])[0].shape == (0, 1, 2)


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_damage_is_an_error_or_what_the_cpu_decodes(data: st.DataObject) -> None:
    model = model_of(1, 2, 4)
    block = pictures_for(model, 4, 3)
    raw = bytearray(model.encode(block))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))] + bytes(data.draw(st.sampled_from([0, 1, 4])))
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    found: list[Any] = []
    for decode in (
        lambda: model.decode(raw, 4),
        lambda: hclt_cuda.decode(model, [model.encode(block), raw], [4, 4])[1],
    ):
        try:
            found.append(decode().tolist())
        except BadFile as error:
            found.append(str(error))
    assert found[0] == found[1]
    assert isinstance(found[0], str) and ": found " in found[0]


def test_archives_are_the_same_from_each_device(tmp_path: Path) -> None:
    model = model_of(2, 2, 7)
    circuit = registry.save(model, tmp_path, "made-up")
    stack = pictures_for(model, 8, 0)
    data = archive.encode(stack, None, circuit, per_block=3, device="cuda")
    assert data == archive.encode(stack, None, circuit, per_block=3)
    opened = archive.parsed(data, Run("cuda"), model)
    assert np.array_equal(opened.all(), stack) and np.array_equal(opened.member(7), stack[7])
    opened.blocks[1] = bytes(4) + opened.blocks[1][4:]
    with pytest.raises(BadFile, match="chunk 1 checksum"):
        opened.all()
    opened.entries[1] = replace(opened.entries[1], crc=zlib.crc32(opened.blocks[1]))
    with pytest.raises(BadFile, match="checksum of the samples of block 1"):
        opened.all()


def test_without_a_device_it_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hclt_cuda, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="device: found 'no CUDA device', expected"):
        hclt_cuda.encode(model_of(1, 1, 1), [])


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("states", [8, 64, 256])
def test_many_pictures(states: int) -> None:
    """Where sums are long and the GPU is full."""
    model = model_of(5, 6, states, most=states, contexts=8)
    blocks = [pictures_for(model, n, n) for n in [64] * 200 + [17]]
    streams = hclt_cuda.encode(model, blocks)
    assert streams == [model.encode(block) for block in blocks]
    back = hclt_cuda.decode(model, streams, [len(block) for block in blocks])
    assert all(np.array_equal(a, b) for a, b in zip(back, blocks, strict=True))


def test_kernels_compile_for_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the types that they are launched with here, in a process where Triton compiles; no GPU is needed."""
    launches: set[str] = set()
    kernel_type = type(hclt_cuda.push_blocks)
    run = kernel_type.run

    def noted(self: Any, *args: Any, grid: Any, warmup: bool, **options: int) -> Any:
        constants = {"WIDEST": args[-1]} if "WIDEST" in self.arg_names else {}
        types = [
            "constexpr" if name in constants else triton.runtime.jit.mangle_type(a)
            for name, a in zip(self.arg_names, args, strict=True)
        ]
        launches.add(json.dumps([self.__name__, types, constants, options]))
        return run(self, *args, grid=grid, warmup=warmup, **options)

    monkeypatch.setattr(kernel_type, "run", noted)
    model = model_of(2, 2, 6)
    expect_same(model, [pictures_for(model, 2, 1)])
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

"""Bits and their gradients are those of float64, in both forms; codelengths are the coder's.

Kernels run on CUDA where there is a device, else under Triton's interpreter, in a copy of the module of their own.
"""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from laconic import entropy
from laconic.entropy import device_tables, likelihood
from laconic.entropy.tables import gaussian_tables

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("gaussian_bits", "logistic_bits")
BITS_BOUND = {"plain": 2e-5, "kernel": 1e-5}  # of 1 + bits, for scales up to 256
SLOPE_BOUND = {"plain": 2e-4, "kernel": 2e-5}  # of 1 / scale + the slope
lax = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Form:
    """One form of the module's functions, for tensors of its device."""

    def __init__(self, name: str, module: Any, device: str) -> None:
        self.name, self.module, self.device = name, module, device

    def bits(self, distribution: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Bits, and the gradients of their sum, on the CPU."""
        leaves = [v.detach().to(self.device, copy=True).requires_grad_() for v in tensors]
        bits = getattr(self.module, distribution)(*leaves)
        return tuple(v.detach().cpu() for v in (bits, *torch.autograd.grad(bits.sum(), leaves)))


@pytest.fixture(scope="module", params=["plain", "kernel"])
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    if request.param == "plain":
        yield Form("plain", likelihood, "cpu")
    elif DEVICE == "cuda":
        yield Form("kernel", likelihood, DEVICE)
    else:
        pytest.importorskip("triton")  # before it is told to interpret, for its own functions are not to be, ever after
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            spec = spec_from_file_location("interpreted_likelihood", likelihood.__file__)
            assert spec is not None and spec.loader is not None
            module: Any = module_from_spec(spec)
            spec.loader.exec_module(module)
            module.has_triton = lambda values: True
            yield Form("kernel", module, "cpu")


def reference(distribution: str, x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """Bits in float64 by logarithms of tails, and the gradients of their sum by autograd."""
    leaves = [v.detach().double().requires_grad_() for v in (x, mean, scale)]
    log_cdf: Callable[[Tensor], Tensor] = (
        torch.special.log_ndtr if distribution == "gaussian_bits" else torch.nn.functional.logsigmoid
    )
    distance = (leaves[0] - leaves[1]).abs()
    near, far = log_cdf((0.5 - distance) / leaves[2]), log_cdf((-0.5 - distance) / leaves[2])
    bits = -(near + torch.log(-torch.expm1(far - near))) / math.log(2)
    return bits.detach(), *torch.autograd.grad(bits.sum(), leaves)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))


def assert_close(form: Form, distribution: str, x: Tensor, mean: Tensor, scale: Tensor) -> None:
    """Of tensors of one shape."""
    found, expected = form.bits(distribution, x, mean, scale), reference(distribution, x, mean, scale)
    assert found[0].dtype == torch.float32
    assert ((found[0] - expected[0]).abs() <= BITS_BOUND[form.name] * (1 + expected[0])).all()
    for slope, true in zip(found[1:], expected[1:], strict=True):
        assert ((slope - true).abs() <= SLOPE_BOUND[form.name] * (1 / scale + true.abs())).all()


@pytest.mark.parametrize("distribution", NAMES)
def test_bits_and_gradients_are_those_of_float64(form: Form, distribution: str) -> None:
    """Scales 0.04 to 256, up to 100 scales from the mean; more than a part of the plain form."""
    scale = torch.logspace(math.log10(0.04), math.log10(256), 160)[:, None]
    distance = torch.cat([torch.linspace(0, 3, 150), torch.linspace(3, 100, 150), torch.tensor([4.99, 5.0, 5.01])])
    x = torch.where(torch.arange(len(distance)) % 2 == 0, 1.0, -1.0) * distance * scale
    near = torch.linspace(-1.5, 1.5, 61).expand(len(scale), 61)  # the edges of bins
    x = torch.cat([x, near], 1)
    assert x.numel() > likelihood.PART
    assert_close(form, distribution, x, torch.zeros_like(x), scale.expand_as(x))


@lax
@given(
    st.lists(
        st.tuples(st.floats(-300, 300, width=32), st.floats(-300, 300, width=32), st.floats(-3, 5.5)),
        min_size=1,
        max_size=50,
    )
)
@pytest.mark.parametrize("distribution", NAMES)
def test_any_bits_and_gradients_are_those_of_float64(
    form: Form, distribution: str, triples: list[tuple[float, float, float]]
) -> None:
    x, mean, log_scale = torch.tensor(triples).unbind(1)
    scale = log_scale.exp()
    x = torch.minimum(torch.maximum(x, mean - 100 * scale), mean + 100 * scale)
    assert_close(form, distribution, x, mean, scale)


@pytest.mark.parametrize("distribution", NAMES)
def test_gradients_in_float64_are_those_of_differences(distribution: str) -> None:
    x, mean = 20 * normal(3, 7).double(), normal(7).double()
    x[0] = 40 * x[0].sign() + mean  # in the tail
    scale = torch.tensor([[0.4], [1.3], [20.0]], dtype=torch.float64)
    leaves = [v.requires_grad_() for v in (x, mean, scale)]
    assert torch.autograd.gradcheck(getattr(likelihood, distribution), leaves)


@pytest.mark.parametrize("distribution", NAMES)
def test_masses_of_all_integers_sum_to_one(form: Form, distribution: str) -> None:
    x = torch.arange(-1500.0, 1501.0).reshape(-1, 1)
    scale = torch.tensor([0.04, 0.3, 1.0, 7.0, 64.0])
    bits = form.bits(distribution, x, torch.tensor(0.3), scale)[0]
    assert torch.allclose(torch.exp2(-bits.double()).sum(0), torch.ones(5, dtype=torch.float64), atol=2e-6)


@pytest.mark.parametrize("distribution", NAMES)
def test_far_away_bits_are_finite_and_gradients_lead_back(form: Form, distribution: str) -> None:
    x = torch.tensor([-1e6, -5e3, 50.0, 1e6])
    bits, x_slope, mean_slope, scale_slope = form.bits(distribution, x, torch.zeros(4), torch.tensor(1.0))
    assert bits.isfinite().all() and bits.min() > 50
    assert torch.equal(x_slope.sign(), x.sign()) and torch.equal(mean_slope, -x_slope)
    assert scale_slope.isfinite().all() and (scale_slope < 0).all()


@pytest.mark.parametrize("distribution", NAMES)
def test_shapes_broadcast_and_gradients_are_summed(form: Form, distribution: str) -> None:
    x, mean, scale = 3 * normal(2, 8, 3, 5), normal(2, 1, 3, 5), normal(8, 1, 1).abs() + 0.2
    whole = form.bits(distribution, x, mean.expand_as(x), scale.expand_as(x))
    parts = form.bits(distribution, x, mean, scale)
    lasting = form.bits(distribution, x.to(memory_format=torch.channels_last), mean, scale)
    for found in (parts, lasting):
        summed = whole[2].sum(1, keepdim=True), whole[3].sum((0, 2, 3)).reshape(8, 1, 1)
        for value, same in zip(found, (*whole[:2], *summed), strict=True):
            assert torch.allclose(value, same, rtol=1e-4, atol=1e-4)
    assert lasting[0].is_contiguous(memory_format=torch.channels_last)
    one = form.bits(distribution, torch.tensor(0.7), mean, torch.tensor([0.5]))
    assert [v.shape for v in one] == [mean.shape, (), mean.shape, (1,)]
    assert form.bits(distribution, torch.zeros(0, 3), torch.zeros(3), torch.tensor(1.0))[0].shape == (0, 3)


@pytest.mark.parametrize("distribution", NAMES)
def test_narrow_floats_give_float32_bits_and_gradients_of_their_own_type(form: Form, distribution: str) -> None:
    x, scale = (3 * normal(100)).bfloat16(), (normal(100).abs() + 0.2).half()
    mean = torch.zeros(100)
    bits, *slopes = form.bits(distribution, x, mean, scale)
    exact, *exact_slopes = form.bits(distribution, x.float(), mean, scale.float())
    assert torch.equal(bits, exact)
    for slope, same, given_ in zip(slopes, exact_slopes, (x, mean, scale), strict=True):
        assert slope.dtype == given_.dtype and torch.equal(slope, same.to(slope.dtype))


def test_only_what_needs_a_gradient_gets_one_and_numbers_will_do(form: Form) -> None:
    for needs in ((True, False), (False, True), (False, False)):
        x, scale = (
            v.to(form.device).requires_grad_(need)
            for v, need in zip((torch.ones(4), torch.ones(4)), needs, strict=True)
        )
        bits = form.module.gaussian_bits(x, 0.25, scale)
        assert bits.requires_grad == any(needs)
        if any(needs):
            bits.sum().backward()
        assert [v.grad is not None for v in (x, scale)] == list(needs)


@st.composite
def coded(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, entropy.Tables]:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    n_rows, n = draw(st.sampled_from([1, 3, 300])), draw(st.integers(0, 3000))
    pmfs = [rng.dirichlet(np.full(rng.integers(1, 40), 0.3)) for _ in range(n_rows)]
    tables = entropy.Tables.from_pmf(pmfs, rng.integers(-20, 20, n_rows))
    wide = draw(st.sampled_from([5, 60, 30_000]))
    return rng.integers(-wide, wide, n).astype(np.int16), rng.integers(0, n_rows, n).astype(np.int32), tables


@lax
@given(coded())
def test_table_bits_sum_to_the_codelength(form: Form, case: tuple[np.ndarray, np.ndarray, entropy.Tables]) -> None:
    symbols, indices, tables = case
    bits = form.module.table_bits(*(torch.from_numpy(v).to(form.device) for v in (symbols, indices)), tables).cpu()
    assert np.array_equal(bits.numpy(), tables.bits[indices, tables.entries(symbols, indices)])
    assert math.isclose(float(bits.double().sum()), tables.codelength(symbols, indices), rel_tol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_rows_of_an_integer_network_become_indices(form: Form, dtype: torch.dtype) -> None:
    """As `Photo.indices` makes them; rows beyond the tables, and tensors of another order in memory."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randint(-500, 64 * 64 + 500, (2, 6, 7, 5), generator=generator)
    symbols = torch.randint(-300, 300, rows.shape, generator=generator)
    expected = torch.div(rows, 64, rounding_mode="floor").clamp(0, 63)
    given_rows = rows.to(form.device, dtype).to(memory_format=torch.channels_last)
    indices, bits = form.module.indexed_bits(symbols.to(form.device, torch.int16), given_rows, gaussian_tables(), 6)
    assert indices.dtype == torch.uint8 and torch.equal(indices.cpu().long(), expected)
    same = form.module.table_bits(symbols.float().to(form.device), indices, gaussian_tables())
    assert torch.equal(bits, same)
    codelength = gaussian_tables().codelength(symbols.numpy(), expected.numpy())
    assert math.isclose(float(bits.double().sum()), codelength, rel_tol=1e-12)


def test_more_than_256_rows_have_wide_indices(form: Form) -> None:
    tables = entropy.Tables.from_pmf([[0.5, 0.25]] * 300, np.zeros(300, np.int32))
    rows = torch.tensor([0, 255, 256, 299, 400], device=form.device)
    indices, bits = form.module.indexed_bits(torch.zeros_like(rows), rows, tables, 0)
    assert indices.dtype == torch.int32 and indices.tolist() == [0, 255, 256, 299, 299]
    assert bits.tolist() == [tables.bits[0, 0]] * 5


def test_other_shapes_are_refused() -> None:
    with pytest.raises(entropy.BadInput, match=r"rows: found \(3,\), expected \(4,\), one per symbol"):
        likelihood.table_bits(torch.zeros(4), torch.zeros(3), gaussian_tables())


def test_tables_leave_the_device_with_their_owner() -> None:
    tables = entropy.Tables.from_pmf([[0.5, 0.25]], [0])
    before = len(device_tables.KEPT)
    for _ in range(2):
        likelihood.table_bits(torch.zeros(1), torch.zeros(1), tables)
    assert len(device_tables.KEPT) == before + 1
    del tables
    gc.collect()
    assert len(device_tables.KEPT) == before


def test_triton_is_loaded_for_cuda_only_and_kernels_compile_for_it(tmp_path: Path) -> None:
    """In a process of its own: for a GPU of compute capability 9.0, whether there is one or not."""
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env={**environment, "TRITON_CACHE_DIR": str(tmp_path)})


COMPILE = """
import sys
import torch
from laconic.entropy import device_tables, likelihood

likelihood.gaussian_bits(torch.zeros(3), 0.0, 1.0)
assert "triton" not in sys.modules

def build(kernel, types, constants):
    import triton
    function = likelihood.compiled(kernel)
    names = function.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    values = {(names.index(name),): value for name, value in constants.items() if name not in types}
    source = triton.compiler.ASTSource(function, signature, values)
    ptx = triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert ".visible .entry " + kernel.__name__ in ptx

integers = dict.fromkeys(("x_step", "mean_step", "scale_step", "n", "n_rows", "width"), "i32")
floats = dict.fromkeys(("x", "mean", "scale", "bits", "x_slope"), "*fp32")
for logistic in (False, True):
    constants = {"scale_slope": None, "LOGISTIC": logistic, "C": likelihood.MILLS, "BLOCK": likelihood.BLOCK}
    build(likelihood.bin_kernel, {**integers, **floats}, constants)
    build(likelihood.bin_kernel, {**integers, **floats, "x": "*bf16", "scale_slope": "*fp32"}, constants)
pointers = {"symbols": "*i16", "rows": "*fp32", "table": "*fp32", "offsets": "*i32", "sizes": "*i32"}
outputs = {"indices": "*u8", "bits": "*fp32"}
build(likelihood.indexed_kernel, {**integers, **pointers, **outputs, "step": "fp32"}, {"BLOCK": likelihood.BLOCK})
"""

"""Codelengths on the device: of bins under a distribution, for training, and of symbols under tables, as coded.

    bits = gaussian_bits(y + noise, mean, scale).sum()            # differentiable
    indices, bits = indexed_bits(symbols, rows, tables, SHIFT)    # an integer network's output -> what the coder takes

Each has a plain form, which runs everywhere, and a Triton kernel for CUDA, which touches every element once. Gradients
are formulas of their own for each bin: nothing is divided by a mass that rounds to zero, and no bound cuts them off.

It needs torch. Triton is used for tensors on CUDA if it is installed; else they take the plain form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from laconic.entropy.device_tables import on_device
from laconic.entropy.errors import BadInput, expect
from laconic.entropy.tables import Tables

Plain = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
tl: Any  # triton.language, from the first launch on (see `compiled`)

LOG2_E = 1 / math.log(2)
SQRT_HALF = math.sqrt(0.5)
TAIL = 5.0  # so many scales away erfc gets inexact: from here the plain form takes exp(-a**2 / 2) out of the mass
PART = 1 << 15  # elements that the plain form takes at a time, so that what it computes stays in a core's cache
BLOCK = 1024  # elements per program of a kernel
# M(x) = exp(x**2 / 2) erfc(x / sqrt 2) = u (c0 + c1 u + ...) with u = 1 / (1 + x / 4), for x >= -1/2. Fitted to the
# least largest relative error both of M and of x M(x) - M'(x), the mass of a narrow bin: below 3e-7.
MILLS = (
    *(0.19947111, 0.199479, 0.18671918, 0.16603666, 0.099191689, 0.19790147),
    *(-0.22310624, 0.41318854, -0.34708356, 0.12479843, -0.016596274),
)


def gaussian_bits(x: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    """Return -log2 of the mass that N(mean, scale**2) puts on [x - 1/2, x + 1/2], differentiable in all three.

    Shapes broadcast. Floats of any width, scale > 0 -> float32, or float64 if one of them is. No mass is too small. The
    largest errors of float32, found against float64 for scales 0.04 to 256 and up to 100 scales from the mean: in the
    plain form, which subtracts two erfc, 1.1e-5 (1 + bits) and 1.2e-4 (1 / scale + slope) for the slopes (for scales
    up to 64: 3e-6 and 3e-5); in the kernel, as Triton interprets it, 1.6e-6 and 7e-6.
    """
    return bin_bits(x, mean, scale, logistic=False)


def logistic_bits(x: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    """Return -log2 of the bin's mass as `gaussian_bits` does, under a logistic distribution.

    Its deviation is pi / sqrt 3 = 1.81 times the scale. The errors, measured likewise, are 4e-7 (1 + bits) and 1.5e-6
    (1 / scale + slope) for the slopes, in both forms.
    """
    return bin_bits(x, mean, scale, logistic=True)


def table_bits(symbols: Tensor, indices: Tensor, tables: Tables) -> Tensor:
    """Return the codelength of each symbol, float32; as in `Tables.codelength`, without the escaped values themselves.

    symbols: integers of any dtype. indices: rows of the tables, same shape; beyond the tables the nearest row is taken.
    """
    return indexed_bits(symbols, indices, tables, 0)[1]


def indexed_bits(symbols: Tensor, rows: Tensor, tables: Tables, shift: int) -> tuple[Tensor, Tensor]:
    """Turn an integer network's output into what is coded: return table indices, and the codelength of each symbol.

    symbols: integers of any dtype. rows: same shape, integers below 2**24 of any dtype, floored.
    shift: rows are given in units of 2**-shift.
    Returns indices (uint8 for up to 256 rows, else int32; beyond the tables the nearest row) and bits (float32), which
    are the same on any device. Raises BadInput if the shapes differ.
    """
    expect(symbols.shape == rows.shape, BadInput, "rows", tuple(rows.shape), f"{tuple(symbols.shape)}, one per symbol")
    n_rows, width = tables.bits.shape
    indices = torch.empty_like(rows, dtype=torch.uint8 if n_rows <= 256 else torch.int32)
    bits = torch.empty_like(indices, dtype=torch.float32)
    there = on_device(tables, rows.device)
    inputs = in_order(symbols, bits), in_order(rows, bits), there.bits, there.offsets, there.sizes
    outputs = in_order(indices, bits), in_order(bits, bits)
    if has_triton(rows):
        launch(indexed_kernel, *inputs, *outputs, n_rows, width, 2.0**-shift, n=bits.numel())
    else:
        for out, value in zip(outputs, indexed_plain(*inputs, step=2.0**-shift), strict=True):
            out.copy_(value)
    return indices, bits


def bin_bits(x: Tensor, mean: Tensor | float, scale: Tensor | float, logistic: bool) -> Tensor:
    """Return what `gaussian_bits` and `logistic_bits` do."""
    mean, scale = (v if isinstance(v, Tensor) else x.new_full((), v, dtype=torch.float32) for v in (mean, scale))
    bits: Tensor = BinBits.apply(x, mean, scale, logistic)  # type: ignore[no-untyped-call]
    return bits


class BinBits(torch.autograd.Function):
    """Computes bits with gradients.

    The slopes are computed with the bits: two are kept, which moves less memory than three inputs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, logistic: bool) -> Tensor:
        tensors = x, mean, scale
        ctx.shapes = [v.shape for v in tensors]
        dtype = torch.float64 if torch.float64 in [v.dtype for v in tensors] else torch.float32
        bits = torch.empty_like(x.expand(torch.broadcast_shapes(*ctx.shapes)), dtype=dtype)
        needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        x_slope, scale_slope = (torch.empty_like(bits) if need else None for need in needed)
        ctx.save_for_backward(x_slope, scale_slope)
        inputs = [in_order(v, bits) for v in tensors]
        outputs = [v if v is None else in_order(v, bits) for v in (bits, x_slope, scale_slope)]
        if has_triton(bits) and dtype == torch.float32:
            steps = (int(v.numel() > 1) for v in inputs)
            launch(bin_kernel, *inputs, *steps, *outputs, n=bits.numel(), LOGISTIC=logistic, C=MILLS)
        else:
            plain = logistic_plain if logistic else gaussian_plain
            in_parts(plain, bits.numel(), [v.to(dtype) for v in inputs], outputs)
        return bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_slope, scale_slope = ctx.saved_tensors
        of_x, of_mean, of_scale = (
            (gradient * slope).sum_to_size(shape) if needed else None
            for slope, shape, needed in zip(
                (x_slope, x_slope, scale_slope), ctx.shapes, ctx.needs_input_grad[:3], strict=True
            )
        )
        return of_x, None if of_mean is None else -of_mean, of_scale, None


def gaussian_plain(x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the bits, and their slopes in x and in scale: float [N] or [1] each -> [N] each.

    By symmetry x is taken to lie above the mean. a and b are the edges of its bin, in scales from the mean.
    """
    difference, rate = x - mean, scale.reciprocal()
    distance = difference.abs()
    a, b = (distance - 0.5) * rate, (distance + 0.5) * rate
    density_a, density_b = torch.exp(-0.5 * a * a), torch.exp(-0.5 * b * b)  # times sqrt(2 pi)
    mass = torch.erfc(SQRT_HALF * a) - torch.erfc(SQRT_HALF * b)  # times 2
    taken_out: Tensor | float = 0.0
    tail = a > TAIL
    if tail.any():
        far_a, far_b = a[tail], b[tail]
        ratio = torch.exp((far_a - far_b) * (far_a + far_b) / 2)
        density_a[tail], density_b[tail] = 1.0, ratio
        mass[tail] = torch.special.erfcx(SQRT_HALF * far_a) - ratio * torch.special.erfcx(SQRT_HALF * far_b)
        taken_out = tail * (LOG2_E / 2) * a * a
    bits = taken_out + 1 - torch.log2(mass)
    slope = (LOG2_E * math.sqrt(2 / math.pi)) * rate / mass
    return bits, slope * (density_a - density_b) * difference.sign(), slope * (b * density_b - a * density_a)


def logistic_plain(x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute as `gaussian_plain` does. The mass of a bin is (1 - exp(-1 / scale)) sigmoid(-a) sigmoid(b)."""
    difference, rate = x - mean, scale.reciprocal()
    distance = difference.abs()
    a, b = (distance - 0.5) * rate, (distance + 0.5) * rate
    fall_a, fall_b, fall = torch.exp(-a.abs()), torch.exp(-b), -torch.expm1(-rate)
    bits = LOG2_E * a.clamp_min(0) + torch.log2((1 + fall_a) * (1 + fall_b) / fall)
    beyond_a, beyond_b = torch.sigmoid(a), fall_b / (1 + fall_b)
    x_slope = LOG2_E * rate * (beyond_a - beyond_b) * difference.sign()
    return bits, x_slope, LOG2_E * rate * (b * beyond_b - a * beyond_a + rate * (1 - fall) / fall)


def bin_kernel(  # type: ignore[no-untyped-def]
    x, mean, scale, x_step, mean_step, scale_step, bits, x_slope, scale_slope, n,
    LOGISTIC: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute as the two plain forms do, in float32, without branches and without differences that cancel.

    The Gaussian mass is exp(-a**2 / 2) (M(a) - M(b) exp((a**2 - b**2) / 2)) / 2, with the M of `MILLS`.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    difference = tl.load(x + at * x_step, mask=inside, other=0).to(tl.float32)
    difference -= tl.load(mean + at * mean_step, mask=inside, other=0).to(tl.float32)
    rate = 1 / tl.load(scale + at * scale_step, mask=inside, other=1).to(tl.float32)
    distance = tl.abs(difference)
    a, b = (distance - 0.5) * rate, (distance + 0.5) * rate
    half = 0.5 * rate if LOGISTIC else 0.5 * distance * rate * rate
    root, square = tl.exp(-half), half * half
    sinh = half * (1 + 1 / 6 * square * (1 + 1 / 20 * square * (1 + 1 / 42 * square)))
    fall = tl.where(half < 0.5, 2 * root * sinh, 1 - root * root)  # 1 - exp(-2 half)
    slope = 1.4426950408889634 * rate
    if LOGISTIC:
        fall_a, fall_b = tl.exp(-tl.abs(a)), tl.exp(-b)
        exponent = tl.maximum(a, 0.0)
        mass = fall / ((1 + fall_a) * (1 + fall_b))
        beyond_a, beyond_b = tl.where(a < 0, fall_a, 1.0) / (1 + fall_a), fall_b / (1 + fall_b)
        x_part, scale_part = beyond_a - beyond_b, b * beyond_b - a * beyond_a + rate * (1 - fall) / fall
    else:
        wide = a < -0.5  # the bin holds much of the mass, which is then 1 less what is outside
        near = tl.where(wide, -a, a)
        u, v = 1 / (1 + 0.25 * near), 1 / (1 + 0.25 * b)
        # by one Horner scheme: the polynomial at u, and its difference to that at v, divided by u - v
        mills, change = 0 * u, 0 * u
        for i in tl.static_range(len(C)):
            change = change * v + mills
            mills = mills * u + C[len(C) - 1 - i]
        change = (change * v + mills) * 0.25 * (b - near) * u * v
        mills *= u
        outside = tl.exp(-0.5 * a * a) * (mills + (mills - change) * (1 - fall))
        exponent = tl.where(wide, 0.0, 0.5 * a * a)
        mass = tl.where(wide, 1 - 0.5 * outside, 0.5 * (change + (mills - change) * fall))
        density = tl.where(wide, tl.exp(-0.5 * a * a), 1.0) * 0.3989422804014327 / mass
        x_part, scale_part = density * fall, density * (rate - b * fall)
    tl.store(bits + at, 1.4426950408889634 * exponent - tl.log2(mass), mask=inside)
    if x_slope is not None:
        sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
        tl.store(x_slope + at, slope * x_part * sign, mask=inside)
    if scale_slope is not None:
        tl.store(scale_slope + at, slope * scale_part, mask=inside)


def indexed_plain(
    symbols: Tensor, rows: Tensor, bits: Tensor, offsets: Tensor, sizes: Tensor, *, step: float
) -> tuple[Tensor, Tensor]:
    """Compute the indices and bits of `indexed_bits`, [N] each. step: 2**-shift."""
    indices = torch.floor(rows.float() * step).clamp(0, len(sizes) - 1).long()
    entries, last = symbols.long() - offsets[indices], sizes[indices] - 1
    return indices, bits[indices, torch.where((entries < 0) | (entries >= last), last, entries)]


def indexed_kernel(  # type: ignore[no-untyped-def]
    symbols, rows, table, offsets, sizes, indices, bits, n_rows, width, step, n, BLOCK: tl.constexpr
):
    """Compute as `indexed_plain` does."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    row = tl.floor(tl.load(rows + at, mask=inside, other=0).to(tl.float32) * step).to(tl.int32)
    row = tl.minimum(tl.maximum(row, 0), n_rows - 1)
    entry = tl.load(symbols + at, mask=inside, other=0).to(tl.int32) - tl.load(offsets + row)
    last = tl.load(sizes + row) - 1
    entry = tl.where((entry < 0) | (entry >= last), last, entry)
    tl.store(indices + at, row, mask=inside)
    tl.store(bits + at, tl.load(table + row * width + entry), mask=inside)


def in_order(values: Tensor, like: Tensor) -> Tensor:
    """Return the values as [N], in the order in which `like` lies in memory; a single one as [1].

    Nothing is copied where a view will do.
    """
    if values.numel() == 1:
        return values.reshape(1)
    if values.shape != like.shape or values.stride() != like.stride():
        values = torch.empty_like(like, dtype=values.dtype).copy_(values)
    return values.as_strided((values.numel(),), (1,))


def in_parts(plain: Plain, n: int, inputs: list[Tensor], outputs: list[Tensor | None]) -> None:
    """Fill the outputs [n], except those that are None, from inputs [n] or [1], PART elements at a time."""
    for first in range(0, n, PART):
        part = slice(first, first + PART)
        values = plain(*(v[part] if v.numel() > 1 else v for v in inputs))
        for out, value in zip(outputs, values, strict=True):
            if out is not None:
                out[part].copy_(value)


def has_triton(values: Tensor) -> bool:
    """Tell whether kernels can run on the values."""
    return values.is_cuda and find_spec("triton") is not None


def launch(kernel: Callable[..., None], values: Tensor, *arguments: Any, n: int, **constants: Any) -> None:
    """Run a kernel over n elements on the device of its first argument."""
    if n:
        with torch.cuda.device_of(values):
            compiled(kernel)[(-(-n // BLOCK),)](values, *arguments, n, **constants, BLOCK=BLOCK)


@cache
def compiled(kernel: Callable[..., None]) -> Any:
    """Return a kernel as Triton runs it. Triton is imported only here, since not every machine has it."""
    global tl
    import triton
    import triton.language as tl

    return triton.jit(kernel)

"""The arithmetic of `EyeDistance` in one plane of one scale, compiled: one pass where tensors take thirty.

`scale_plain` is the reference. Planes are float32 [H, W]. Sums may differ from the reference's in their last bits.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]


@numba.njit(cache=True, nogil=True, fastmath=True)
def plane_kernel(
    b: Planes,
    a: Planes,
    mean_a: Planes,
    variance_a: Planes,
    flat: Planes,
    window: Planes,
    inverse_rows: Planes,
    inverse_columns: Planes,
    weight: float,
    pools: Planes,
    stable: float,
    least: float,
    out: Planes,
) -> float:
    """Return the distance of a plane b from an original's a, and put its gradient into `out`, unless that is empty.

    window: [2 R + 1]. inverse_rows, inverse_columns: [H], [W], one over the window's share inside. weight: of the plane.
    pools: of structure's mean and 4-norm, of edges' mean and 4-norm. The other arguments are as `Scale` has them.
    """
    height, width = b.shape
    rows, columns = np.empty((height, width), np.float32), np.empty(width + len(window) - 1, np.float32)
    mean, square, product = np.empty_like(rows), np.empty_like(rows), np.empty_like(rows)
    structure, edge, source = np.empty_like(rows), np.empty_like(rows), np.empty_like(rows)
    n = np.float32(height * width)
    smooth(b, mean, rows, columns, window, inverse_rows, inverse_columns)
    for y in range(height):
        for x in range(width):
            source[y, x] = b[y, x] * b[y, x]
    smooth(source, square, rows, columns, window, inverse_rows, inverse_columns)
    for y in range(height):
        for x in range(width):
            source[y, x] = a[y, x] * b[y, x]
    smooth(source, product, rows, columns, window, inverse_rows, inverse_columns)
    sums = np.zeros(4, np.float64)
    for y in range(height):
        s1 = s4 = e1 = e4 = np.float32(0)
        for x in range(width):
            shift = mean_a[y, x] - mean[y, x]
            contrast = variance_a[y, x] + square[y, x] - mean[y, x] * mean[y, x]
            likeness = (2 * (product[y, x] - mean_a[y, x] * mean[y, x]) + stable) / contrast
            s = max(np.float32(1 - (1 - shift * shift) * likeness), np.float32(0))
            e = np.float32((1 + abs(b[y, x] - mean[y, x])) * flat[y, x] - 1)
            structure[y, x], edge[y, x] = s, e
            s1 += s
            s4 += s * s * s * s
            e1 += abs(e)
            e4 += e * e * e * e
        sums[0] += s1
        sums[1] += s4
        sums[2] += e1
        sums[3] += e4
    s_norm, e_norm = max(sums[1] / n, least**4) ** 0.25, max(sums[3] / n, least**4) ** 0.25
    total: float = weight * (pools[0] * sums[0] / n + pools[1] * s_norm + pools[2] * sums[2] / n + pools[3] * e_norm)
    if not out.size:
        return total
    s_mean, s_cube = np.float32(weight * pools[0] / n), np.float32(weight * pools[1] / n / s_norm**3)
    e_mean, e_cube = np.float32(weight * pools[2] / n), np.float32(weight * pools[3] / n / e_norm**3)
    for y in range(height):
        for x in range(width):
            s, e, m = structure[y, x], edge[y, x], mean[y, x]
            shift = mean_a[y, x] - m
            inverse = 1 / (variance_a[y, x] + square[y, x] - m * m)
            likeness = (2 * (product[y, x] - mean_a[y, x] * m) + stable) * inverse
            by_s = s_mean + s_cube * s * s * s if s > 0 else np.float32(0)
            by_variance = by_s * (1 - shift * shift) * inverse
            by_square = by_variance * likeness
            size = e_mean + e_cube * abs(e * e * e)
            sign = np.float32((e > 0) - np.float32(e < 0)) * np.float32((b[y, x] > m) - np.float32(b[y, x] < m))
            by_plane = size * sign * flat[y, x]
            out[y, x] = by_plane
            cover = inverse_rows[y] * inverse_columns[x]
            structure[y, x] = cover * (
                2 * (by_variance * mean_a[y, x] - by_square * m - by_s * likeness * shift) - by_plane
            )
            square[y, x] = cover * by_square
            product[y, x] = -2 * cover * by_variance
    ones_rows, ones_columns = np.ones_like(inverse_rows), np.ones_like(inverse_columns)
    smooth(structure, mean, rows, columns, window, ones_rows, ones_columns)
    for y in range(height):
        for x in range(width):
            out[y, x] += mean[y, x]
    smooth(square, mean, rows, columns, window, ones_rows, ones_columns)
    for y in range(height):
        for x in range(width):
            out[y, x] += 2 * b[y, x] * mean[y, x]
    smooth(product, mean, rows, columns, window, ones_rows, ones_columns)
    for y in range(height):
        for x in range(width):
            out[y, x] += a[y, x] * mean[y, x]
    return total


@numba.njit(cache=True, nogil=True, fastmath=True)
def blur_kernel(source: Planes, out: Planes, window: Planes, inverse_rows: Planes, inverse_columns: Planes) -> None:
    """Put a plane, averaged by the window, into `out`."""
    rows, columns = np.empty_like(source), np.empty(source.shape[1] + len(window) - 1, np.float32)
    smooth(source, out, rows, columns, window, inverse_rows, inverse_columns)


@numba.njit(cache=True, nogil=True, fastmath=True)
def smooth(
    source: Planes,
    out: Planes,
    rows: Planes,
    columns: Planes,
    window: Planes,
    inverse_rows: Planes,
    inverse_columns: Planes,
) -> None:
    """Put a plane, averaged by the window, into `out`. rows: room for a plane; columns: for a row and the window's ends."""
    height, width = source.shape
    radius = len(window) // 2
    columns[:] = 0
    for y in range(height):
        for x in range(width):
            columns[x + radius] = source[y, x]
            rows[y, x] = 0
        for k in range(len(window)):
            w = window[k]
            for x in range(width):
                rows[y, x] += w * columns[x + k]
    for y in range(height):
        for x in range(width):
            out[y, x] = 0
        for k in range(max(0, radius - y), min(len(window), height + radius - y)):
            w = window[k]
            for x in range(width):
                out[y, x] += w * rows[y + k - radius, x]
        scale = inverse_rows[y]
        for x in range(width):
            out[y, x] *= scale * inverse_columns[x]

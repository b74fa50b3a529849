"""Runs of frames of lossy sounds, read by FORMAT.md alone (section "Coded sound frames"), without Laconic."""

import math
import struct
from collections.abc import Callable

import numpy as np


def weights(path: str) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file."""
    import json

    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    types = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "I32": "<i4"}
    head = json.loads(data[8 : 8 + length])
    head.pop("__metadata__", None)
    found = {}
    for name, about in head.items():
        start, end = (8 + length + offset for offset in about["data_offsets"])
        found[name] = np.frombuffer(data[start:end], types[about["dtype"]]).reshape(about["shape"])
    return found


def frames(
    data: bytes, n: int, quality: int, tensors: dict[str, np.ndarray], bands: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The components [n, E], the shape [n, K] and the levels [n, bands] of a run."""

    def whole(name: str, bits: int) -> np.ndarray:
        return np.rint(tensors[name].astype(np.float64) * 2.0**bits).astype(np.int64)

    def layer(name: str) -> Callable[[np.ndarray], np.ndarray]:
        weight, bias = whole(f"prior.{name}.weight", 10), whole(f"prior.{name}.bias", 18)
        return lambda x: weight @ x + bias

    def gain(name: str) -> np.ndarray:
        table = whole(name, 16)
        row, rest = divmod(quality * (len(table) - 1), 10000)
        upper = table[min(row + 1, len(table) - 1)]
        return ((table[row] * (10000 - rest) + upper * rest) // 10000 + 512) >> 10

    names = ("enter", "middle", "to_envelope", "shape_enter", "shape_middle", "to_shape")
    enter, middle, to_envelope, shape_enter, shape_middle, to_shape = map(layer, names)
    g, h = gain("envelope_gain"), gain("shape_gain")
    n_e, n_k = len(g), len(h)
    rho, level, offset = whole("prior.rho", 10), tensors["level_weights"].astype(np.int64), tensors["level_offset"]
    envelope_row = (g << 12) + whole("prior.envelope_scale", 18) + 801871
    shape_row = (h << 12) + whole("prior.shape_scale", 18) + 801871 + offset
    symbol = reader(data, tensors["table_starts"].tolist(), tensors["table_radii"].tolist())
    at = (256 * quality + 5000) // 10000
    past_c = [np.zeros(n_e, np.int64) for _ in range(4)]
    past_s = [np.zeros(n_k, np.int64) for _ in range(2)]
    out = np.zeros((n, n_e), np.int64), np.zeros((n, n_k), np.int64)
    for t in range(n):
        seen = [*past_c, *(part for s in past_s for part in (np.sign(s) * tanh(abs(s)), log(abs(s)))), [at]]
        x = rectified(middle(rectified(enter(np.concatenate(seen)))))
        v = to_envelope(x)
        for i in range(n_e):
            m = (int(v[i] + past_c[0][i] * rho[i]) * power(int(g[i])) + 2**29) >> 30
            s = symbol(int(v[n_e + i] + envelope_row[i]))
            out[0][t, i] = min(max(((16 * s + m) * power(-int(g[i])) + 2**11) >> 12, -8191), 8191)
        c = out[0][t]
        w = to_shape(rectified(shape_middle(rectified(shape_enter(np.concatenate([x, c, [at]]))))))
        for k in range(n_k):
            m = int(w[k] + 2**13) >> 14
            out[1][t, k] = 16 * symbol(int(w[n_k + k] + c @ level[:, k] + shape_row[k])) + m
        past_c, past_s = [c, *past_c[:3]], [out[1][t], past_s[0]]
    levels = levels_of(symbol, n, bands)
    symbol(None)
    return *out, levels


def levels_of(symbol: Callable[[int | None], int], n: int, bands: int) -> np.ndarray:
    """The levels of the bands above: a row for two frames, each told from the one before and from the band below."""
    out, known = np.zeros((n, bands), np.int64), [-16] * bands
    for t in range(0, n, 2):
        change = 0
        for b in range(bands):
            size = abs(change)
            move = (2 * size + 1) // 3 * (1 if change > 0 else -1)
            row = 28 if b == 0 else 22 + 3 * min(size, 5)
            level = min(max(known[b] + move + symbol(row * 2**15), -32), 16)
            change, known[b] = level - known[b], level
        out[t : t + 2] = known
    return out


def reader(data: bytes, starts: list[int], radii: list[int]) -> Callable[[int | None], int]:
    """What reads the next symbol, given its scale, from a narrow stream of one lane; None checks the end."""
    head, at, shift = 0, 0, 0
    while True:
        head, at, shift = head | (data[at] & 127) << shift, at + 1, shift + 7
        if data[at - 1] < 128:
            break
    assert head & 7 == 0, "another number of lanes, or escapes"
    assert len(data) == at + 4 + 2 * (head >> 3), "another length"
    (x,) = struct.unpack("<I", data[at : at + 4])
    words = list(struct.unpack(f"<{head >> 3}H", data[at + 4 :]))
    offsets = np.cumsum([0, *(2 * r + 2 for r in radii)])

    def symbol(scale: int | None) -> int:
        nonlocal x
        if scale is None:
            assert x == 2**16 and not words, "damage"
            return 0
        row = min(max((scale + 2**14) >> 15, 0), 80)
        edges = starts[offsets[row] : offsets[row + 1]]
        slot = x % 2**15
        i = max(j for j in range(len(edges) - 1) if edges[j] <= slot)
        x = (edges[i + 1] - edges[i]) * (x >> 15) + slot - edges[i]
        if x < 2**16:
            x = x * 2**16 + words.pop(0)
        return i - radii[row]

    return symbol


def rectified(sums: np.ndarray) -> np.ndarray:
    return np.clip(sums >> 10, 0, 8191)


def power(g: int) -> int:
    """2^(g / 64) with 16 fractional bits."""
    root = 1 << g % 64 + 1024
    for _ in range(6):
        root = math.isqrt(root)
    return max(1, (root << 16) >> min(max(16 - g // 64, 0), 63))


def tanh(n: np.ndarray) -> np.ndarray:
    return np.rint(256 * np.tanh(np.minimum(n, 1023) / 32)).astype(np.int64)


def log(n: np.ndarray) -> np.ndarray:
    return np.rint(256 * np.log1p(np.minimum(n, 1023) / 16)).astype(np.int64)

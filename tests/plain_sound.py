"""Laconic's lossless sounds in plain Python and numpy: FORMAT.md's "Sound" and "Coded sound samples" read aloud."""

import struct
import zlib
from collections import defaultdict
from decimal import Decimal
from functools import partial
from math import ceil

import numpy as np

along = partial(zip, strict=True)
C4, S4 = "1024,256,32+16,16", "1024+512,256,32+16,16"
FEW, MANY = "32,16,500,16 16,8,100,8", "32,16,500,8 16,8,100,4 16,8,5000,16 64,32,500,32 128,32,1000,64"
PRESETS = (  # own,other,memory,every of each L : source,filters of each G
    "16,8,500,32 : 0,16",
    "16,8,500,32 : 0,256,16",
    "24,8,500,32 16,8,100,16 : 0,256,32+16,16",
    f"32,8,500,32 16,8,100,16 : 0,{C4}",
    f"{FEW} : 0,{C4}",
    f"{FEW} 8,8,5000,16 : 0,{C4} 2,{S4}",
    f"{FEW} 8,8,5000,16 128,32,1000,256 : 0,{C4} 2,{S4}",
    f"{MANY} 8,8,33,2 : 0,{C4} 2,{S4} 4,{C4}",
    f"{MANY} 24,16,200,8 8,8,33,2 256,32,2000,128 : 0,{C4} 2,2048+1024,512,256,32+16,16 4,{C4} 7,1024,256,16",
)
EXP = [(Decimal(i) / 256).exp() for i in range(24 * 256 + 1)]
UPPER = [float(Decimal(2**31) / (1 + EXP[i * 8])) for i in range(24 * 32 + 1)]
MASS = [2.0**31 - v for v in UPPER[:0:-1]] + UPPER
HIGH = [round(65536 * e / (1 + e)) for e in EXP[:3073]]
SQUASH = [min(max(p, 1), 65535) for p in [65536 - p for p in HIGH[:0:-1]] + HIGH]  # of -3072 .. 3072
STRETCH = [round(256 * (Decimal(2 * i + 1) / Decimal(8191 - 2 * i)).ln()) for i in range(4096)]
LN = [round(4096 * (Decimal(1024 + i) / 1024).ln()) for i in range(1024)]


def varint(data, at):
    value, shift = 0, 0
    while data[at] > 127:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def decode(file):
    """(samples a second, samples [T, C], the bytes of the WAV file that it was, or None)."""
    assert file[:8] == b"\x89Lc\r\n\1\3\0", "another magic, version, medium or a model"
    _, at = varint(file, 8)
    values, table, blocks, around = [], [], [], None
    for _ in range(6):
        value, at = varint(file, at)
        values.append(value)
    rate, channels, bits, total, length, n_chunks = values
    for _ in range(n_chunks):
        size, after = varint(file, at + 1)
        table, at = [*table, (file[at] & 127, size)], after + 4
    at += 4
    for kind, size in table:
        payload, at = file[at : at + size], at + size
        if kind == 8:
            n = min(length, total - length * len(blocks))
            blocks.append((floats if bits > 64 else integers)(payload[4:], n, channels, bits))
            assert struct.pack("<I", zlib.crc32(blocks[-1].tobytes())) == payload[:4], "wrong samples"
        elif kind == 9:
            first, used = varint(payload, varint(payload, 0)[1])
            around = zlib.decompress(payload[used:])
            around = around[:first], around[first:]
    samples = np.concatenate(blocks) if blocks else np.zeros((0, channels), "<i4")
    raw = (samples + 128 if bits == 8 else samples).view(np.uint8).reshape(-1, samples.itemsize)
    return rate, samples, around and around[0] + raw[:, : bits // 8].tobytes() + around[1]


def floats(data, n, channels, bits):
    """Section "Float samples"."""
    kind, mantissa = np.dtype(f"<f{(bits - 64) // 8}"), {96: 24, 128: 53}[bits]
    if data[0] == 0:
        return np.frombuffer(data[1:], kind).reshape(n, channels)
    heads = np.array([struct.unpack_from("<Bd", data, 1 + 9 * c) for c in range(channels)])
    size, at = varint(data, 1 + 9 * channels)
    whole, at = integers(data[at : at + size], n, channels, data[0]).astype(np.int64), at + size

    def plane(there):
        nonlocal at
        begin, at = at + 1, at + 1 + data[at] * ceil(there.sum() / 8)
        out = np.zeros(there.shape, np.int64)
        if at > begin:
            out[there] = np.unpackbits(np.frombuffer(data[begin:at], np.uint8))[: there.sum()]
        return out

    odd = plane(whole == 0) > 0
    kept = plane(odd) > 0
    values, at = np.frombuffer(data[at : at + kept.sum() * kind.itemsize], kind), at + kept.sum() * kind.itemsize
    lost = np.maximum(mantissa - np.frexp(abs(whole))[1], 0) * (heads[:, 0] > 0) * (whole != 0)
    rest = sum((plane(lost > k) << k for k in range(lost.max(initial=0))), np.zeros_like(whole))
    out = (np.sign(whole) * (abs(whole) << lost | rest) * 2.0**-lost * heads[:, 1]).astype(kind)
    out[odd] = -0.0
    out[kept] = values
    assert at == len(data), "bytes after the last plane"
    return out


def integers(data, n, channels, bits):
    """Section "Coded sound samples": int32 [n, channels]."""
    if data[0] == 0:
        width = (bits + 7) // 8
        values = [int.from_bytes(data[i : i + width], "little", signed=True) for i in range(1, len(data), width)]
        return np.array(values, "<i4").reshape(n, channels)
    heads = [data[1 + 3 * c : 4 + 3 * c] for c in range(channels)]
    stream, out = Stream(data, 1 + 3 * channels), np.zeros((n, channels), "<i4")
    coders = [Channel(bits - shift, data[0], channels) for _, _, shift in heads]
    for t in range(n):
        for coder, (source, partner, shift) in along(coders, heads, strict=True):
            out[t, source] = coder.sample(t, coders[partner], stream) << shift
        if t % 256 == 255:
            for one in coders:
                one.moments, one.blend = [tiny(m) for m in one.moments], [tiny(v) for v in one.blend]
    assert stream.state == 65536 and stream.at == len(data), "the stream does not end as it began"
    return out


class Stream:
    """Section "Symbols", one lane without escapes; bits as in "Mixing"."""

    def __init__(self, data, at):
        _, at = varint(data, at)
        self.data, self.state, self.at = data, struct.unpack_from("<I", data, at)[0], at + 4

    def pop(self, start, freq):
        self.state = freq * (self.state >> 15) + self.state % 32768 - start
        if self.state < 65536:
            self.state, self.at = self.state << 16 | struct.unpack_from("<H", self.data, self.at)[0], self.at + 2

    def bit(self, p):
        q = min(max(p >> 1, 1), 32767)
        bit = int(self.state % 32768 < q)
        self.pop(*((0, q) if bit else (q, 32768 - q)))
        return bit

    def digits(self, width):
        value = 0
        while width > 1:
            n = min(width, 32768)
            width, digit = width // n, self.state % 32768 // (32768 // n)
            self.pop(digit * (32768 // n), 32768 // n)
            value = value * n + digit
        return value


class Channel:
    """The predictors and models of a coded channel; arrays of the past have the newest first."""

    def __init__(self, bits, effort, channels):
        least, cascades = (PRESETS[effort - 1].split(" : ")[k].split() for k in range(2))
        self.limit, self.filters, self.least = 2 ** (bits - 1), [], [[*map(int, x.split(","))] for x in least]
        for source, *filters in (x.split(",") for x in cascades):
            for k, sizes in enumerate(filters):
                own, other = map(int, (sizes + "+0").split("+")[:2])
                base = len(least) + len(self.filters) - 1 if k else int(source)
                self.filters.append((base, own, other * (channels > 1)))
        sizes = [one[0] + one[1] * (channels > 1) for one in self.least]
        self.weights, self.moments = [np.eye(1, n)[0] for n in sizes], [np.zeros(n) for n in sizes]
        self.rows = [[np.zeros((2, n))] * one[0] for n, one in along(sizes, self.least)]
        self.taps = [np.zeros(own + other, np.float32) for _, own, other in self.filters]
        self.errors = [np.zeros(own, np.float32) for _, own, _ in self.filters]
        self.past, self.power, self.n = np.zeros(256), [1.0] * len(self.filters), len(least) + len(self.filters)
        m = ceil((self.n - 1) / 8) * 8
        self.blend = [np.zeros((m, m)), np.zeros(m), np.where(np.arange(m) < self.n - 1, 1 / self.n, 0), np.ones(1)]
        self.scales, self.classes, self.maps = [100.0] * 5, (0, 0), {}
        self.counters, self.mixers = defaultdict(lambda: (1 << 21, 0)), defaultdict(lambda: [13107] * 5 + [0, 0])

    def grid(self, p):
        return min(self.limit - 1.0, max(-self.limit, float(np.floor(p * 256 + 0.5)) / 256))  # NaN: the lower bound

    def sample(self, t, partner, stream):
        q, features = [], []
        for w, (own, *_) in along(self.weights, self.least):
            features.append(np.concatenate([self.past[:own], partner.past[: len(w) - own]]))
            q.append(self.grid(dot(w[:own], features[-1][:own]) + dot(w[own:], features[-1][own:])))
        for i, (base, own, other) in enumerate(self.filters):
            guess = q[base] + float(dot(self.taps[i][:own], self.errors[i]))
            q.append(self.grid(guess + float(dot(self.taps[i][own:], partner.errors[i][:other]))))
        p = q[0]
        for weight, guess in along(self.blend[2][: self.n - 1].tolist(), q[1:]):
            p += weight * (guess - q[0])
        p = self.grid(p)
        x = self.decisions(p, [p, p, p, q[1], q[-1]], partner, stream)
        self.learn(t, x, p, q, features, partner)
        return x

    def decisions(self, p, centres, partner, stream):
        ratio, inverse = self.scales[0] / (self.scales[2] + 0.02), [1.386 / (s + 0.02) for s in self.scales]
        r = sum(ratio > limit for limit in (0.35, 0.55, 0.75, 1, 1.3, 1.8, 2.6))
        least = next(o for o in range(32) if o == 31 or 2**o * 1.4 >= self.scales[1])
        contexts = partner.classes[0] * 8 + r, self.classes[0] * 8 + self.classes[1]
        inside, outside, up, start, centre = [2.0**31] * 5, [0.0] * 5, 1, 0, ceil(p)

        def decide(node, start):
            edge, side = centre - 0.5 + (start if up else -start), 1 if up else -1
            mass = [beyond((edge - c) * side * i) for c, i in along(centres, inverse)]
            parts = along(mass, inside, outside)
            inputs = [log_ratio(1 + int(max(0.0, m - low)), 1 + int(max(0.0, high - m))) for m, high, low in parts]
            cells = [(k, node, context) for k, context in enumerate(contexts)]
            inputs += [STRETCH[self.counters[cell][0] >> 10] for cell in cells]
            sets = [self.mixers[node], self.mixers[128 + min(node, 31) * 8 + r]]
            x, y = (clamp(sum(a * b for a, b in along(w, inputs)) >> 16, 3071) for w in sets)
            curve = self.maps.setdefault(node, [SQUASH[min(128 * i + 1, 6143)] for i in range(49)])
            at, part = ((x + y) >> 1) + 3072 >> 7, ((x + y) >> 1) + 3072 & 127
            refined = curve[at] * (128 - part) + curve[at + 1] * part >> 7
            bit = stream.bit(SQUASH[((x + y) >> 1) + 3072] + refined + 1 >> 1)
            curve[at + part // 64] += 65535 * bit - curve[at + part // 64] >> 6
            for w, z in along(sets, (x, y)):
                step = ((bit << 16) - SQUASH[z + 3072]) * 300 >> 10
                w[:] = [clamp(a + (i * step + 8192 >> 14), 1 << 20) for a, i in along(w, inputs)]
            for cell in cells:
                v, n = self.counters[cell]
                self.counters[cell] = v + ((4194303 * bit - v) * (131072 // (2 * n + 3)) >> 16), min(n + 1, 250)
            if node == 0:
                inside[:] = mass if bit else [2.0**31 - m for m in mass]
            else:
                (inside if bit else outside)[:] = mass
            return bit

        up = decide(0, 0) if centre + self.limit > 0 else 1
        room, width, octave, path = self.limit - centre if up else centre + self.limit, 2**least, 0, 1
        while start + width < room and decide(1 + octave, start + width):
            start, width, octave = start + width, width * (2 if octave else 1), min(octave + 1, 10)
        while width > max(2**least >> 3, 1):
            width >>= 1
            node = 32 + 8 * octave + path if path < 8 else 24
            bit = decide(node, start + width) if start + width < room else 0
            start, path = start + width * bit, 2 * path + bit
        start += stream.digits(width)
        x = centre + start if up else centre - 1 - start
        size = sum(abs(x - p) > v * self.scales[1] for v in (0.25, 0.8, 2.0))
        self.classes = 4 * (x < p) + size, self.classes[0]
        moved = along(self.scales, (0.15, 0.04, 0.008, 0.04, 0.04), centres)
        self.scales = [max(0.001, s + pace * (abs(x - c) - s)) for s, pace, c in moved]
        return x

    def learn(self, t, x, p, q, features, partner):
        for i, (base, own, other) in enumerate(self.filters):
            e, error = x - q[base], x - q[len(self.least) + i]
            g = np.float32(0.06 * error / ((self.power[i] + 1) * own + (partner.power[i] + 1) * other))
            self.taps[i] = self.taps[i] + g * np.append(self.errors[i], partner.errors[i][:other])
            self.errors[i] = np.append(np.float32(e), self.errors[i][:-1])
            self.power[i] = max(0.001, self.power[i] + (e * e - self.power[i]) * 4 / own)
        for k, (f, (own, _, memory, every)) in enumerate(along(features, self.least)):
            keep, n = 1 - 1 / memory, len(f)
            self.moments[k] = keep * self.moments[k] + x * f
            new = keep * self.rows[k][0] + np.array([f[0], f[own] if own < n else 0.0])[:, None] * f
            self.rows[k] = [tiny(new) if t % 256 == 255 else new, *self.rows[k][:-1]]
            if (t + 1) % every == 0 or t in (16, 64):
                matrix = 0.5 * np.eye(n)
                for i, (a, b) in enumerate(self.rows[k]):
                    matrix[i, i:own] += a[: own - i]
                    if i < n - own:
                        matrix[i, own + i :] += a[own : n - i]
                        matrix[i + 1 : own, own + i] += b[1 : own - i]
                        matrix[own + i, own + i :] += b[own : n - i]
                self.weights[k] = solution(matrix, self.moments[k], self.weights[k])
        matrix, vector, weights, level = self.blend
        level = level + 0.02 * (abs(x - p) - level)
        a, keep, d = 1 / ((level + 0.1) * (level + 0.1)), 1 - 1 / 400, np.zeros(len(vector))
        d[: self.n - 1] = np.array(q[1:]) - q[0]
        matrix, vector = keep * matrix + (a * d)[:, None] * d, keep * vector + (a * (x - q[0])) * d
        if t % 4 == 0:
            weights = solution(matrix + 0.5 * np.eye(len(d)), vector + 0.5 / self.n, weights)
        self.blend = [matrix, vector, weights, level]
        self.past = np.append(float(x), self.past[:-1])


def tiny(values):
    return np.where(abs(values) <= 1e-40, 0, values)


def clamp(value, limit):
    return min(max(value, -limit), limit)


def beyond(z):
    at = min(max((z + 24) * 32, 0), 1535.999)
    return MASS[int(at)] + (MASS[int(at) + 1] - MASS[int(at)]) * (at - int(at))


def log_ratio(*masses):
    a, b = (LN[(m << 11 >> m.bit_length()) - 1024] + 2839 * (m.bit_length() - 11) for m in masses)
    return clamp((a - b + 8) >> 4, 3071)


def dot(a, b):
    """Eight sums in order, then halves."""
    sums = np.cumsum(np.append(np.zeros(8, a.dtype), a * b).reshape(-1, 8), 0, a.dtype)[-1]
    sums = sums[:4] + sums[4:]
    return (sums[0] + sums[2]) + (sums[1] + sums[3])


def solution(matrix, vector, before):
    """By blocks of eight rows; the weights of before where there is none."""
    n, v, r = len(vector), vector.copy(), np.zeros(len(vector))
    for first in range(0, n, 8):
        for k in range(first, first + 8):
            for i in range(first, k):
                matrix[k, k:] += -(matrix[i, k] * r[i]) * matrix[i, k:]
            if not matrix[k, k] > 1e-9:
                return before
            r[k] = 1 / matrix[k, k]
        for k in range(first, first + 8):
            row = matrix[k, first + 8 :]
            matrix[first + 8 :, first + 8 :] -= (row * r[k])[:, None] * row
    for k in range(n):
        v[k + 1 :] += -(v[k] * r[k]) * matrix[k, k + 1 :]
    for k in reversed(range(n)):
        end = k // 8 * 8 + 8
        g = v[k] - dot(matrix[k, end:], v[end:])
        for i in range(k + 1, end):
            g = g - matrix[k, i] * v[i]
        v[k] = g * r[k]
    return v

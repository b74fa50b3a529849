"""Laconic's lossless pictures in plain Python and numpy: FORMAT.md's "Lossless picture", "Coded picture samples" read aloud."""

import struct
import zlib
from collections import defaultdict
from decimal import Decimal
from functools import cache, partial
from math import ceil

import numpy as np

along = partial(zip, strict=True)
OWN = (
    "0,-1 -1,0 -1,-1 -1,1 0,-2 -2,0 -2,1 -2,-1 -1,-2 -1,2 0,-3 -3,0 -2,2 -2,-2 -1,3 -1,-3 -3,1 -3,-1 0,-4 -3,2 -3,-2 -2,3 "
    "-2,-3 -4,0 -3,3 -3,-3 -4,1 -4,-1 -1,4 -1,-4 -2,4 -2,-4 0,-5 -4,2 -4,-2 -5,0 -3,4 -3,-4 -1,5 -1,-5 -4,3 -4,-3 0,-6 "
    "-5,1 -5,-1 -6,0 -2,5 -2,-5"
)
ONE = (
    "b0,0 0,-1 -1,0 b0,-1 b-1,0 -1,-1 -1,1 b0,1 b1,0 0,-2 -2,0 b-1,-1 b-1,1 b1,1 b1,-1 -2,1 -2,-1 -1,-2 -1,2 0,-3 -3,0 "
    "-2,2 -2,-2 -1,3 b0,2 b2,0 b0,-2 b-2,0 -1,-3 -3,1 -3,-1 -2,3 -2,-3 b-1,2 b-2,1 b1,2 b2,1 b-2,-1 b-1,-2 b1,-2 b2,-1 "
    "0,-4 -4,0 -3,2 -3,-2 b0,3 b2,2 b-3,0"
)
TWO = (
    "b0,0 0,-1 -1,0 b0,-1 b-1,0 c0,0 -1,-1 -1,1 b0,1 b1,0 c0,-1 c-1,0 0,-2 -2,0 b-1,-1 b-1,1 c0,1 c1,0 -2,1 -2,-1 -1,-2 "
    "-1,2 0,-3 c-1,1 c-1,-1 c1,1 c1,-1 -3,0 b0,2 b2,0 b0,-2 b-2,0 -2,2 -2,-2 -1,3 -1,-3 c0,2 c2,0 c0,-2 c-2,0 b-1,2 "
    "b-2,1 b1,2 b2,1 b-2,-1 b-1,-2 b1,-2 b2,-1"
)
TAPS = (OWN, ONE, TWO)
BLOCKS, STEPS = (8, 8, 8, 3), (0, 2, 2, 4)
WINDOWS = ((), ((32, 0.5, 0.8),), ((16, 0.16, 0.55), (32, 0.62, 0.85)), ((16, 0.5, 0.6), (48, 0.84, 0.9)))
F32 = np.float32
W, N, NW, NE, NN, WW = NEAR = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (-2, 0), (0, -2))
WIDER = ((-2, 1), (-1, 2), (-1, -2), (-2, -1), (0, -3))
WIDEST = ((-3, 0), (-3, -1), (-3, 1), (-2, 2), (-2, -2), (-1, 3), (-1, -3), (0, -4))


def nearest(x: Decimal) -> int:
    return int(x + Decimal("0.5")) if x >= 0 else -nearest(-x)


def clamp(x, low, high):
    return max(low, min(high, x))


@cache
def squash(x: int) -> int:
    return clamp(nearest(65536 / (1 + (-Decimal(clamp(x, -3071, 3071)) / 256).exp())), 1, 65535)


@cache
def stretch(p: int) -> int:
    q = (Decimal(p >> 4) + Decimal("0.5")) / 4096
    return nearest(256 * (q / (1 - q)).ln())


@cache
def ln4096(m: int) -> int:
    m = max(m, 1)
    shift = m.bit_length() - 11
    mantissa = m >> shift if shift >= 0 else m << -shift
    return nearest(4096 * (Decimal(mantissa) / 1024).ln()) + 2839 * shift


def log_ratio(a: int, b: int) -> int:
    return clamp((ln4096(max(a, 1)) - ln4096(max(b, 1)) + 8) >> 4, -3071, 3071)


@cache
def table(i: int) -> int:
    return nearest(Decimal(2**31) / (1 + (-Decimal(i - 1024) / 64).exp()))


def logistic(z: int) -> int:
    cell, part = divmod(clamp(z, -65536, 65535) + 65536, 64)
    return table(cell) + ((table(cell + 1) - table(cell)) * part >> 6)


def dot(a, b):
    sums = [F32(0)] * 4
    for i, (u, v) in enumerate(along(a, b)):
        sums[i % 4] += u * v
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


def times(matrix, vector):
    even, odd = (np.zeros(len(vector), F32) for _ in range(2))
    for i in range(0, len(vector), 2):
        even, odd = even + vector[i] * matrix[i], odd + vector[i + 1] * matrix[i + 1]
    return even + odd


def med(a, b, c):
    return min(a, b) if c >= max(a, b) else max(a, b) if c <= min(a, b) else a + b - c


def less(a: list[int], b: list[int]) -> list[int]:
    return [u - v for u, v in along(a, b)]


def shares(values: list[int]) -> list[int]:
    """Of 2**16."""
    s = max(0, sum(values).bit_length() - 32)
    return [(v >> s) * (2**48 // (sum(values) >> s)) >> 32 for v in values]


def add(h: int, value: int) -> int:
    return (h + value + 1) * 0x9E3779B97F4A7C15 % 2**64


def mixed(h: int) -> int:
    return (h ^ h >> 29) * 0x9E3779B97F4A7C15 % 2**64


def normal(sums):
    return np.where(abs(sums) > F32(1e-20), sums, F32(0))


def whole(sums):
    """The matrix from sums [n, n]: of two features in different tiles of 8, the earlier one's row counts."""
    tiles = np.arange(len(sums)) // 8
    return np.where(tiles[:, None] <= tiles, sums, sums.T)


def invert(a):
    """Section 5: Gauss-Jordan, float."""
    n = len(a)
    a, inverse = a.copy(), np.eye(n)
    for k in range(n):
        factor = 1.0 / a[k, k]
        a[k], inverse[k] = a[k] * factor, inverse[k] * factor
        for i in range(n):
            if i != k:
                factor = a[i, k]
                a[i], inverse[i] = a[i] - factor * a[k], inverse[i] - factor * inverse[k]
    return inverse.astype(F32)


def solve(sums, inverse, x, steps: int):
    """Section 5: float32. sums [n + 1, n], of which row n is the target's; x: coefficients of the row above."""
    n = len(x)
    a, d = whole(sums[:n]), np.arange(n)
    a[d, d] = a[d, d] * F32(1.0 + 1e-4) + F32(4)
    r = sums[n] - times(a, x)
    p = times(inverse, r)
    rz = dot(r, p)
    for _ in range(steps):
        q = times(a, p)
        pq = dot(p, q)
        if not (rz > F32(1e-20) and pq > F32(1e-9) * rz):
            break
        alpha = rz / pq
        x, r = x + alpha * p, r - alpha * q
        z = times(inverse, r)
        rz, before = dot(r, z), rz
        p = z + rz / before * p
    return x


class Counters(defaultdict):
    def __init__(self):
        super().__init__(lambda: (1 << 21, 0))

    def says(self, key) -> int:
        return self[key][0] >> 6

    def count(self, key, bit: int) -> None:
        p, n = self[key]
        self[key] = p + (((4194303 if bit else 0) - p) * (131072 // (2 * n + 3)) >> 16), min(n + 1, 250)


class Mixer:
    def __init__(self, bits, first: list[int], weights: dict | None = None):
        self.bits, self.first, self.weights = bits, first, {} if weights is None else weights
        self.maps = defaultdict(lambda: [squash(min(128 * i - 3071, 3071)) for i in range(49)])

    def code(self, sets: list, context, inputs: list[int], rate: int) -> int:
        for s in sets:
            self.weights.setdefault(s, self.first)
        mixes = [clamp(sum(w * i for w, i in along(self.weights[s], inputs)) >> 16, -3071, 3071) for s in sets]
        x = sum(mixes) >> len(sets) - 1
        p, m, (cell, part) = squash(x), self.maps[context], divmod(x + 3072, 128)
        q = (p + ((m[cell] * (128 - part) + m[cell + 1] * part) >> 7)) >> 1
        bit = self.bits.read(q)
        step = ((bit << 16) - p) * rate >> 10
        for s in sets:
            moved = [w + ((i * step + 8192) >> 14) for w, i in along(self.weights[s], inputs)]
            self.weights[s] = [clamp(w, -(2**20), 2**20) for w in moved]
        cell += part >= 64
        m[cell] += ((65535 if bit else 0) - m[cell]) >> 6
        return bit


class Bits:
    """A stream of one lane."""

    def __init__(self, data: bytes, at: int):
        head, at = varint(data, at)
        self.x, *self.words = struct.unpack(f"<I{head >> 3}H", data[at:])

    def read(self, p: int) -> int:
        q = clamp(p >> 1, 1, 32767)
        slot, bit = self.x & 32767, int(self.x & 32767 < q)
        self.x = (q if bit else 32768 - q) * (self.x >> 15) + slot - (0 if bit else q)
        if self.x < 65536:
            self.x = self.x << 16 | self.words.pop(0)
        return bit


class Plane:
    """samples, errors, hits: by (row, column), 0 where nothing is."""

    def __init__(self, h: int, w: int, values=None):
        self.h, self.w, (self.samples, self.errors, self.hits) = h, w, (defaultdict(int) for _ in range(3))
        if values is not None:  # not coded
            places = ((y, x) for y in range(h + 2) for x in range(-6, w + 6))
            self.samples.update({(y, x): int(values[min(y, h - 1), clamp(x, 0, w - 1)]) for y, x in places})

    def numbers(self):
        return np.array([[self.samples[y, x] for x in range(self.w)] for y in range(self.h)])


class Coder:
    """A plane that is coded: `planes` are it, b, c."""

    def __init__(self, planes: list[Plane], top: int, K: int, level: int, bits: Bits, weights: dict, evidence: dict):
        self.planes, self.top, self.K, self.guessed, self.bits = planes, top, K, level & 4, bits
        self.block, self.steps, w = BLOCKS[level % 4], STEPS[level % 4] * (4 if level & 4 else 1), planes[0].w
        self.windows = [(n, F32(decay), F32(fall)) for n, decay, fall in WINDOWS[level % 4]]
        self.E, self.unit, self.before = 8 + len(self.windows), 2.0 ** -max(0, top.bit_length() - 8), len(planes) - 1
        taps = [(" bc".find(t[0]), t.lstrip("bc").split(",")) for t in TAPS[self.before].split()]
        self.taps = [(max(k, 0), int(dy), int(dx)) for k, (dy, dx) in taps]
        self.above = [np.zeros((ceil(w / self.block), n + 1, n), F32) for n, _, _ in self.windows]
        self.solutions = [np.zeros((len(a), a.shape[2]), F32) for a in self.above]
        self.lms, self.recent = np.zeros(24, F32), np.full((3, self.E, w + 10), 4.0)
        means = np.multiply.accumulate([0.1] + [1.2840254166877414] * 63)
        self.calibration = [[[float(m), 0.5] for m in means] for _ in range(self.E)]
        self.M, self.posteriors, self.evidence = self.E + 2, {}, evidence
        first = [65536] + [49152 // self.M] * (self.M - 1) + [5461] * 6 + [16384]
        self.mixer, self.counters = Mixer(bits, first + [0] * (24 - len(first)), weights), Counters()
        self.guesser, self.trust, self.entries = Mixer(bits, [16384] * 14 + [0] * 2), Counters(), {}

    def decode(self) -> Plane:
        plane, (h, w) = self.planes[0], (self.planes[0].h, self.planes[0].w)
        s, e = plane.samples, plane.errors
        for y in range(h):
            s.update({(y, -i): s[y - 1, 0] for i in range(1, 7)})
            self.y, self.right, r = y, [np.zeros_like(a) for a in self.above], self.recent[y % 3]
            self.left = [np.zeros(a.shape[1:], F32) for a in self.above]
            if y < 4 or y % 4 == 0:
                self.inverses = [self.precondition(above) for above in self.above]
            for (_, decay, _), right, above in along(self.windows, self.right, self.above):
                for j in range(len(above) - 2, -1, -1):
                    right[j] = normal(decay * (right[j + 1] + above[j + 1]))
            for x in range(w):
                if x % self.block == 0:
                    self.now, self.coefficients = np.zeros((49, 48), F32), None
                self.x = x
                self.sample()
                if x % self.block == self.block - 1 or x == w - 1:
                    self.end_block(x // self.block)
            for i in range(6):
                s[y, w + i], e[y, w + i], e[y, -1 - i] = s[y, w - 1], e[y, w - 1], e[y, 0]
            r[:, :5], r[:, 5 + w :] = r[:, 5:6], r[:, 4 + w : 5 + w]
        for y, x in ((y, x) for y in (h, h + 1) for x in range(-6, w + 6)):
            s[y, x], e[y, x] = s[h - 1, x], e[h - 1, x]
        return plane

    def end_block(self, j: int) -> None:
        for m, (n, decay, fall) in enumerate(self.windows):
            now, above = np.vstack([self.now[:n, :n], self.now[48, :n]]), self.above[m][j]
            self.left[m] = normal(decay * (self.left[m] + above + now))
            self.above[m][j] = normal(fall * above + now)

    def precondition(self, above):
        """The inverse for all blocks of a window together."""
        sums = np.zeros(above.shape[1:], F32)
        for block in above:
            sums = sums + block
        mean = np.triu(sums[:-1].astype(float) / len(above))
        mean, d = np.where(mean == 0, mean.T, mean), np.arange(len(mean))
        mean[d, d] = mean[d, d] + (1e-3 * mean[d, d] + 4.0)
        return invert(mean)

    def at(self, plane: int, dy: int, dx: int) -> int:
        return self.planes[plane].samples[self.y + dy, self.x + dx]

    def error(self, plane: int, dy: int, dx: int) -> int:
        return self.planes[plane].errors[self.y + dy, self.x + dx]

    def sample(self) -> None:
        """Section 11 around sections 4 to 9."""
        here, place, value, tried, error = self.recent[self.y % 3][:, self.x + 5], (self.y, self.x), None, [], 0
        easy = self.guessed and self.look()
        if not easy:
            self.predict()
        if self.guessed:
            value, tried = self.guess(easy)
        if easy and value is not None:
            here[:] = 0.0
        else:
            if easy:
                self.predict()
            value = self.decode_error(tried) if value is None else value
            error = int((value - self.p[0]) * 256.0)
            self.infer(value)
            self.adapt(value, here)
        self.planes[0].samples[place], self.planes[0].errors[place] = value, error
        if self.guessed:
            self.remember(value, tried)

    def predict(self) -> None:
        """Sections 4, 6, 7."""
        at, unit, n = self.at, self.unit, len(self.windows)
        bases = [(at(k, *W) + at(k, *N) + at(k, *NW) + at(k, *NE)) * 0.25 for k in range(self.before + 1)]
        self.base, self.f = bases[0], np.array([(at(k, dy, dx) - bases[k]) * unit for k, dy, dx in self.taps], F32)
        if self.coefficients is None:
            j = self.x // self.block
            for a, left, r, inverse, x in along(self.above, self.left, self.right, self.inverses, self.solutions):
                x[j] = solve(a[j] + left + r[j], inverse, x[j], self.steps)
            self.coefficients = [x[j] for x in self.solutions]
        p = [0.0] + [self.base + float(dot(y, self.f[: len(y)])) / unit for y in [*self.coefficients, self.lms]]
        w, north, nw, ne, nn, ww = (at(0, *place) for place in NEAR)
        if self.before == 0:
            p += [
                med(w, north, nw),
                (w + north) * 0.5 + (ne - nw) * 0.25,
                w + ne - north,
                2 * north - nn,
                2 * w - ww,
                north,
            ]
        else:
            b, (dw, dn, dnw, dne) = at(1, 0, 0), (at(0, *place) - at(1, *place) for place in NEAR[:4])
            p += [b + med(dw, dn, dnw), b + (dw + dn) * 0.375 + (dne + dnw) * 0.125, b + dw, b + dn, north + w - nw]
            p += [(north + w) * 0.5 + (ne - nw) * 0.25]
            if self.before == 2:
                p[-2] = at(2, 0, 0) + ((w - at(2, *W)) + (north - at(2, *N))) * 0.5
        self.p = p = [float(min(v, self.top)) if v >= 0 else 0.0 for v in p]
        r = lambda dy, dx: self.recent[(self.y + dy) % 3][:, self.x + 5 + dx]
        near = (r(*W) + r(*N)) * 2.0 + (r(*NW) + r(*NE))
        e = (near + (r(*WW) + r(*NN)) + 4.0) * unit
        weights = (1.0 / (e * e)) * (1.0 / (e * e))
        total = weighted = common = 0.0
        for weight, v in along(weights[1:], p[1:]):
            total, weighted = total + weight, weighted + weight * v
        p[0] = float(weighted / total)
        for k in range(n + 1):
            common += (0.12 if k == 0 else 0.05) * abs(p[1 + k] - p[0])
        common += 0.04 * abs(p[2 + n] - p[0])
        if self.before:
            e = lambda *place: abs(self.error(1, *place))
            t = 0.03 * e(0, 0) + 0.013 * (e(0, 1) + e(1, 0)) + 0.006 * (e(*W) + e(*N) + e(1, 1) + e(1, -1))
            common += t * 0.5 / 256.0 if self.before == 1 else (t + 0.005 * abs(self.error(2, 0, 0))) / 256.0
        energy = r(*W) * 0.1 + r(*N) * 0.08 + r(*NW) * 0.04 + r(*NE) * 0.06
        energy = energy + (r(*WW) * 0.056 + r(*NN) * 0.05 + r(-1, 2) * 0.045) + r(-2, 1) * 0.03 + r(-1, -2) * 0.028
        energy = energy + common + 0.2 * np.abs(np.array(p) - p[0])
        cells = [clamp((ln4096(int(e * 192.0 + 20.0)) >> 10) + 17, 0, 63) for e in energy]
        self.cells, self.mu = [c[i] for c, i in along(self.calibration, cells)], [int(v * 256.0 + 0.5) for v in p]
        self.inverse = [int(1048576.0 / max(mean * 0.72, 0.04)) for mean, _ in self.cells]
        self.mu, self.inverse = self.mu + self.mu[:1] * 2, self.inverse + [self.inverse[0] * 2, self.inverse[0] >> 1]
        q = lambda dy, dx: self.posteriors.get((self.y + dy, self.x + dx), [4096] * self.M)
        w = [2 * (a + b) + c + d + e + f + 2600 for a, b, c, d, e, f in along(*(q(*p) for p in (W, N, NW, NE, WW, NN)))]
        if self.before:
            w = [v * e for v, e in along(w, self.evidence.get((self.y, self.x), [1] * self.M))]
        self.gate = [(v >> max(0, sum(w).bit_length() - 16)) + 1 for v in w]

    def infer(self, value: int) -> None:
        """Section 8, the circuit."""
        place, h = (self.y, self.x), int(128 / self.unit)
        F = [logistic((256 * value - m) * i >> 16) >> 8 for m, i in along(self.mu, self.inverse)]
        slopes = [(v * (2**23 - v) >> 15) * (i * h >> 11) >> 16 for v, i in along(F, self.inverse)]
        f = [min(v, 2**31) + 2**18 for v in slopes]
        self.posteriors[place] = shares([g * v for g, v in along(self.gate, f)])
        known = along(self.evidence.get(place, [1] * self.M), f)
        self.evidence[place] = [clamp(v, 1, 65535) for v in shares([e * v for e, v in known])]

    def adapt(self, value: int, here) -> None:
        """Section 8."""
        n, f = len(self.windows), self.f
        m, s = self.cells[0][0] * self.unit, self.cells[1 + n][0] * self.unit
        move = (1 / 256) * ((value - self.p[1 + n]) * self.unit) / (float(dot(f[:24], f[:24])) + 20.0 * s * s + 1.0)
        self.lms = self.lms + F32(move) * f[:24]
        weight = 1.0 / (0.3 * m * m + 0.5 * m + 0.5)
        self.now[:48] += (f * F32(weight))[:, None] * f
        self.now[48] += F32((value - self.base) * self.unit * weight) * f
        for k, cell in enumerate(self.cells):
            here[k] = e = abs(self.p[k] - value)
            cell[0] += (e - cell[0]) * cell[1]
            cell[1] = cell[1] / (1.0 + cell[1]) if cell[1] > 0.01 else cell[1]

    def decode_error(self, wrong: list[int]) -> int:
        """Section 9: the sample."""
        K, mu, step, width = self.K, self.mu[0], 2 * self.K + 1, 1
        centre, spread = (mu + 128) >> 8, max(self.cells[0][0], 0.05) / step
        low, high = bounds = -((centre + K) // step), (self.top - centre + K) // step
        while 2 * width < spread * 0.9 + 0.5:
            width *= 2
        self.choose_contexts(spread, width)
        out = [value - centre for value in wrong] if K == 0 else []

        def below(e: int) -> list[int]:
            edge = 256 * centre - 128 * step + 256 * step * e
            return [logistic((edge - m) * i >> 16) for m, i in along(self.mu, self.inverse)]

        @cache
        def mass(e: int) -> list[int]:
            start = [0] * self.M if e <= bounds[0] else [2**31] * self.M if e > bounds[1] else below(e)
            for gone in out:
                start = less(start, less(below(gone + 1), below(gone))) if gone < e else start
            return start

        first = ((mu - 256 * centre) // step - ((width - 1) << 7) + 128) >> 8
        first, last = max(first, low), min(first + width - 1, high)
        inside, whole = less(mass(last + 1), mass(first)), mass(high + 1)
        if (first, last) == (low, high) or self.decide(0, inside, less(whole, inside)):
            low, high = first, last
        else:
            up = last < high
            if up and first > low:
                up = self.decide(1, less(whole, mass(last + 1)), mass(first)) == 1
            low, high = (last + 1, high) if up else (low, first - 1)
            for i in range(40):
                if high - low < width:
                    break
                cut = low + width if up else high - width + 1
                far, near = less(mass(high + 1), mass(cut)), less(mass(cut), mass(low))
                beyond = self.decide(2 + min(i, 9), *((far, near) if up else (near, far)))
                low, high = (cut, high) if beyond == up else (low, cut - 1)
                if not beyond:
                    break
                width *= 2 if i else 1
        while low < high:
            cut = (low + high + 1) >> 1
            ratio = log_ratio(mass(high + 1)[0] - mass(cut)[0], mass(cut)[0] - mass(low)[0])
            low, high = (cut, high) if self.bits.read(squash(clamp(ratio, -256, 256))) else (low, cut - 1)
        return clamp(centre + step * low, 0, self.top)

    def choose_contexts(self, spread: float, width: int) -> None:
        q = lambda e: sum(t < (e * self.inverse[0] >> 16) for t in (-9000, -4096, -1229, 1229, 4096, 9000))
        self.scale, mu = clamp(((ln4096(int(spread * 1024.0)) + 2048) >> 10) + 8, 0, 31), self.mu[0]
        size, texture, before = (width > 1) + (width > 2) + (width > 4), 0, 0
        for place in NEAR:
            texture = 2 * texture + (self.at(0, *place) * 256 > mu)
        for k in range(1, self.before + 1):
            before = 7 * before + q(self.error(k, 0, 0))
        side = 7 * q(self.error(0, *W)) + q(self.error(0, *N))
        by_size = [4 * c + size for c in (texture, side, before)]
        self.contexts = self.scale, *by_size, 32 * ((mu >> 5) & 7) + self.scale, int(mu * self.unit) >> 7

    def decide(self, kind: int, yes: list[int], no: list[int]) -> int:
        first, *ratios = [log_ratio(a, b) for a, b in along(yes, no)]
        keys = [(i, context, kind) for i, context in enumerate(self.contexts)]
        circuit = log_ratio(*(sum(g * m for g, m in along(self.gate, masses)) for masses in (yes, no)))
        inputs = [v - first for v in [*ratios, *(stretch(self.counters.says(key)) for key in keys), circuit]]
        inputs = [first, *inputs, 256] + [0] * (22 - len(inputs))
        bit = self.mixer.code([(self.scale >> 2, kind)], (self.scale, kind), inputs, 60 + 4800 // (16 + self.y))
        for key in keys:
            self.counters.count(key, bit)
        return bit

    def look(self) -> bool:
        """Hashes H, entries, and each expert's value and state. Is the sample easy?"""
        H, start, at = [0] * 7, 0, self.at

        def more(h: int, *places) -> int:
            for place in places:
                h = add(h, at(0, *place))
            return h

        for k in range(1, self.before + 1):
            start = add(start, at(k, 0, 0))
        H[5], H[4] = start if self.before else more(0, N, NE), more(start, W)
        H[3] = more(H[4], N)
        H[2] = more(H[3], NW, NE)
        H[1] = more(H[2], WW, NN)
        H[0] = more(H[1], *WIDER)
        H[6] = more(H[0], *WIDEST)
        self.H, self.slots, self.experts = H, [], []
        for k, m in enumerate(map(mixed, H)):
            self.slots.append(((k, m >> 46), (m >> 20) % 4096))
            check, run, value = self.entries.get((k, m >> 46), (0, 0, 0))
            self.experts.append((value, run) if run and check == (m >> 20) % 4096 else (None, 0))
        same = lambda a, b, k=0: int(k <= self.before and at(k, *a) == at(k, *b))
        for near, far in ((W, WW), (N, NN)):
            state = same(W, N) + 2 * same(N, NE) + 4 * same(near, NW) + 32 * same(near, far)
            self.experts.append((at(0, *near), state + 8 * same((0, 0), near, 1) + 16 * same((0, 0), near, 2)))
        return any(v is not None and self.trust.says((k, s)) >= 60000 for k, (v, s) in enumerate(self.experts))

    def guess(self, easy: bool) -> tuple[int | None, list[int]]:
        """The value or none, and all guesses."""
        hit = lambda k, dy, dx: self.planes[k].hits[self.y + dy, self.x + dx]
        near, tried = sum(hit(0, *place) for place in NEAR[:4]) + (5 * hit(1, 0, 0) if self.before else 0), []
        for i in range(4):
            left = [(k, v, s) for k, (v, s) in enumerate(self.experts) if v is not None and v not in tried]
            trust, best, value = max([(self.trust.says((k, s)), -k, v) for k, v, s in left], default=(0, 0, 0))
            if trust < (4096 if i else 20000):
                break
            tried.append(value)
            agree = [int(v == value) for v, _ in self.experts]
            keys = [("agreement", k, i > 0, s, agree[k]) for k, (_, s) in enumerate(self.experts)]
            keys += [("direct", order, mixed(add(self.H[order], value)) >> 46) for order in (1, 2, 3, 6)]
            opinion = 0
            if not easy:
                t, reach = 256 * value - self.mu[0], 256 * self.K + 128
                m = logistic((t + reach) * self.inverse[0] >> 16) - logistic((t - reach) * self.inverse[0] >> 16)
                opinion = log_ratio(m, 2**31 - m)
            inputs = [stretch(self.counters.says(key)) for key in keys] + [opinion, 256, 0]
            bit = self.guesser.code([("one", i, near), ("two", i, best)], (i, *agree), inputs, 500)
            for key in keys:
                self.counters.count(key, bit)
            if bit:
                return value, tried
        return None, tried

    def remember(self, value: int, tried: list[int]) -> None:
        self.planes[0].hits[self.y, self.x] = int(tried[:1] == [value])
        for k, (v, s) in enumerate(self.experts):
            if v is not None:
                self.trust.count((k, s), int(v == value))
            if k < 7:
                slot, check = self.slots[k]
                self.entries[slot] = check, min(s + 1, 15) if v == value else 1, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def varints(data: bytes, at: int, n: int) -> tuple[list[int], int]:
    out = []
    for _ in range(n):
        value, at = varint(data, at)
        out.append(value)
    return out, at


def decode(file: bytes):
    """The samples of a file, [h, w, C]."""
    assert file[:8] == b"\x89Lc\r\n\x01\x02\0", "another magic, version or medium, or a model"
    (_, width, height, shape, K, n), at = varints(file, 8, 6)
    table, tiles = [], []
    for _ in range(n):
        size, after = varint(file, at + 1)
        table.append((file[at], size))
        at = after + 4
    at += 4
    for kind, size in table:
        tiles += [file[at : at + size]] if kind == 7 else []
        at += size
    side = 2048 if shape & 8 else 1024
    rows, cols = ceil(height / side), ceil(width / side)
    if side == 1024 and rows * cols == 1 and height * width >= 131072:
        rows, cols = (1, 2) if height < width // 4 else (2, 1)
    out = np.zeros((height, width, shape % 4 + 1), "<u2" if shape & 4 else "u1")
    for t, data in enumerate(tiles):
        i, j = divmod(t, cols)
        part = out[height * i // rows : height * (i + 1) // rows, width * j // cols : width * (j + 1) // cols]
        part[:] = decode_tile(data[4:], *part.shape, out.dtype, K)
        assert zlib.crc32(part.astype("<u2").tobytes()) == int.from_bytes(data[:4], "little"), "other samples"
    return out


def decode_tile(data: bytes, h: int, w: int, C: int, dtype, K: int):
    K = 0 if data[0] & (8 | 32) else K
    if data[0] == 16:
        return np.frombuffer(data[1:], dtype).reshape(h, w, C)
    heads, planes, at, out = [], [], 1, np.zeros((h, w, C), np.uint16)
    for _ in range(C):
        kind, at = data[at], at + 1
        if kind == 0:
            low, high = struct.unpack_from("<HH", data, at)
            head, at = (np.arange(low, high + 1), None), at + 4
        elif kind == 1:
            (n, size), at = varints(data, at, 2)
            head, at = (np.cumsum(varints(zlib.decompress(data[at : at + size]), 0, n)[0]), None), at + size
        else:
            head, at = (heads[data[at]][0], data[at]), at + 1
        heads.append(head)
    bits, weights, evidence = Bits(data, at), {}, {}
    for c, (levels, same) in enumerate(heads):
        if same is None and len(levels) > 1:
            coder = Coder([Plane(h, w), *planes[:-3:-1]], len(levels) - 1, K, data[0], bits, weights, evidence)
            planes.append(coder.decode())
        else:
            planes.append(Plane(h, w, np.zeros((h, w)) if same is None else planes[same].numbers()))
        out[..., (1, 0, 2, 3)[c] if C > 2 else c] = levels[planes[c].numbers()]
    assert bits.x == 65536 and not bits.words, "the stream does not end as it should"
    if data[0] & 32:
        half = 128 if dtype == "u1" else 32768
        out[..., [0, 2]] = (out[..., [0, 2]].astype(int) + out[..., [1]] - half) % (2 * half)
    return out

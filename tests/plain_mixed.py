"""Laconic's mixed y in plain Python: FORMAT.md's "Mixed y" read aloud, on top of what tests/plain_picture.py has of it."""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from plain_picture import Bits, clamp, log_ratio, squash, varint

ZERO, ONE, MORE, SIGN = range(4)
RATIOS = [Fraction(a, b) for a, b in ((7, 20), (3, 5), (17, 20), (23, 20), (8, 5), (5, 2))]


def odds(yes: int, no: int) -> int:
    return log_ratio(max(yes, 1), max(no, 1))


def ratio(a: int, b: int) -> int:
    return sum(bound <= Fraction(256 * a + 77, b + 77) for bound in RATIOS)


def t(s: int) -> int:
    return 0 if s == 0 else 1 if s > 0 else 2


class Row:
    def __init__(self, first: int, starts: list[int]):
        *masses, self.escape = [b - a for a, b in pairwise(starts)]
        self.masses = dict(enumerate(masses, first))
        self.last = {1: max(first + len(masses) - 1, 0), -1: max(-first, 0)}
        outside = self.escape * (max(self.last.values()) + 1)
        self.expected = (sum(abs(s) * m for s, m in self.masses.items()) + outside) >> 7
        self.known: dict[tuple[int, int], int] = {}

    def f(self, side: int, k: int) -> int:
        if k > self.last[side] + 1:
            return 0
        if (side, k) not in self.known:
            self.known[side, k] = self.escape + 2 * sum(m for s, m in self.masses.items() if s * side >= k)
        return self.known[side, k]

    def larger(self, side: int, k: int, cut: int) -> int:
        return odds(self.f(side, cut), self.f(side, k) - self.f(side, cut))


class Tile:
    """The symbols, and what is expected of them, by (channel, row, column)."""

    def __init__(self, payload: bytes, shape: tuple[int, int, int], rows: list[tuple[int, list[int]]]):
        head, _ = varint(payload, 0)
        assert head % 8 == 0, "one lane, no escapes"
        self.shape, self.rows, self.bits = shape, [Row(*row) for row in rows], Bits(payload, 0)
        self.s, self.x = defaultdict(int), defaultdict(int)
        self.corrections, self.in_channel = defaultdict(int), defaultdict(lambda: [0, 0])

    def places(self, n: int) -> Iterator[tuple[int, int, int]]:
        channels, height, width = self.shape
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    if y % 2 + 2 * ((y + x) % 2) ^ c % 4 == n:
                        yield c, y, x

    def read_pass(self, n: int, indices: list[int]) -> list[int]:
        found, self.at_place = [], defaultdict(lambda: [0, 0])
        for place, index in zip(self.places(n), indices, strict=True):
            c, y, x = place
            row = self.rows[index]
            s = self.read(place, row)
            self.s[place], self.x[place] = s, row.expected
            for sums in (self.at_place[y, x], self.in_channel[c]):
                sums[0] += abs(s)
                sums[1] += row.expected
            found.append(s)
        return found

    def read(self, place: tuple[int, int, int], row: Row) -> int:
        m = row.masses.get(0, 0)
        x = odds(32768 - m, m)
        contexts = self.contexts(place) if x >= -1536 else None
        if not self.decide(x, ZERO, contexts):
            return 0
        side = 1 if self.decide(odds(row.f(1, 1), row.f(-1, 1)), SIGN, contexts) else -1
        for k in range(1, 16):
            if not self.decide(row.larger(side, k, k + 1), ONE if k == 1 else MORE, contexts):
                return side * k
        low = 16
        while low < 16384 and self.bits.read(squash(row.larger(side, low, 2 * low))):
            low *= 2
        high = 2 * low
        while high - low > 1:
            cut = (low + high) >> 1
            x = odds(row.f(side, cut) - row.f(side, high), row.f(side, low) - row.f(side, cut))
            low, high = (cut, high) if self.bits.read(squash(x)) else (low, cut)
        return side * low

    def decide(self, x: int, kind: int, contexts: tuple[list[object], list[object]] | None) -> int:
        if contexts is None:
            return self.bits.read(squash(x))
        keys = [(kind, i, context) for i, context in enumerate(contexts[kind == SIGN])]
        p = squash(x + (sum(self.corrections[key] for key in keys) >> 16))
        bit = self.bits.read(p)
        for key in keys:
            moved = self.corrections[key] + ((bit << 16) - p) * (5 if kind == SIGN else 3)
            self.corrections[key] = clamp(moved, -(2**27), 2**27)
        return bit

    def contexts(self, place: tuple[int, int, int]) -> tuple[list[object], list[object]]:
        c, y, x = place

        def s(i: int, j: int) -> int:
            return self.s.get((c, y + i, x + j), 0)

        def a(i: int, j: int) -> int:
            return abs(s(i, j))

        def e(i: int, j: int) -> int:
            return self.x.get((c, y + i, x + j), 0)

        def near(v) -> int:
            return 2 * v(0, -2) + 2 * v(-2, 0) + v(-2, -2) + v(-2, 2)

        def cross(v) -> int:
            return v(0, -1) + v(0, 1) + v(-1, 0) + v(1, 0)

        def around(v) -> int:
            return 2 * cross(v) + v(-1, -1) + v(-1, 1) + v(1, -1) + v(1, 1)

        n3, n4 = ratio(*self.at_place[y, x]), ratio(*self.in_channel[c])
        a4, a8 = (abs(self.s.get((c - k, y, x), 0)) for k in (4, 8))
        before, beside = 3 * t(s(-2, 0)) + t(s(0, -2)), 3 * t(s(-1, 0) + s(1, 0)) + t(s(0, -1) + s(0, 1))
        return [
            c,
            49 * ratio(near(a), near(e)) + 7 * ratio(around(a), around(e)) + n3,
            16 * min(near(a), 15) + min(around(a), 15),
            16 * n4 + 4 * min(a4, 3) + min(a8, 3),
            9 * c + 3 * min(a(0, -2) + a(-2, 0), 2) + min(cross(a), 2),
        ], [9 * before + beside, c, 9 * c + beside]

"""A writer of LLVM text for kernels on 16 lanes: arithmetic, loads from a table, and the words that lanes share.

`Lines` hides how CPUs differ. Two things are not done alike in all lanes, so vector instructions for them exist on some
CPUs only: a load from a different place per lane, and the words, which only some lanes write or read, one after
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HALF = 16  # lanes of a vector: half of a row of 32 symbols
V, V16, MASK = f"<{HALF} x i32>", f"<{HALF} x i16>", f"<{HALF} x i1>"
REAL = f"<{HALF} x float>"
BYTES = "<16 x i8>"
# A pair of 32-bit values is loaded as one i64, 8 pairs to a vector. In this order of lanes the shuffles that take all
# low or all high values apart move nothing across parts of 128 bits, which makes them cheap.
PAIRS = [[lane for lane in range(HALF) if lane & 2 == 2 * second] for second in range(2)]


@dataclass(frozen=True)
class Style:
    """Says how a CPU best does what is not alike in all lanes.

    compress: packs and unpacks 16-bit lanes by a mask in one instruction. shuffle: moves 16 bytes at once to places
    that a table says. gather: its gather instruction beats 16 loads. So it was measured to be on Intel, when the
    encoder did not yet look up through memory, and not to be on Zen 4.
    """

    compress: bool
    shuffle: bool
    gather: bool


class Lines:
    """Collects the text of one function, a value or statement per line. Where no type is said, vectors are 16 x i32.

    `name = v("add i64 %a, %b")` defines a value and gives its name; `v.do("br label %next")` adds any other line.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.lines: list[str] = []

    def __call__(self, line: str) -> str:
        """Define a value; return its name."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {line}")
        return name

    def do(self, line: str) -> None:
        """Add a statement, a label or a definition that brings its own name."""
        self.lines.append(line if line.endswith(":") else f"  {line}")

    def function(self, head: str, pointers: Sequence[str], integers: Sequence[str]) -> str:
        """Return the whole function. head: as "define i64 @name"."""
        arguments = [*(f"ptr noalias %{name}" for name in pointers), *(f"i64 %{name}" for name in integers)]
        return f"{head}({', '.join(arguments)}) {{\n" + "\n".join(self.lines) + "\n}\n"

    # Arithmetic

    def op(self, name: str, a: str, b: str | int) -> str:
        """Compute `a name b` in all lanes; an integer b is the same in each."""
        return self(f"{name} {V} {a}, {splat(b) if isinstance(b, int) else b}")

    def test(self, how: str, a: str, b: str | int) -> str:
        """Compare in all lanes; return a mask."""
        return self(f"icmp {how} {V} {a}, {splat(b) if isinstance(b, int) else b}")

    def choose(self, mask: str, a: str, b: str) -> str:
        """Take a in the lanes of the mask, b in the others."""
        return self(f"select {MASK} {mask}, {V} {a}, {V} {b}")

    def spread(self, value: str) -> str:
        """Put an i64 into all lanes."""
        one = self(f"insertelement {V} poison, i32 {self(f'trunc i64 {value} to i32')}, i32 0")
        return self(f"shufflevector {V} {one}, {V} poison, {V} zeroinitializer")

    def count(self, mask: str) -> str:
        """Count the lanes of a mask: an i64."""
        bits = self(f"bitcast {MASK} {mask} to i16")
        n = self(f"call i16 @llvm.ctpop.i16(i16 {bits})")
        return self(f"zext i16 {n} to i64")

    def any(self, mask: str) -> str:
        """Tell whether a mask has a lane: an i1."""
        return self(f"icmp ne i16 {self(f'bitcast {MASK} {mask} to i16')}, 0")

    # Memory

    def pointer(self, base: str, index: str, kind: str) -> str:
        """Point to the element of a kind at an index."""
        return self(f"getelementptr {kind}, ptr {base}, i64 {index}")

    def load(self, base: str, index: str, kind: str, n: int = HALF) -> str:
        """Load n neighbours of a kind."""
        return self(f"load <{n} x {kind}>, ptr {self.pointer(base, index, kind)}, align {int(kind[1:]) // 8}")

    def single(self, extend: str, base: str, index: str, kind: str) -> str:
        """Load one of a kind as an i64. extend: "zext" or "sext"."""
        value = self(f"load {kind}, ptr {self.pointer(base, index, kind)}")
        return self(f"{extend} {kind} {value} to i64")

    def prefetch(self, base: str, index: str, kind: str, write: int = 0) -> None:
        """Ask for a cache line, since a CPU by itself foresees reading only within a page.

        It may lie beyond the array.
        """
        self.do(f"call void @llvm.prefetch.p0(ptr {self.pointer(base, index, kind)}, i32 {write}, i32 3, i32 1)")

    def flag(self, seen: str, group: str) -> None:
        """Store whether any lane of a row saw an escape."""
        self.do(f"store i8 {self(f'zext i1 {self.any(seen)} to i8')}, ptr {self.pointer('%flags', group, 'i8')}")

    # Loads from a table

    def gather(self, base: str, places: str) -> list[str]:
        """Load the i64 at each of 16 places; return their low and their high halves."""
        return self.halves([self.some(base, places, lanes) for lanes in PAIRS])

    def collect(self, base: str, places: str, to: str) -> None:
        """Copy the i64 at each of 16 places, themselves in memory, to memory, in the order of PAIRS."""
        if self.style.gather:
            vector = self.load(places, "0", "i32")
            for part, lanes in enumerate(PAIRS):
                some = self.some(base, vector, lanes)
                self.do(
                    f"store <{HALF // 2} x i64> {some}, ptr {self.pointer(to, str(HALF // 2 * part), 'i64')}, align 64"
                )
            return
        order = PAIRS[0] + PAIRS[1]
        for lane in range(0, HALF, 2):  # two places in one load, since loads are what there is most of
            two = self(f"load i64, ptr {self.pointer(places, str(lane), 'i32')}, align 8")
            halves = self(f"and i64 {two}, {(1 << 32) - 1}"), self(f"lshr i64 {two}, 32")
            for i, place in enumerate(halves, order.index(lane)):
                value = self(f"load i64, ptr {self.pointer(base, place, 'i64')}")
                self.do(f"store i64 {value}, ptr {self.pointer(to, str(i), 'i64')}")

    def some(self, base: str, places: str, lanes: list[int]) -> str:
        """Load the i64 at the places of some lanes, as one vector."""
        n = len(lanes)
        if self.style.gather:
            some = self(f"shufflevector {V} {places}, {V} poison, <{n} x i32> <{', '.join(f'i32 {i}' for i in lanes)}>")
            where = self(f"getelementptr i64, ptr {base}, <{n} x i32> {some}")
            every = f"<{n} x i1> <{', '.join(['i1 1'] * n)}>, <{n} x i64> poison"
            return self(f"call <{n} x i64> @llvm.masked.gather.v8i64.v8p0(<{n} x ptr> {where}, i32 8, {every})")
        vector = "poison"
        for i, lane in enumerate(lanes):
            place = self(f"zext i32 {self(f'extractelement {V} {places}, i32 {lane}')} to i64")
            value = self(f"load i64, ptr {self.pointer(base, place, 'i64')}")
            vector = self(f"insertelement <{n} x i64> {vector}, i64 {value}, i32 {i}")
        return vector

    def halves(self, pairs: list[str]) -> list[str]:
        """Take two vectors of 8 x i64 in the order of PAIRS apart, into low and high halves in the order of lanes."""
        flat = [self(f"bitcast <{HALF // 2} x i64> {pair} to {V}") for pair in pairs]
        order, halves = PAIRS[0] + PAIRS[1], []
        for high in range(2):
            mask = ", ".join(f"i32 {2 * order.index(lane) + high}" for lane in range(HALF))
            halves.append(self(f"shufflevector {V} {flat[0]}, {V} {flat[1]}, {V} <{mask}>"))
        return halves

    # The words that lanes share

    def write_words(self, cursor: str, x: str, mask: str) -> str:
        """Write the low words of the mask's lanes below the cursor, the first lane lowest; return the new cursor."""
        low = self(f"trunc {V} {x} to {V16}")
        if self.style.compress:
            return self.write_packed(cursor, low, mask)
        if self.style.shuffle:  # always stores 8 words: those that do not count will be stored over
            for part in (1, 0):
                packed, n = self.shuffled(self.eight(low, part), mask, part, "@pack")
                where = self.pointer("%words", self(f"sub i64 {cursor}, 8"), "i16")
                self.do(f"store {BYTES} {packed}, ptr {where}, align 2")
                cursor = self(f"sub i64 {cursor}, {n}")
            return cursor
        for lane in reversed(range(HALF)):  # always stores: unless the cursor moves, it is stored over
            word = self(f"extractelement {V16} {low}, i32 {lane}")
            below = self(f"sub i64 {cursor}, 1")
            self.do(f"store i16 {word}, ptr {self.pointer('%words', below, 'i16')}, align 2")
            cursor = self(f"sub i64 {cursor}, {self.lane_of(mask, lane)}")
        return cursor

    def write_packed(self, cursor: str, low: str, mask: str) -> str:
        """Write words as `write_words` does, by the instruction that packs lanes."""
        n = self.count(mask)
        cursor = self(f"sub i64 {cursor}, {n}")
        packed = self(f"call {V16} @llvm.experimental.vector.compress.v16i16({V16} {low}, {MASK} {mask}, {V16} poison)")
        power = self(f"shl i32 1, {self(f'trunc i64 {n} to i32')}")
        below = self(f"trunc i32 {self(f'sub i32 {power}, 1')} to i16")
        few = self(f"bitcast i16 {below} to {MASK}")
        where = self.pointer("%words", cursor, "i16")
        self.do(f"call void @llvm.masked.store.v16i16.p0({V16} {packed}, ptr {where}, i32 2, {MASK} {few})")
        return cursor

    def read_words(self, cursor: str, mask: str) -> tuple[str, str]:
        """Read the next words for the mask's lanes, in order; return them and the new cursor.

        Other lanes hold anything.
        """
        if self.style.compress:
            where = self.pointer("%words", cursor, "i16")
            words = self(
                f"call {V16} @llvm.masked.expandload.v16i16(ptr {where}, {MASK} {mask}, {V16} zeroinitializer)"
            )
            return self(f"zext {V16} {words} to {V}"), self(f"add i64 {cursor}, {self.count(mask)}")
        if self.style.shuffle:
            return self.read_shuffled(cursor, mask)
        vector = "poison"
        for lane in range(HALF):
            word = self(f"load i16, ptr {self.pointer('%words', cursor, 'i16')}, align 1")
            vector = self(f"insertelement {V16} {vector}, i16 {word}, i32 {lane}")
            cursor = self(f"add i64 {cursor}, {self.lane_of(mask, lane)}")
        return self(f"zext {V16} {vector} to {V}"), cursor

    def read_shuffled(self, cursor: str, mask: str) -> tuple[str, str]:
        """Read words as `read_words` does, 8 at a time, moved to their lanes by a table."""
        parts = []
        for part in range(2):
            next_words = self(f"load {BYTES}, ptr {self.pointer('%words', cursor, 'i16')}, align 1")
            placed, n = self.shuffled(next_words, mask, part, "@unpack")
            parts.append(self(f"bitcast {BYTES} {placed} to <8 x i16>"))
            cursor = self(f"add i64 {cursor}, {n}")
        both = ", ".join(f"i32 {lane}" for lane in range(HALF))
        vector = self(f"shufflevector <8 x i16> {parts[0]}, <8 x i16> {parts[1]}, <{HALF} x i32> <{both}>")
        return self(f"zext {V16} {vector} to {V}"), cursor

    def shuffled(self, words: str, mask: str, part: int, table: str) -> tuple[str, str]:
        """Move 8 words as a table says for half of the mask; also return how many lanes that half has."""
        bits = self(f"bitcast {MASK} {mask} to i16")
        bits = self(f"zext i16 {self(f'lshr i16 {bits}, {8 * part}')} to i64")
        byte = self(f"and i64 {bits}, 255")
        places = self(f"load {BYTES}, ptr {self.pointer(table, byte, BYTES)}, align 16")
        moved = self(f"call {BYTES} @llvm.x86.ssse3.pshuf.b.128({BYTES} {words}, {BYTES} {places})")
        return moved, self(f"call i64 @llvm.ctpop.i64(i64 {byte})")

    def eight(self, words: str, part: int) -> str:
        """Take half of 16 words, as bytes."""
        places = ", ".join(f"i32 {8 * part + lane}" for lane in range(8))
        half = self(f"shufflevector {V16} {words}, {V16} poison, <8 x i32> <{places}>")
        return self(f"bitcast <8 x i16> {half} to {BYTES}")

    def lane_of(self, mask: str, lane: int) -> str:
        """Take one lane of a mask as an i64, 0 or 1."""
        return self(f"zext i1 {self(f'extractelement {MASK} {mask}, i32 {lane}')} to i64")


def splat(value: int | str, kind: str = "i32") -> str:
    """Write a constant that is the same in all lanes."""
    return f"<{', '.join([f'{kind} {value}'] * HALF)}>"


def shuffle_tables() -> list[str]:
    """Write the tables of `Lines.shuffled`: for each mask of 8 lanes, where each of 16 bytes comes from.

    "pack" moves the words of the mask's lanes to the end; "unpack" gives the mask's lanes the words at the beginning.
    """
    rows: dict[str, list[str]] = {"pack": [], "unpack": []}
    for mask in range(256):
        lanes = [lane for lane in range(8) if mask >> lane & 1]
        pack = [0] * (8 - len(lanes)) + lanes
        unpack = [lanes.index(lane) if lane in lanes else 0 for lane in range(8)]
        for name, words in (("pack", pack), ("unpack", unpack)):
            places = ", ".join(f"i8 {2 * word + high}" for word in words for high in range(2))
            rows[name].append(f"{BYTES} <{places}>")
    tables = [f"@{name} = private constant [256 x {BYTES}] [{', '.join(row)}], align 16" for name, row in rows.items()]
    return [
        *tables,
        f"declare {BYTES} @llvm.x86.ssse3.pshuf.b.128({BYTES}, {BYTES})",
        "declare i64 @llvm.ctpop.i64(i64)",
    ]

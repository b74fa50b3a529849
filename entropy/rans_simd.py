"""rANS kernels in vector code: the bytes of `rans.py`, 32 lanes as two vectors of 16.

llvmlite, which numba brings along, compiles LLVM's text in the process, so no compiler is needed. One generator writes
the kernels for every machine; they differ in how lanes share the words (`Lines.read_words`, `Lines.write_words`). What
does not fill a row of 32 symbols goes through the plain reference, streams of fewer lanes through numba, and so does
everything, after one warning, on a machine where any of this fails.

The interval of a symbol is one load from `Tables.encode_lut`. An entry of `Tables.decode_lut` has the two symbols that a
bin of 64 slots begins with; where the slot lies beyond them, `@search_on` walks the CDF. In both, a bit marks the escape.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.entropy import blocks, rans
from laconic.entropy.blocks import RUN, RUNS
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.rans import START
from laconic.entropy.tables import BIN_BITS, GROUP, EncodeLut, Tables
from laconic.entropy.threads import scratch

LANES, HALF = GROUP, 16
STEP = 8  # rows of 32 symbols between the steps of the encoder: a power of two
AHEAD = 2048  # symbols, to ask for memory in time
PAD = 64  # words before and after a stream that a kernel may touch
NATIVE = "native"
CPU = NATIVE  # the CPU whose kernels are used: tests take others


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """As `rans.encode_block`; the words are valid until the thread's next call."""
    code, lut = kernels(CPU), lut16(tables)
    if n_lanes != LANES or code is None or lut is None:
        from laconic.entropy import rans_numba

        return rans_numba.encode_block(symbols, indices, tables, n_lanes)
    (coded,) = encode_all(code, symbols, indices, tables, lut, 1)
    return coded


def encode_blocks(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_blocks: int
) -> list[tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]]:
    """`encode_block` of as many neighbours, all of one size in whole rows of 32, in one call."""
    code, lut, size = kernels(CPU), lut16(tables), len(symbols) // n_blocks
    if code is None or lut is None:
        parts = [slice(k * size, (k + 1) * size) for k in range(n_blocks)]
        coded = [encode_block(symbols[part], indices[part], tables, LANES) for part in parts]
        return [(states, words.copy(), escapes) for states, words, escapes in coded]
    return encode_all(code, symbols, indices, tables, lut, n_blocks)


def estimated_bytes(symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables) -> NDArray[np.float64]:
    """As `blocks.estimated_bytes` of [blocks, n], without the GIL."""
    code, lut = kernels(CPU), tables.encode_lut
    n_blocks, n = symbols.shape
    if code is None or lut is None or n_blocks == 0 or n <= RUNS * RUN:
        return blocks.estimated_bytes(symbols, indices, tables)
    step = n // RUNS | 1
    n_runs, costs, bits = n // step, lut.bits, np.empty(n_blocks)
    code.sample[indices.itemsize](
        *map(at, (symbols, indices, costs, bits)),
        *(n_blocks, n, n_runs, step, lut.intervals.shape[1], lut.low, lut.high),
    )
    n_bytes: NDArray[np.float64] = bits * n / (8 * RUN * n_runs)
    return n_bytes


def encode_all(
    code: Kernels, symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, lut: EncodeLut, n_blocks: int
) -> list[tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]]:
    """Blocks in whole rows of 32, or one of any length."""
    size = len(symbols) // n_blocks
    groups, room = size // LANES, PAD + size  # words that a block may need, backward from their end
    words, states = scratch(n_blocks * room), np.full((n_blocks, LANES), START, np.uint32)
    begin = room
    if groups * LANES < size:
        states[0], tail, _ = rans.encode_block(symbols[groups * LANES :], indices[groups * LANES :], tables, LANES)
        begin -= len(tail)
        words[begin:] = tail
    flags, cursors = np.zeros(n_blocks * groups + 1, np.bool_), np.empty(n_blocks, np.int64)
    flags[-1] = groups * LANES < size
    low, high, pairs = max(lut.low, -(1 << 15)), min(lut.high, (1 << 15) - 1), lut.pairs  # as far as symbols can be
    first = at(pairs) + 8 * (low - lut.low)
    code.encode[indices.itemsize](
        *(at(symbols), at(indices), first, at(words), at(states), at(flags), at(cursors)),
        *(n_blocks, groups, room, begin, pairs.shape[1], low, high),
    )
    escapes, cut = tables.escapes(symbols, indices, flags), size * np.arange(n_blocks + 1)
    places = np.searchsorted(escapes, cut).tolist()
    return [
        (
            states[k].tolist(),
            words[k * room + cursor : (k + 1) * room],
            escapes[places[k] : places[k + 1]] - k * size,
        )
        for k, cursor in enumerate(cursors.tolist())
    ]


def decode_block(
    states: list[int], words: NDArray[np.uint16], indices: NDArray[Any], tables: Tables, out: NDArray[np.int16]
) -> NDArray[np.int64]:
    """As `rans.decode_block`."""
    code, lut = kernels(CPU), tables.decode_lut
    if len(states) != LANES or code is None or lut is None:
        from laconic.entropy import rans_numba

        return rans_numba.decode_block(states, words, indices, tables, out)
    padded = scratch(len(words) + PAD)
    padded[: len(words)] = words
    return decode_all(code, [states], [padded[: len(words)]], indices, tables, lut, out)


def decode_blocks(
    states: list[list[int]],
    words: list[NDArray[np.uint16]],
    indices: NDArray[Any],
    tables: Tables,
    out: NDArray[np.int16],
) -> NDArray[np.int64]:
    """`decode_block` of as many neighbours as there are states, all of one size in whole rows of 32, in one call.

    After the words there is memory for PAD more. Returns where in `out` escapes stand.
    """
    code, lut, size = kernels(CPU), tables.decode_lut, len(out) // len(states)
    if code is None or lut is None:
        parts = [slice(k * size, (k + 1) * size) for k in range(len(states))]
        found = [
            k * size + decode_block(states[k], words[k], indices[part], tables, out[part])
            for k, part in enumerate(parts)
        ]
        return np.concatenate(found)
    return decode_all(code, states, words, indices, tables, lut, out)


def decode_all(
    code: Kernels,
    states: list[list[int]],
    words: list[NDArray[np.uint16]],
    indices: NDArray[Any],
    tables: Tables,
    lut: NDArray[np.uint64],
    out: NDArray[np.int16],
) -> NDArray[np.int64]:
    """Blocks in whole rows of 32, or one of any length."""
    n_blocks, lanes = len(states), np.array(states, np.uint32)
    size = len(out) // n_blocks
    groups = size // LANES
    flags, cursors = np.zeros(n_blocks * groups + 1, np.bool_), np.empty(n_blocks, np.int64)
    flags[-1] = groups * LANES < size
    streams, lengths = np.array([at(w) for w in words], np.int64), np.array([len(w) for w in words], np.int64)
    code.decode[indices.itemsize](
        *map(at, (streams, indices, lut, tables.cdf, tables.offsets, lanes, out, flags, lengths, cursors)),
        *(tables.cdf.shape[1], n_blocks, groups),
    )
    for k, cursor in enumerate(cursors.tolist()):
        expect(cursor <= len(words[k]), BadFile, "words", len(words[k]), "more: the stream ends early")
    if groups * LANES < size:
        whole = groups * LANES
        rans.decode_block(lanes[0].tolist(), words[0][cursors[0] :], indices[whole:], tables, out[whole:])
    else:
        rans.expect_end(lanes, int(lengths.sum()), int(cursors.sum()))
    return tables.escaped(out, indices, flags)


def lut16(tables: Tables) -> EncodeLut | None:
    """`Tables.encode_lut`, if it is there and not all beyond int16."""
    lut = tables.encode_lut
    return lut if lut and lut.low < 1 << 15 and lut.high >= -(1 << 15) else None


def at(array: NDArray[Any]) -> int:
    """Where an array begins. Who passes it on holds the array: one that is made twice at a time is kept once."""
    assert array.flags.c_contiguous
    address: int = array.__array_interface__["data"][0]  # a tenth of the time of array.ctypes
    return address


@dataclass(frozen=True)
class Kernels:
    """Compiled functions by the bytes of a table index. `engine` holds their code."""

    encode: dict[int, Callable[..., int]]
    decode: dict[int, Callable[..., int]]
    sample: dict[int, Callable[..., int]]
    engine: Any


LOADING = threading.Lock()  # threads that come together compile one after another, and all but the first find it done
if hasattr(os, "register_at_fork"):  # a fork waits, or the child would have the compiler's locks as they were
    os.register_at_fork(before=LOADING.acquire, after_in_parent=LOADING.release, after_in_child=LOADING.release)


@lru_cache(maxsize=8)
def kernels(cpu: str) -> Kernels | None:
    """Of this machine's CPU, or of a named one for tests. None, with a warning, where they cannot be had."""
    try:
        with LOADING:
            return load(cpu)
    except Exception as error:  # noqa: BLE001 - of LLVM, the cache's folder, the machine: there is always numba
        warnings.warn(
            f"entropy: found no vector kernels ({error!r}), numba's are used: slower, same bytes", stacklevel=3
        )
        return None


def load(cpu: str) -> Kernels:
    """Compile, or take the object code of an earlier process from the user's cache folder."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features: Any = llvm.get_host_cpu_features() if cpu == NATIVE else {}
    name = llvm.get_host_cpu_name() if cpu == NATIVE else cpu
    compress = bool(features.get("avx512vbmi2") and features.get("avx512vl"))
    shuffle = bool(features.get("ssse3")) or cpu in ("x86-64-v2", "x86-64-v3")
    style = Style(compress, shuffle, gather=compress and not name.startswith("znver"))
    text = module(style)
    flat = features.flatten() if features else ""
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(name, flat, 3, jit=True)
    key = hashlib.sha256(repr(("sealed", name, flat, llvm.llvm_version_info, text)).encode()).hexdigest()
    cached = cache_path(key)
    code = kept(cached)
    if code is None:
        code = compiled(text, machine)
        keep(code, cached)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()

    def function(symbol: str, n_pointers: int, n_integers: int) -> Callable[..., int]:
        arguments = [ctypes.c_void_p] * n_pointers + [ctypes.c_int64] * n_integers
        return ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(engine.get_function_address(symbol))  # frees the GIL

    widths = (1, 2)
    return Kernels(
        {n: function(f"encode_blocks{8 * n}", 7, 7) for n in widths},
        {n: function(f"decode_blocks{8 * n}", 10, 3) for n in widths},
        {n: function(f"sample{8 * n}", 4, 7) for n in widths},
        engine,
    )


def compiled(text: str, machine: Any) -> bytes:
    import llvmlite.binding as llvm

    parsed = llvm.parse_assembly(text)
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    code: bytes = machine.emit_object(parsed)
    return code


def cache_path(key: str) -> Path:
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("laconic")) / f"rans-{key[:32]}.o"


def kept(path: Path) -> bytes | None:
    """The code of an earlier process, if it is whole: running damaged code would end this one."""
    try:
        sealed = path.read_bytes()
    except OSError:
        return None
    digest, code = sealed[:32], sealed[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def keep(code: bytes, path: Path) -> None:
    """For the next process, after its digest; where nothing can be written it compiles again."""
    part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        os.replace(part, path)
    except OSError:
        pass


@dataclass(frozen=True)
class Style:
    """How a CPU does best what lanes do not do alike.

    compress: it packs and unpacks 16-bit lanes by a mask in one instruction. shuffle: it moves bytes to places that a
    table says, 16 at once. gather: its gather instruction beats 16 loads, which was measured to be so on Intel, when the encoder
    did not yet look up through memory, and not on Zen 4.
    """

    compress: bool
    shuffle: bool
    gather: bool


def module(style: Style) -> str:
    """LLVM's text of all kernels."""
    functions = [write(index, style) for write in (encoder, decoder, sampler) for index in ("i8", "i16")]
    loops = [loop.replace("INDEX", index).replace("BITS", index[1:]) for loop in LOOPS for index in ("i8", "i16")]
    return "\n".join([*functions, *loops, SEARCH_ON, DECLARATIONS, *(shuffle_tables() if style.shuffle else [])])


def shuffle_tables() -> list[str]:
    """Where bytes come from, for each mask of 8 lanes: to pack their words at the end, and to give lanes the next words."""
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


class Lines:
    """Text of a function, a value a line. Vectors are 16 x i32 where no type is said; `name = v(...)` is that value."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.lines: list[str] = []

    def __call__(self, line: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {line}")
        return name

    def do(self, line: str) -> None:
        self.lines.append(line if line.endswith(":") else f"  {line}")

    def op(self, name: str, a: str, b: str | int) -> str:
        return self(f"{name} {V} {a}, {splat(b) if isinstance(b, int) else b}")

    def test(self, how: str, a: str, b: str | int) -> str:
        return self(f"icmp {how} {V} {a}, {splat(b) if isinstance(b, int) else b}")

    def choose(self, mask: str, a: str, b: str) -> str:
        return self(f"select {MASK} {mask}, {V} {a}, {V} {b}")

    def pointer(self, base: str, index: str, kind: str) -> str:
        return self(f"getelementptr {kind}, ptr {base}, i64 {index}")

    def load(self, base: str, index: str, kind: str, n: int = HALF) -> str:
        """Neighbours of a kind."""
        return self(f"load <{n} x {kind}>, ptr {self.pointer(base, index, kind)}, align {int(kind[1:]) // 8}")

    def single(self, extend: str, base: str, index: str, kind: str) -> str:
        """One of a kind, as i64."""
        value = self(f"load {kind}, ptr {self.pointer(base, index, kind)}")
        return self(f"{extend} {kind} {value} to i64")

    def prefetch(self, base: str, index: str, kind: str, write: int = 0) -> None:
        """Ask for a cache line, which may be beyond an array's end: the CPU foresees reading within a page only."""
        self.do(f"call void @llvm.prefetch.p0(ptr {self.pointer(base, index, kind)}, i32 {write}, i32 3, i32 1)")

    def spread(self, value: str) -> str:
        """An i64 in all lanes."""
        one = self(f"insertelement {V} poison, i32 {self(f'trunc i64 {value} to i32')}, i32 0")
        return self(f"shufflevector {V} {one}, {V} poison, {V} zeroinitializer")

    def gather(self, base: str, places: str) -> list[str]:
        """The low and the high halves of the i64 at each of 16 places."""
        return self.halves([self.some(base, places, lanes) for lanes in PAIRS])

    def collect(self, base: str, places: str, to: str) -> None:
        """The i64 at each of 16 places, which lie in memory, to memory, in the order of PAIRS."""
        if self.style.gather:
            vector = self.load(places, "0", "i32")
            for part, lanes in enumerate(PAIRS):
                some = self.some(base, vector, lanes)
                self.do(
                    f"store <{HALF // 2} x i64> {some}, ptr {self.pointer(to, str(HALF // 2 * part), 'i64')}, align 64"
                )
            return
        order = PAIRS[0] + PAIRS[1]
        for lane in range(0, HALF, 2):  # two places at once, as loads are what there are most of
            two = self(f"load i64, ptr {self.pointer(places, str(lane), 'i32')}, align 8")
            halves = self(f"and i64 {two}, {(1 << 32) - 1}"), self(f"lshr i64 {two}, 32")
            for i, place in enumerate(halves, order.index(lane)):
                value = self(f"load i64, ptr {self.pointer(base, place, 'i64')}")
                self.do(f"store i64 {value}, ptr {self.pointer(to, str(i), 'i64')}")

    def some(self, base: str, places: str, lanes: list[int]) -> str:
        """The i64 at the places of some lanes, as a vector."""
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
        """The low and the high halves of two vectors of 8 x i64, their lanes in the order of PAIRS."""
        flat = [self(f"bitcast <{HALF // 2} x i64> {pair} to {V}") for pair in pairs]
        order, halves = PAIRS[0] + PAIRS[1], []
        for high in range(2):
            mask = ", ".join(f"i32 {2 * order.index(lane) + high}" for lane in range(HALF))
            halves.append(self(f"shufflevector {V} {flat[0]}, {V} {flat[1]}, {V} <{mask}>"))
        return halves

    def count(self, mask: str) -> str:
        bits = self(f"bitcast {MASK} {mask} to i16")
        n = self(f"call i16 @llvm.ctpop.i16(i16 {bits})")
        return self(f"zext i16 {n} to i64")

    def any(self, mask: str) -> str:
        return self(f"icmp ne i16 {self(f'bitcast {MASK} {mask} to i16')}, 0")

    def write_words(self, cursor: str, x: str, mask: str) -> str:
        """The low words of the lanes in the mask, below the cursor, the first lane lowest. Returns the cursor."""
        low = self(f"trunc {V} {x} to {V16}")
        if self.style.compress:
            n = self.count(mask)
            cursor = self(f"sub i64 {cursor}, {n}")
            packed = self(
                f"call {V16} @llvm.experimental.vector.compress.v16i16({V16} {low}, {MASK} {mask}, {V16} poison)"
            )
            power = self(f"shl i32 1, {self(f'trunc i64 {n} to i32')}")
            below = self(f"trunc i32 {self(f'sub i32 {power}, 1')} to i16")
            few = self(f"bitcast i16 {below} to {MASK}")
            where = self.pointer("%words", cursor, "i16")
            self.do(f"call void @llvm.masked.store.v16i16.p0({V16} {packed}, ptr {where}, i32 2, {MASK} {few})")
            return cursor
        if self.style.shuffle:  # what is stored below the cursor is stored over
            for part in (1, 0):
                packed, n = self.shuffled(self.eight(low, part), mask, part, "@pack")
                where = self.pointer("%words", self(f"sub i64 {cursor}, 8"), "i16")
                self.do(f"store {BYTES} {packed}, ptr {where}, align 2")
                cursor = self(f"sub i64 {cursor}, {n}")
            return cursor
        for lane in reversed(range(HALF)):  # always stored, and stored over unless the cursor moves
            word = self(f"extractelement {V16} {low}, i32 {lane}")
            below = self(f"sub i64 {cursor}, 1")
            self.do(f"store i16 {word}, ptr {self.pointer('%words', below, 'i16')}, align 2")
            took = self(f"zext i1 {self(f'extractelement {MASK} {mask}, i32 {lane}')} to i64")
            cursor = self(f"sub i64 {cursor}, {took}")
        return cursor

    def read_words(self, cursor: str, mask: str) -> tuple[str, str]:
        """The next words for the lanes in the mask, in order; others are anything. Returns (words, cursor)."""
        if self.style.compress:
            where = self.pointer("%words", cursor, "i16")
            words = self(
                f"call {V16} @llvm.masked.expandload.v16i16(ptr {where}, {MASK} {mask}, {V16} zeroinitializer)"
            )
            return self(f"zext {V16} {words} to {V}"), self(f"add i64 {cursor}, {self.count(mask)}")
        if self.style.shuffle:
            parts = []
            for part in range(2):
                next_words = self(f"load {BYTES}, ptr {self.pointer('%words', cursor, 'i16')}, align 1")
                placed, n = self.shuffled(next_words, mask, part, "@unpack")
                parts.append(self(f"bitcast {BYTES} {placed} to <8 x i16>"))
                cursor = self(f"add i64 {cursor}, {n}")
            both = ", ".join(f"i32 {lane}" for lane in range(HALF))
            vector = self(f"shufflevector <8 x i16> {parts[0]}, <8 x i16> {parts[1]}, <{HALF} x i32> <{both}>")
            return self(f"zext {V16} {vector} to {V}"), cursor
        vector = "poison"
        for lane in range(HALF):
            word = self(f"load i16, ptr {self.pointer('%words', cursor, 'i16')}, align 1")
            vector = self(f"insertelement {V16} {vector}, i16 {word}, i32 {lane}")
            took = self(f"zext i1 {self(f'extractelement {MASK} {mask}, i32 {lane}')} to i64")
            cursor = self(f"add i64 {cursor}, {took}")
        return self(f"zext {V16} {vector} to {V}"), cursor

    def eight(self, words: str, part: int) -> str:
        """Half of 16 words, as bytes."""
        places = ", ".join(f"i32 {8 * part + lane}" for lane in range(8))
        half = self(f"shufflevector {V16} {words}, {V16} poison, <8 x i32> <{places}>")
        return self(f"bitcast <8 x i16> {half} to {BYTES}")

    def shuffled(self, words: str, mask: str, part: int, table: str) -> tuple[str, str]:
        """Eight words moved as a table says for half of the mask, and how many lanes of that half are set."""
        bits = self(f"bitcast {MASK} {mask} to i16")
        bits = self(f"zext i16 {self(f'lshr i16 {bits}, {8 * part}')} to i64")
        byte = self(f"and i64 {bits}, 255")
        places = self(f"load {BYTES}, ptr {self.pointer(table, byte, BYTES)}, align 16")
        moved = self(f"call {BYTES} @llvm.x86.ssse3.pshuf.b.128({BYTES} {words}, {BYTES} {places})")
        return moved, self(f"call i64 @llvm.ctpop.i64(i64 {byte})")

    def flag(self, seen: str, group: str) -> None:
        """Whether any lane of a row saw an escape."""
        self.do(f"store i8 {self(f'zext i1 {self.any(seen)} to i8')}, ptr {self.pointer('%flags', group, 'i8')}")


# Lanes in the order that pairs of 32 bits are loaded in, 8 to a vector: so that all low and all high ones are one shuffle
# within parts of 128 bits, which is the cheap one.
PAIRS = [[lane for lane in range(HALF) if lane & 2 == 2 * second] for second in range(2)]
REAL = f"<{HALF} x float>"
BYTES = "<16 x i8>"
V, V16, MASK = f"<{HALF} x i32>", f"<{HALF} x i16>", f"<{HALF} x i1>"


def splat(value: int | str, kind: str = "i32") -> str:
    return f"<{', '.join([f'{kind} {value}'] * HALF)}>"


def encoder(index: str, style: Style) -> str:
    """push, of rows of 32 symbols, the last one first. Returns where the words begin.

    A row is done in three steps, STEP rows apart, that leave to each other what they found in %places and %ring: one by one,
    numbers go through memory faster than in and out of vectors, if what was stored has left the CPU's store queue by then.
    """
    v = Lines(style)
    v.do("entry:")
    v.do(f"%places = alloca [{STEP * LANES} x i32], align 64")
    v.do(f"%ring = alloca [{STEP * LANES} x i64], align 64")
    stride = v.spread("%stride")
    low, high = (v(f"trunc {V} {v.spread(name)} to {V16}") for name in ("%low", "%high"))
    starts = [v.load("%states", str(HALF * half), "i32") for half in range(2)]
    v.do(f"%end = add i64 %groups, {2 * STEP}")
    v.do("br label %next")
    v.do("next:")
    v.do("%later = phi i64 [%end, %entry], [%row, %done]")
    v.do("%cursor = phi i64 [%from, %entry], [%cursor2, %done]")
    for half in range(2):
        v.do(f"%x{half} = phi {V} [{starts[half]}, %entry], [%x{half}.2, %done]")
    v.do("%row = sub i64 %later, 1")
    shelf = v(f"mul i64 {v(f'and i64 %row, {STEP - 1}')}, {LANES}")
    v.do(f"br i1 {v('icmp ult i64 %row, %groups')}, label %code, label %coded")

    v.do("code:")
    cursor, entries = "%cursor", []
    for half in (1, 0):
        x = f"%x{half}"
        # load
        where = v(f"add i64 {shelf}, {HALF * half}")
        parts = [v.load("%ring", v(f"add i64 {where}, {first}"), "i64", HALF // 2) for first in (0, HALF // 2)]
        entry, inverse = v.halves(parts)
        entries.append(entry)
        start = v.op("and", entry, 0x7FFF)
        freq = v.op("add", v.op("and", v.op("lshr", entry, 15), 0x7FFF), 1)
        # renormalise
        over = v.test("uge", v.op("lshr", x, 17), freq)
        cursor = v.write_words(cursor, x, over)
        x = v.choose(over, v.op("lshr", x, 16), x)
        # update: a float32 estimate of x / freq < 2**17 that is 2**-20 too small is right or one below: the errors of the
        # conversion, the inverse and the product are less than 2**-22 together
        q = v(f"fmul {REAL} {v(f'uitofp {V} {x} to {REAL}')}, {v(f'bitcast {V} {inverse} to {REAL}')}")
        q = v(f"fptosi {REAL} {q} to {V}")
        r = v.op("sub", x, v.op("mul", q, freq))
        x = v.op("add", v.op("add", v.op("shl", q, 15), start), r)
        up = v.op("add", x, v.op("sub", splat(1 << 15), freq))
        v.do(f"%next{half} = select {MASK} {v.test('sge', r, freq)}, {V} {up}, {V} {x}")
    v.do(f"%moved = add i64 {cursor}, 0")
    v.flag(v.test("slt", v.op("or", *entries), 0), "%row")
    v.do("br label %coded")
    v.do("coded:")
    v.do("%cursor2 = phi i64 [%cursor, %next], [%moved, %code]")
    for half in range(2):
        v.do(f"%x{half}.2 = phi {V} [%x{half}, %next], [%next{half}, %code]")
    ahead = v(f"sub i64 %row, {STEP}")  # below 0: no row either
    v.do(f"br i1 {v(f'icmp ult i64 {ahead}, %groups')}, label %search, label %found")

    v.do("search:")
    for half in range(2):
        where = v(f"add i64 {shelf}, {HALF * half}")
        v.collect("%lut", v.pointer("%places", where, "i32"), v.pointer("%ring", where, "i64"))
    v.do("br label %found")
    v.do("found:")
    ahead = v(f"sub i64 %row, {2 * STEP}")
    v.do(f"br i1 {v(f'icmp ult i64 {ahead}, %groups')}, label %place, label %done")

    v.do("place:")
    first = v(f"mul i64 {ahead}, {LANES}")
    for half in range(2):
        where = v(f"add i64 {first}, {HALF * half}")
        symbol = v.load("%symbols", where, "i16")
        symbol = v(f"call {V16} @llvm.smax.v16i16({V16} {symbol}, {V16} {low})")
        symbol = v(f"call {V16} @llvm.smin.v16i16({V16} {symbol}, {V16} {high})")
        symbol = v(f"zext {V16} {v(f'sub {V16} {symbol}, {low}')} to {V}")
        row = v(f"zext <{HALF} x {index}> {v.load('%indices', where, index)} to {V}")
        place = v.op("add", v.op("mul", row, stride), symbol)
        v.do(f"store {V} {place}, ptr {v.pointer('%places', v(f'add i64 {shelf}, {HALF * half}'), 'i32')}, align 64")
    far = v(f"sub i64 {first}, {AHEAD}")
    v.prefetch("%symbols", far, "i16")
    v.prefetch("%indices", far, index)
    v.do("br label %done")
    v.do("done:")
    v.do(f"br i1 {v('icmp eq i64 %row, 0')}, label %leave, label %next")
    v.do("leave:")
    for half in range(2):
        v.do(f"store {V} %x{half}.2, ptr {v.pointer('%states', str(HALF * half), 'i32')}, align 4")
    v.do("ret i64 %cursor2")
    head = ", ".join(f"ptr noalias %{name}" for name in ("symbols", "indices", "lut", "words", "states", "flags"))
    sizes = ", ".join(f"i64 %{name}" for name in ("groups", "from", "stride", "low", "high"))
    return f"define internal i64 @encode{index[1:]}({head}, {sizes}) {{\n" + "\n".join(v.lines) + "\n}\n"


def decoder(index: str, style: Style) -> str:
    """pop, of rows of 32 symbols. Returns the words read; more than there are where they ran out."""
    v = Lines(style)
    v.do("entry:")
    v.do(f"%found = alloca [{6 * HALF} x i32], align 64")
    starts = [v.load("%states", str(HALF * half), "i32") for half in range(2)]
    v.do("br label %row")
    v.do("row:")
    v.do("%group = phi i64 [0, %entry], [%after, %known1]")
    v.do("%cursor = phi i64 [0, %entry], [%moved, %known1]")
    for half in range(2):
        v.do(f"%x{half} = phi {V} [{starts[half]}, %entry], [%next{half}, %known1]")
    v.do("%short = icmp ugt i64 %cursor, %n")  # a row reads 32 words at most: they are there, or padding is
    v.do("%last = icmp eq i64 %group, %groups")
    v.do("%stop = or i1 %short, %last")
    far = v(f"add i64 {v(f'mul i64 %group, {LANES}')}, {AHEAD}")
    v.prefetch("%indices", far, index)
    v.prefetch("%out", far, "i16", write=1)
    v.prefetch("%words", v(f"add i64 %cursor, {AHEAD // 2}"), "i16")
    v.do("br i1 %stop, label %done, label %half0")
    cursor = "%cursor"
    seen = ""
    for half in range(2):
        x, before = f"%x{half}", f"half{half}"
        v.do(f"{before}:")
        where = v(f"add i64 {v(f'mul i64 %group, {LANES}')}, {HALF * half}")
        # load
        row = v(f"zext <{HALF} x {index}> {v.load('%indices', where, index)} to {V}")
        slot = v.op("and", x, 0x7FFF)
        one, two = v.gather("%lut", v.op("add", v.op("shl", row, BIN_BITS), v.op("lshr", slot, 15 - BIN_BITS)))
        # search: the first of the bin's two symbols, or the second, or on from there
        boundary, end = v.op("lshr", one, 16), v.op("add", v.op("and", two, 0x7FFF), 1)
        first = v.test("ult", slot, boundary)
        start = v.choose(first, v.op("and", one, 0x7FFF), boundary)
        end = v.choose(first, boundary, end)
        symbol = v.op("sub", v.op("ashr", two, 16), v(f"zext {MASK} {first} to {V}"))
        escape = v.choose(first, splat(0), v.op("and", two, 0x8000))
        v.do(f"br i1 {v.any(v.test('uge', slot, end))}, label %search{half}, label %known{half}")
        v.do(f"search{half}:")
        for i, value in enumerate((slot, start, end, symbol, escape, row)):
            v.do(f"store {V} {value}, ptr {v.pointer('%found', str(HALF * i), 'i32')}, align 64")
        v.do("call void @search_on(ptr %found, ptr %cdf, i64 %width, ptr %offsets)")
        names = ("start", "end", "symbol", "escape")
        found = [v(f"load {V}, ptr {v.pointer('%found', str(HALF * i), 'i32')}, align 64") for i in range(1, 5)]
        v.do(f"br label %known{half}")
        v.do(f"known{half}:")
        for name, near, far in zip(names, (start, end, symbol, escape), found, strict=True):
            v.do(f"%{name}{half} = phi {V} [{near}, %{before}], [{far}, %search{half}]")
        start, end, symbol, escape = (f"%{name}{half}" for name in names)
        seen = v.op("or", seen, escape) if seen else escape
        v.do(f"store {V16} {v(f'trunc {V} {symbol} to {V16}')}, ptr {v.pointer('%out', where, 'i16')}, align 2")
        # update
        x = v.op("mul", v.op("sub", end, start), v.op("lshr", x, 15))
        x = v.op("add", x, v.op("sub", slot, start))
        # renormalise
        under = v.test("ult", x, 1 << 16)
        words, cursor = v.read_words(cursor, under)
        v.do(f"%next{half} = select {MASK} {under}, {V} {v.op('or', v.op('shl', x, 16), words)}, {V} {x}")
        if half == 0:
            v.do("br label %half1")
    v.do(f"%moved = add i64 {cursor}, 0")
    v.flag(v.test("ne", seen, 0), "%group")
    v.do("%after = add i64 %group, 1")
    v.do("br label %row")
    v.do("done:")
    for half in range(2):
        v.do(f"store {V} %x{half}, ptr {v.pointer('%states', str(HALF * half), 'i32')}, align 4")
    v.do("ret i64 %cursor")
    pointers = ("words", "indices", "lut", "cdf", "offsets", "states", "out", "flags")
    head = ", ".join(f"ptr noalias %{name}" for name in pointers)
    return (
        f"define internal i64 @decode{index[1:]}({head}, i64 %n, i64 %width, i64 %groups) {{\n"
        + "\n".join(v.lines)
        + "\n}\n"
    )


def sampler(index: str, style: Style) -> str:
    """The costs of runs of RUN symbols, `step` apart, added up for each block."""
    v = Lines(style)
    v.do("entry:")
    v.do("br label %block")
    v.do("block:")
    v.do("%k = phi i64 [0, %entry], [%k2, %leave]")
    first = v("mul i64 %k, %size")
    v.do("br label %run")
    v.do("run:")
    v.do("%i = phi i64 [0, %block], [%i2, %run]")
    v.do("%sum = phi double [0.0, %block], [%sum2, %run]")
    begin = v(f"add i64 {first}, {v('mul i64 %i, %step')}")
    total = "%sum"
    for k in range(RUN):
        where = v(f"add i64 {begin}, {k}")
        symbol = v(f"call i64 @llvm.smax.i64(i64 {v.single('sext', '%symbols', where, 'i16')}, i64 %low)")
        symbol = v(f"call i64 @llvm.smin.i64(i64 {symbol}, i64 %high)")
        row = v(f"mul i64 {v.single('zext', '%indices', where, index)}, %stride")
        place = v(f"add i64 {row}, {v(f'sub i64 {symbol}, %low')}")
        bits = v(f"load float, ptr {v.pointer('%costs', place, 'float')}")
        bits = v(f"fpext float {bits} to double")
        total = v(f"fadd double {total}, {bits}") if k < RUN - 1 else total
    v.do(f"%sum2 = fadd double {total}, {bits}")
    v.do("%i2 = add i64 %i, 1")
    v.do(f"br i1 {v('icmp eq i64 %i2, %runs')}, label %leave, label %run")
    v.do("leave:")
    v.do(f"store double %sum2, ptr {v.pointer('%found', '%k', 'double')}")
    v.do("%k2 = add i64 %k, 1")
    v.do(f"br i1 {v('icmp eq i64 %k2, %blocks')}, label %done, label %block")
    v.do("done:")
    v.do("ret i64 0")
    head = ", ".join(f"ptr noalias %{name}" for name in ("symbols", "indices", "costs", "found"))
    sizes = ", ".join(f"i64 %{name}" for name in ("blocks", "size", "runs", "step", "stride", "low", "high"))
    return f"define i64 @sample{index[1:]}({head}, {sizes}) {{\n" + "\n".join(v.lines) + "\n}\n"


# Of each lane whose slot is not below its end: start, end and symbol by the row's CDF, and whether it is the escape, the
# last entry. %found has 16 each of slot, start, end, symbol, escape, row. The CDF ends in 2**15: the walk ends in its row.
SEARCH_ON = """
define internal void @search_on(ptr %found, ptr %cdf, i64 %width, ptr %offsets) noinline cold {
entry:
  br label %lane
lane:
  %i = phi i64 [0, %entry], [%i2, %next]
  %p.slot = getelementptr i32, ptr %found, i64 %i
  %p.start = getelementptr i32, ptr %p.slot, i64 16
  %p.end = getelementptr i32, ptr %p.slot, i64 32
  %p.symbol = getelementptr i32, ptr %p.slot, i64 48
  %p.escape = getelementptr i32, ptr %p.slot, i64 64
  %p.row = getelementptr i32, ptr %p.slot, i64 80
  %slot = load i32, ptr %p.slot
  %end = load i32, ptr %p.end
  %here = icmp ult i32 %slot, %end
  br i1 %here, label %next, label %begin
begin:
  %symbol = load i32, ptr %p.symbol
  %row = load i32, ptr %p.row
  %row64 = zext i32 %row to i64
  %p.offset = getelementptr i32, ptr %offsets, i64 %row64
  %offset = load i32, ptr %p.offset
  %entry32 = sub i32 %symbol, %offset
  %entry0 = sext i32 %entry32 to i64
  %line = mul i64 %row64, %width
  br label %walk
walk:
  %entry1 = phi i64 [%entry0, %begin], [%entry2, %walk]
  %start2 = phi i32 [%end, %begin], [%end2, %walk]
  %entry2 = add i64 %entry1, 1
  %upper = add i64 %entry2, 1
  %place = add i64 %line, %upper
  %p.upper = getelementptr i32, ptr %cdf, i64 %place
  %end2 = load i32, ptr %p.upper
  %inside = icmp ult i32 %slot, %end2
  br i1 %inside, label %store, label %walk
store:
  %entry3 = trunc i64 %entry2 to i32
  %symbol2 = add i32 %entry3, %offset
  %is.last = icmp eq i32 %end2, 32768
  %escape2 = zext i1 %is.last to i32
  store i32 %start2, ptr %p.start
  store i32 %end2, ptr %p.end
  store i32 %symbol2, ptr %p.symbol
  store i32 %escape2, ptr %p.escape
  br label %next
next:
  %i2 = add i64 %i, 1
  %more = icmp ult i64 %i2, 16
  br i1 %more, label %lane, label %leave
leave:
  ret void
}
"""

# Blocks one after the other: what is of a block lies at the same distance from what is of the next, but for the words that
# are read.
LOOPS = (
    """
define i64 @encode_blocksBITS(ptr %symbols, ptr %indices, ptr %lut, ptr %words, ptr %states, ptr %flags, ptr %cursors,
                              i64 %blocks, i64 %groups, i64 %room, i64 %from, i64 %stride, i64 %low, i64 %high) {
entry:
  %size = mul i64 %groups, 32
  br label %block
block:
  %k = phi i64 [0, %entry], [%k2, %block]
  %first = mul i64 %k, %size
  %symbol = getelementptr i16, ptr %symbols, i64 %first
  %index = getelementptr INDEX, ptr %indices, i64 %first
  %region = mul i64 %k, %room
  %word = getelementptr i16, ptr %words, i64 %region
  %lane = mul i64 %k, 32
  %state = getelementptr i32, ptr %states, i64 %lane
  %row = mul i64 %k, %groups
  %flag = getelementptr i8, ptr %flags, i64 %row
  %found = call i64 @encodeBITS(ptr %symbol, ptr %index, ptr %lut, ptr %word, ptr %state, ptr %flag,
                                i64 %groups, i64 %from, i64 %stride, i64 %low, i64 %high)
  %cursor = getelementptr i64, ptr %cursors, i64 %k
  store i64 %found, ptr %cursor
  %k2 = add i64 %k, 1
  %last = icmp eq i64 %k2, %blocks
  br i1 %last, label %leave, label %block
leave:
  ret i64 0
}
""",
    """
define i64 @decode_blocksBITS(ptr %streams, ptr %indices, ptr %lut, ptr %cdf, ptr %offsets, ptr %states, ptr %out,
                              ptr %flags, ptr %lengths, ptr %cursors, i64 %width, i64 %blocks, i64 %groups) {
entry:
  %size = mul i64 %groups, 32
  br label %block
block:
  %k = phi i64 [0, %entry], [%k2, %block]
  %first = mul i64 %k, %size
  %stream = getelementptr i64, ptr %streams, i64 %k
  %address = load i64, ptr %stream
  %word = inttoptr i64 %address to ptr
  %index = getelementptr INDEX, ptr %indices, i64 %first
  %lane = mul i64 %k, 32
  %state = getelementptr i32, ptr %states, i64 %lane
  %symbol = getelementptr i16, ptr %out, i64 %first
  %row = mul i64 %k, %groups
  %flag = getelementptr i8, ptr %flags, i64 %row
  %length = getelementptr i64, ptr %lengths, i64 %k
  %n = load i64, ptr %length
  %found = call i64 @decodeBITS(ptr %word, ptr %index, ptr %lut, ptr %cdf, ptr %offsets, ptr %state, ptr %symbol,
                                ptr %flag, i64 %n, i64 %width, i64 %groups)
  %cursor = getelementptr i64, ptr %cursors, i64 %k
  store i64 %found, ptr %cursor
  %k2 = add i64 %k, 1
  %last = icmp eq i64 %k2, %blocks
  br i1 %last, label %leave, label %block
leave:
  ret i64 0
}
""",
)

DECLARATIONS = """
declare <16 x i16> @llvm.smax.v16i16(<16 x i16>, <16 x i16>)
declare <16 x i16> @llvm.smin.v16i16(<16 x i16>, <16 x i16>)
declare <8 x i64> @llvm.masked.gather.v8i64.v8p0(<8 x ptr>, i32, <8 x i1>, <8 x i64>)
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i16 @llvm.ctpop.i16(i16)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare <16 x i16> @llvm.experimental.vector.compress.v16i16(<16 x i16>, <16 x i1>, <16 x i16>)
declare <16 x i16> @llvm.masked.expandload.v16i16(ptr, <16 x i1>, <16 x i16>)
declare void @llvm.masked.store.v16i16.p0(<16 x i16>, ptr, i32, <16 x i1>)
"""

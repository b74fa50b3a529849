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
import platform
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.entropy import rans
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.rans import START
from laconic.entropy.tables import BIN_BITS, GROUP, Tables

LANES, HALF = GROUP, 16
AHEAD = 2048  # symbols, to ask for memory in time
PAD = 64  # words before and after a stream that a kernel may touch
NATIVE = "native"
CPU = NATIVE  # the CPU whose kernels are used: tests take others


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """As `rans.encode_block`; the words are valid until the thread's next call."""
    code, lut = kernels(CPU), tables.encode_lut
    if n_lanes != LANES or code is None or lut is None:
        from laconic.entropy import rans_numba

        return rans_numba.encode_block(symbols, indices, tables, n_lanes)
    n, whole = len(symbols), len(symbols) // LANES * LANES
    words, states, end = scratch(PAD + n), np.full(LANES, START, np.uint32), PAD + n
    if whole < n:
        states[:], tail, _ = rans.encode_block(symbols[whole:], indices[whole:], tables, LANES)
        end -= len(tail)
        words[end:] = tail
    flags = np.zeros(n // LANES + 1, np.uint8)
    flags[-1] = whole < n
    cursor = code.encode[indices.itemsize](
        *map(at, (symbols, indices, lut.intervals, words, states, flags)),
        *(whole // LANES, end, lut.intervals.shape[1], lut.low, lut.high),
    )
    return states.tolist(), words[cursor:], tables.escapes(symbols, indices, flags)


def decode_block(
    states: list[int], words: NDArray[np.uint16], indices: NDArray[Any], tables: Tables, out: NDArray[np.int16]
) -> NDArray[np.int64]:
    """As `rans.decode_block`."""
    code, lut = kernels(CPU), tables.decode_lut
    if len(states) != LANES or code is None or lut is None:
        from laconic.entropy import rans_numba

        return rans_numba.decode_block(states, words, indices, tables, out)
    n, whole = len(indices), len(indices) // LANES * LANES
    padded, lanes = scratch(len(words) + PAD), np.array(states, np.uint32)
    padded[: len(words)] = words
    flags = np.zeros(n // LANES + 1, np.uint8)
    flags[-1] = whole < n
    cursor = code.decode[indices.itemsize](
        *map(at, (padded, indices, lut, tables.cdf, tables.offsets, lanes, out, flags)),
        *(len(words), tables.cdf.shape[1], whole // LANES),
    )
    expect(cursor <= len(words), BadFile, "words", len(words), "more: the stream ends early")
    if whole < n:
        rans.decode_block(lanes.tolist(), words[cursor:], indices[whole:], tables, out[whole:])
    else:
        rans.expect_end(lanes, len(words), cursor)
    return tables.escaped(out, indices, flags)


SCRATCH = threading.local()


def scratch(n: int) -> NDArray[np.uint16]:
    """Words for the length of a call, the thread's own: new memory costs more than coding does."""
    if n > len(getattr(SCRATCH, "words", ())):
        SCRATCH.words = np.empty(n, np.uint16)
    words: NDArray[np.uint16] = SCRATCH.words[:n]
    return words


def at(array: NDArray[Any]) -> int:
    assert array.flags.c_contiguous
    address: int = array.__array_interface__["data"][0]  # a tenth of the time of array.ctypes
    return address


@dataclass(frozen=True)
class Kernels:
    """Compiled functions by the bytes of a table index. `engine` holds their code."""

    encode: dict[int, Callable[..., int]]
    decode: dict[int, Callable[..., int]]
    engine: Any


LOADING = threading.Lock()  # threads that come together compile one after another, and all but the first find it done


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
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    style = Style(compress, shuffle, gather=compress and not name.startswith("znver"), estimate=x86)
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
        {n: function(f"encode{8 * n}", 6, 5) for n in widths},
        {n: function(f"decode{8 * n}", 8, 3) for n in widths},
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
    table says, 16 at once. gather: its gather instruction beats 16 loads, which was measured to be so on Intel (encode
    1.45 against 0.96 G symbols/s), and not on Zen 4. estimate: its rough reciprocal has an error below 2**-11.4, as all
    of x86 have, so that one Newton step makes it good enough; ARM's is rougher.
    """

    compress: bool
    shuffle: bool
    gather: bool
    estimate: bool


def module(style: Style) -> str:
    """LLVM's text of all kernels."""
    functions = [write(index, style) for write in (encoder, decoder) for index in ("i8", "i16")]
    return "\n".join([*functions, SEARCH_ON, DECLARATIONS, *(shuffle_tables() if style.shuffle else [])])


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

    def load(self, base: str, index: str, kind: str) -> str:
        """16 neighbours of a kind."""
        return self(f"load <{HALF} x {kind}>, ptr {self.pointer(base, index, kind)}, align {int(kind[1:]) // 8}")

    def prefetch(self, base: str, index: str, kind: str, write: int = 0) -> None:
        """Ask for a cache line, which may be beyond an array's end: the CPU foresees reading within a page only."""
        self.do(f"call void @llvm.prefetch.p0(ptr {self.pointer(base, index, kind)}, i32 {write}, i32 3, i32 1)")

    def spread(self, value: str) -> str:
        """An i64 in all lanes."""
        one = self(f"insertelement {V} poison, i32 {self(f'trunc i64 {value} to i32')}, i32 0")
        return self(f"shufflevector {V} {one}, {V} poison, {V} zeroinitializer")

    def gather(self, base: str, places: str, kind: str) -> str:
        """A value of a kind at each of 16 places."""
        if self.style.gather:
            where = self(f"getelementptr {kind}, ptr {base}, {V} {places}")
            every = f"{MASK} {splat(1, 'i1')}, <{HALF} x {kind}> poison"
            name = f"llvm.masked.gather.v16{kind}.v16p0"
            return self(f"call <{HALF} x {kind}> @{name}(<{HALF} x ptr> {where}, i32 {int(kind[1:]) // 8}, {every})")
        vector = "poison"
        for lane in range(HALF):
            place = self(f"zext i32 {self(f'extractelement {V} {places}, i32 {lane}')} to i64")
            value = self(f"load {kind}, ptr {self.pointer(base, place, kind)}")
            vector = self(f"insertelement <{HALF} x {kind}> {vector}, {kind} {value}, i32 {lane}")
        return vector

    def split(self, wide: str) -> list[str]:
        """The low and the high halves of 16 x i64."""
        flat = self(f"bitcast <{HALF} x i64> {wide} to <{2 * HALF} x i32>")
        places = (", ".join(f"i32 {2 * lane + high}" for lane in range(HALF)) for high in range(2))
        kind = f"<{2 * HALF} x i32>"
        return [self(f"shufflevector {kind} {flat}, {kind} poison, {V} <{place}>") for place in places]

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
                next_words = self(f"load {BYTES}, ptr {self.pointer('%words', cursor, 'i16')}, align 2")
                placed, n = self.shuffled(next_words, mask, part, "@unpack")
                parts.append(self(f"bitcast {BYTES} {placed} to <8 x i16>"))
                cursor = self(f"add i64 {cursor}, {n}")
            both = ", ".join(f"i32 {lane}" for lane in range(HALF))
            vector = self(f"shufflevector <8 x i16> {parts[0]}, <8 x i16> {parts[1]}, <{HALF} x i32> <{both}>")
            return self(f"zext {V16} {vector} to {V}"), cursor
        vector = "poison"
        for lane in range(HALF):
            word = self(f"load i16, ptr {self.pointer('%words', cursor, 'i16')}, align 2")
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


REAL = f"<{HALF} x float>"
BELOW_1 = "0x3FEFFFFE00000000"  # 1 - 2**-20
ESTIMATES = '"reciprocal-estimates"="vec-divf:1"'  # a division that may be is a rough reciprocal and one Newton step
BYTES = "<16 x i8>"
V, V16, MASK = f"<{HALF} x i32>", f"<{HALF} x i16>", f"<{HALF} x i1>"


def splat(value: int | str, kind: str = "i32") -> str:
    return f"<{', '.join([f'{kind} {value}'] * HALF)}>"


def encoder(index: str, style: Style) -> str:
    """push, of rows of 32 symbols, the last one first. Returns where the words begin.

    A row's intervals are looked up while the row after it is coded: a state need not wait for a table.
    """
    v = Lines(style)
    v.do("entry:")
    stride, low, high = (v.spread(name) for name in ("%stride", "%low", "%high"))
    starts = [v.load("%states", str(HALF * half), "i32") for half in range(2)]
    v.do("%none = icmp eq i64 %groups, 0")
    v.do("br i1 %none, label %done, label %ahead")

    def look_up(at: str) -> str:
        symbol = v(f"sext {V16} {v.load('%symbols', at, 'i16')} to {V}")
        symbol = v(f"call {V} @llvm.smax.v16i32({V} {symbol}, {V} {low})")
        symbol = v(f"call {V} @llvm.smin.v16i32({V} {symbol}, {V} {high})")
        row = v(f"zext <{HALF} x {index}> {v.load('%indices', at, index)} to {V}")
        return v.gather("%lut", v.op("add", v.op("mul", row, stride), v.op("sub", symbol, low)), "i32")

    v.do("ahead:")
    end = v(f"mul i64 %groups, {LANES}")
    ahead = [look_up(v(f"sub i64 {end}, {HALF * (2 - half)}")) for half in range(2)]
    v.do("br label %row")
    v.do("row:")
    v.do("%left = phi i64 [%groups, %ahead], [%group, %row]")
    v.do("%cursor = phi i64 [%from, %ahead], [%moved, %row]")
    for half in range(2):
        v.do(f"%x{half} = phi {V} [{starts[half]}, %ahead], [%next{half}, %row]")
        v.do(f"%entry{half} = phi {V} [{ahead[half]}, %ahead], [%later{half}, %row]")
    v.do("%group = sub i64 %left, 1")
    v.do("%last = icmp eq i64 %group, 0")
    v.do("%before = select i1 %last, i64 1, i64 %group")  # the first row has none before it: it is looked up again
    cursor = "%cursor"
    for half in (1, 0):
        x, entry = f"%x{half}", f"%entry{half}"
        start = v.op("and", entry, 0x7FFF)
        freq = v.op("add", v.op("and", v.op("lshr", entry, 15), 0x7FFF), 1)
        # renormalise
        over = v.test("uge", v.op("lshr", x, 17), freq)
        cursor = v.write_words(cursor, x, over)
        rest = v.choose(over, v.op("lshr", x, 16), x)
        # update: x / (2**16 freq) has the quotient of (x / 2**16) / freq, which is below 2**17, and a float32 estimate that
        # is 2**-20 too small is right or one below: its own errors are less than 2**-21 (2**-22.8 of a rough reciprocal
        # after a Newton step, and five roundings)
        divide = "fdiv fast" if style.estimate else "fdiv"
        inverse = v(f"{divide} {REAL} {splat(BELOW_1, 'float')}, {v(f'sitofp {V} {freq} to {REAL}')}")
        inverse16 = v(f"fmul {REAL} {inverse}, {splat('0x3EF0000000000000', 'float')}")
        inverse = v(f"select {MASK} {over}, {REAL} {inverse16}, {REAL} {inverse}")
        real = v(f"uitofp {V} {x} to {REAL}")
        q = v(f"fptosi {REAL} {v(f'fmul {REAL} {real}, {inverse}')} to {V}")
        r = v.op("sub", rest, v.op("mul", q, freq))
        x = v.op("add", v.op("add", v.op("shl", q, 15), start), r)
        up = v.op("add", x, v.op("sub", splat(1 << 15), freq))
        v.do(f"%next{half} = select {MASK} {v.test('sge', r, freq)}, {V} {up}, {V} {x}")
        # load
        later = look_up(v(f"sub i64 {v(f'mul i64 %before, {LANES}')}, {HALF * (2 - half)}"))
        v.do(f"%later{half} = add {V} {later}, zeroinitializer")
    far = v(f"sub i64 {v(f'mul i64 %before, {LANES}')}, {AHEAD}")
    v.prefetch("%symbols", far, "i16")
    v.prefetch("%indices", far, index)
    v.do(f"%moved = add i64 {cursor}, 0")
    v.flag(v.test("slt", v.op("or", "%entry0", "%entry1"), 0), "%group")
    v.do("br i1 %last, label %done, label %row")
    v.do("done:")
    for half in range(2):
        v.do(f"%final{half} = phi {V} [{starts[half]}, %entry], [%next{half}, %row]")
    v.do("%end = phi i64 [%from, %entry], [%moved, %row]")
    for half in range(2):
        v.do(f"store {V} %final{half}, ptr {v.pointer('%states', str(HALF * half), 'i32')}, align 4")
    v.do("ret i64 %end")
    head = ", ".join(f"ptr noalias %{name}" for name in ("symbols", "indices", "lut", "words", "states", "flags"))
    sizes = ", ".join(f"i64 %{name}" for name in ("groups", "from", "stride", "low", "high"))
    return (
        f"define i64 @encode{index[1:]}({head}, {sizes}) {ESTIMATES if style.estimate else ''} {{\n"
        + "\n".join(v.lines)
        + "\n}\n"
    )


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
        entry = v.gather("%lut", v.op("add", v.op("shl", row, BIN_BITS), v.op("lshr", slot, 15 - BIN_BITS)), "i64")
        one, two = v.split(entry)
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
    return f"define i64 @decode{index[1:]}({head}, i64 %n, i64 %width, i64 %groups) {{\n" + "\n".join(v.lines) + "\n}\n"


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

DECLARATIONS = """
declare <16 x i32> @llvm.smax.v16i32(<16 x i32>, <16 x i32>)
declare <16 x i32> @llvm.smin.v16i32(<16 x i32>, <16 x i32>)
declare <16 x i32> @llvm.masked.gather.v16i32.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x i32>)
declare <16 x i64> @llvm.masked.gather.v16i64.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x i64>)
declare i16 @llvm.ctpop.i16(i16)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare <16 x i16> @llvm.experimental.vector.compress.v16i16(<16 x i16>, <16 x i1>, <16 x i16>)
declare <16 x i16> @llvm.masked.expandload.v16i16(ptr, <16 x i1>, <16 x i16>)
declare void @llvm.masked.store.v16i16.p0(<16 x i16>, ptr, i32, <16 x i1>)
"""

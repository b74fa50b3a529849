"""The vector kernels as LLVM text: push and pop of 32 lanes, as two vectors of 16 (FORMAT.md, "Symbols").

    encode_blocks8, 16   push: symbols -> words, states, flags of escapes   (`rans.push` is the plain form)
    decode_blocks8, 16   pop: words, states -> symbols, flags               (`rans.pop`)
    sample8, 16          the costs that `blocks.estimated_bytes` adds up

The number is the bits of a table index. One text serves every CPU: how lanes load from a table and share the words is
`Lines`' affair. The kernels trust their input: rows of the tables and symbols were checked before, and there is memory
for PAD words before and after the words.
"""

from __future__ import annotations

from laconic.entropy.blocks import RUN
from laconic.entropy.simd_lines import HALF, MASK, REAL, V16, Lines, Style, V, shuffle_tables, splat
from laconic.entropy.tables import BIN_BITS, GROUP

LANES = GROUP
PAD = 64  # words before and after a stream that a kernel may touch
STEP = 8  # rows of 32 symbols between the stages of the encoder: a power of two
AHEAD = 2048  # symbols between coding and prefetching, which memory needs to answer in time
HALVES = range(LANES // HALF)


def module(style: Style) -> str:
    """Return the text of all kernels for a style of CPU."""
    functions = [write(index, style) for write in (encoder, decoder, sampler) for index in ("i8", "i16")]
    loops = [loop.replace("INDEX", index).replace("BITS", index[1:]) for loop in LOOPS for index in ("i8", "i16")]
    return "\n".join([*functions, *loops, SEARCH_ON, DECLARATIONS, *(shuffle_tables() if style.shuffle else [])])


def encoder(index: str, style: Style) -> str:
    """Write the encoder of one block: push in rows of 32 symbols, the last row first. It returns where the words begin.

    A row goes through three stages: `place_row` finds where its symbols' intervals stand in `EncodeLut.pairs`,
    `search_row` loads them, and `push_row` codes them. In one turn of the loop each stage does another row, STEP rows
    apart, and they leave each other what they found in %places and %ring. The way through memory is on purpose: numbers
    that are handled one by one get in and out of vectors faster that way, once what was stored has left the CPU's store
    queue. The loop therefore makes 2 STEP turns more than there are rows; a stage skips a turn whose row does not
    exist.
    """
    v = Lines(style)
    v.do("entry:")
    v.do(f"%places = alloca [{STEP * LANES} x i32], align 64")
    v.do(f"%ring = alloca [{STEP * LANES} x i64], align 64")
    stride = v.spread("%stride")
    low, high = (v(f"trunc {V} {v.spread(name)} to {V16}") for name in ("%low", "%high"))
    starts = [v.load("%states", str(HALF * half), "i32") for half in HALVES]
    v.do(f"%end = add i64 %groups, {2 * STEP}")
    v.do("br label %next")
    v.do("next:")
    v.do("%later = phi i64 [%end, %entry], [%row, %done]")
    v.do("%cursor = phi i64 [%from, %entry], [%cursor2, %done]")
    for half in HALVES:
        v.do(f"%x{half} = phi {V} [{starts[half]}, %entry], [%x{half}.2, %done]")
    v.do("%row = sub i64 %later, 1")
    shelf = v(f"mul i64 {v(f'and i64 %row, {STEP - 1}')}, {LANES}")  # the same for the rows of all three stages
    v.do(f"br i1 {v('icmp ult i64 %row, %groups')}, label %code, label %coded")
    push_row(v, shelf)
    ahead = v(f"sub i64 %row, {STEP}")  # below 0 is far above %groups, unsigned: no row either
    v.do(f"br i1 {v(f'icmp ult i64 {ahead}, %groups')}, label %search, label %found")
    search_row(v, shelf)
    ahead = v(f"sub i64 %row, {2 * STEP}")
    v.do(f"br i1 {v(f'icmp ult i64 {ahead}, %groups')}, label %place, label %done")
    place_row(v, shelf, ahead, index, stride, low, high)
    v.do("done:")
    v.do(f"br i1 {v('icmp eq i64 %row, 0')}, label %leave, label %next")
    v.do("leave:")
    store_states(v, ".2")
    v.do("ret i64 %cursor2")
    pointers = ("symbols", "indices", "lut", "words", "states", "flags")
    integers = ("groups", "from", "stride", "low", "high")
    return v.function(f"define internal i64 @encode{index[1:]}", pointers, integers)


def push_row(v: Lines, shelf: str) -> None:
    """Push the row whose intervals are on the shelf, the second half first; note whether one is an escape."""
    v.do("code:")
    cursor, entries = "%cursor", []
    for half in reversed(HALVES):
        # load: start | (frequency - 1) << 15 | escape << 31, and beside it (1 - 2**-20) / frequency
        x = f"%x{half}"
        where = v(f"add i64 {shelf}, {HALF * half}")
        parts = [v.load("%ring", v(f"add i64 {where}, {first}"), "i64", HALF // 2) for first in (0, HALF // 2)]
        entry, inverse = v.halves(parts)
        entries.append(entry)
        start = v.op("and", entry, 0x7FFF)
        freq = v.op("add", v.op("and", v.op("lshr", entry, 15), 0x7FFF), 1)
        # renormalise: where x >= 2**17 freq a word is written
        over = v.test("uge", v.op("lshr", x, 17), freq)
        cursor = v.write_words(cursor, x, over)
        x = v.choose(over, v.op("lshr", x, 16), x)
        push_states(v, half, x, start, freq, inverse)
    v.do(f"%moved = add i64 {cursor}, 0")
    v.flag(v.test("slt", v.op("or", *entries), 0), "%row")
    v.do("br label %coded")
    v.do("coded:")
    v.do("%cursor2 = phi i64 [%cursor, %next], [%moved, %code]")
    for half in HALVES:
        v.do(f"%x{half}.2 = phi {V} [%x{half}, %next], [%next{half}, %code]")


def push_states(v: Lines, half: int, x: str, start: str, freq: str, inverse: str) -> None:
    """Compute the next states, 2**15 floor(x / freq) + start + x mod freq.

    There is no vector division of integers. x / freq is below 2**17, so its float32 estimate, made 2**-20 too small on
    purpose, is too small by less than 1: its floor is the quotient or one below, and the rest tells which. The errors
    of the conversion, the inverse and the product are less than 2**-22 together, so it is never too large.
    """
    q = v(f"fmul {REAL} {v(f'uitofp {V} {x} to {REAL}')}, {v(f'bitcast {V} {inverse} to {REAL}')}")
    q = v(f"fptosi {REAL} {q} to {V}")
    r = v.op("sub", x, v.op("mul", q, freq))
    x = v.op("add", v.op("add", v.op("shl", q, 15), start), r)
    up = v.op("add", x, v.op("sub", splat(1 << 15), freq))  # with a quotient one more: 2**15 more, the rest freq less
    v.do(f"%next{half} = select {MASK} {v.test('sge', r, freq)}, {V} {up}, {V} {x}")


def search_row(v: Lines, shelf: str) -> None:
    """Load the intervals of the row whose places are on the shelf."""
    v.do("search:")
    for half in HALVES:
        where = v(f"add i64 {shelf}, {HALF * half}")
        v.collect("%lut", v.pointer("%places", where, "i32"), v.pointer("%ring", where, "i64"))
    v.do("br label %found")
    v.do("found:")


def place_row(v: Lines, shelf: str, number: str, index: str, stride: str, low: str, high: str) -> None:
    """Find the places of a row's intervals: row x stride + symbol - low, the symbol clamped to low..high."""
    v.do("place:")
    first = v(f"mul i64 {number}, {LANES}")
    for half in HALVES:
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


def decoder(index: str, style: Style) -> str:
    """Write the decoder of one block: pop in rows of 32 symbols. It returns the words read.

    Where the words run out it stops and returns more than there are. A row reads 32 words at most, which exist or are
    padding.
    """
    v = Lines(style)
    v.do("entry:")
    v.do(f"%found = alloca [{6 * HALF} x i32], align 64")
    starts = [v.load("%states", str(HALF * half), "i32") for half in HALVES]
    v.do("br label %row")
    v.do("row:")
    v.do("%group = phi i64 [0, %entry], [%after, %known1]")
    v.do("%cursor = phi i64 [0, %entry], [%moved, %known1]")
    for half in HALVES:
        v.do(f"%x{half} = phi {V} [{starts[half]}, %entry], [%next{half}, %known1]")
    v.do("%short = icmp ugt i64 %cursor, %n")
    v.do("%last = icmp eq i64 %group, %groups")
    v.do("%stop = or i1 %short, %last")
    far = v(f"add i64 {v(f'mul i64 %group, {LANES}')}, {AHEAD}")
    v.prefetch("%indices", far, index)
    v.prefetch("%out", far, "i16", write=1)
    v.prefetch("%words", v(f"add i64 %cursor, {AHEAD // 2}"), "i16")
    v.do("br i1 %stop, label %done, label %half0")
    cursor, seen = pop_half(v, 0, index, "%cursor")
    v.do("br label %half1")
    cursor, seen = pop_half(v, 1, index, cursor, seen)
    v.do(f"%moved = add i64 {cursor}, 0")
    v.flag(v.test("ne", seen, 0), "%group")
    v.do("%after = add i64 %group, 1")
    v.do("br label %row")
    v.do("done:")
    store_states(v)
    v.do("ret i64 %cursor")
    pointers = ("words", "indices", "lut", "cdf", "offsets", "states", "out", "flags")
    return v.function(f"define internal i64 @decode{index[1:]}", pointers, ("n", "width", "groups"))


def pop_half(v: Lines, half: int, index: str, cursor: str, seen: str = "") -> tuple[str, str]:
    """Pop half a row. Return the cursor, and in which lanes an escape was seen, together with those that were before.

    An entry of `Tables.decode_lut` stands for a bin of 64 slots. It has the two symbols that the bin begins with, a and
    b: in its low half the start of a, then that of b; in its high half the last slot of b (15 bits), whether b is the
    escape (1 bit), and b. Where a slot lies beyond b, which is rare, `@search_on` walks on from there.
    """
    x, before = f"%x{half}", f"half{half}"
    v.do(f"{before}:")
    # load
    where = v(f"add i64 {v(f'mul i64 %group, {LANES}')}, {HALF * half}")
    row = v(f"zext <{HALF} x {index}> {v.load('%indices', where, index)} to {V}")
    slot = v.op("and", x, 0x7FFF)
    one, two = v.gather("%lut", v.op("add", v.op("shl", row, BIN_BITS), v.op("lshr", slot, 15 - BIN_BITS)))
    # search
    boundary, end = v.op("lshr", one, 16), v.op("add", v.op("and", two, 0x7FFF), 1)
    first = v.test("ult", slot, boundary)
    start = v.choose(first, v.op("and", one, 0x7FFF), boundary)
    end = v.choose(first, boundary, end)
    symbol = v.op("sub", v.op("ashr", two, 16), v(f"zext {MASK} {first} to {V}"))  # a is b - 1
    escape = v.choose(first, splat(0), v.op("and", two, 0x8000))
    v.do(f"br i1 {v.any(v.test('uge', slot, end))}, label %search{half}, label %known{half}")
    start, end, symbol, escape = search_half(v, half, row, slot, (start, end, symbol, escape))
    seen = v.op("or", seen, escape) if seen else escape
    v.do(f"store {V16} {v(f'trunc {V} {symbol} to {V16}')}, ptr {v.pointer('%out', where, 'i16')}, align 2")
    # update: freq floor(x / 2**15) + slot - start
    x = v.op("mul", v.op("sub", end, start), v.op("lshr", x, 15))
    x = v.op("add", x, v.op("sub", slot, start))
    # renormalise: where x < 2**16 a word is read
    under = v.test("ult", x, 1 << 16)
    words, cursor = v.read_words(cursor, under)
    v.do(f"%next{half} = select {MASK} {under}, {V} {v.op('or', v.op('shl', x, 16), words)}, {V} {x}")
    return cursor, seen


def search_half(v: Lines, half: int, row: str, slot: str, near: tuple[str, str, str, str]) -> list[str]:
    """Search on where slots lie beyond both symbols of their bins. near, returned: start, end, symbol, escape."""
    v.do(f"search{half}:")
    start, end, symbol, escape = near
    for i, value in enumerate((slot, start, end, symbol, escape, row)):
        v.do(f"store {V} {value}, ptr {v.pointer('%found', str(HALF * i), 'i32')}, align 64")
    v.do("call void @search_on(ptr %found, ptr %cdf, i64 %width, ptr %offsets)")
    found = [v(f"load {V}, ptr {v.pointer('%found', str(HALF * i), 'i32')}, align 64") for i in range(1, 5)]
    v.do(f"br label %known{half}")
    v.do(f"known{half}:")
    names = [f"%{name}{half}" for name in ("start", "end", "symbol", "escape")]
    for name, here, there in zip(names, near, found, strict=True):
        v.do(f"{name} = phi {V} [{here}, %half{half}], [{there}, %search{half}]")
    return names


def store_states(v: Lines, version: str = "") -> None:
    """Store the lanes' states, where the caller has them."""
    for half in HALVES:
        v.do(f"store {V} %x{half}{version}, ptr {v.pointer('%states', str(HALF * half), 'i32')}, align 4")


def sampler(index: str, style: Style) -> str:
    """Write the sum, for each block, of the costs of runs of RUN symbols, `step` symbols apart."""
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
        bits = cost(v, v(f"add i64 {begin}, {k}"), index)
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
    integers = ("blocks", "size", "runs", "step", "stride", "low", "high")
    return v.function(f"define i64 @sample{index[1:]}", ("symbols", "indices", "costs", "found"), integers)


def cost(v: Lines, where: str, index: str) -> str:
    """Load the cost of the symbol at a place, as a double."""
    symbol = v(f"call i64 @llvm.smax.i64(i64 {v.single('sext', '%symbols', where, 'i16')}, i64 %low)")
    symbol = v(f"call i64 @llvm.smin.i64(i64 {symbol}, i64 %high)")
    row = v(f"mul i64 {v.single('zext', '%indices', where, index)}, %stride")
    place = v(f"add i64 {row}, {v(f'sub i64 {symbol}, %low')}")
    bits = v(f"load float, ptr {v.pointer('%costs', place, 'float')}")
    return v(f"fpext float {bits} to double")


# Finds start, end and symbol by the row's CDF, and whether it is the escape, its last entry, for each lane whose slot
# is not below its end. %found has 16 each of slot, start, end, symbol, escape, row. A CDF ends in 2**15, which is above
# any slot, so the walk ends within its row.
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

# Code blocks one after the other. All that belongs to a block lies at a fixed distance from what belongs to the next;
# only the words to read lie anywhere, so their addresses are given.
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

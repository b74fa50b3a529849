"""Varints, LEB128: how counts and fields are written in our bytes (FORMAT.md, first paragraph)."""

from __future__ import annotations

from laconic.entropy.errors import BadFile, expect

MAX_BYTES = 5
LIMIT = 1 << 7 * MAX_BYTES  # the values that fit


def write_varint(value: int) -> bytes:
    """Write a number of 0 or more: 7 bits per byte, the lowest first, with the top bit set where more bytes follow."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_varint(data: memoryview | bytes, position: int, field: str, limit: int = LIMIT) -> tuple[int, int]:
    """Read the number at a position; return it and the position after it.

    limit: the number must be below it. field: what error messages call the number.
    Raises BadFile if the data end within it, if it has more than 5 bytes or could be written in fewer than it has.
    """
    value = shift = 0
    while True:
        expect(position < len(data), BadFile, field, "the end of the data", "a varint")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
        expect(shift < 7 * MAX_BYTES, BadFile, field, "a varint of over 5 bytes", "at most 5")
    expect(byte > 0 or shift == 7, BadFile, field, f"{value} in {shift // 7} bytes", "its shortest form")
    expect(value < limit, BadFile, field, value, f"below {limit}")
    return value, position

"""The container: golden bytes, and every length bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic import container, payloads, picture
from laconic.container import Chunk, Header

GOLDEN = "894c630d0a0102216162616263640301020302010367ba8eeb85024a4b803b9f2134de78797a6d6e"

headers = st.builds(
    Header,
    st.integers(0, 255),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=200).filter(lambda name: name not in ("photo-3", "photo-6", "sound-2")),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=40),
)
chunks = st.lists(st.builds(Chunk, st.integers(0, 127), st.binary(max_size=300), st.booleans()), max_size=5)


@given(headers, chunks)
def test_what_is_written_is_read(header: Header, written: list[Chunk]) -> None:
    found, read = container.read(container.write(header, written), range(128))
    assert found == header
    assert [Chunk(c.kind, bytes(c.payload or b""), c.optional) for c in read] == written


@given(headers, chunks, st.data())
def test_a_cut_or_changed_file_is_an_error(header: Header, written: list[Chunk], data: st.DataObject) -> None:
    file = bytearray(container.write(header, written))
    cut = data.draw(st.integers(0, len(file) - 1))
    with pytest.raises(laconic.LaconicError, match="found .*, expected"):
        container.read(bytes(file[:cut]), range(128))
    file[cut] ^= data.draw(st.integers(1, 255))
    with pytest.raises(laconic.LaconicError, match="found .*, expected"):
        container.read(bytes(file), range(128))


def test_what_was_found_is_said() -> None:
    file = container.write(Header(2, "ab", b"abcd", b"\1\2\3"), [Chunk(1, b"xyz")])
    _, (entry,) = container.read_table(file)
    with pytest.raises(laconic.BadFile, match="chunk 0 checksum: found '0x7287ebdd', expected 0xeb8eba67"):
        container.payload(file[:-1] + b"y", entry)
    with pytest.raises(laconic.BadFile, match="chunk 0 length: found 2, expected 3 bytes"):
        container.payload(file[:-1], entry)


def test_golden_bytes() -> None:
    file = container.write(Header(2, "ab", b"abcd", b"\1\2\3"), [Chunk(1, b"xyz"), Chunk(5, b"mn", optional=True)])
    assert file.hex() == GOLDEN


def test_alpha_and_metadata_decode_for_ever() -> None:
    rows = bytes.fromhex("0078da636064646260000000150005")
    assert picture.decode_alpha(rows, 2, 3).tolist() == [[0, 1, 1], [2, 1, 1]]
    assert payloads.decode_metadata(bytes.fromhex("0578dacb48cdc9c90700062c0215")) == b"hello"

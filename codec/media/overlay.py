"""Exact blocks over a photo: text and drawings in a picture that is else a photo (FORMAT.md, section "Overlay").

    picture ─┬─ chosen blocks, exact ──► canvas of each tile ─ lossless coder ─► a chunk of each tile
             └─ filled() there, smooth ─► photo model

The blocks of a tile stand on its canvas where they stood in the tile, less the rows and columns of blocks that hold none;
the rest of the canvas has one colour. So text keeps its surroundings, which is what the lossless coder learns from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.container import read_varint, write_varint
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.threads import mapped
from laconic.medium import Region, Slices, shared
from laconic.payloads import CRC_BYTES, crc

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

LEAST_SIDE, MOST_SIDE = 3, 8  # powers of two: the side of a block has 8 to 256 pixels
HEAD_BYTES = 6  # at most: the side of a block and the number of exact pixels
BITS = 8  # per sample
STRIP = 256  # rows that are filled at once; an even number, as rows are halved in pairs


@dataclass(frozen=True)
class Layout:
    """Says where a tile of height x width pixels has chosen blocks: mask bool [rows, columns], `side` pixels per side."""

    height: int
    width: int
    side: int
    mask: Mask

    @property
    def pixels(self) -> Mask:
        """Whether each pixel of the tile is in a chosen block: bool [height, width]."""
        return spread(self.mask, self.side, self.height, self.width)

    @property
    def kept(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The pixel rows and columns of the tile that the canvas has."""
        rows, columns = (np.unique(places) for places in np.nonzero(self.mask))
        return covered(rows, self.side, self.height), covered(columns, self.side, self.width)


def covered(blocks: NDArray[np.intp], side: int, size: int) -> NDArray[np.intp]:
    """Return the pixels of some rows of blocks, or columns, in a tile of `size` pixels."""
    pixels = np.arange(size)
    return pixels[np.isin(pixels // side, blocks)]


def encode(pixels: Pixels, mask: Mask, side: int, tile: int, effort: int, threads: int | None) -> list[bytes]:
    """Code the chosen blocks of a picture: a payload for each tile, in rows from the top left, empty where none is chosen.

    pixels: uint8 [H, W, C]. mask: bool [ceil(H / side), ceil(W / side)]. side: of a block, a power of two that divides
    `tile`, the photo's tile side in pixels. effort: 1 to 9.
    """
    height, width = pixels.shape[:2]

    def code(place: Region) -> bytes:
        x, y, w, h = place
        own = mask[y // side : -(-(y + h) // side), x // side : -(-(x + w) // side)]
        return encode_one(pixels[y : y + h, x : x + w], Layout(h, w, side, own), effort) if own.any() else b""

    return list(mapped(code, list(places(height, width, tile)), threads))


def encode_one(pixels: Pixels, layout: Layout, effort: int) -> bytes:
    """Code the chosen blocks of one tile, of which there is at least one."""
    from laconic.models.lossless_photo import encode_tile, tile_grid

    canvas, held = canvas_of(pixels, layout)
    coded = encode_tile(layout.mask[:, :, None].astype(np.uint16), 1, effort, 0)
    out = bytes([layout.side.bit_length() - 1]) + write_varint(int(held.sum())) + write_varint(len(coded)) + coded
    out += crc(canvas.tobytes())
    for y, x, h, w in tile_grid(canvas.shape[0], canvas.shape[1], large=True):
        part = encode_tile(np.ascontiguousarray(canvas[y : y + h, x : x + w]).astype(np.uint16), BITS, effort, 0)
        out += write_varint(len(part)) + part
    return out


def canvas_of(pixels: Pixels, layout: Layout) -> tuple[Pixels, Mask]:
    """Return the canvas, its free places in the commonest colour of the chosen blocks, and which places are not free."""
    where = np.ix_(*layout.kept)
    canvas, held = pixels[where].copy(), layout.pixels[where]
    colours, n = np.unique(canvas[held], axis=0, return_counts=True)
    canvas[~held] = colours[n.argmax()]
    return canvas, held


def places(height: int, width: int, tile: int) -> Iterator[Region]:
    """Yield the tiles of a photo in rows from the top left."""
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            yield x, y, min(tile, width - x), min(tile, height - y)


def spread(mask: Mask, side: int, height: int, width: int) -> Mask:
    """Return a mask of blocks as one of pixels."""
    rows, columns = np.arange(height) // side, np.arange(width) // side
    return mask[rows[:, None], columns[None]]


def filled(pixels: Pixels, mask: Mask, side: int) -> Pixels:
    """Return the picture with its chosen blocks replaced by a smooth continuation of what is around them.

    Each pixel takes the mean of the nearest known ones, at the finest scale that has any ("push-pull", Gortler et al. 1996).
    """
    height, width, channels = pixels.shape
    half = np.zeros((-(-height // 2), -(-width // 2), channels), np.float32)
    known = np.zeros(half.shape[:2], np.bool_)
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height))
        free = ~spread_rows(mask, side, rows, width)
        half[rows.start // 2 : -(-rows.stop // 2)], known[rows.start // 2 : -(-rows.stop // 2)] = halved(
            pixels[rows].astype(np.float32), free
        )
    half, out = completed(half, known), pixels.copy()
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height))
        chosen = spread_rows(mask, side, rows, width)
        if chosen.any():
            near = np.clip(np.arange(rows.start // 2 - 1, -(-rows.stop // 2) + 1), 0, len(half) - 1)
            smooth = doubled(half[near])[2 : 2 + rows.stop - rows.start, :width]
            out[rows][chosen] = smooth[chosen].round().astype(np.uint8)
    return out


def spread_rows(mask: Mask, side: int, rows: slice, width: int) -> Mask:
    """Return the pixels of some rows that are in the chosen blocks: bool [rows, width]."""
    chosen: Mask = mask[np.arange(rows.start, rows.stop)[:, None] // side, np.arange(width)[None] // side]
    return chosen


def completed(values: NDArray[np.float32], known: Mask) -> NDArray[np.float32]:
    """Return the values [H, W, C] with those that are not known taken from coarser scales."""
    if known.all() or known.size == 1:
        return values
    coarse = doubled(completed(*halved(values, known)))[: values.shape[0], : values.shape[1]]
    return np.where(known[..., None], values, coarse)


def halved(values: NDArray[np.float32], known: Mask) -> tuple[NDArray[np.float32], Mask]:
    """Return means of the known values of 2 x 2, and whether there are any; the last row and column may stand alone."""
    rows, columns = np.arange(0, values.shape[0], 2), np.arange(0, values.shape[1], 2)

    def sums(array: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.add.reduceat(np.add.reduceat(array, columns, 1), rows, 0)
        return found

    weight = sums(known[..., None].astype(np.float32))
    means = sums(values * known[..., None]) / np.maximum(weight, 1)
    return means.astype(np.float32, copy=False), weight[..., 0] > 0


def doubled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values at twice the size, linear in between."""
    for axis in (0, 1):
        padded = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, own, after = (np.take(padded, np.arange(values.shape[axis]) + k, axis) for k in range(3))
        pair = np.stack([0.75 * own + 0.25 * before, 0.75 * own + 0.25 * after], axis + 1)
        values = pair.reshape([n * 2 if a == axis else n for a, n in enumerate(values.shape)])
    return values


def apply(
    pixels: Pixels, payloads: list[bytes | None], size: tuple[int, int], tile: int, region: Region, threads: int | None
) -> list[str]:
    """Put the exact blocks into the decoded pixels of a region, uint8 [h, w, C], of a picture of size (width, height).

    payloads: one for each tile, None where damaged. Returns a note on each of those that meet the region. Raises BadFile.
    """
    width, height = size

    def work(item: tuple[Region, bytes | None, tuple[Slices, Slices]]) -> str:
        (x, y, w, h), payload, (inside, here) = item
        if payload is None:
            return f"damaged, left out: the exact blocks of the tile at {x},{y} ({w} x {h} pixels)"
        samples, chosen = decode_one(payload, (h, w, pixels.shape[2]))
        own = pixels[here]
        own[chosen[inside]] = samples[inside][chosen[inside]]
        return ""

    tiles = zip(places(height, width, tile), payloads, strict=True)
    found = [(place, payload, shared(place, region)) for place, payload in tiles if payload != b""]
    wanted = [(place, payload, both) for place, payload, both in found if both]
    return [note for note in mapped(work, wanted, threads) if note]


def verify(payloads: list[bytes | None], size: tuple[int, int], tile: int, channels: int) -> None:
    """Decode every payload, one tile in memory at a time. Raises BadFile."""
    for (_, _, width, height), payload in zip(places(size[1], size[0], tile), payloads, strict=True):
        if payload:
            decode_one(payload, (height, width, channels))


def decode_one(payload: bytes, shape: tuple[int, int, int]) -> tuple[Pixels, Mask]:
    """Decode a tile of a shape [h, w, C]: its samples, 0 outside of the chosen blocks, and where those are. Raises BadFile."""
    from laconic.models.lossless_photo import decode_tile, tile_grid

    height, width, channels = shape
    side, n_pixels, position = read_head(payload)
    coded, position = take(payload, position, "mask of blocks")
    mask = decode_tile(coded, -(-height // side), -(-width // side), 1, 1, 0)[..., 0].astype(np.bool_)
    layout = Layout(height, width, side, mask)
    chosen = layout.pixels
    found = int(chosen.sum())
    expect(found == n_pixels and found > 0, BadFile, "pixels of the overlay", found, f"{n_pixels}, and more than 0")
    where = np.ix_(*layout.kept)
    canvas = np.empty((*chosen[where].shape, channels), np.uint8)
    expected, position = payload[position : position + CRC_BYTES], position + CRC_BYTES
    for y, x, h, w in tile_grid(canvas.shape[0], canvas.shape[1], large=True):
        coded, position = take(payload, position, "part of the overlay")
        canvas[y : y + h, x : x + w] = decode_tile(coded, h, w, channels, BITS, 0)
    expect(position == len(payload), BadFile, "overlay", f"{len(payload) - position} bytes more", "the end")
    expect(crc(canvas.tobytes()) == expected, BadFile, "checksum of the overlay", crc(canvas.tobytes()).hex(), expected.hex())
    samples = np.zeros(shape, np.uint8)
    samples[where] = canvas
    samples[~chosen] = 0
    return samples, chosen


def read_head(payload: bytes) -> tuple[int, int, int]:
    """Read the side of a block, the pixels of the chosen blocks, and where the rest begins. Raises BadFile."""
    power = payload[0] if payload else -1
    expect(LEAST_SIDE <= power <= MOST_SIDE, BadFile, "side of a block", power, f"a power, {LEAST_SIDE} to {MOST_SIDE}")
    n_pixels, position = read_varint(payload, 1, "pixels of the overlay")
    return 1 << power, n_pixels, position


def n_exact(payload: bytes) -> int:
    """Return how many pixels of a tile are exact, from the first bytes of its payload, unchecked; 0 where they are damaged."""
    try:
        return read_head(payload)[1] if payload else 0
    except BadFile:
        return 0


def take(payload: bytes, position: int, field: str) -> tuple[bytes, int]:
    """Read a length and so many bytes. Raises BadFile."""
    size, position = read_varint(payload, position, field)
    expect(position + size <= len(payload), BadFile, field, f"{len(payload) - position} bytes", f"{size} bytes")
    return payload[position : position + size], position + size

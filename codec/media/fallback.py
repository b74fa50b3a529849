"""The encoder looks at what the photo model made: is this a photo at all, and where is it none?

    best          the file that serves best: the photo model's, one with exact blocks, a lossless one
    synthetic     does a picture look like a screen, a drawing or a dither anywhere? Cheap: nearly all photos end here
    choose        which blocks cost less, or come out far better, without loss, by estimates on each block
    cost          what a coding costs: its bits, and the bits that a photo of this quality would pay for its excess error

The measure of an error is what this quality gives on photos (`USUAL`, `WORTH`): an error within it costs nothing, since it
is what was asked for; a larger one is weighed in bits at the rate at which photos trade bits for error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Bits = NDArray[np.float32]

SIDE = 16  # pixels of a block: an odd place of a photo in a page costs few mixed blocks
AROUND = ((1, 0), (0, 1), (0, 0), (0, 2))  # neighbours as row, column from the corner above on the left: W, N, NW, NE
SMALL = 3  # steps between pixels as noise and shades make them
STEP = 10  # the quality from one entry of the tables to the next
# Mean squared error that photos have at qualities 0, 10, ... 100: the geometric mean of 24 validation photos
# (`python -m laconic.tools.bench_screens --curve DIR` prints both tables for a folder of photos).
USUAL = (143.4, 106.8, 78.8, 57.2, 41.1, 29.7, 21.8, 16.5, 13.1, 10.9, 9.5)
# Bits per pixel that these photos pay for a mean squared error less by 1, between one quality and the next.
WORTH = (0.0008, 0.0011, 0.0020, 0.0039, 0.0072, 0.013, 0.024, 0.043, 0.078, 0.145, 0.198)
FAR = 2.0  # an error up to so many times the usual one is as good as asked for
DEARER = 2.0  # exact blocks, and the file that has them, may take at most so many times the photo's bits
FREE = 16.0  # an exact block must save more bits than this; one that costs less may join its neighbours
ROUNDS = 4  # how many blocks far such neighbours join
WINDOW = 1024  # side in pixels of what is looked at together
LOOK = 32  # side in pixels of a block in the first, cheap look
TINY = 1 << 12  # up to so many samples the closer look costs nothing
GAIN = 0.95  # exact blocks must cost less than this share of the photo: one that hardly gains stays what it is
CLEARLY = 0.8  # exact blocks are tried where less than this share of a lossless file is expected of them
HIGH = 2.0  # the estimate of a lossless size may be so many times the truth
KEEP = "--no-fallback, or fallback=False, keeps the photo model"
WHOLE = f"this is no photo: coded as a lossless picture, which serves it better ({KEEP})"


def best(
    pixels: Pixels,
    data: bytes,
    extra: int,
    quality: float,
    decode: Callable[[bytes], Pixels],
    overlaid: Callable[[Mask], bytes],
    exact: Callable[[], bytes],
) -> tuple[bytes, str]:
    """Return the file that serves best, and a note where that is not the photo model's alone.

    pixels: uint8 [H, W, C]. data: the photo model's file of this quality, whose `extra` bytes hold other things than these
    pixels: alpha, metadata. decode: what a file decodes to. overlaid: makes a file of this quality whose chosen blocks
    (bool [rows, columns], of side SIDE) are exact. exact: makes a lossless file.
    """
    if not synthetic(pixels):
        return data, ""
    decoded, own = decode(data), len(data) - extra
    choice = choose(pixels, decoded, own, quality)
    plain = cost(len(data), pixels, decoded, None, quality)
    ways, bits = [(plain, data, "")], choice.exact
    if choice.exact < HIGH * max(choice.mixed, 8 * own):
        whole = exact()
        ways.append((8.0 * len(whole), whole, WHOLE))
        bits = 8.0 * (len(whole) - extra)
    if choice.mixed < CLEARLY * bits and choice.blocks.any() and not choice.blocks.all():
        mixed = overlaid(choice.blocks)
        price = cost(len(mixed), pixels, decoded, choice.blocks, quality)
        ways += [(price, mixed, partly(choice.blocks))] * (price < GAIN * plain)
    _, found, note = min((way for way in ways if len(way[1]) - extra <= DEARER * own), key=lambda way: way[0])
    return found, note


def partly(blocks: Mask) -> str:
    """Return the note on a picture whose blocks are exact here and there."""
    share = round(100 * float(blocks.mean()))
    return f"{share} % of the picture is no photo: coded without loss there, which serves it better ({KEEP})"


def synthetic(pixels: Pixels) -> bool:
    """Return whether a picture, uint8 [H, W, C], is worth a closer look: colours repeat exactly, and yet there are edges.

    This takes about 4 % of the time that the photo model takes. 41 of 627 photos are looked at more closely, in gray 57.
    """
    from laconic.models.repeats import repetitive

    if pixels.size <= TINY:
        return True
    shares = [sharp_blocks(pixels[y : y + WINDOW]) for y in range(0, len(pixels), WINDOW)]
    return bool(np.concatenate(shares).mean() >= 0.01) or repetitive(pixels)


def sharp_blocks(pixels: Pixels) -> Mask:
    """Return which blocks, LOOK pixels high and wide, repeat their colours and have edges, but hardly a small step."""
    plane = green(pixels)
    steps = np.abs(np.diff(plane, axis=1, prepend=plane[:, :1]))
    values = repeated(pixels), (steps > 0) & (steps <= SMALL), steps**2, np.ones(steps.shape)
    same, small, energy, n = (block_sums(value.astype(np.float32), LOOK) for value in values)
    sharp: Mask = (same >= 0.5 * n) & (energy >= 100 * n) & (small <= 0.05 * n)
    return sharp.ravel()


def repeated(pixels: Pixels) -> Mask:
    """Return whether each pixel has the colour of its neighbour on the left, or of one of the three above."""
    colour = packed(pixels)
    around = np.pad(colour, ((1, 0), (1, 1)), mode="edge")
    same = np.zeros(colour.shape, np.bool_)
    for down, right in AROUND:
        same |= colour == around[down : down + colour.shape[0], right : right + colour.shape[1]]
    return same


def green(pixels: Pixels) -> NDArray[np.int32]:
    """Return the green channel, which is the most like brightness, or gray: int32 [H, W]."""
    return pixels[..., min(1, pixels.shape[2] - 1)].astype(np.int32)


def packed(pixels: Pixels) -> NDArray[np.uint32]:
    """Return a number for each colour: uint32 [H, W]."""
    out = pixels[..., 0].astype(np.uint32)
    for channel in range(1, pixels.shape[2]):
        out = out << np.uint32(8) | pixels[..., channel]
    return out


def block_sums(values: Bits, side: int = SIDE) -> Bits:
    """Return the sums over blocks of that side in pixels, those at the border cut: float32 [rows, columns]."""
    rows, columns = (np.arange(0, size, side) for size in values.shape)
    return np.add.reduceat(np.add.reduceat(values, columns, 1), rows, 0)


def usual_error(quality: float) -> float:
    """Return the mean squared error that photos have at a quality."""
    return float(np.exp(np.interp(quality / STEP, range(len(USUAL)), np.log(USUAL))))


def worth(quality: float) -> float:
    """Return the bits that a squared error of 1 is worth at a quality."""
    return float(np.exp(np.interp(quality / STEP, range(len(WORTH)), np.log(WORTH))))


def exact_bits(pixels: Pixels) -> Bits:
    """Estimate the bits that each block takes without loss: float32 [rows, columns].

    A colour costs its share, so far, of what followed the same four neighbours; a new one what its error costs.
    """
    colour = packed(pixels).astype(np.uint64)
    around = np.pad(colour, ((1, 0), (1, 1)), mode="edge")
    height, width = colour.shape
    key = np.zeros(colour.shape, np.uint64)
    for down, right in AROUND:
        key = (key ^ key >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15)
        key += around[down : down + height, right : right + width]
    both = (key ^ key >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15) + colour
    seen, hits = (counts(k) - 1 for k in (key, both))
    new = new_bits(pixels)
    known = -np.log2(np.maximum(hits, 0.5) / (seen + 1))
    fresh = np.log2(seen + 2) + new
    return block_sums(np.where(hits > 0, np.minimum(known + 0.02, fresh), fresh).astype(np.float32))


def counts(keys: NDArray[np.uint64]) -> Bits:
    """Return how often each key occurs in all."""
    _, place, n = np.unique(keys.ravel(), return_inverse=True, return_counts=True)
    return n[place].reshape(keys.shape).astype(np.float32)


def new_bits(pixels: Pixels) -> Bits:
    """Estimate the bits of each pixel by the errors of the median predictor, in green and in differences to it."""
    planes = pixels.astype(np.int32)
    if planes.shape[2] >= 3:
        planes = np.stack([planes[..., 1], planes[..., 0] - planes[..., 1], planes[..., 2] - planes[..., 1]], 2)
    around = np.pad(planes, ((1, 0), (1, 0), (0, 0)), mode="edge")
    west, north, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    guess = np.clip(west + north - corner, np.minimum(west, north), np.maximum(west, north))
    bits: Bits = (np.log2(np.abs(planes - guess) * 2 + 1, dtype=np.float32) + np.float32(1)).sum(2)
    return bits


@dataclass(frozen=True)
class Choice:
    """Says which blocks cost less without loss, bool [rows, columns], and the bits that are expected either way.

    exact: the whole picture without loss. mixed: the chosen blocks without loss, the rest as the photo model has it.
    """

    blocks: Mask
    exact: float
    mixed: float


def choose(pixels: Pixels, decoded: Pixels, n_bytes: int, quality: float) -> Choice:
    """Choose the blocks to be coded without loss.

    pixels, decoded: the picture and what the photo model made of it, uint8 [H, W, C], in n_bytes.
    """
    exact = by_windows(exact_bits, pixels)
    excess = by_windows(partial(excess_bits, quality=quality), pixels, decoded)
    spent = by_windows(partial(activity, quality=quality), pixels)
    spent *= 8 * n_bytes / max(float(spent.sum()), 1e-9)
    blocks = joined((exact + FREE < spent + excess) & (exact < DEARER * spent), exact < FREE)
    return Choice(blocks, float(exact.sum()), float(np.where(blocks, exact, spent + excess).sum()))


def joined(chosen: Mask, free: Mask) -> Mask:
    """Return the chosen blocks with those around them that cost nothing, so that areas are whole."""
    for _ in range(ROUNDS):
        around = np.pad(chosen, 1)
        near = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
        chosen = chosen | (near & free)
    return chosen


def excess_bits(pixels: Pixels, decoded: Pixels, quality: float) -> Bits:
    """Return the bits that each block's error is worth, as far as it is more than this quality has on photos."""
    error = np.square(pixels.astype(np.float32) - decoded).mean(2)
    sums, n = block_sums(error), block_sums(np.ones(error.shape, np.float32))
    return np.maximum(sums - FAR * usual_error(quality) * n, 0) * np.float32(worth(quality))


def activity(pixels: Pixels, quality: float) -> Bits:
    """Estimate the share of the photo's bits that each block takes: what its steps are against the usual error."""
    plane = green(pixels).astype(np.float32)
    steps = np.square(np.diff(plane, axis=1, prepend=plane[:, :1])) + np.square(np.diff(plane, axis=0, prepend=plane[:1]))
    return block_sums(np.log1p(steps / np.float32(2 * usual_error(quality))))


def cost(n_bytes: int, pixels: Pixels, decoded: Pixels, mask: Mask | None, quality: float) -> float:
    """Return what a file costs in bits: its own, and those of the excess errors outside of exact blocks."""
    excess = by_windows(partial(excess_bits, quality=quality), pixels, decoded)
    return 8 * n_bytes + float(excess.sum() if mask is None else excess[~mask].sum())


def by_windows(measure: Callable[..., Bits], *pictures: Pixels) -> Bits:
    """Return a measure of all blocks of pictures of one size, float32 [rows, columns], with the memory of one window."""
    height, width = pictures[0].shape[:2]
    out = np.zeros((-(-height // SIDE), -(-width // SIDE)), np.float32)
    for y, x in product(range(0, height, WINDOW), range(0, width, WINDOW)):
        here = np.s_[y : y + WINDOW, x : x + WINDOW]
        blocks = np.s_[y // SIDE : (y + WINDOW) // SIDE, x // SIDE : (x + WINDOW) // SIDE]
        out[blocks] = measure(*(pixels[here] for pixels in pictures))
    return out

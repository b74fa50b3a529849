"""Segments of a lossy sound that are coded without loss, as that is no larger (FORMAT.md, "Lossy sound", Exact segments).

    lossy segment ───────────►┊ samples as they were ┊◄─────────── lossy segment
        the synthesis goes on ┊ head            tail ┊ goes back      head, tail: a few frames

Beyond the seam both are known, the exact samples and what the network makes of the edge's frames. What they differ by is
mirrored into the lossy segment, and fades out there: both sides meet, and no exact sample changes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from laconic.media import lossless_sound
from laconic.media.lossy_sound_fields import BEYOND, SECONDS, ExactSegment, full_scale
from laconic.payloads import inflate
from laconic.sound import Samples, Source
from laconic.sound_samples import unpack_pcm

Floats = NDArray[np.float32]
MOST_PACKED = 1 << 16  # bytes for a channel: samples that deflate to more cost more without loss than the network ever spends
EFFORT = 5  # of lossless coding
FADES = 250  # to a second: the difference at a seam fades out in 4 ms


def is_offered(sample_rate: int) -> bool:
    """Tell whether segments of a sound can be without loss: lossless segments have a limit, which is 262144 Hz here."""
    return SECONDS * sample_rate <= lossless_sound.MOST_SEGMENT


@dataclass(frozen=True)
class Original:
    """Keeps the samples of a segment, deflated, until it is known whether lossless coding is worth a trial."""

    packed: bytes
    channels: int
    bits: int
    floating: bool

    @cached_property
    def exact(self) -> ExactSegment:
        """The segment without its edges, in whichever way is smaller: what repeats often deflates better."""
        raw = zlib.decompress(self.packed)
        samples = from_bytes(raw, self.channels, self.bits, self.floating)
        deflated, coded = zlib.compress(raw, 9), lossless_sound.write_segment(samples, self.bits, EFFORT)
        return ExactSegment((), (), min(deflated, coded, key=len), len(deflated) <= len(coded))


def original_of(raw: Samples, packed: bytes, source: Source) -> Original | None:
    """Return what is kept of samples that deflate to `packed`; None where they will not be coded without loss.

    What is no number, or beyond 2^31, is replaced in a lossy sound, so that its segment is not exact.
    """
    is_sound = not source.floating or bool((np.abs(raw) <= BEYOND).all())
    if len(packed) > MOST_PACKED * source.channels or not is_offered(source.sample_rate) or not is_sound:
        return None
    return Original(packed, source.channels, source.bits, source.floating)


def samples_of(segment: ExactSegment, n: int, channels: int, bits: int, floating: bool) -> Samples:
    """Return the n samples of an exact segment, as they were. Raises BadFile."""
    if not segment.deflated:
        return lossless_sound.read_segment(segment.coded, n, channels, bits, floating)
    return from_bytes(inflate(segment.coded, n * channels * bits // 8, "samples"), channels, bits, floating)


def from_bytes(raw: bytes, channels: int, bits: int, floating: bool) -> Samples:
    """Return samples [T, C] of the bytes that WAV files have."""
    return unpack_pcm(raw, bits, channels, big=False, floating=floating, unsigned=bits == 8)


def nearest(exact: Samples, at_end: bool, sample_rate: int, bits: int, floating: bool) -> Floats:
    """Return the exact samples that are nearest to a seam, float32 [n, C], 1 at full scale: the last ones or the first."""
    n = sample_rate // FADES
    near = exact[-n:] if at_end else exact[:n]
    x = near / full_scale(bits, floating)
    return np.where(np.abs(x) <= BEYOND, x, 0).astype(np.float32)


def joined(x: Floats, before: Floats, after: Floats) -> Floats:
    """Return lossy samples [n, C] that meet the exact ones before and after them.

    x: float32 [len(before) + n + len(after), C], what the synthesis makes of all of them.
    """
    start, end = len(before), len(x) - len(after)
    out = met(x[start:end], x[:start][::-1], before[::-1])
    return met(out[::-1], x[end:], after)[::-1]


def met(near: Floats, beyond: Floats, exact: Floats) -> Floats:
    """Return lossy samples `near` a seam that meet the exact ones; all go away from the seam.

    beyond: what the synthesis has in the place of the exact ones.
    """
    n = min(len(near), len(exact))
    weight = 0.5 + 0.5 * np.cos(np.pi * (np.arange(n, dtype=np.float32) + np.float32(0.5)) / max(n, 1))
    out = near.copy()
    out[:n] += weight[:, None] * (exact[:n] - beyond[:n])
    return out

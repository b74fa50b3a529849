"""Lossy sound as it is spoken: samples in, packets out, and back, with a delay that is stated (FORMAT.md, "Streams").

    encoder = laconic.SoundEncoder(48_000, bitrate=6)        decoder = laconic.SoundDecoder()
    socket.sendall(encoder.push(samples))                    play(decoder.push(socket.recv(4096)))

A stream is the frames of lossy sounds in packets of a few, each going on from the one before. However samples and bytes
are cut on the way, the same come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic import registry
from laconic.container import read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.media.lossy_sound_coder import named, opened
from laconic.media.lossy_sound_fields import (
    CORE_RATES,
    CORE_UNIT,
    LEAST_RATE,
    LEVEL_STEP,
    LEVEL_ZERO,
    MOST_RATE,
    hop_of,
    mixed,
    unmixed,
)
from laconic.media.lossy_sound_read import gains
from laconic.media.sound_parts import MAX_SAMPLES
from laconic.models.resample import Resampler
from laconic.options import DEFAULT_QUALITY, Quality
from laconic.payloads import CRC_BYTES, crc, read_fields, write_fields
from laconic.registry import DIGEST_BYTES
from laconic.sound import MAX_CHANNELS

if TYPE_CHECKING:
    from laconic.models.sound_coder import SoundCoder

MAGIC = b"\x89Ls1"
MAX_NAME, MAX_HEAD, MAX_PACKET = 200, 1 << 10, 1 << 20  # bytes
MOST_FRAMES = 250
MOST_VARINT = 5  # bytes
LIMITS = {
    "sample rate": (LEAST_RATE, MOST_RATE),
    "channels": (1, MAX_CHANNELS),
    "core rate": (CORE_RATES[0] // CORE_UNIT, CORE_RATES[-1] // CORE_UNIT),
    "quality": (0, 10_000),
    "level": (0, 255),
    "frames of a packet": (1, MOST_FRAMES),
}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Setup:
    """Holds what a stream begins with. level: 128 + dB of full scale / 1.5, one for all channels."""

    sample_rate: int
    channels: int
    core_rate: int
    quality: int
    level: int
    frames: int

    @property
    def hop(self) -> int:
        """Core samples from one frame to the next."""
        return hop_of(self.core_rate)

    @property
    def gain(self) -> Floats:
        """What brings the sound to the model's level."""
        return gains((self.level,))

    def n_core(self, n_samples: int) -> int:
        """Return how many samples of the core's rate stand for samples of the stream."""
        return -(-n_samples * self.core_rate // self.sample_rate)

    def n_frames(self, n_samples: int) -> int:
        """Return how many frames they have."""
        return -(-self.n_core(n_samples) // self.hop) + 1 if n_samples else 0

    def latency(self, after: int) -> float:
        """Return the seconds from a sample to the same one decoded. after: frames that the synthesis waits for.

        The first sample of a frame's hop waits for the hop that the frame ends with, the one that its envelope is smoothed
        with, the frames after, and the rest of its packet; resampling looks ahead on both sides.
        """
        hops = 3 + after + self.frames - 1
        to, back = Resampler(self.sample_rate, self.core_rate), Resampler(self.core_rate, self.sample_rate)
        return hops * self.hop / self.core_rate + to.reach / self.sample_rate + back.reach / self.core_rate


class SoundEncoder:
    """Codes sound as it comes.

    sample_rate: Hz. bitrate: kbit/s of typical speech, about; or quality, 0 to 100. channels: 2 are coded as mid and side.
    frames: of 16 ms, in a packet: fewer wait less and cost more (5 bytes a packet). level: about how loud the sound will be,
    dB RMS of full scale. Raises BadInput, ModelMissing.
    """

    def __init__(
        self,
        sample_rate: int,
        bitrate: float | None = None,
        *,
        quality: float | None = None,
        channels: int = 1,
        frames: int = 5,
        level: float = -26.0,
        model: str | None = None,
        device: str = "cpu",
    ) -> None:
        expect(bitrate is None or quality is None, BadInput, "targets", ["bitrate", "quality"], "at most one of them")
        for name, value, low, high in (
            ("sample rate", sample_rate, LEAST_RATE, MOST_RATE),
            ("channels", channels, 1, MAX_CHANNELS),
            ("frames", frames, 1, MOST_FRAMES),
        ):
            expect(isinstance(value, (int, np.integer)) and low <= value <= high, BadInput, name, value, f"{low} to {high}")
        expect(-100 <= level <= 20, BadInput, "level", level, "-100 to 20 dB")
        self._named = named(model, device)
        coder = cast("SoundCoder", self._named.coder)  # other coders have no streams
        asked = Quality(DEFAULT_QUALITY if quality is None else quality).value
        units = round(100 * asked) if bitrate is None else coder.quality_at(bitrate / channels)
        self._coder = coder.at(coder.rate_for(sample_rate, units))
        rate = self._coder.rate
        self.setup = Setup(sample_rate, channels, rate, units, LEVEL_ZERO + round(level / LEVEL_STEP), frames)
        self._to_core = Resampler(sample_rate, rate)
        self._held, self._start = np.zeros((0, channels), np.float32), 0
        self._n_samples, self._n_frames, self._began, self._ended = 0, 0, False, False
        self._rooms = [self._coder.room() for _ in range(channels)]

    @property
    def latency(self) -> float:
        """Seconds from a sample pushed to the same one decoded, without what the line takes."""
        return self.setup.latency(self._coder.after)

    def push(self, samples: ArrayLike) -> bytes:
        """Return the packets that more samples complete: floats in -1..1 or int16, [n] or [n, channels]. Raises BadInput."""
        expect(not self._ended, BadInput, "push", "a stream that is finished", "a new SoundEncoder")
        x = floats_of(samples, self.setup.channels)
        self._held = np.concatenate([self._held, x])
        self._n_samples += len(x)
        return self._head() + b"".join(self._packets())

    def finish(self) -> bytes:
        """Return how many samples there were, and the packets that are left. Raises BadInput."""
        expect(not self._ended, BadInput, "finish", "a stream that is finished", "a new SoundEncoder")
        self._ended = True
        end = write_varint(0) + write_varint(self._n_samples)
        return self._head() + end + b"".join(self._packets(self.setup.n_frames(self._n_samples)))

    def _head(self) -> bytes:
        if self._began:
            return b""
        self._began = True
        s, name = self.setup, self._named.name.encode()
        fields = write_fields(s.sample_rate, s.channels, s.core_rate // CORE_UNIT, s.quality, s.level, s.frames)
        head = self._named.digest + write_varint(len(name)) + name + fields
        return MAGIC + write_varint(len(head)) + head + crc(head)

    def _packets(self, last: int | None = None) -> Iterator[bytes]:
        """Yield the packets for which there are samples. last: how many frames the sound has, at its end."""
        while last is None or self._n_frames < last:
            n = self.setup.frames if last is None else min(self.setup.frames, last - self._n_frames)
            hop = self.setup.hop
            first, end = (self._n_frames - 2) * hop, (self._n_frames + n + 1) * hop
            low, high = self._to_core.needed(first, end)
            if last is None and high > self._n_samples:
                return
            x = np.stack([self._to_core.apply(one, first, end) for one in mixed(self._range(low, high)).T], 1)
            x[: max(0, -first)] = 0
            if last is not None:  # as in a file: what the filter rings on beyond the end is not coded
                x[max(0, self.setup.n_core(self._n_samples) - first) :] = 0
            yield self._packet(x * self.setup.gain)
            self._n_frames += n
            self._forget(self._to_core.needed((self._n_frames - 2) * hop, 0)[0])

    def _packet(self, x: Floats) -> bytes:
        runs = []
        for column, room in zip(x.T, self._rooms, strict=True):
            targets = self._coder.analyse(np.ascontiguousarray(column))
            runs.append(self._coder.encode(targets, self.setup.quality, room)[0])
        body = b"".join(write_varint(len(run)) + run for run in runs)
        return write_varint(len(body)) + body

    def _range(self, low: int, high: int) -> Floats:
        """Return a range of the samples, zeros outside of what came."""
        out = np.zeros((high - low, self.setup.channels), np.float32)
        a, b = max(low, self._start), min(high, self._n_samples)
        if a < b:
            out[a - low : b - low] = self._held[a - self._start : b - self._start]
        return out

    def _forget(self, before: int) -> None:
        """Drop the samples that nothing will look at any more."""
        n = min(max(0, before - self._start), len(self._held))
        self._held, self._start = self._held[n:], self._start + n


class SoundDecoder:
    """Decodes what `SoundEncoder` made, as it comes."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._bytes = b""
        self._voices: Voices | None = None

    @property
    def setup(self) -> Setup | None:
        """What the stream begins with; None until that came."""
        return self._voices.setup if self._voices else None

    @property
    def latency(self) -> float | None:
        """Seconds as `SoundEncoder.latency` has them; None until the first bytes came."""
        return self._voices.setup.latency(self._voices.coder.after) if self._voices else None

    def push(self, data: bytes) -> Floats:
        """Return the samples that more bytes complete, float32 [n, channels]. Raises BadFile, ModelMissing."""
        self._bytes += data
        if self._voices is None:
            self._voices = self._open()
            if self._voices is None:
                return np.zeros((0, 1), np.float32)
        out = [np.zeros((0, self._voices.setup.channels), np.float32)]
        while (packet := self._next(self._voices)) is not None:
            out.append(self._voices.decode(packet))
        expect(not (self._voices.is_over and self._bytes), BadFile, "bytes after the end", len(self._bytes), 0)
        return np.concatenate(out)

    def finish(self) -> None:
        """Check that the stream came to its end. Raises BadFile."""
        ended = self._voices is not None and self._voices.is_over
        expect(ended, BadFile, "end of the stream", "none", "the end that SoundEncoder.finish writes")

    def _open(self) -> Voices | None:
        """Read the head, once it is there. Raises BadFile, ModelMissing."""
        expect(self._bytes[:4] == MAGIC[: len(self._bytes)], BadFile, "magic", self._bytes[:4], MAGIC)
        found = number_at(self._bytes, len(MAGIC), MAX_HEAD)
        if found is None or len(self._bytes) < found[1] + found[0] + CRC_BYTES:
            return None
        length, at = found
        head, check = self._bytes[at : at + length], self._bytes[at + length : at + length + CRC_BYTES]
        expect(crc(head) == check, BadFile, "checksum of the head", crc(head).hex(), check.hex())
        n, position = read_varint(head, DIGEST_BYTES, "model name", MAX_NAME)
        name = head[position : position + n].decode("ascii", "replace")
        (rate, channels, core, *others), _ = read_fields(head[position + n :], LIMITS, "stream")
        core_rate = core * CORE_UNIT
        expect(core_rate in CORE_RATES, BadFile, "core rate", core, "16, 24 or 48 kHz")
        coder = cast("SoundCoder", opened(registry.find(name, head[:DIGEST_BYTES]), self._device).coder)
        self._bytes = self._bytes[at + length + CRC_BYTES :]
        return Voices(coder.at(core_rate), Setup(rate, channels, core_rate, *others))

    def _next(self, voices: Voices) -> bytes | None:
        """Take the next packet; None where more bytes are needed. Raises BadFile."""
        found = None if voices.is_over else number_at(self._bytes, 0, MAX_PACKET)
        if found is not None and found[0] == 0:
            end = number_at(self._bytes, found[1], MAX_SAMPLES)
            if end is None:
                return None
            self._bytes = self._bytes[end[1] :]
            voices.end(end[0])
            found = None if voices.is_over else number_at(self._bytes, 0, MAX_PACKET)
        if found is None or len(self._bytes) < found[0] + found[1]:
            return None
        length, at = found
        packet, self._bytes = self._bytes[at : at + length], self._bytes[at + length :]
        return packet


class Voices:
    """Holds the channels of a stream that is decoded, and core samples that are still looked at."""

    def __init__(self, coder: SoundCoder, setup: Setup) -> None:
        from laconic.models.sound_coder import Synthesiser

        self.coder, self.setup = coder, setup
        self.rooms = [coder.room() for _ in range(setup.channels)]
        self.synthesisers = [Synthesiser(coder, setup.quality, seed) for seed in reversed(range(setup.channels))]
        self.n_samples: int | None = None  # in all, near the end
        self.n_frames = self.n_out = 0  # frames decoded, samples given
        self.core, self.core_start = np.zeros((0, setup.channels), np.float32), 0
        self.from_core = Resampler(setup.core_rate, setup.sample_rate)

    @property
    def is_over(self) -> bool:
        """Whether all samples were given."""
        return self.n_samples is not None and self.n_frames == self.setup.n_frames(self.n_samples)

    def decode(self, packet: bytes) -> Floats:
        """Return the samples that a packet completes. Raises BadFile."""
        setup = self.setup
        n = setup.frames if self.n_samples is None else min(setup.frames, setup.n_frames(self.n_samples) - self.n_frames)
        position, found = 0, []
        for room in self.rooms:
            length, position = read_varint(packet, position, "run length", len(packet) + 1)
            found.append(self.coder.decode(packet[position : position + length], n, setup.quality, room))
            position += length
        expect(position == len(packet), BadFile, "packet length", len(packet), f"{position} bytes")
        self.n_frames += n
        core = [one.push(frames, self.is_over) for one, frames in zip(self.synthesisers, found, strict=True)]
        self.core = np.concatenate([self.core, np.stack(core, 1) / setup.gain])
        return self.resampled()

    def end(self, n_samples: int) -> None:
        """Take how many samples there are. Raises BadFile where more came already, or it was said before."""
        ok = self.n_samples is None and self.n_out <= n_samples and self.n_frames <= self.setup.n_frames(n_samples)
        expect(ok, BadFile, "samples of the stream", n_samples, f"once, and at least {self.n_out}")
        self.n_samples = n_samples

    def resampled(self) -> Floats:
        """Return the samples that can be computed and were not given yet."""
        n_core, rate = self.core_start + len(self.core), self.setup.sample_rate
        ready = ((n_core - self.from_core.reach) * rate - 1) // self.setup.core_rate + 1
        end = self.n_samples if self.is_over and self.n_samples is not None else ready
        if end <= self.n_out:
            return np.zeros((0, self.setup.channels), np.float32)
        low, high = self.from_core.needed(self.n_out, end)
        x = np.zeros((high - low, self.setup.channels), np.float32)
        a, b = max(low, self.core_start), min(high, n_core)
        x[a - low : b - low] = self.core[a - self.core_start : b - self.core_start]
        out = unmixed(np.stack([self.from_core.apply(np.ascontiguousarray(one), self.n_out, end) for one in x.T], 1))
        self.n_out = end
        n = min(max(0, self.from_core.needed(end, end + 1)[0] - self.core_start), len(self.core))
        self.core, self.core_start = self.core[n:], self.core_start + n
        return out


def floats_of(samples: ArrayLike, channels: int) -> Floats:
    """Return samples as float32 [n, channels], 1 at full scale. Raises BadInput."""
    x = np.asarray(samples)
    known = x.dtype.kind == "f" or x.dtype == np.int16
    expect(known, BadInput, "samples", x.dtype, "floats in -1..1, or int16")
    x = x[:, None] if x.ndim == 1 else x
    expect(x.ndim == 2 and x.shape[1] == channels, BadInput, "samples", x.shape, f"[n] or [n, {channels}]")
    x = x.astype(np.float32) / np.float32(1 if x.dtype.kind == "f" else 1 << 15)
    expect(bool(np.isfinite(x).all()), BadInput, "samples", "NaN or infinity", "finite numbers")
    return x


def number_at(data: bytes, at: int, limit: int) -> tuple[int, int] | None:
    """Return a varint and the position after it, or None where its end has not come yet. Raises BadFile."""
    if not any(byte < 128 for byte in data[at : at + MOST_VARINT]) and len(data) < at + MOST_VARINT:
        return None
    return read_varint(data, at, "length", limit)

"""The codecs of sounds that are compared: ours, Opus by PyAV (the newest libopus), and what libsndfile has inside."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import laconic
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.tools.coder import Coder, as_floats, as_integers, from_source, own_version, source_of
from laconic.tools.metrics import Absent, Item, at_rate

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FRAME_MS = 60  # the longest frame of Opus: the fewest bytes at low rates
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# What LAME keeps of a sound at up to so many kbit/s in stereo, Hz (1.5 times that in mono), and the rate that it
# takes for a band up to so many Hz (lame.c, optimum_bandwidth and optimum_samplefreq): libsndfile switches both off.
LAME_BAND = {8: 2000, 16: 3700, 24: 3900, 32: 5500, 40: 7000, 48: 7500, 56: 10000, 64: 11000, 80: 13500, 96: 15100}
LAME_RATE = {3970: 8000, 4510: 11025, 5420: 12000, 7230: 16000, 9970: 22050, 11220: 24000, 15250: 32000}
LAME_DELAY, MP3_HEADER = 576 + 529, 64  # samples; bytes
SILENCE = Item("sound", np.zeros((16000, 1), np.float32), 16000)


def own_slow() -> Coder:
    """Return our lossy coding of sounds at its slowest."""
    return own(effort=9)


def own(model: str = "", threads: int | None = None, effort: int | None = None) -> Coder:
    """Return our lossy coding of sounds by the default model or that of a name; a rate is in kbit/s of the whole file."""
    codec = laconic.Codec(model=model or None, threads=threads)

    def coded(item: Item, **target: Any) -> bytes:
        rate = item.sample_rate
        return codec.compress(item.data, sample_rate=rate, fallback=False, effort=effort, notes=[], **target)

    def encode(item: Item, rate: float) -> bytes:
        try:
            return coded(item, bitrate=rate)
        except laconic.TargetOutOfReach:  # as other encoders do: the nearest
            return min(coded(item, quality=0), coded(item, quality=100), key=lambda file: abs(kbit(file, item) - rate))

    info = laconic.info(coded(SILENCE, quality=0))
    digest = next((m.digest[:12] for m in laconic.list_models() if m.name == info.model), "registered")
    version = f"{own_version()}, {info.model} {digest}"
    name = "laconic-slow" if effort else f"laconic:{model}" if model else "laconic"
    return Coder(name, "sound", ".lac", (1.5, 2, 3, 4.5, 6, 9, 12, 16, 24), version, encode, decoder_of(codec))


def own_lossless(threads: int | None = None) -> Coder:
    """Return our lossless coding of sounds; a rate is the effort."""
    codec = laconic.Codec(threads=threads)

    def encode(item: Item, rate: float) -> bytes:
        return codec.compress(**source_of(as_integers(item)), lossless=True, effort=int(rate), notes=[])

    decode = decoder_of(codec)
    return Coder("laconic-lossless", "sound", ".lac", (1, 4, 7), own_version(), encode, decode, whole=True)


def kbit(file: bytes, item: Item) -> float:
    """Return the rate of a file in kbit/s."""
    return 8 * len(file) / item.amount / 1000


def decoder_of(codec: laconic.Codec) -> Callable[[bytes, Item], Item]:
    """Return what decodes files of ours."""

    def decode(data: bytes, item: Item) -> Item:
        back = codec.decompress(data)
        assert isinstance(back, laconic.Sound)
        return as_floats(from_source(back))

    return decode


def opus() -> Coder:
    """Return Opus, variable rate, by PyAV, else by libsndfile; a rate is in kbit/s, of packets without their container."""
    rates = (6, 8, 9, 12, 16, 24, 32, 64)
    lib = f"libsndfile {soundfile.__libsndfile_version__}"
    check_libsndfile("opus", "OGG", "OPUS")
    sample = by_libsndfile(SILENCE, "OGG", "OPUS", compression_level=1)
    inside = vendor(sample)
    if find_spec("av"):
        import av

        version = f"{libopus_of_av()} of PyAV {av.__version__}, VBR, {FRAME_MS} ms, complexity 10, decoded by {inside} of {lib}"
        return Coder("opus", "sound", ".opus", rates, version, opus_by_av, from_libsndfile, payload=ogg_payload)

    def encode(item: Item, rate: float) -> bytes:
        n = item.data.shape[1]
        level = (256 * n - rate) / (250 * n)  # libsndfile: 256 kbit/s a channel at 0, 6 at 1
        return by_libsndfile(opus_ready(item, rate), "OGG", "OPUS", compression_level=float(np.clip(level, 0, 1)))

    version = f"{inside} of {lib}, VBR, 20 ms (PyAV has a newer one, and {FRAME_MS} ms: pip install av)"
    return Coder("opus", "sound", ".opus", rates, version, encode, from_libsndfile, payload=ogg_payload)


def opus_by_av(item: Item, rate: float) -> bytes:
    """Encode by libopus in FFmpeg, as `opusenc --comp 10 --framesize 60` does."""
    import av

    item = opus_ready(item, rate)
    layout = ("mono", "stereo")[item.data.shape[1] - 1]
    file = io.BytesIO()
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        options = {"frame_duration": str(FRAME_MS), "flags": "+bitexact"}
        stream: Any = container.add_stream("libopus", rate=item.sample_rate, options=options, layout=layout)
        stream.bit_rate = int(1000 * rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(item.data.reshape(1, -1)), "flt", layout)
        frame.sample_rate = item.sample_rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def opus_ready(item: Item, rate: float) -> Item:
    """Return a sound at the next sample rate that Opus takes: at 16 kHz it spends nothing on what is above 8 kHz.

    Raises BadInput where there are too many channels, or the rate is outside of what Opus is for: below, it drops frames.
    """
    n = item.data.shape[1]
    expect(n <= 2, BadInput, "channels for Opus", n, "1 or 2")
    expect(6 <= rate <= 256 * n, BadInput, "rate of Opus", rate, f"6 to {256 * n} kbit/s")
    hz = next((hz for hz in OPUS_RATES if hz >= item.sample_rate), OPUS_RATES[-1])
    return Item("sound", at_rate(item, hz).astype(np.float32), hz)


def libopus_of_av() -> str:
    """Return what the libopus in PyAV says that it is, where it can be found."""
    import av

    home = Path(av.__file__).parent
    for path in [*home.parent.glob("av.libs/*opus*"), *home.glob(".dylibs/*opus*")]:  # Linux and Windows, macOS
        version = ctypes.CDLL(str(path)).opus_get_version_string
        version.restype = ctypes.c_char_p
        return str(version().decode())
    return "libopus ?"


def mp3() -> Coder:
    """Return MP3 by LAME in libsndfile, constant rate, at the sample rate that LAME itself takes; a rate is in kbit/s."""
    check_libsndfile("mp3", "MP3", "MPEG_LAYER_III")

    def encode(item: Item, rate: float) -> bytes:
        hz = lame_rate(item, rate)
        low, high = (32, 320) if hz >= 32000 else (8, 160) if hz >= 16000 else (8, 64)
        level = (high - rate - 0.5) / (high - low)  # libsndfile cuts to whole kbit/s
        resampled = Item("sound", at_rate(item, hz).astype(np.float32), hz)
        options = {"bitrate_mode": "CONSTANT", "compression_level": float(np.clip(level, 0, 1))}
        return by_libsndfile(resampled, "MP3", "MPEG_LAYER_III", **options)

    version = f"LAME of libsndfile {soundfile.__libsndfile_version__}, CBR"
    return Coder("mp3", "sound", ".mp3", (8, 16, 24, 32, 64, 128), version, encode, from_mp3)


def from_mp3(data: bytes, item: Item) -> Item:
    """Decode MP3. Where a frame is too short for LAME's header, which says it, the delay is that of LAME and of decoders."""
    return from_libsndfile(data, item, 0 if b"Info" in data[:MP3_HEADER] else LAME_DELAY)


def lame_rate(item: Item, rate: float) -> int:
    """Return the sample rate at which LAME codes a sound at a rate in kbit/s."""
    band = next((band for most, band in LAME_BAND.items() if rate <= most), 20000)
    band = band * 3 // 2 if item.data.shape[1] == 1 else band
    most = min(next((hz for top, hz in LAME_RATE.items() if band <= top), 48000), item.sample_rate)
    return max((hz for hz in MP3_RATES if hz <= most), default=MP3_RATES[0])


def vorbis() -> Coder:
    """Return Vorbis by libsndfile; a rate is its quality, 0 to 10."""
    check_libsndfile("vorbis", "OGG", "VORBIS")

    def encode(item: Item, rate: float) -> bytes:
        return by_libsndfile(item, "OGG", "VORBIS", compression_level=1 - rate / 10)

    version = f"libvorbis of libsndfile {soundfile.__libsndfile_version__}"
    return Coder("vorbis", "sound", ".ogg", (0, 1, 2, 4, 6, 8), version, encode, from_libsndfile, payload=ogg_payload)


def flac() -> Coder:
    """Return FLAC by libsndfile, 16 bits or 24 where the sound has as many; a rate is its compression level."""
    check_libsndfile("flac", "FLAC", "PCM_16")

    def encode(item: Item, rate: float) -> bytes:
        bits = as_integers(item).bits or 16
        return by_libsndfile(item, "FLAC", "PCM_S8" if bits == 8 else f"PCM_{bits}", compression_level=rate / 8)

    version = f"libFLAC of libsndfile {soundfile.__libsndfile_version__}"
    return Coder("flac", "sound", ".flac", (5, 8), version, encode, from_libsndfile, whole=True)


def check_libsndfile(name: str, format: str, subtype: str) -> None:
    """Raise Absent where libsndfile is built without a format."""
    if subtype not in soundfile.available_subtypes(format if format in soundfile.available_formats() else "WAV"):
        found = f"libsndfile {soundfile.__libsndfile_version__} without it"
        raise Absent(f"{name}: found {found}, expected one built with it: pip install --upgrade soundfile")


def by_libsndfile(item: Item, format: str, subtype: str, **options: Any) -> bytes:
    """Encode by libsndfile. Floats go in: its LAME reads stereo of 16-bit integers wrongly."""
    file = io.BytesIO()
    soundfile.write(file, item.data, item.sample_rate, subtype, format=format, **options)
    return file.getvalue()


def from_libsndfile(data: bytes, item: Item, delay: int = 0) -> Item:
    """Decode by libsndfile, at the rate and in the length of the item. delay: samples that are before the sound."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    back = at_rate(Item("sound", samples[delay:], rate), item.sample_rate).astype(np.float32)[: len(item.data)]
    return Item("sound", np.pad(back, ((0, len(item.data) - len(back)), (0, 0))), item.sample_rate)


def ogg_payload(data: bytes) -> int:
    """Return the bytes of the packets with sound in an Ogg file, without page headers and header packets.

    Raises BadFile where it is not one stream of pages (RFC 3533).
    """
    sizes = ogg_packets(data)
    headers = 2 if data[28:].startswith(b"OpusHead") else 3  # Vorbis
    return sum(sizes[headers:])


def ogg_packets(data: bytes) -> list[int]:
    """Return the length of each packet in an Ogg file. Raises BadFile."""
    sizes, at, open_size = [], 0, 0
    while at < len(data):
        page = data[at : at + 27]
        expect(page[:4] == b"OggS" and len(page) == 27, BadFile, f"Ogg page at {at}", page[:4], "OggS and 23 bytes")
        lacing = data[at + 27 : at + 27 + page[26]]
        expect(len(lacing) == page[26], BadFile, f"Ogg page at {at}", f"{len(lacing)} lacing values", f"{page[26]}")
        for size in lacing:
            open_size += size
            if size < 255:
                sizes.append(open_size)
                open_size = 0
        at += 27 + len(lacing) + sum(lacing)
    expect(at == len(data), BadFile, "Ogg file", f"{len(data)} bytes", f"{at}")
    return sizes


def vendor(data: bytes) -> str:
    """Return what the comment header of an Ogg Opus file says of its encoder."""
    at = data.index(b"OpusTags") + 8
    size = int.from_bytes(data[at : at + 4], "little")
    return data[at + 4 : at + 4 + size].decode(errors="replace")

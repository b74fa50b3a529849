"""Lossless coding of a folder, beside peers in the same run; every file is decoded and compared."""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import laconic
from laconic import picture
from laconic.suffixes import PICTURES, SOUNDS
from laconic.tools.coder import Coder, from_source, source_of
from laconic.tools.metrics import Absent, Item
from laconic.tools.programs import through

Case = dict[str, Any]
PLAIN = {"picture": ".png", "sound": ".wav"}  # what peers that are programs read and write
WIDTHS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
PICTURE_PROGRAMS = {
    "cjxl -d 0 -e 7": (".jxl", "cjxl {in} {out} -d 0 -e 7 --quiet|djxl {in} {out} --quiet"),
    "cjxl -d 0 -e 9": (".jxl", "cjxl {in} {out} -d 0 -e 9 --quiet|djxl {in} {out} --quiet"),
}
NEAR_PROGRAMS = {
    f"cwebp -near_lossless {q}": (
        ".webp",
        f"cwebp -quiet -near_lossless {q} {{in}} -o {{out}}|dwebp -quiet {{in}} -o {{out}}",
    )
    for q in (80, 60, 40)
}
SOUND_PROGRAMS = {
    "flac -8": (".flac", "flac -s -8 --no-padding --no-seektable -o {out} {in}|flac -s -d -o {out} {in}"),
    "wavpack -hhx3": (".wv", "wavpack -q -hhx3 {in} -o {out}|wvunpack -q {in} -o {out}"),
}


def bench_lossless(args: argparse.Namespace) -> list[Case]:
    """Print sizes and speeds, summed over the folder; those of programs include their start and their files."""
    cases: list[Case] = []
    for medium, suffixes in (("picture", PICTURES), ("sound", SOUNDS)):
        paths = [path for path in sorted(args.folder.rglob("*")) if path.suffix.lower() in suffixes]
        items = [read(path, medium) for path in paths]
        if items:
            print(f"{len(items)} {medium}s of {args.folder}, {args.threads or 'all'} threads of ours")
            cases += [measured(items, coder) for coder in contestants(medium, args)]
    return cases


def read(source: Any, medium: str) -> Item:
    """Return the samples of a path or file as they are stored: pictures uint8 or uint16, sounds integers or floats."""
    if medium == "picture":
        return Item("picture", picture.read_exact(source).samples)
    import soundfile

    with soundfile.SoundFile(source) as file:
        bits = WIDTHS.get(file.subtype, 0)
        kind = "int32" if bits else "float64" if file.subtype == "DOUBLE" else "float32"
        samples = file.read(dtype=kind, always_2d=True)
        return Item("sound", samples >> 32 - bits if bits else samples, file.samplerate, bits)


def contestants(medium: str, args: argparse.Namespace) -> Iterator[Coder]:
    """Yield ours, then the peers; a program that is not installed is left out, with a word."""
    for effort in args.efforts:
        yield ours(medium, f"laconic -e {effort}", args.threads, lossless=True, effort=effort)
    if args.alone:
        return
    programs = SOUND_PROGRAMS
    if medium == "picture":
        programs = PICTURE_PROGRAMS | (NEAR_PROGRAMS if args.max_errors else {})
        for k in args.max_errors:
            yield ours(medium, f"laconic --max-error {k}", args.threads, max_error=k)
        yield by_pillow("png", "PNG", optimize=True)
        yield by_pillow("webp lossless", "WEBP", lossless=True, quality=100, method=6, exact=True)
        if find_spec("imagecodecs"):
            yield from (jpeg_ls(near) for near in (0, *args.max_errors))
    for name, (suffix, commands) in programs.items():
        try:
            yield exact_program(name, medium, suffix, commands)
        except Absent as error:
            print(f"left out: {error}", file=sys.stderr)


def contestant(
    name: str, medium: str, suffix: str, encode: Callable[[Item], bytes], decode: Callable[[bytes], Item]
) -> Coder:
    """Return a coder of one setting."""
    return Coder(name, medium, suffix, (0,), name, lambda item, _: encode(item), lambda data, _: decode(data))


def ours(medium: str, name: str, threads: int | None, **options: Any) -> Coder:
    """Return Laconic. options: of `compress`."""
    codec = laconic.Codec(threads=threads)

    def decode(data: bytes) -> Item:
        back = codec.decompress(data, as_array=True)
        return from_source(back) if isinstance(back, laconic.Sound) else Item("picture", np.asarray(back))

    def encode(item: Item) -> bytes:
        return codec.compress(**source_of(item), notes=[], **options)

    return contestant(name, medium, ".lac", encode, decode)


def by_pillow(name: str, format: str, **options: Any) -> Coder:
    """Return a lossless format of Pillow. options: of `save`."""

    def encode(item: Item) -> bytes:
        file = io.BytesIO()
        samples = item.data.squeeze(2) if item.data.shape[2] == 1 else item.data
        Image.fromarray(samples).save(file, format, **options)
        return file.getvalue()

    def decode(data: bytes) -> Item:
        return Item("picture", np.asarray(Image.open(io.BytesIO(data))))

    return contestant(name, "picture", f".{format.lower()}", encode, decode)


def jpeg_ls(near: int) -> Coder:
    """Return JPEG-LS by CharLS. near: the largest error of a sample."""
    import imagecodecs

    def encode(item: Item) -> bytes:
        return bytes(imagecodecs.jpegls_encode(item.data.squeeze(), level=near))

    def decode(data: bytes) -> Item:
        return Item("picture", imagecodecs.jpegls_decode(data))

    return contestant(f"jpeg-ls near {near}", "picture", ".jls", encode, decode)


def exact_program(name: str, medium: str, suffix: str, commands: str) -> Coder:
    """Return a coder of two commands, `enc {in} {out}|dec {in} {out}`. Raises Absent where one is not on PATH."""
    encoder, _, decoder = commands.partition("|")
    for command in (encoder, decoder):
        if not shutil.which(command.split()[0]):
            raise Absent(f"{name}: found no program {command.split()[0]}, expected it on PATH")
    plain = PLAIN[medium]

    def decode(data: bytes) -> Item:
        with tempfile.NamedTemporaryFile(suffix=plain) as file:
            file.write(through(data, suffix, plain, decoder.split()))
            file.flush()
            return read(Path(file.name), medium)

    def encode(item: Item) -> bytes:
        return through(plain_file(item), plain, suffix, encoder.split())

    return contestant(name, medium, suffix, encode, decode)


def plain_file(item: Item) -> bytes:
    """Return the samples as a PNG, or a WAV file without anything else."""
    file = io.BytesIO()
    if item.medium == "picture":
        picture.save_exact(picture.Exact(item.data), file, "PNG")
        return file.getvalue()
    import soundfile

    width = {8: "PCM_U8", 0: "DOUBLE" if item.data.dtype == np.float64 else "FLOAT"}
    samples = item.data << 32 - item.bits if item.bits else item.data
    soundfile.write(file, samples, item.sample_rate, width.get(item.bits, f"PCM_{item.bits}"), format="WAV")
    return file.getvalue()


def measured(items: list[Item], coder: Coder) -> Case:
    """Code and decode all items, print a line, and return it as a row. The first one is coded once before, to warm up."""
    coder.decode(coder.encode(items[0], 0), items[0])
    n_bytes, encode_s, decode_s, bits, worst = 0, 0.0, 0.0, [], 0.0
    for item in items:
        start = time.perf_counter()
        data = coder.encode(item, 0)
        middle = time.perf_counter()
        back = coder.decode(data, item)
        encode_s, decode_s = encode_s + middle - start, decode_s + time.perf_counter() - middle
        n_bytes += len(data)
        bits.append(8 * len(data) / item.data.size)
        worst = max(worst, error_of(item, back))
    row = {"codec": coder.name, "bytes": n_bytes, "encode_s": encode_s, "decode_s": decode_s, "max_error": worst}
    amount = sum(item.amount for item in items)
    if coder.medium == "sound":
        rate = {"bits_per_sample": 8 * n_bytes / sum(item.data.size for item in items)}
        speeds = {"encode_x": amount / encode_s, "decode_x": amount / decode_s}
        text = "{bits_per_sample:.3f} bits per sample  encode {encode_x:.1f} x, decode {decode_x:.1f} x real time"
    else:
        rate = {"bpsp": float(np.mean(bits))}
        speeds = {"encode_mp_s": amount / 1e6 / encode_s, "decode_mp_s": amount / 1e6 / decode_s}
        text = "{bpsp:.3f} bpsp  encode {encode_mp_s:.2f}, decode {decode_mp_s:.2f} MP/s"
    print(f"  {coder.name:24} {n_bytes:10} bytes  {text.format(**rate, **speeds)}  error {worst:g}", flush=True)
    return row | rate | speeds


def error_of(item: Item, back: Item) -> float:
    """Return the largest difference of two samples."""
    data = back.data
    if item.data.shape[-1] == 1 and data.ndim == 3:  # WebP has no gray
        data = data[..., :1]
    kind = np.float64 if item.data.dtype.kind == "f" else np.int64
    return float(np.abs(data.reshape(item.data.shape).astype(kind) - item.data).max(initial=0))

"""Lossless coding of a folder, beside peers in the same run; every file is decoded and compared."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import laconic
from laconic import picture, sound
from laconic.suffixes import PICTURES, SOUNDS

Case = dict[str, Any]
IN, OUT = "{in}", "{out}"


@dataclass(frozen=True)
class Item:
    """A file's samples: [H, W, C] of a picture, [T, C] of a sound; amount: pixels, or seconds."""

    path: Path
    samples: np.ndarray
    amount: float


@dataclass(frozen=True)
class Peer:
    """encode(item) -> bytes of a file; decode(bytes) -> samples."""

    encode: Callable[[Item], bytes]
    decode: Callable[[bytes], np.ndarray]


def bench_lossless(args: argparse.Namespace) -> list[Case]:
    """Sizes and speeds, summed over the folder: programs include their start and their files."""
    paths = [path for path in sorted(args.folder.rglob("*")) if path.suffix.lower() in PICTURES | SOUNDS]
    items = [read(path) for path in paths]
    for kind, is_sound in (("pictures", False), ("sounds", True)):
        chosen = [item for item in items if (item.samples.ndim == 2) == is_sound]
        if chosen:
            print(f"{len(chosen)} {kind} of {args.folder}, {args.threads or 'all'} threads of ours")
            measure(chosen, peers(is_sound, args), is_sound, args.rows)
    return args.rows  # type: ignore[no-any-return]


def read(path: Path) -> Item:
    if path.suffix.lower() in SOUNDS:
        with path.open("rb") as file:
            source = sound.open_sound(file)
            samples = np.concatenate(list(source.blocks(1 << 16)))
        return Item(path, samples, source.n_samples / source.sample_rate)
    exact = picture.read_exact(path)
    return Item(path, exact.samples, exact.samples.shape[0] * exact.samples.shape[1])


def peers(is_sound: bool, args: argparse.Namespace) -> dict[str, Peer]:
    ours = {f"laconic -e {effort}": of_laconic(is_sound, args.threads, effort=effort) for effort in args.efforts}
    if args.alone:
        return ours
    if is_sound:
        return ours | programs(
            {
                "flac -8": ("flac -s -8 --no-padding --no-seektable -o {out} {in}", "flac -s -d -o {out} {in}"),
                "wavpack -hhx3": ("wavpack -q -hhx3 {in} -o {out}", "wvunpack -q {in} -o {out}"),
            },
            ".wav",
        )
    near = {f"laconic --max-error {k}": of_laconic(False, args.threads, max_error=k) for k in args.max_errors}
    ls = {f"jpeg-ls near {k}": of_jpegls(k) for k in (0, *args.max_errors)} if find_spec("imagecodecs") else {}
    jxl = {f"cjxl -d 0 -e {e}": (f"cjxl {IN} {OUT} -d 0 -e {e} --quiet", f"djxl {IN} {OUT} --quiet") for e in (7, 9)}
    webp = {
        f"cwebp -near_lossless {q}": (f"cwebp -quiet -near_lossless {q} {IN} -o {OUT}", f"dwebp -quiet {IN} -o {OUT}")
        for q in ((80, 60, 40) if args.max_errors else ())
    }
    pillow = {
        "png": of_pillow("PNG", optimize=True),
        "webp lossless": of_pillow("WEBP", lossless=True, quality=100, method=6, exact=True),
    }
    return ours | near | pillow | ls | programs(jxl | webp, ".png")


def of_laconic(is_sound: bool, threads: int | None, **options: Any) -> Peer:
    codec = laconic.Codec(threads=threads)
    settings = options if "max_error" in options else {**options, "lossless": True}

    def decode(data: bytes) -> np.ndarray:
        back = codec.decompress(data, as_array=True)
        if not isinstance(back, laconic.Sound):
            return back
        samples: np.ndarray = back.samples.astype(np.int32) - (128 if back.bits == 8 else 0)
        return samples

    return Peer(lambda item: codec.compress(item.path, strip=True, notes=[], **settings), decode)


def of_pillow(format: str, **options: Any) -> Peer:
    def encode(item: Item) -> bytes:
        file = io.BytesIO()
        Image.fromarray(item.samples.squeeze(2) if item.samples.shape[2] == 1 else item.samples).save(
            file, format, **options
        )
        return file.getvalue()

    return Peer(encode, lambda data: np.asarray(Image.open(io.BytesIO(data))))


def of_jpegls(near: int) -> Peer:
    """JPEG-LS of CharLS."""
    import imagecodecs

    return Peer(
        lambda item: bytes(imagecodecs.jpegls_encode(item.samples.squeeze(), level=near)), imagecodecs.jpegls_decode
    )


def programs(commands: dict[str, tuple[str, str]], suffix: str) -> dict[str, Peer]:
    """Peers that are programs; those not installed are left out, with a word."""
    found = {}
    for name, (encoder, decoder) in commands.items():
        if shutil.which(encoder.split()[0]) and shutil.which(decoder.split()[0]):
            found[name] = of_program(encoder, decoder, suffix)
        else:
            print(f"left out: {name}: found no program {encoder.split()[0]}", file=sys.stderr)
    return found


def of_program(encoder: str, decoder: str, suffix: str) -> Peer:
    coded_suffix = {"cjxl": ".jxl", "cwebp": ".webp", "flac": ".flac", "wavpack": ".wv"}[encoder.split()[0]]

    def run(command: str, given: bytes, given_suffix: str, made_suffix: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, made = Path(folder) / f"in{given_suffix}", Path(folder) / f"out{made_suffix}"
            source.write_bytes(given)
            names = {IN: str(source), OUT: str(made)}
            subprocess.run([names.get(part, part) for part in command.split()], check=True, capture_output=True)
            return made.read_bytes()

    def encode(item: Item) -> bytes:
        return run(encoder, plain_file(item, suffix), suffix, coded_suffix)

    def decode(data: bytes) -> np.ndarray:
        back = run(decoder, data, coded_suffix, suffix)
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            file.write(back)
            file.flush()
            return read(Path(file.name)).samples

    return Peer(encode, decode)


def plain_file(item: Item, suffix: str) -> bytes:
    """The samples as a PNG of no compression, or a WAV file without anything else."""
    file = io.BytesIO()
    if suffix == ".png":
        picture.save_exact(picture.Exact(item.samples), file, "PNG")
    else:
        with item.path.open("rb") as raw:
            source = sound.open_sound(raw)
            sound.write(
                file,
                [item.samples],
                sound.Source(source.sample_rate, source.channels, source.bits, len(item.samples), source.blocks),
            )
    return file.getvalue()


def measure(items: list[Item], contestants: dict[str, Peer], is_sound: bool, rows: list[Case]) -> None:
    n_samples = sum(item.samples.size for item in items)
    amount = sum(item.amount for item in items)
    for name, peer in contestants.items():
        peer.decode(peer.encode(items[0]))  # warms up
        n_bytes, encode_s, decode_s, bits, worst = 0, 0.0, 0.0, [], 0
        for item in items:
            start = time.perf_counter()
            data = peer.encode(item)
            middle = time.perf_counter()
            back = peer.decode(data)
            encode_s, decode_s = encode_s + middle - start, decode_s + time.perf_counter() - middle
            n_bytes += len(data)
            bits.append(8 * len(data) / item.samples.size)
            back = back[..., :1] if item.samples.shape[-1] == 1 and back.ndim == 3 else back  # WebP has no gray
            off = back.reshape(item.samples.shape).astype(np.int64) - item.samples
            worst = max(worst, int(np.abs(off).max(initial=0)))
        row = {"codec": name, "bytes": n_bytes, "encode_s": encode_s, "decode_s": decode_s, "max_error": worst}
        if is_sound:
            row |= {
                "bits_per_sample": 8 * n_bytes / n_samples,
                "encode_x": amount / encode_s,
                "decode_x": amount / decode_s,
            }
            speed = f"encode {row['encode_x']:.1f} x, decode {row['decode_x']:.1f} x real time"
            print(
                f"  {name:24} {n_bytes:10} bytes  {row['bits_per_sample']:.3f} bits a sample  {speed}  error {worst}",
                flush=True,
            )
        else:
            row |= {
                "bpsp": float(np.mean(bits)),
                "encode_mp_s": amount / 1e6 / encode_s,
                "decode_mp_s": amount / 1e6 / decode_s,
            }
            speed = f"encode {row['encode_mp_s']:.2f}, decode {row['decode_mp_s']:.2f} MP/s"
            print(f"  {name:24} {n_bytes:10} bytes  {row['bpsp']:.3f} bpsp  {speed}  error {worst}", flush=True)
        rows.append(row)

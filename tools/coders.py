"""The codecs that are compared: ours, real encoders in Python libraries, programs, and CompressAI's models.

A coder turns an `Item` into the bytes of a real file and back. One that is not on this machine raises `Absent`, whose
message names the package that brings it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import os
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

import laconic
import laconic.entropy
import laconic.models
from laconic.tools.metrics import Absent, Item, needed
from laconic.tools.programs import said_by, through

PASS = "{in}"
EXACT = ("-fflags", "+bitexact", "-flags", "+bitexact")  # or the serial of an Ogg stream is random


@dataclass(frozen=True)
class Coder:
    """Describes a codec under test. encode(item, rate) -> a file; decode(file, the item it was made of) -> an item.

    Of the item, decode may look at the size and sample rate only: what the file's user knows too.
    version: changes whenever the bytes may. codelength: bits of a file by the model's own probabilities, where known.
    """

    name: str
    medium: str
    suffix: str
    rates: tuple[float, ...]
    version: str
    encode: Callable[[Item, float], bytes]
    decode: Callable[[bytes, Item], Item]
    codelength: Callable[[bytes], float] | None = None
    whole: bool = False  # whether rates are whole numbers


def build(name: str) -> Coder:
    """Return the coder of a name: of `BUILDERS`, `laconic:MODEL`, `zoo:ARCHITECTURE`, or a program `NAME=enc ...|dec ...`.

    Raises Absent, BadInput.
    """
    if "=" in name:
        own_name, _, commands = name.partition("=")
        return program(own_name, commands)
    family, _, rest = name.partition(":")
    if family == "zoo":
        return zoo(rest)
    if family not in BUILDERS or (rest and family != "laconic"):
        known = ", ".join([*BUILDERS, "laconic:MODEL", "zoo:ARCHITECTURE"])
        raise laconic.BadInput(f"codec: found {name!r}, expected one of {known}")
    return own(rest) if rest else BUILDERS[family]()


def own(model: str = "") -> Coder:
    """Return our photo model, the default one or that of a name; a rate is its quality."""
    codec = laconic.Codec(model=model or None)
    info = laconic.info(codec.compress(np.zeros((1, 1, 3), np.uint8), fallback=False))
    digest = next((m.digest[:12] for m in laconic.list_models() if m.name == info.model), "registered")

    def decode(data: bytes, item: Item) -> Item:
        return Item("picture", np.asarray(codec.decompress(data, as_array=True)))

    return Coder(
        f"laconic:{model}" if model else "laconic",
        "picture",
        ".lac",
        (0, 15, 30, 45, 60, 75, 90, 100),
        f"{own_version()}, {info.model} {digest}",
        lambda item, rate: codec.compress(item.data, quality=rate, fallback=False),
        decode,
        codec.codelength,
    )


def own_lossless() -> Coder:
    """Return our lossless coding of sounds; a rate is the effort."""
    codec = laconic.Codec()

    def decode(data: bytes, item: Item) -> Item:
        back = codec.decompress(data)
        assert isinstance(back, laconic.Sound)
        return as_floats(from_source(back))

    def encode(item: Item, rate: float) -> bytes:
        return codec.compress(**source_of(as_integers(item)), lossless=True, effort=int(rate), notes=[])

    return Coder("laconic-lossless", "sound", ".lac", (1, 4, 7), own_version(), encode, decode, whole=True)


def own_version() -> str:
    """Return our version and a digest of our sources, on which the bytes of files may depend."""
    modules = (laconic.entropy, laconic.models, laconic)
    sources = digest_of(path for module in modules for path in sorted(Path(module.__file__ or "").parent.rglob("*.py")))
    return f"laconic {laconic.__version__} {sources}"


def as_integers(item: Item) -> Item:
    """Return a sound as the integers of 8, 16 or 24 bits that its float32 samples stand for; as it is where they do not."""
    for bits in (8, 16, 24):
        scaled = item.data.astype(np.float64) * (1 << bits - 1)
        if np.array_equal(scaled, scaled.round()) and scaled.max(initial=0) < 1 << bits - 1:
            return Item("sound", scaled.astype(np.int32), item.sample_rate, bits)
    return item


def as_floats(item: Item) -> Item:
    """Return a sound of integer samples as float32 in -1..1."""
    if not item.bits:
        return item
    return Item("sound", (item.data / (1 << item.bits - 1)).astype(np.float32), item.sample_rate)


def source_of(item: Item) -> dict[str, Any]:
    """Return the arguments of `compress` that stand for an item: its array, and the rate and bits of a sound."""
    if item.medium == "picture":
        return {"source": item.data}
    if not item.bits:
        return {"source": item.data, "sample_rate": item.sample_rate}
    samples = item.data + 128 if item.bits == 8 else item.data
    kind = {8: np.uint8, 16: np.int16}.get(item.bits, np.int32)
    return {"source": laconic.Sound(samples.astype(kind), item.sample_rate, item.bits)}


def from_source(found: laconic.Sound) -> Item:
    """Return a sound as `decompress` gives it, with integers around 0 of the bits that it has, or with floats."""
    samples = found.samples.reshape(len(found.samples), -1)
    if samples.dtype.kind == "f":
        return Item("sound", samples, found.sample_rate)
    around = samples.astype(np.int32) - (128 if found.bits == 8 else 0)
    return Item("sound", around, found.sample_rate, found.bits)


def pillow(name: str, format: str, suffix: str, rates: tuple[float, ...], library: str, **options: Any) -> Coder:
    """Return a codec of Pillow. options: those of `save`, where a callable gives the option for a rate."""
    Image.init()
    if format not in Image.SAVE:
        raise Absent(
            f"{name}: found no {format} in this Pillow, expected one built with it: pip install --upgrade pillow"
        )

    def encode(item: Item, rate: float) -> bytes:
        file = io.BytesIO()
        chosen = {key: value(rate) if callable(value) else value for key, value in options.items()}
        Image.fromarray(item.data).save(file, format, **chosen)
        return file.getvalue()

    text = ", ".join(f"{key}={value}" for key, value in options.items() if not callable(value))
    version = f"Pillow {importlib.metadata.version('pillow')}, {library} {features.version(library) or '?'}, {text}"
    return Coder(name, "picture", suffix, rates, version, encode, from_pillow, whole=int in options.values())


def from_pillow(data: bytes, item: Item) -> Item:
    """Decode a picture in RGB."""
    return Item("picture", np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def jpeg() -> Coder:
    """Return JPEG with the options that make it smallest."""
    rates = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)
    options = {"optimize": True, "progressive": True, "subsampling": "4:2:0", "quality": int}
    return pillow("jpeg", "JPEG", ".jpg", rates, "libjpeg_turbo", **options)


def webp() -> Coder:
    """Return lossy WebP at its slowest."""
    return pillow("webp", "WEBP", ".webp", (1, 10, 20, 35, 50, 65, 80, 90, 95), "webp", method=6, quality=int)


def avif(name: str = "avif", **options: Any) -> Coder:
    """Return AVIF as Pillow writes it: since libavif 1.4 that is tuned for perception."""
    rates = (15, 25, 35, 45, 55, 65, 75, 85, 92)
    return pillow(name, "AVIF", ".avif", rates, "avif", speed=6, subsampling="4:4:4", quality=int, **options)


def avif_psnr() -> Coder:
    """Return AVIF tuned for PSNR, which is the fair comparison where PSNR is the measure."""
    return avif("avif-psnr", advanced={"tune": "psnr"})


def jpeg2000() -> Coder:
    """Return JPEG 2000; a rate is the number of bits per pixel that the encoder is asked for."""
    rates = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    options = {"irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": lambda bpp: [24 / bpp]}
    return pillow("jpeg2000", "JPEG2000", ".jp2", rates, "jpg_2000", **options)


def jxl() -> Coder:
    """Return JPEG XL by pillow-jxl-plugin, else by the programs of libjxl."""
    rates = (10, 20, 30, 45, 60, 75, 85, 92, 96)
    if importlib.util.find_spec("pillow_jxl"):
        importlib.import_module("pillow_jxl")
        version = f"pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}, effort 7"

        def encode(item: Item, rate: float) -> bytes:
            file = io.BytesIO()
            Image.fromarray(item.data).save(file, "JXL", quality=int(rate), effort=7)
            return file.getvalue()

        return Coder("jxl", "picture", ".jxl", rates, version, encode, from_pillow, whole=True)
    if not shutil.which("cjxl"):
        raise Absent("jxl: found neither library nor cjxl, expected one: pip install pillow-jxl-plugin")
    return program("jxl", "cjxl {in} {out} -q {q} -e 7 --quiet|djxl {in} {out} --quiet", rates)


def opus() -> Coder:
    """Return Opus; a rate is in kbit/s."""
    return ffmpeg("opus", ".opus", (8, 12, 16, 24, 32, 48, 64, 96, 128), "libopus", "-b:a", "{k}k")


def mp3() -> Coder:
    """Return MP3 by LAME; a rate is in kbit/s."""
    return ffmpeg("mp3", ".mp3", (16, 24, 32, 48, 64, 96, 128, 192), "libmp3lame", "-b:a", "{k}k")


def vorbis() -> Coder:
    """Return Vorbis; a rate is its quality, -1 to 10."""
    return ffmpeg("vorbis", ".ogg", (-1, 0, 1, 2, 4, 6, 8), "libvorbis", "-q:a", "{k}")


def flac() -> Coder:
    """Return FLAC; a rate is its compression level."""
    return ffmpeg("flac", ".flac", (5, 8), "flac", "-compression_level", "{k}", "-sample_fmt", "s16")


def ffmpeg(name: str, suffix: str, rates: tuple[float, ...], library: str, *options: str) -> Coder:
    """Return an encoder of ffmpeg, which must be on PATH. Input is 16-bit PCM; output is cut to the input's length."""
    if not shutil.which("ffmpeg"):
        raise Absent(f"{name}: found no ffmpeg, expected it on PATH: apt install ffmpeg, brew install ffmpeg")
    listed = said_by("ffmpeg", "-v", "quiet", "-encoders")
    if f" {library} " not in listed:
        raise Absent(f"{name}: found no {library} in this ffmpeg, expected one built with it: apt install ffmpeg")
    import soundfile

    def encode(item: Item, rate: float) -> bytes:
        wav = io.BytesIO()
        soundfile.write(wav, item.data, item.sample_rate, "PCM_16", format="WAV")
        chosen = [option.format(k=f"{rate:g}") for option in options]
        return through(
            wav.getvalue(),
            ".wav",
            suffix,
            ["ffmpeg", "-v", "error", "-y", "-i", PASS, "-c:a", library, *chosen, *EXACT, "{out}"],
        )

    def decode(data: bytes, item: Item) -> Item:
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-i",
            PASS,
            "-ar",
            str(item.sample_rate),
            "-c:a",
            "pcm_f32le",
            "{out}",
        ]
        samples, rate = soundfile.read(
            io.BytesIO(through(data, suffix, ".wav", command)), dtype="float32", always_2d=True
        )
        if len(samples) < len(item.data):
            samples = np.pad(samples, ((0, len(item.data) - len(samples)), (0, 0)))
        return Item("sound", samples[: len(item.data)], rate)

    first = said_by("ffmpeg", "-version").split(" Copyright")[0]
    return Coder(name, "sound", suffix, rates, f"{first}, {library} {' '.join(options)}", encode, decode)


def program(name: str, commands: str, rates: tuple[float, ...] = ()) -> Coder:
    """Return a coder of two commands, `enc {in} {out} {q}|dec {in} {out}`, for pictures: they read and write PNG.

    Split as a shell would, but run without one. Seconds include the start of the program.
    """
    encoder, bar, decoder = commands.partition("|")
    for field, text, expected in (("enc", encoder, ("{in}", "{out}", "{q}")), ("dec", decoder, ("{in}", "{out}"))):
        lacks = [word for word in expected if word not in text]
        if lacks or not bar:
            raise laconic.BadInput(
                f"--codec {name}: found {field} {text!r}, expected {' '.join(lacks or expected)} in it"
            )
    for text in (encoder, decoder):
        if not shutil.which(shlex.split(text)[0]):
            raise Absent(f"{name}: found no program {shlex.split(text)[0]}, expected it on PATH")
    suffix = f".{name}"
    named = [shutil.which(word) or word for text in (encoder, decoder) for word in shlex.split(text)]
    version = f"{encoder}|{decoder}, {digest_of(Path(word) for word in named if os.path.isfile(word))}"

    def encode(item: Item, rate: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(item.data).save(file, "PNG", compress_level=1)
        words = [word.replace("{q}", f"{rate:g}") for word in shlex.split(encoder)]
        return through(file.getvalue(), ".png", suffix, words)

    def decode(data: bytes, item: Item) -> Item:
        return from_pillow(through(data, suffix, ".png", shlex.split(decoder)), item)

    return Coder(name, "picture", suffix, rates, version, encode, decode)


def zoo(architecture: str) -> Coder:
    """Return a model of CompressAI with its own coder; a rate is its quality. Sizes travel in 4 bytes, as in its codec.py.

    `zoo:NAME` needs the pretrained weights, which CompressAI keeps in torch.hub's folder; `zoo:NAME!random` has random
    ones, for speed.
    """
    needed("compressai", "laconic-codec[zoo], in an environment of its own: it needs numpy 1")
    import torch
    from compressai.zoo import image as zoo_image

    architecture, _, random = architecture.partition("!")
    known = zoo_image.model_architectures
    if architecture not in known:
        raise laconic.BadInput(f"zoo: found {architecture!r}, expected one of {', '.join(sorted(known))}")
    sizes = zoo_image.cfgs[architecture]  # by quality
    for quality, url in {} if random else zoo_image.model_urls[architecture]["mse"].items():
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
        if not path.exists():
            raise Absent(f"zoo:{architecture}: found no {path}, expected the weights of quality {quality} from {url}")

    @cache
    def network(quality: int) -> Any:
        torch.manual_seed(quality)
        new = (
            known[architecture](*sizes[quality])
            if random
            else zoo_image._load_model(architecture, "mse", quality, True)
        )
        new.update(force=True)
        return new.eval()

    @torch.inference_mode()
    def encode(item: Item, rate: float) -> bytes:
        x = torch.from_numpy(item.data.copy()).permute(2, 0, 1)[None].float() / 255
        height, width = x.shape[2:]
        x = torch.nn.functional.pad(x, (0, -width % 64, 0, -height % 64), mode="replicate")
        out = network(int(rate)).compress(x)
        parts = [np.array([rate, height, width, *out["shape"]], "<u2").tobytes()]
        for strings in out["strings"]:
            parts += [len(strings[0]).to_bytes(4, "little"), strings[0]]
        return b"".join(parts)

    @torch.inference_mode()
    def decode(data: bytes, item: Item) -> Item:
        rate, height, width, *shape = np.frombuffer(data[:10], "<u2").tolist()
        strings, position = [], 10
        while position < len(data):
            end = position + 4 + int.from_bytes(data[position : position + 4], "little")
            strings.append([data[position + 4 : end]])
            position = end
        x = network(rate).decompress(strings, shape)["x_hat"][0, :, :height, :width]
        return Item("picture", (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())

    version = f"compressai {importlib.metadata.version('compressai')}{', random weights' if random else ''}"
    name = f"{architecture}{'-random' if random else ''}"
    return Coder(name, "picture", ".cai", tuple(map(float, sizes)), version, encode, decode, whole=True)


BUILDERS: dict[str, Callable[[], Coder]] = {
    "laconic": own,
    "jpeg": jpeg,
    "webp": webp,
    "avif": avif,
    "avif-psnr": avif_psnr,
    "jpeg2000": jpeg2000,
    "jxl": jxl,
    "laconic-lossless": own_lossless,
    "opus": opus,
    "mp3": mp3,
    "vorbis": vorbis,
    "flac": flac,
}


def digest_of(paths: Iterable[Path]) -> str:
    """Return a digest of the contents of files, 12 hexadecimal digits."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()[:12]

"""The codecs that are compared: ours, real encoders in Python libraries, programs, and CompressAI's models.

A coder turns an `Item` into the bytes of a real file and back. One that is not on this machine raises `Absent`, whose
message names the package that brings it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

import laconic
from laconic.options import TUNES
from laconic.tools import sound_coders
from laconic.tools.coder import Coder, digest_of, own_version
from laconic.tools.metrics import Absent, Item, needed
from laconic.tools.programs import through


def build(name: str, medium: str = "picture") -> Coder:
    """Return the coder of a name: of `NAMES`, `laconic:MODEL`, `zoo:ARCHITECTURE`, or a program `NAME=enc ...|dec ...`.

    Our coder of photos has a name for each tune and effort too: laconic-psnr, laconic-e9, laconic-psnr-e9. medium: for which
    "laconic" is our model. Raises Absent, BadInput.
    """
    if "=" in name:
        own_name, _, commands = name.partition("=")
        return program(own_name, commands)
    family, _, rest = name.partition(":")
    if family == "zoo":
        return zoo(rest)
    if family == "laconic":
        return sound_coders.own(rest) if medium == "sound" else own(rest)
    searched = SEARCHED.fullmatch(name)
    if searched and not rest:
        tune, effort = searched.groups()
        return own(tune=tune, effort=int(effort) if effort else None)
    if family not in BUILDERS or rest:
        known = ", ".join([*NAMES, "laconic:MODEL", "laconic-TUNE", "laconic-eEFFORT", "zoo:ARCHITECTURE"])
        raise laconic.BadInput(f"codec: found {name!r}, expected one of {known}")
    return BUILDERS[family]()


def own(model: str = "", tune: str | None = None, effort: int | None = None) -> Coder:
    """Return our photo model, the default one or that of a name; a rate is its quality. tune, effort: None is the default."""
    codec = laconic.Codec(model=model or None)
    info = laconic.info(codec.compress(np.zeros((1, 1, 3), np.uint8), fallback=False))
    digest = next((m.digest[:12] for m in laconic.list_models() if m.name == info.model), "registered")

    def decode(data: bytes, item: Item) -> Item:
        return Item("picture", np.asarray(codec.decompress(data, as_array=True)))

    searched = "".join([f"-{tune}" if tune else "", f"-e{effort}" if effort else ""])
    return Coder(
        f"laconic:{model}" if model else f"laconic{searched}",
        "picture",
        ".lac",
        (0, 15, 30, 45, 60, 75, 90, 100),
        f"{own_version()}, {info.model} {digest}",
        lambda item, rate: codec.compress(item.data, quality=rate, fallback=False, tune=tune, effort=effort),
        decode,
        codec.codelength,
    )


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


SEARCHED = re.compile(rf"laconic(?:-({'|'.join(TUNES)}))?(?:-e([1-9]))?")
BUILDERS: dict[str, Callable[[], Coder]] = {
    "jpeg": jpeg,
    "webp": webp,
    "avif": avif,
    "avif-psnr": avif_psnr,
    "jpeg2000": jpeg2000,
    "jxl": jxl,
    "laconic-slow": sound_coders.own_slow,
    "laconic-lossless": sound_coders.own_lossless,
    "opus": sound_coders.opus,
    "mp3": sound_coders.mp3,
    "vorbis": sound_coders.vorbis,
    "flac": sound_coders.flac,
}
NAMES = ("laconic", *BUILDERS)

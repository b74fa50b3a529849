"""Screens, drawings and scans: bytes and PSNR of the photo model alone, of what `compress` makes of them, and of peers.

    python -m laconic.tools.bench_screens --qualities 30 60 90

Every picture is made here, from Pillow, NumPy and the photo in assets/, so the table can be repeated anywhere.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import laconic
from laconic.search import psnr_of

Pixels = NDArray[np.uint8]

TEXT = (
    "a file is a promise to a later reader that every sample comes back as it was written or that the reader "
    "is told what has been lost and why the encoder thought that it would not be missed by anyone who looks "
    "at the picture as a whole"
)
WORDS = TEXT.split()
PEERS: dict[str, dict[str, Any]] = {
    "WebP": {"format": "WEBP", "method": 6},
    "AVIF": {"format": "AVIF", "speed": 6, "subsampling": "4:4:4", "advanced": {"tune": "psnr"}},
}


def pictures() -> dict[str, Pixels]:
    """Make all test pictures: uint8 [H, W] or [H, W, 3], by name."""
    return {name: np.asarray(make()) for name, make in MAKERS.items()}


def photo(width: int = 768, height: int = 432) -> Image.Image:
    """Return the package's sample photo, cut from the top left."""
    return Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB").crop((0, 0, width, height))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of the pictures."""
    return ImageFont.load_default(size)


def write_text(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], size: int, ink: str, seed: int = 0, leading: float = 1.4
) -> None:
    """Fill a box (left, top, right, bottom) with lines of words."""
    random, y = np.random.default_rng(seed), box[1]
    while y + size <= box[3]:
        line = ""
        while draw.textlength(line + " notwithstanding", font(size)) < box[2] - box[0]:
            line += " " + WORDS[random.integers(len(WORDS))]
        draw.text((box[0], y), line.strip(), ink, font(size))
        y += int(size * leading)


def checker(low: int, high: int) -> Pixels:
    """Return a board of single pixels of two grays."""
    return np.where(np.indices((256, 256)).sum(0) % 2 == 1, high, low).astype(np.uint8)


def ordered_dither() -> Pixels:
    """Dither the photo with Bayer's matrix of 8 x 8."""
    matrix = np.zeros((1, 1))
    for _ in range(3):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    gray = np.asarray(photo(512, 384).convert("L"))
    limits = np.tile((matrix + 0.5) * 4, (48, 64))
    return np.where(gray > limits, 255, 0).astype(np.uint8)


def diffused() -> Image.Image:
    """Dither the photo to black and white by diffusion of errors."""
    return photo(512, 384).convert("1").convert("L")


def palette(colours: int) -> Image.Image:
    """Dither the photo to a palette."""
    return photo(512, 384).quantize(colours, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def posterised() -> Image.Image:
    """Reduce a smoothed photo to 8 colours, without dither."""
    return photo(512, 384).filter(ImageFilter.MedianFilter(5)).quantize(8, dither=Image.Dither.NONE).convert("RGB")


def halftone() -> Pixels:
    """Print the photo as dots on a grid turned by 45 degrees."""
    gray = np.asarray(photo(512, 384).convert("L")) / 255
    y, x = np.indices(gray.shape)
    wave = np.cos((x + y) * np.pi / 6) * np.cos((x - y) * np.pi / 6)
    return np.where(gray > (wave + 1) / 2, 255, 0).astype(np.uint8)


def line_art(smooth: bool) -> Image.Image:
    """Draw curves, hatching and circles; four times as large and reduced where smooth."""
    times = 4 if smooth else 1
    page = Image.new("L", (640 * times, 480 * times), 255)
    draw, random = ImageDraw.Draw(page), np.random.default_rng(1)
    for _ in range(24):
        x, y, r = (int(v) * times for v in random.integers((0, 0, 8), (640, 480, 90)))
        draw.ellipse((x - r, y - r, x + r, y + r), outline=0, width=times)
    for i in range(60):
        draw.line([(10 * i * times, 0), ((10 * i - 200) * times, 480 * times)], fill=0, width=times)
    return page.resize((640, 480), Image.Resampling.BOX)


def text_page(size: int = 15) -> Image.Image:
    """Write a page of text, with smoothed letters."""
    page = Image.new("L", (640, 800), 255)
    write_text(ImageDraw.Draw(page), (48, 48, 600, 760), size, "black")
    return page


def scan(bilevel: bool) -> Image.Image:
    """Blur a page of text, add the noise of a sensor, and where bilevel cut it at a threshold."""
    page = np.asarray(text_page().filter(ImageFilter.GaussianBlur(0.7))).astype(float)
    page = 20 + page * 0.86 + np.random.default_rng(2).normal(0, 3, page.shape)
    gray = page.round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.where(gray > 140, 255, 0).astype(np.uint8) if bilevel else gray)


def window() -> Image.Image:
    """Draw a program's window: panels, buttons, a list, text of several colours."""
    screen = Image.new("RGB", (800, 600), "#e8eaed")
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 800, 36), fill="#2b5797")
    draw.text((12, 8), "Laconic - overview of all files", "white", font(16))
    for i in range(9):
        draw.rounded_rectangle((14, 54 + 44 * i, 176, 88 + 44 * i), 6, "#ffffff", "#9aa0a6")
        draw.text((30, 62 + 44 * i), f"folder {i + 1}", "#202124", font(14))
    draw.rectangle((196, 50, 786, 586), fill="white", outline="#bdc1c6")
    for i in range(20):
        draw.rectangle((197, 51 + 26 * i, 785, 76 + 26 * i), fill="#f1f3f4" if i % 2 else "white")
    write_text(draw, (208, 56, 560, 580), 13, "#3c4043", 3, 2.0)
    write_text(draw, (600, 56, 780, 580), 13, "#1a73e8", 4, 2.0)
    return screen


def editor() -> Image.Image:
    """Draw source code in colours on dark."""
    screen = Image.new("RGB", (800, 600), "#1e1e1e")
    draw, random = ImageDraw.Draw(screen), np.random.default_rng(5)
    inks = ("#569cd6", "#d4d4d4", "#ce9178", "#6a9955", "#dcdcaa")
    for row in range(32):
        draw.text((10, 8 + 18 * row), f"{row + 1:3}", "#858585", font(13))
        x = 56 + 24 * int(random.integers(0, 4))
        for _ in range(int(random.integers(0, 9))):
            word = WORDS[random.integers(len(WORDS))]
            draw.text((x, 8 + 18 * row), word, inks[random.integers(len(inks))], font(13))
            x += int(draw.textlength(word + " ", font(13)))
    return screen


def spreadsheet() -> Image.Image:
    """Draw a grid of numbers."""
    sheet = Image.new("RGB", (800, 500), "white")
    draw, random = ImageDraw.Draw(sheet), np.random.default_rng(6)
    for x in range(0, 800, 80):
        draw.line((x, 0, x, 500), "#d0d0d0")
    for y in range(0, 500, 20):
        draw.line((0, y, 800, y), "#d0d0d0")
        for x in range(0, 800, 80):
            draw.text((x + 20, y + 3), f"{random.integers(10**6) / 100:.2f}", "black", font(12))
    return sheet


def plot(kind: str) -> Image.Image:
    """Draw curves, or bars and points, as plotting programs do: smoothed lines on white."""
    times = 2
    page = Image.new("RGB", (640 * times, 480 * times), "white")
    draw, random = ImageDraw.Draw(page), np.random.default_rng(7)
    inks = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
    draw.rectangle((60 * times, 30 * times, 610 * times, 430 * times), outline="black", width=times)
    for n, ink in enumerate(inks):
        ys = 240 + np.cumsum(random.normal(0, 6, 110))
        points = [((60 + 5 * i) * times, float(np.clip(y, 30, 430)) * times) for i, y in enumerate(ys)]
        if kind == "curves":
            draw.line(points, ink, 2 * times)
        for x, y in points if kind == "points" else []:
            draw.ellipse((x - 3 * times, y - 3 * times, x + 3 * times, y + 3 * times), fill=ink)
        draw.text((500 * times, (40 + 20 * n) * times), f"series {n + 1}", ink, font(14 * times))
    for i in range(11):
        draw.text((55 * times, (425 - 40 * i) * times), f"{i / 10:.1f}", "black", font(11 * times), anchor="rm")
        draw.text(((60 + 55 * i) * times, 436 * times), f"{10 * i}", "black", font(11 * times), anchor="mt")
    return page.resize((640, 480), Image.Resampling.BOX)


def street_map() -> Image.Image:
    """Draw filled areas and roads, without smoothing."""
    page = Image.new("RGB", (640, 480), "#f2efe9")
    draw, random = ImageDraw.Draw(page), np.random.default_rng(8)
    for ink in ("#cdebb0", "#aad3df", "#e0dfdf", "#f7ecd4") * 6:
        x, y = random.integers((0, 0), (640, 480))
        around = np.sort(random.uniform(0, 2 * np.pi, 7))
        reach = random.uniform(20, 120, 7)
        corners = [(float(x + r * np.cos(t)), float(y + r * np.sin(t))) for t, r in zip(around, reach, strict=True)]
        draw.polygon(corners, fill=ink)
    for width, ink in ((7, "#999999"), (5, "white")):
        roads = np.random.default_rng(9)
        for _ in range(16):
            draw.line([tuple(map(float, p)) for p in roads.uniform((0, 0), (640, 480), (3, 2))], ink, width)
    return page


def pixel_art() -> Image.Image:
    """Enlarge a small picture of 12 colours."""
    small = photo(384, 288).resize((128, 96)).quantize(12, dither=Image.Dither.NONE).convert("RGB")
    return small.resize((512, 384), Image.Resampling.NEAREST)


def page_with_photo() -> Image.Image:
    """Set a photo into a page of text."""
    page = Image.new("RGB", (800, 1000), "white")
    draw = ImageDraw.Draw(page)
    draw.text((50, 40), "What the lens kept", "#101010", font(34))
    write_text(draw, (50, 100, 750, 300), 15, "black", 10)
    page.paste(photo(700, 400), (50, 310))
    write_text(draw, (50, 730, 750, 960), 15, "black", 11)
    return page


def screen_with_photo() -> Image.Image:
    """Show a photo in a program's window, at a place that is no multiple of a block."""
    screen = window()
    screen.paste(photo(500, 330), (237, 93))
    return screen


def slide() -> Image.Image:
    """Put large letters and a photo on a background that shades from blue to white."""
    shade = np.linspace((30, 60, 120), (235, 240, 250), 540).round().astype(np.uint8)
    page = Image.fromarray(np.repeat(shade[:, None], 960, 1))
    draw = ImageDraw.Draw(page)
    draw.text((60, 40), "One house for every medium", "white", font(48))
    write_text(draw, (60, 140, 440, 480), 22, "#ffffff", 12)
    page.paste(photo(420, 300), (480, 150))
    return page


def captioned() -> Image.Image:
    """Write two lines of letters onto a photo."""
    page = photo()
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 390, 768, 432), fill="black")
    draw.text((20, 398), "Photographed in the morning, printed at noon", "white", font(24))
    return page


def noise() -> Pixels:
    """Return noise, which nothing codes in less than its samples."""
    return np.random.default_rng(13).integers(0, 256, (256, 256, 3), np.uint8)


MAKERS: dict[str, Callable[[], Image.Image | Pixels]] = {
    "checker": lambda: checker(0, 255),
    "faint checker": lambda: checker(118, 138),
    "ordered dither": ordered_dither,
    "diffused to 1 bit": diffused,
    "diffused to 16 colours": lambda: palette(16),
    "8 flat colours": posterised,
    "halftone": halftone,
    "line art": lambda: line_art(False),
    "smooth line art": lambda: line_art(True),
    "text": text_page,
    "scan": lambda: scan(False),
    "1-bit scan": lambda: scan(True),
    "window": window,
    "editor": editor,
    "spreadsheet": spreadsheet,
    "plot of curves": lambda: plot("curves"),
    "plot of points": lambda: plot("points"),
    "map": street_map,
    "pixel art": pixel_art,
    "page with a photo": page_with_photo,
    "window with a photo": screen_with_photo,
    "slide with a photo": slide,
    "captioned photo": captioned,
    "noise": noise,
}


def main(argv: list[str] | None = None) -> int:
    """Print a table in Markdown: a row for each picture and quality."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.bench_screens", description=__doc__)
    parser.add_argument("--qualities", type=float, nargs="+", default=[60.0], metavar="Q")
    parser.add_argument("--only", nargs="+", choices=MAKERS, default=list(MAKERS), metavar="NAME")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--curve", metavar="DIR", help="of photos: print the two tables of codec/media/fallback.py instead")
    args = parser.parse_args(argv)
    if args.curve:
        print_curve(sorted(Path(args.curve).glob("*.webp")))
        return 0
    heads = ["picture", "q", "photo model alone", "Laconic", "way", *(f"{peer}, of Laconic's bytes" for peer in args.peers)]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * 3}---|{'---:|' * len(args.peers)}")
    for name in args.only:
        for quality in args.qualities:
            cells = row(np.asarray(MAKERS[name]()), quality, args.peers)
            print(f"| {' | '.join([name, f'{quality:g}', *cells])} |", flush=True)
    return 0


def print_curve(photos: list[Path]) -> None:
    """Print the photos' mean squared error at each quality, and what a smaller one costs in bits per pixel."""
    figures = []
    for quality in range(0, 101, 10):
        found = []
        for path in photos:
            pixels = np.asarray(Image.open(path).convert("RGB"))[:384, :512]
            data = laconic.compress(pixels, quality=quality, fallback=False)
            error = np.square(decoded(data, pixels).astype(float) - pixels).mean()
            found.append((8 * len(data) / (pixels.size / 3), error))
        figures.append(np.array(found))
    rates, errors = (np.array([found[:, i].mean() for found in figures]) for i in (0, 1))
    slopes = np.log(-np.diff(rates) / np.diff(errors))
    worth = np.exp(np.concatenate([slopes[:1], (slopes[1:] + slopes[:-1]) / 2, slopes[-1:]]))
    print("usual", [round(float(np.exp(np.log(found[:, 1]).mean())), 1) for found in figures])
    print("worth", [round(float(value), 4) for value in worth])


def row(pixels: Pixels, quality: float, peers: list[str]) -> list[str]:
    """Return the cells of a picture: bytes and PSNR of the photo model, of what is made by default, its way, peers."""
    alone = laconic.compress(pixels, quality=quality, fallback=False)
    data = laconic.compress(pixels, quality=quality, notes=[])
    info, cells = laconic.info(data), [cell(len(code), decoded(code, pixels), pixels) for code in (alone, data)]
    share = info.exact_share if isinstance(info, laconic.PhotoInfo) else 1.0
    way = {0.0: "photo", 1.0: "lossless"}.get(share, f"{100 * share:.0f} % exact")
    return [*cells, way, *(cell(*at_most(len(data), peer, pixels), pixels) for peer in peers)]


def decoded(data: bytes, pixels: Pixels) -> Pixels:
    """Return what a file decodes to, of the shape of the pixels."""
    return np.asarray(laconic.decompress(data, as_array=True)).reshape(pixels.shape)


def cell(n_bytes: int, made: Pixels, pixels: Pixels) -> str:
    """Return what a table says of a file: its bytes and its PSNR."""
    psnr = psnr_of(made, pixels)
    return f"{n_bytes:,} B, {'exact' if psnr == 100 else f'{psnr:.1f} dB'}"


def at_most(n_bytes: int, peer: str, pixels: Pixels) -> tuple[int, Pixels]:
    """Return the peer's largest file of at most n_bytes, by bisection over its quality, or its smallest one: size, pixels."""
    low, high = 0, 101
    best = saved(peer, pixels, low)
    while high - low > 1:
        middle = (low + high) // 2
        made = saved(peer, pixels, middle)
        low, high, best = (middle, high, made) if made[0] <= n_bytes else (low, middle, best)
    return best


def saved(peer: str, pixels: Pixels, quality: int) -> tuple[int, Pixels]:
    """Return the bytes of a peer's file, and what it decodes to."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, quality=quality, **PEERS[peer])
    made = Image.open(io.BytesIO(file.getvalue())).convert("L" if pixels.ndim == 2 else "RGB")
    return len(file.getvalue()), np.asarray(made)


if __name__ == "__main__":
    raise SystemExit(main())

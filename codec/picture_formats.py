"""What is read by which library: the table of all that passes through one whole, and a look into a file to find its row.

A library is believed only for what stands in `WAYS`: a format, bits of a sample, channels, and peculiarities that it
passes through whole. A file that fits no row is refused by its name. What a file is, it says itself: nothing here asks a
library, which may have reduced the samples before it tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from laconic.entropy.errors import BadInput
from laconic.picture_metadata import Metadata

PILLOW, OWN = "Pillow", "own"
DEEP = "imagecodecs: pip install laconic-codec[deep]"
ANY = (1, 2, 3, 4)


@dataclass(frozen=True)
class Seen:
    """Holds what a file says of itself.

    channels: with alpha and others, a palette's index being one. traits: what not every reader of the format passes.
    white: the largest value of a sample. key: the transparent colour of a PNG. n_pictures: frames or pages. clean: the
    file as a reader is shown it. notes: of what no reader keeps. damage: what the header alone shows of it.
    """

    format: str
    width: int
    height: int
    bits: int
    channels: int
    traits: frozenset[str] = frozenset()
    white: int = 0
    key: tuple[int, ...] = ()
    n_pictures: int = 1
    clean: bytes = b""
    metadata: Metadata = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    damage: str = ""

    def __str__(self) -> str:
        traits = ", ".join(sorted(self.traits)).replace("_", " ")
        return f"{self.format} of {self.bits} bits, {self.channels} channels" + f" ({traits})" * bool(traits)


@dataclass(frozen=True)
class Way:
    """Names a reader, and what passes through it. exact: unchanged; else it is for lossy coding alone, with the note."""

    format: str
    bits: tuple[int, ...]
    channels: tuple[int, ...]
    traits: frozenset[str]
    reader: str
    exact: bool = True
    note: str = ""

    def fits(self, seen: Seen) -> bool:
        """Return whether a file is one that this row is for."""
        own = (self.format, seen.bits in self.bits, seen.channels in self.channels)
        return own == (seen.format, True, True) and seen.traits <= self.traits

    @property
    def installed(self) -> bool:
        """Whether the reader is there."""
        return self.reader in (PILLOW, OWN) or find_spec("imagecodecs") is not None


def way(format: str, bits: tuple[int, ...], channels: tuple[int, ...], traits: str, reader: str, note: str = "") -> Way:
    """Return a row of the table; a note says that the row is for lossy coding alone."""
    return Way(format, bits, channels, frozenset(traits.split()), reader, not note, note)


REDUCED = "reduced"  # a note that the reader of the samples words
CONVERTED = "converted from {} to RGB"
# The first row that fits and whose reader is installed is taken. Other readers than Pillow and our own are imagecodecs' functions.
WAYS = (
    way("PNG", (1, 2, 4, 8), ANY, "palette key", PILLOW),
    way("PNG", (16,), (1,), "key interlaced", PILLOW),
    way("PNG", (16,), ANY, "key interlaced", "png"),
    way("PNG", (16,), ANY, "key interlaced", PILLOW, REDUCED),
    way("JPEG", (8,), (1, 3), "progressive arithmetic", PILLOW),
    way("JPEG", (8,), (4,), "progressive arithmetic", PILLOW, CONVERTED.format("CMYK")),
    way("JPEG", (12,), (1, 3), "progressive", "jpeg"),
    way("JPEG", tuple(range(2, 17)), (1, 3), "lossless", "jpeg"),
    way("JPEG-LS", tuple(range(2, 17)), (1, 3), "", "jpegls"),
    way("JPEG 2000", (8,), ANY, "alpha extra", PILLOW),
    way("JPEG 2000", (8,), (3,), "YCC subsampled", PILLOW, CONVERTED.format("YCC")),
    way("JPEG 2000", tuple(range(1, 17)), ANY, "alpha extra", "jpeg2k"),
    way("JPEG 2000", tuple(range(9, 17)), ANY, "alpha", PILLOW, REDUCED),
    way("AVIF", (8,), ANY, "", PILLOW),
    way("AVIF", (8,), (2, 4), "premultiplied", PILLOW, "the premultiplied alpha is divided out of the colours"),
    way("AVIF", (10, 12), ANY, "", "avif"),
    way("AVIF", (10, 12), ANY, "", PILLOW, REDUCED),
    way("TIFF", (8,), ANY, "white_is_0 alpha extra planar packed fill_order_2 BigTIFF_MM", "tiff"),
    way("TIFF", (8,), ANY, "alpha packed", PILLOW),
    way("TIFF", (8,), (3,), "planar packed", PILLOW),
    way("TIFF", (1,), (1,), "white_is_0 packed fax fill_order_2 BigTIFF_MM", "tiff"),
    way("TIFF", (8,), (1,), "palette palette_of_16_bits packed BigTIFF_MM", "tiff"),
    way("TIFF", (8,), (1, 3), "JPEG", "tiff"),
    way("TIFF", (1, 2, 4, 8), (1,), "white_is_0 packed fax fill_order_2", PILLOW),
    way("TIFF", (1, 2, 4, 8), (1,), "palette palette_of_16_bits packed", PILLOW),
    way("TIFF", (12,), (1,), "", PILLOW),
    way("TIFF", (16,), ANY, "white_is_0 alpha extra planar packed fill_order_2 BigTIFF_MM", "tiff"),
    way("TIFF", (16,), (1,), "white_is_0 packed", PILLOW),
    way("TIFF", (16,), (3, 4), "alpha packed", PILLOW, REDUCED),
    way("TIFF", (8,), (1, 3), "JPEG", PILLOW),
    way("TIFF", (8,), (3,), "YCbCr packed", PILLOW, CONVERTED.format("YCbCr")),
    way("TIFF", (8,), (4,), "CMYK JPEG packed planar", PILLOW, CONVERTED.format("CMYK")),
    way("TIFF", (8,), (3,), "Lab packed planar", PILLOW, CONVERTED.format("LAB")),
    way("TIFF", (8,), (4,), "premultiplied packed", PILLOW, "the premultiplied alpha is divided out of the colours"),
    way("PNM", tuple(range(1, 17)), (1, 3), "", OWN),
    way("BMP", (8,), ANY, "", PILLOW),
    way("WebP", (8,), (3, 4), "", PILLOW),
    way("SGI", (8,), (1, 3, 4), "", PILLOW),
)
# What Pillow passes whole and tells the number of frames of: 8 bits of each colour at most, and nothing beside them.
WHOLE_IN_PILLOW = ("GIF", "TGA", "PCX", "ICO", "CUR", "ICNS", "QOI", "XBM", "MSP", "DIB", "MPO")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")
JXL, RAW, RAW_READER = "JPEG XL", "camera raw", "a raw developer such as darktable"
# Starts of files that are pictures and are not read: what they are, and what reads them.
UNREAD = {
    b"\xff\x0a": (JXL, "djxl"),
    b"\0\0\0\x0cJXL ": (JXL, "djxl"),
    b"\x89Lc\r\n": ("Laconic", "laconic decompress"),
    b"v/1\x01": ("OpenEXR", "ImageMagick"),
    b"#?RADIANCE": ("Radiance HDR", "ImageMagick"),
    b"#?RGBE": ("Radiance HDR", "ImageMagick"),
    b"II\xbc\x01": ("JPEG XR", "JxrDecApp"),
    b"IIRO": (RAW, RAW_READER),
    b"IIRS": (RAW, RAW_READER),
    b"IIU\0": (RAW, RAW_READER),
    b"FUJIFILMCCD-RAW": (RAW, RAW_READER),
    b"FOVb": (RAW, RAW_READER),
    b"%PDF": ("PDF", "pdftoppm"),
    b"%!PS": ("PostScript", "Ghostscript"),
    b"\xc5\xd0\xd3\xc6": ("EPS", "Ghostscript"),
    b"<svg": ("SVG", "rsvg-convert"),
    b"<?xml": ("SVG or other XML", "rsvg-convert"),
    b"P7\n": ("PAM", "pamtopnm"),
    b"PF\n": ("PFM of floats", "ImageMagick"),
    b"gimp xcf": ("GIMP", "GIMP"),
    b"BPG\xfb": ("BPG", "bpgdec"),
    b"FLIF": ("FLIF", "flif"),
    b"AT&TFORM": ("DjVu", "ddjvu"),
    b"farbfeld": ("farbfeld", "ff2png"),
    b"SDPX": ("DPX", "ImageMagick"),
    b"XPDS": ("DPX", "ImageMagick"),
    b"\x80\x2a\x5f\xd7": ("Cineon", "ImageMagick"),
    b"\x89JNG": ("JNG", "ImageMagick"),
    b"\x8aMNG": ("MNG", "ImageMagick"),
}


def choose(seen: Seen, exact: bool) -> Way:
    """Return the row that a file is read by. Raises BadInput that says what the file is and what it would take."""
    fitting = [way for way in WAYS if way.fits(seen) and (way.exact or not exact)]
    for found in fitting:
        if found.installed:
            return found
    if fitting:
        raise BadInput(f"picture: found {seen}, and no imagecodecs, expected {DEEP}")
    lossy = any(way.fits(seen) for way in WAYS)
    advice = "code it lossy" if lossy else "convert it"
    raise BadInput(f"picture: found {seen}, expected one that is read unchanged: {advice}, or give an array")

"""Which files are pictures and sounds: by the suffix of the name, or by the first bytes where the suffix is unknown.

The one table of suffixes. A suffix with a format is one that can be written, too; "" is only read.
"""

from __future__ import annotations

import re

CODED = ".lac"
PICTURES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    **dict.fromkeys((".mpo", ".apng", ".dib", ".gif", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jpf"), ""),
}
SOUNDS = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".flac": "FLAC",
    ".aiff": "AIFF",
    ".aif": "AIFF",
    ".caf": "CAF",
    ".w64": "W64",
    **dict.fromkeys((".aifc", ".bwf", ".rf64", ".bw64", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1", ".mpga"), ""),
    **dict.fromkeys((".au", ".snd", ".sph", ".nist"), ""),
}
# What pictures and sounds can be written as, the default first.
PICTURE_OUTPUTS = {".png": "PNG"} | {suffix: format for suffix, format in PICTURES.items() if format}
SOUND_OUTPUTS = {suffix: format for suffix, format in SOUNDS.items() if format}
# Raw files of cameras begin as TIFF does, but hold what no reader of ours understands.
RAW = frozenset({".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos"})
RAW |= {".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
N_FIRST = 16  # bytes that `is_picture` looks at
FIRST_BYTES = re.compile(
    rb"""\xff\xd8\xff                         # JPEG
    |\x89PNG\r\n\x1a\n
    |GIF8[79]a
    |RIFF....WEBP
    |BM.{4}\0{4}
    |II\*\0|MM\0\*|II\+\0|MM\0\+               # TIFF, BigTIFF
    |\0\0\0\x0cjP\x20\x20|\xff\x4f\xff\x51     # JPEG 2000: JP2, codestream
    |.{4}ftypavi[fs]
    |P[1-6][\s\#][\s\d\#]                      # PPM and its siblings
    """,
    re.VERBOSE | re.DOTALL,
)


def is_picture(start: bytes) -> bool:
    """Tell whether the first bytes of a file, N_FIRST of them, are those of a picture in a format that is read."""
    return FIRST_BYTES.match(start) is not None

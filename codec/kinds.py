"""Numbers of the format: media and kinds of chunks (FORMAT.md)."""

PHOTO, LOSSLESS_PICTURE, SOUND, ARCHIVE = 1, 2, 3, 4
MEDIA = {PHOTO: "photo", LOSSLESS_PICTURE: "lossless picture", SOUND: "sound", ARCHIVE: "archive"}

Z, Y, ALPHA, ICC, EXIF, XMP, TILE, SEGMENT, WRAPPING, TAGS, BLOCK, MEMBERS = range(1, 13)
TEXT, RESOLUTION, DEPTH, COLOUR, IPTC, CHUNKS = range(13, 19)
METADATA = {ICC: "icc", EXIF: "exif", XMP: "xmp", TEXT: "text", RESOLUTION: "resolution"}
METADATA |= {DEPTH: "depth", COLOUR: "colour", IPTC: "iptc", CHUNKS: "chunks"}
KIND_NAMES = {Z: "z", Y: "y", ALPHA: "alpha", **METADATA, TILE: "tile", SEGMENT: "segment", WRAPPING: "wrapping"}
KIND_NAMES |= {TAGS: "tags", BLOCK: "block", MEMBERS: "names"}

"""A Pillow plugin: after `import laconic.pillow`, Image.open("x.lac") and image.save("x.lac", quality=60) work."""

from __future__ import annotations

from typing import IO, Any

from PIL import Image, ImageFile

import laconic
from laconic.container import MAGIC

OPTIONS = ("quality", "bpp", "size", "psnr", "strip")


class LaconicImageFile(ImageFile.ImageFile):
    """Size and mode from the header; pixels and metadata at the first load."""

    format = "LACONIC"
    format_description = "Laconic photo"

    def _open(self) -> None:
        self._data = self.fp.read()  # type: ignore[union-attr]
        try:
            found = laconic.info(self._data)
        except laconic.LaconicError as error:
            raise SyntaxError(str(error)) from error
        alpha = any(kind == "alpha" for kind, _ in found.chunks)
        self._mode = ("L" if found.gray else "RGB") + ("A" if alpha else "")
        self._size = (found.width, found.height)
        self.tile = []

    def load(self) -> Any:
        if self._data is not None:
            decoded = laconic.decompress(self._data)
            self._data = None
            self.im = decoded.im
            self.info.update(decoded.info)
        return super().load()


def save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Called by Image.save; options: quality, bpp, size, psnr, strip."""
    options = {k: v for k, v in image.encoderinfo.items() if k in OPTIONS}
    file.write(laconic.compress(image, **options))


def accept(prefix: bytes) -> bool:
    """Whether a file that starts so is ours."""
    return prefix.startswith(MAGIC)


Image.register_open(LaconicImageFile.format, LaconicImageFile, accept)
Image.register_save(LaconicImageFile.format, save)
Image.register_extension(LaconicImageFile.format, ".lac")
Image.register_mime(LaconicImageFile.format, "image/x-laconic")

"""A Pillow plugin: after `import laconic.pillow`, Image.open("x.lac") and image.save("x.lac", quality=60) work.

So do imageio.v3.imread("x.lac") and imwrite("x.lac", array, quality=60), which go through Pillow.
"""
from __future__ import annotations

from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from laconic import container, picture
from laconic.api import compress, decompress, info, verify
from laconic.entropy.errors import BadInput, LaconicError, UnsupportedFile, expect
from laconic.file_info import FileInfo, PictureInfo
from laconic.options import TARGETS
from laconic.payloads import read_metadata

OPTIONS = (*(target.name for target in TARGETS), "effort", "tune", "progressive", "strip", "fallback", "medium")
MODES = {(8, 1): "L", (8, 2): "LA", (8, 3): "RGB", (8, 4): "RGBA", (16, 1): "I;16"}  # by bits and channels
ANY_KIND = range(256)  # any chunk: what this version cannot decode is said when the pixels are asked for


class LaconicImageFile(ImageFile.ImageFile):
    """Reads size, mode and metadata when opened, and pixels at the first load."""

    format = "LACONIC"
    format_description = "Laconic picture"
    _data: bytes | None = None  # a default of the class: an unpickled image has its pixels and no file

    def _open(self) -> None:
        self._data = self.fp.read()  # type: ignore[union-attr]
        try:
            found = info(self._data)
            self._mode, self._size = mode(found), (found.width, found.height)  # type: ignore[attr-defined]
            self.info.update(metadata(self._data))
        except LaconicError as error:
            # Not SyntaxError, whose text Pillow drops to try other formats: the magic says that the file is ours.
            raise UnidentifiedImageError(str(error)) from error
        self.tile = []

    def verify(self) -> None:
        """Check every checksum and symbol of a file that was just opened. Raises BadFile, ModelMissing."""
        if self._data is not None:
            verify(self._data)

    def load(self) -> Any:
        if self._data is not None:
            found = decompress(self._data)
            assert isinstance(found, Image.Image)  # `mode` has refused what is no picture
            self.im = found.im
            self._data = None
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = None
        return super().load()


def mode(found: FileInfo) -> str:
    """Return the mode of a picture. Raises UnsupportedFile for what is not a picture that Pillow can hold."""
    expect(isinstance(found, PictureInfo), UnsupportedFile, "medium", found.medium, "a picture")
    assert isinstance(found, PictureInfo)
    shape = (found.bits, found.channels)
    expect(shape in MODES, UnsupportedFile, "bits and channels", shape, f"one of {list(MODES)}, which Pillow holds")
    return MODES[shape]


def metadata(data: bytes) -> dict[str, bytes]:
    """Return what a file holds for the keys of `Image.info`; `load` complains about damaged ones."""
    _, chunks = container.read(data, ANY_KIND, partial=True)
    found = read_metadata(chunks)
    return {key: found[name] for name, key in picture.INFO_KEYS.items() if name in found}


def save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write an image, as Image.save asks. Its options: those of OPTIONS; exif, icc_profile, xmp override `info`."""
    options = {k: v for k, v in image.encoderinfo.items() if k in OPTIONS}
    own = {k: image.encoderinfo[k] for k in picture.INFO_KEYS.values() if k in image.encoderinfo}
    if own:
        image = image.copy()  # its info is the caller's
        image.info.update({k: v.tobytes() if isinstance(v, Image.Exif) else v for k, v in own.items()})
    if "xmp" in own:
        image.info.pop("XML:com.adobe.xmp", None)
    file.write(compress(image, **options))


def save_all(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write one image, as Image.save(save_all=True) and imageio ask, and refuse more. Raises BadInput."""
    n = getattr(image, "n_frames", 1) + len(list(image.encoderinfo.get("append_images", ())))
    expect(n == 1, BadInput, "pictures in a file", n, "1: a .lac file holds one")
    save(image, file, filename)


def accept(prefix: bytes) -> bool:
    """Tell whether a file that starts so is ours."""
    return prefix.startswith(container.MAGIC)


def register() -> None:
    """Make Pillow open and save .lac, and imageio by way of Pillow. Importing this module does it; again is harmless."""
    if LaconicImageFile.format in Image.OPEN:
        return
    Image.register_open(LaconicImageFile.format, LaconicImageFile, accept)
    Image.register_save(LaconicImageFile.format, save)
    Image.register_save_all(LaconicImageFile.format, save_all)
    Image.register_extension(LaconicImageFile.format, ".lac")
    Image.register_mime(LaconicImageFile.format, "image/x-laconic")


register()

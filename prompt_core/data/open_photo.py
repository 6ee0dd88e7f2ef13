"""The one way in which photos of every task are opened: bounded before they are decoded, upright, in RGB.

Classification, detector, segmenter and prediction see the same pixels of a file: its first frame, turned as its Exif
orientation says, 16-bit values scaled to 8, transparency left out.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from prompt_core.documents.bounds import check_size
from prompt_core.errors import UserError
from prompt_core.visible import visible

# Pixels of a photo, before it is decoded; the environment variable raises it. COCO's have at most 0.4 million.
MAX_PIXELS, PIXELS_VARIABLE = 150_000_000, "POMP_MAX_PIXELS"
# The longer side by the shorter one: a strip of 1 x 100000 would be resized to billions of pixels.
MAX_ASPECT, ASPECT_VARIABLE = 500, "POMP_MAX_ASPECT"
# Bytes of an encoded photo.
PHOTO_BYTES = 1 << 30

# Pillow knows more, some of which run other programs (EPS).
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
# What phones write. Another package reads it.
HEIF_ENDINGS = (".heic", ".heif")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(UserError):
    """A photo that is missing, truncated, too large or not an image. Carries the photo's ``key``."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"cannot read image {visible(key)}: {reason}; replace or delete the file")
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # data loader workers send errors to the main process
        return type(self), (self.key, self.reason)


def open_photo(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Image.Image:
    """Decode a photo as RGB, upright.

    Args:
        source: a file, or its bytes.
        name: for messages; default the file.

    Raises:
        UnreadableImage: when it is missing, truncated, beyond a bound, or not an image.
    """
    with opened_image(source, name) as image:
        return upright(_as_rgb(image), orientation(image))


def read_photo(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 in RGB, turned as its Exif orientation says.

    Raises:
        UserError: when the file is absent, too large or no photo.
    """
    try:
        return np.asarray(open_photo(path))
    except UnreadableImage as error:
        raise UserError(f"photo {visible(str(path))} cannot be read: {error.reason}") from error


def as_photo(image: Image.Image) -> Image.Image:
    """An image that is open already, in RGB and upright.

    Raises:
        UnreadableImage: when its file turns out to be truncated, or its values are not those of a photo.
    """
    try:
        return upright(_as_rgb(image), orientation(image))
    except Exception as error:  # as in opened_image
        raise UnreadableImage("in memory", str(error) or type(error).__name__) from error


def upright_size(source: str | os.PathLike[str] | bytes, name: str | None = None) -> tuple[int, int]:
    """Width and height of :func:`open_photo`'s result; reads the header only.

    Raises:
        UnreadableImage: when it is missing, beyond a bound, or not an image.
    """
    with opened_image(source, name) as image:
        width, height = image.size
        return (height, width) if orientation(image) in (5, 6, 7, 8) else (width, height)


@contextlib.contextmanager
def opened_image(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Iterator[Image.Image]:
    """An image whose header is read and within bounds; whatever fails inside becomes an :class:`UnreadableImage`.

    Label images are opened so too: their values are not photos' and stay as they are.

    Raises:
        UnreadableImage: when it is missing, truncated, beyond a bound, or not an image.
    """
    name = str(source) if name is None and not isinstance(source, bytes) else name or "in memory"
    pixels, aspect = most_pixels(), _bound(ASPECT_VARIABLE, MAX_ASPECT)
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else _file(source)
        if Image.MAX_IMAGE_PIXELS is not None and pixels > 2 * Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = pixels  # the user has raised it; Pillow's own bound would stop before
        with stream, Image.open(stream, formats=_known_formats()) as image:
            width, height = image.size
            if width * height > pixels:
                raise UnreadableImage(name, _too_large(f"{width} x {height} pixels", pixels, PIXELS_VARIABLE))
            if max(width, height) > aspect * min(width, height):
                what = f"sides of {width} and {height} pixels, an aspect"
                raise UnreadableImage(name, _too_large(what, aspect, ASPECT_VARIABLE))
            yield image
    except UnreadableImage:
        raise
    except UserError as error:
        raise UnreadableImage(name, str(error)) from error
    except UnidentifiedImageError as error:  # its text holds a memory address
        needs = name.lower().endswith(HEIF_ENDINGS) and "HEIF" not in _known_formats()
        reason = "HEIC needs pillow-heif (pip install pillow-heif)" if needs else "no image of a known format"
        raise UnreadableImage(name, reason) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(name, _too_large("a size", pixels, PIXELS_VARIABLE)) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, …
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(name, visible(" ".join(reason.split())) or type(error).__name__) from error


def orientation(image: Image.Image) -> int:
    """The Exif orientation, 1 to 8; 1 where there is none or its data is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # struct.error, SyntaxError, … of a damaged block beside intact pixels
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def upright(image: Image.Image, turned: int) -> Image.Image:
    """An image turned from its Exif orientation."""
    return image.transpose(_TURNS[turned]) if turned in _TURNS else image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise ValueError(f"grey values {values.min()}..{values.max()}, where 16 bits are expected")
        # 65535 becomes 255; Pillow would cut everything above 255
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _file(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        size = check_size(path, PHOTO_BYTES)
    except UserError:
        if not Path(path).exists():
            raise FileNotFoundError("no such file") from None
        raise
    if size == 0:
        raise ValueError("the file is empty")
    return open(path, "rb")


def _too_large(what: str, bound: int, variable: str) -> str:
    return f"it has {what} of more than {bound:,}; set the environment variable {variable} to read it"


def most_pixels() -> int:
    """Pixels that a photo has at most, as the user allows."""
    return _bound(PIXELS_VARIABLE, MAX_PIXELS)


def _bound(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < 1:
        raise UserError(f"the environment variable {variable} is {text[:40]!r}; a whole number above 0 is expected")
    return int(text)


@functools.cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(kind for kind in _FORMATS if kind in Image.OPEN)

"""Photos of boxed data sets: read as they are stored, and resized without aliasing.

EXIF orientation is ignored on purpose: CUB, VOC and COCO give boxes and sizes of the stored pixels, not of
the turned picture. `read_boxed_image` refuses a photo whose stored size is not the annotated one.
"""

import struct
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.sample import UInt8Array

# What Pillow's decoders raise on a file that is cut, damaged or lies about itself.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
# Ghostscript would be started to read this one: a photo never asks for that.
_FORMATS_THAT_RUN_PROGRAMS = frozenset({"EPS"})


def read_image(path: Path, *, is_upright: bool = False) -> UInt8Array:
    """The stored pixels, uint8 (H, W, 3) RGB, or the picture as it is meant to be seen (EXIF orientation).

    Raises InputError for a missing, foreign or truncated file.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            shown = ImageOps.exif_transpose(image) if is_upright else image
            return np.array(shown.convert("RGB"))
    except _UNREADABLE as error:
        raise InputError(f"{path}: {_reason(error)}, wanted a whole image file") from error


def read_size(path: Path) -> tuple[int, int]:
    """Stored (width, height) in px, from the header alone. Raises InputError as `read_image` does."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return image.size
    except _UNREADABLE as error:
        raise InputError(f"{path}: {_reason(error)}, wanted an image file") from error


def read_boxed_image(boxed: BoxedImage) -> UInt8Array:
    """The photo of an annotation. Raises InputError when it cannot be read or has another size."""
    image = read_image(boxed.path)
    height, width = image.shape[:2]
    if (width, height) != (boxed.width, boxed.height):
        raise InputError(
            f"{boxed.path}: image is {width}x{height}, its annotation wanted {boxed.width}x{boxed.height}"
        )
    return image


def resize_antialiased(image: UInt8Array, width: int, height: int) -> UInt8Array:
    """The image at another size: area average along a side that shrinks, bilinear along one that grows.

    OpenCV's area mode averages only when both sides shrink, so a mixed resize takes two steps.
    """
    source_height, source_width = image.shape[:2]
    shrunk = (min(width, source_width), min(height, source_height))
    if shrunk != (source_width, source_height):
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if shrunk != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(
            np.uint8, copy=False
        )
    return image


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in _FORMATS_THAT_RUN_PROGRAMS]


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__

"""Anybody's photos: listed in a fixed order, and read from any file format to the same uint8 RGB array."""

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from configs.errors import InputError
from factory.stages import Scalar, UInt8Array

IMAGE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm"),
        *(".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
    )
)
# Ghostscript would be started to read this one: a photo never asks for that.
_FORMATS_THAT_RUN_PROGRAMS = frozenset({"EPS"})
# What Pillow's decoders raise on a file that is cut, damaged or lies about itself.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_EXIF_ORIENTATION = 0x0112
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadablePhoto(ValueError):
    """This file holds no image that can be read; the message is one line, without the file's name."""


def read_photo(path: Path, max_side_px: int | None) -> UInt8Array:  # (H, W, 3)
    """The photo as uint8 (H, W, 3) RGB, upright by its EXIF, its longest side at most ``max_side_px``.

    Transparent pixels show white. 16-bit greys keep their high byte; 32-bit greys beyond 16 bits and float
    greys are stretched from their least to their greatest value. Colour profiles are not applied. Of an
    animation, the first frame. Smaller photos are never enlarged.

    Raises UnreadablePhoto for a missing, foreign, truncated or damaged file, and for one so large that Pillow
    takes it for a decompression bomb (89 million pixels).
    """
    return _read(path, max_side_px, keeps_alpha=False)[0]


def read_cut_out(path: Path, max_side_px: int | None) -> tuple[UInt8Array, UInt8Array | None]:
    """The photo, and its opacity as uint8 (H, W); None where the file has none or is opaque everywhere.

    A photo without opacity is as `read_photo` reads it. Of others, wholly transparent pixels show white too,
    but partly transparent ones keep the colour that the file gives them, so that a cut-out pasted elsewhere
    brings no white fringe. Raises UnreadablePhoto as `read_photo` does.
    """
    return _read(path, max_side_px, keeps_alpha=True)


def _read(path: Path, max_side_px: int | None, *, keeps_alpha: bool) -> tuple[UInt8Array, UInt8Array | None]:
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UnreadablePhoto(f"{error.strerror}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(file, max_side_px, keeps_alpha=keeps_alpha)
        except UnidentifiedImageError as error:
            raise UnreadablePhoto("not an image, wanted any format that Pillow reads") from error
        except _DECODER_ERRORS as error:
            raise UnreadablePhoto(" ".join(str(error).split()) or type(error).__name__) from error


def list_photos(root_or_list: Path) -> list[Path]:
    """The photos of a folder or of a list file, in the order that numbers them.

    Of a folder: all files with an image's suffix, at any depth, sorted by their relative posix path; names
    that start with a dot are skipped, links to folders are not followed. Of a text file: one path a line,
    relative to the text file's own folder, in its order; empty lines and ``#`` lines are skipped.

    Raises InputError when there is nothing there, no image in it, or a listed file does not exist.
    """
    if root_or_list.is_dir():
        photos = _photos_below(root_or_list)
    elif root_or_list.is_file():
        photos = _listed_photos(root_or_list)
    else:
        raise InputError(
            f"{root_or_list}: not found, wanted a folder of images or a text file that lists them"
        )
    if not photos:
        raise InputError(f"{root_or_list}: no images found (wanted .jpg .png .webp …, at any depth)")
    return photos


def name_of(photo: Path, root_or_list: Path) -> str:
    """The photo's posix path relative to its folder or list; a listed path outside it stays as it is.

    Bytes that are not UTF-8 become ``\\xNN``.
    """
    folder = root_or_list.parent if root_or_list.is_file() else root_or_list
    path = photo.relative_to(folder) if photo.is_relative_to(folder) else photo
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def listing_identity(named: Iterable[tuple[str, Path]]) -> dict[str, Scalar]:
    """What tells listings apart without reading the photos: how many, sha256 over names and byte sizes."""
    digest = hashlib.sha256()
    rows = list(named)
    for name, path in rows:
        size = path.stat().st_size if path.exists() else -1
        digest.update(f"{name}\0{size}\n".encode())
    return {"files": len(rows), "listing_sha256": digest.hexdigest()}


def _photos_below(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _listed_photos(listing: Path) -> list[Path]:
    if listing.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{listing}: one image, wanted a folder of images or a text file that lists them")
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{listing}: not UTF-8 text, wanted one image path a line") from error
    photos = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            photos.append(listing.parent / line)
            if not _is_file(photos[-1]):
                raise InputError(
                    f"{listing}:{number}: {line}: no such file, wanted a path relative to this list"
                )
    return photos


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a line that no file system takes for a name
        return False


def _decode(
    file: BinaryIO, max_side_px: int | None, *, keeps_alpha: bool
) -> tuple[UInt8Array, UInt8Array | None]:  # (H, W, 3), (H, W)
    image: Image.Image = Image.open(file, formats=_formats())
    size = _fitted(image.size, max_side_px)
    if size != image.size:
        image.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG is decoded at 1/2, 1/4 or 1/8 straight away
    image.load()
    turn = _UPRIGHT_BY.get(_orientation(image))
    clear = _with_alpha(image) if keeps_alpha else None
    whole = _to_rgb(image) if clear is None else clear
    if size != whole.size:
        whole = whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    pixels = np.array(whole if turn is None else whole.transpose(turn))
    if clear is None:
        return pixels, None
    alpha = pixels[..., 3].copy()
    return np.where(alpha[..., None] > 0, pixels[..., :3], np.uint8(255)), alpha


def _with_alpha(image: Image.Image) -> Image.Image | None:
    """The image as RGBA, when any of its pixels is not opaque. Pillow resizes RGBA weighted by opacity."""
    if image.mode.startswith(("I", "F")) or not image.has_transparency_data:
        return None
    clear = image.convert("RGBA")
    return clear if np.asarray(clear.getchannel("A")).min() < 255 else None


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in _FORMATS_THAT_RUN_PROGRAMS]


def _fitted(size: tuple[int, int], max_side_px: int | None) -> tuple[int, int]:
    if max_side_px is None or max(size) <= max_side_px:
        return size
    scale = max_side_px / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where the EXIF block is damaged, for then nothing says otherwise."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_deep_grey_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _deep_grey_to_8_bits(grey: npt.NDArray[np.int32] | npt.NDArray[np.float32]) -> UInt8Array:  # (H, W)
    low, high = float(grey.min()), float(grey.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels that are not finite numbers")
    if grey.dtype.kind == "i" and low >= 0 and high <= 0xFFFF:
        low, high = 0.0, 65535.0  # Pillow opens 16-bit PGM so, scaled to the full range
    scaled = (grey.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    return np.round(scaled).astype(np.uint8)

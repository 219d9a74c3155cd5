"""Pictures inside the page: WebP in data URLs, all together within a bound."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

BOUND_BYTES = 5_000_000  # of all data URLs
_LEVELS = ((1320, 78), (1320, 62), (1100, 56), (880, 50), (660, 45), (440, 40), (220, 30))  # width, quality
_MOST_PX = 60_000_000  # of a picture that is worth decoding


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for an ``img``. alt: what it shows."""

    url: str
    width: int
    height: int
    alt: str


def fit_pictures(
    images: Sequence[tuple[Image.Image, str]], bound_bytes: int = BOUND_BYTES
) -> list[Picture | None]:
    """The images, each with what it shows, as large and as fine as the bound allows for all of them.

    Where the smallest are too large still, the last ones are left out and None.
    """
    for width, quality in _LEVELS:
        pictures = [_picture(image, alt, width, quality) for image, alt in images]
        if sum(len(picture.url) for picture in pictures) <= bound_bytes:
            return [*pictures]
    kept: list[Picture | None] = []
    left = bound_bytes
    for picture in pictures:
        left -= len(picture.url)
        kept.append(picture if left >= 0 else None)
    return kept


def open_picture(place: object) -> Image.Image | None:
    """A picture's file, or None where there is none or it is no picture that can be shown."""
    try:
        with Image.open(str(place)) as file:
            if file.width * file.height > _MOST_PX:
                return None
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # half-written in a run that is under way


def _picture(image: Image.Image, alt: str, width: int, quality: int) -> Picture:
    if image.width > width:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=quality, method=4)
    url = "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()
    return Picture(url, image.width, image.height, alt)

"""Object images from photos on disk: a folder, at any depth, or a text file that lists them."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Literal

from pydantic import Field

from configs.errors import InputError
from configs.home import locate
from factory.photos import UnreadablePhoto, list_photos, listing_identity, name_of, read_cut_out
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array, Unreadable


class ImagesConfig(SourceConfig):
    """Photos that each show one object, well centred: classification images.

    root: folder or list file; a relative one is looked up from the working directory, then from the home.
    centre_crop_frac: the part of both sides kept around the centre (METHOD §1.2: 0.5 for the paper's cars).
    max_side_px: the longest side of what is kept.
    """

    kind: Literal["images"] = "images"
    root: Path | None = None
    max_side_px: int = Field(default=320, gt=0)
    centre_crop_frac: float = Field(default=1.0, gt=0, le=1)

    def open(self, seed: int, home: Path) -> "PhotoSource":
        """The photos, listed now and read when asked for. Raises InputError when there are none."""
        if self.root is None:
            raise InputError("source.root is not set: say where the photos are, e.g. source.root=photos/")
        return PhotoSource(locate(self.root, home), self.max_side_px, self.centre_crop_frac)


class PhotoSource:
    """Slot ``i`` is the ``i``-th photo of the listing. Holds the paths, and one photo at a time."""

    def __init__(self, root: Path, max_side_px: int, centre_crop_frac: float) -> None:
        self._photos = [(name_of(path, root), path) for path in list_photos(root)]
        self._read_side_px = ceil(max_side_px / centre_crop_frac)
        self._centre_crop_frac = centre_crop_frac

    @property
    def size(self) -> int:
        return len(self._photos)

    def images(self, start: int, count: int) -> Iterator[ObjectImage | Unreadable]:
        """Slots ``start`` to ``start + count``, fewer where the listing ends."""
        for name, path in self._photos[start : start + count]:
            try:
                photo, alpha = read_cut_out(path, self._read_side_px)
            except UnreadablePhoto as error:
                yield Unreadable(name, str(error))
            else:
                image = centre_crop(photo, self._centre_crop_frac)
                opacity = None if alpha is None else centre_crop(alpha, self._centre_crop_frac)
                yield ObjectImage(name, image, {"source": "images", "file": name}, opacity)

    def identity(self) -> Mapping[str, Scalar]:
        """Number of photos, and sha256 over their relative names and byte sizes; not where they lie."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Scalar]:
        return listing_identity(self._photos)


def centre_crop(image: UInt8Array, frac: float) -> UInt8Array:  # (H * frac, W * frac, …)
    """The middle of the image (H, W, …), ``frac`` of both sides."""
    height, width = (max(1, round(side * frac)) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]

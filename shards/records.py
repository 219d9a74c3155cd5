"""What a crop and a background mean: the records that the factory writes and the trainer reads.

A **crop** is one object cut out of its photo: its pixels and its opacity, tight to the opacity's box plus a
small margin. A **background** is a photo without any object of the set's classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError

Scalar = str | int | float
UInt8Array = npt.NDArray[np.uint8]

_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, eq=False)
class CropRecord:
    """One object, cut out.

    key: unique in its set, sorts in making order, letters, digits, ``_`` and ``-`` only.
    label: one of the manifest's classes.
    image: uint8 (H, W, 3) RGB.
    mask: uint8 (H, W), opacity 0..255.
    origin: where it comes from, scalars only: source kind, file or seed, scores. The factory always writes
        ``frame_w``, ``frame_h`` (size of the source frame, px) and ``frame_x``, ``frame_y`` (position of this
        image's top left corner in that frame, px), so that the frame's geometry can be restored.

    Raises ShardError when shapes, types or the key do not fit.
    """

    key: str
    label: str
    image: UInt8Array  # (H, W, 3)
    mask: UInt8Array  # (H, W)
    origin: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_key(self.key)
        _check_image(self.key, self.image)
        if self.mask.dtype != np.uint8 or self.mask.ndim != 2:
            raise ShardError(f"{self.key}: mask is {self.mask.dtype} {self.mask.shape}, wanted uint8 (H, W)")
        if self.mask.shape != self.image.shape[:2]:
            mask, image = (f"{a.shape[1]}x{a.shape[0]}" for a in (self.mask, self.image))
            raise ShardError(f"{self.key}: mask is {mask}, image is {image}")


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundRecord:
    """One photo to paste on; ``key``, ``image``, ``origin`` and errors as in `CropRecord`."""

    key: str
    image: UInt8Array  # (H, W, 3)
    origin: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_key(self.key)
        _check_image(self.key, self.image)


Record = CropRecord | BackgroundRecord


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise ShardError(f"{key!r}: not a record key, wanted letters, digits, '_' and '-' only")


def _check_image(key: str, image: UInt8Array) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShardError(f"{key}: image is {image.dtype} {image.shape}, wanted uint8 (H, W, 3)")

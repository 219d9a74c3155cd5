"""Training images of one size, drawn by number: a batch is a function of (seed, stream, step)."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from configs.errors import InputError
from factory.stages import ObjectImage, ObjectSource, UInt8Array, Unreadable

IntArray = npt.NDArray[np.int64]
Fit = Literal["crop", "squash"]

_READ_AT_ONCE = 64  # slots


class ImagePool(Protocol):
    """Where a training takes its images from."""

    @property
    def size_px(self) -> int:
        """Side of the square images."""
        ...

    def batch(self, step: int, count: int, stream: int = 0) -> Tensor:
        """Batch number ``step``: uint8 (count, 3, size_px, size_px) RGB. Streams are independent orders."""
        ...


class PhotoPool:
    """A finite source, held in memory. Every epoch of a stream shows each image once, in a new order.

    images: uint8 (N, S, S, 3). flip: mirror every other image, by lot. aspect: width over height that the
    images had before they were squashed (the median), 1 when they were not.
    """

    def __init__(self, images: UInt8Array, seed: int, *, flip: bool = True, aspect: float = 1.0) -> None:
        if len(images) == 0:
            raise ValueError("no images, wanted at least one")
        self.images, self.aspect = images, aspect
        self._seed, self._flip = seed, flip
        self._epoch = lru_cache(maxsize=4)(self._draw_epoch)  # a batch lies in one epoch, or in two

    @property
    def size_px(self) -> int:
        return int(self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, count: int, stream: int = 0) -> Tensor:
        """Images ``step * count`` to ``(step + 1) * count`` of the stream's endless row."""
        chosen = [self._draw(stream, position) for position in range(step * count, (step + 1) * count)]
        images = np.stack([self.images[i, :, ::-1] if mirrored else self.images[i] for i, mirrored in chosen])
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def _draw(self, stream: int, position: int) -> tuple[int, bool]:
        epoch, place = divmod(position, len(self.images))
        order, mirrored = self._epoch(stream, epoch)
        return int(order[place]), self._flip and bool(mirrored[place])

    def _draw_epoch(self, stream: int, epoch: int) -> tuple[IntArray, IntArray]:
        rng = np.random.default_rng([self._seed, stream, epoch])
        return rng.permutation(len(self.images)), rng.integers(0, 2, len(self.images))


class EndlessPool:
    """A generator's images, made as they are needed: no image is ever shown twice."""

    def __init__(self, source: ObjectSource, size_px: int, fit: Fit = "crop") -> None:
        self._source, self._size_px, self._fit = source, size_px, fit

    @property
    def size_px(self) -> int:
        return self._size_px

    def batch(self, step: int, count: int, stream: int = 0) -> Tensor:
        """Slots of the source; streams lie 2^40 slots apart."""
        start = stream * 2**40 + step * count
        images = [
            fit_square(item.image, self._size_px, self._fit) for item in _whole(self._source, start, count)
        ]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def open_pool(
    source: ObjectSource, size_px: int, seed: int, *, fit: Fit = "crop", flip: bool = True
) -> PhotoPool | EndlessPool:
    """The source's images as a pool: read into memory at once when finite, unreadable ones left out.

    Raises InputError when not one can be read.
    """
    if source.size is None:
        return EndlessPool(source, size_px, fit)
    images: list[UInt8Array] = []
    aspects: list[float] = []
    for item in _whole(source, 0, source.size):
        images.append(fit_square(item.image, size_px, fit))
        aspects.append(item.image.shape[1] / item.image.shape[0] if fit == "squash" else 1.0)
    if not images:
        raise InputError(f"source: {source.size} images, none of them readable: wanted photos")
    return PhotoPool(np.stack(images), seed, flip=flip, aspect=float(np.median(aspects)))


def fit_square(image: UInt8Array, side_px: int, fit: Fit) -> UInt8Array:
    """The image (H, W, 3) as a square: its centre, or all of it with the aspect ignored."""
    height, width = image.shape[:2]
    if fit == "crop" and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    shrinks = min(image.shape[:2]) >= side_px
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=how), np.uint8)


def to_signed(images: Tensor) -> Tensor:
    """uint8 0..255 as float32 -1..1."""
    return images.float() / 127.5 - 1


def _whole(source: ObjectSource, start: int, count: int) -> Iterator[ObjectImage]:
    for first in range(start, start + count, _READ_AT_ONCE):
        for item in source.images(first, min(_READ_AT_ONCE, start + count - first)):
            if not isinstance(item, Unreadable):
                yield item

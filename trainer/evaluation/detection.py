"""Detection in a long row of pictures: what a detector is shown of each, in which batches, and back again."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import torch

from configs.errors import InputError
from trainer.detector import Detector, DetectorConfig
from trainer.imaging.images import resize_antialiased
from trainer.sample import Detections, UInt8Array

Size = int | Literal["native", "square"]

_BATCH = 16
_LEAST_SIDE_PX = 640  # a batch holds no more pixels than 16 squares of this, or of the detector's size
_KEPT_PX = 100_000_000  # of the pictures that wait with their batch
_AHEAD = 8  # pictures made while the detector works
_THREADS = max(2, min(8, os.cpu_count() or 1))

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True, eq=False)
class Shown(Generic[T]):
    """A picture as the detector is shown it. width, height: px of the file, in which the boxes are wanted.

    what: anything that it is known by. kept_px: pixels that ``what`` holds in memory.
    """

    what: T
    image: UInt8Array  # (H, W, 3) RGB
    width: int
    height: int
    kept_px: int = 0


def size_of(text: str) -> Size:
    """``native``, ``square`` or a number of px. Raises ValueError."""
    if text == "native":
        return "native"
    if text == "square":
        return "square"
    size = int(text)
    if size < 1:
        raise ValueError(text)
    return size


def check_size(size: Size, detector: Detector, config: DetectorConfig) -> None:
    """Raises InputError for a detector that detects in its square alone."""
    if size != "square" and not detector.any_size:
        where = f"squares of {config.image_size} px alone"
        raise InputError(f"--size: found {size}, and this '{config.kind}' detects in {where}: wanted square")


def resized(image: UInt8Array, size: Size, square_px: int) -> UInt8Array:
    """What is shown of an image: the detector's square, its aspect given up; the image itself (``native``);
    or with a longer side of so many px, its aspect kept.
    """
    if size == "native":
        return image
    if size == "square":
        return resize_antialiased(image, square_px, square_px)
    height, width = image.shape[:2]
    scale = size / max(width, height)
    return resize_antialiased(image, max(1, round(width * scale)), max(1, round(height * scale)))


def detect_all(
    detector: Detector, pictures: Iterable[Shown[T]], square_px: int, device: torch.device
) -> Iterator[tuple[T, Detections]]:
    """What is found in each picture, in pixels of its file, in their order. It reads a few pictures ahead.

    Pictures of one shape make a batch with those near them in the row, so the answers, which depend on a
    batch's size in the last digits, depend on the row alone.
    """
    for window in _windows(pictures, _BATCH * max(square_px, _LEAST_SIDE_PX) ** 2):
        shapes = [picture.image.shape for picture in window]
        found: dict[int, Detections] = {}
        for shape in dict.fromkeys(shapes):
            places = [place for place, other in enumerate(shapes) if other == shape]
            stacked = np.stack([window[place].image for place in places])
            images = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
            found |= dict(zip(places, detector.detect(images), strict=True))
        for place, picture in enumerate(window):
            height, width = picture.image.shape[:2]
            yield picture.what, found[place].scaled(picture.width / width, picture.height / height)


def _windows(pictures: Iterable[Shown[T]], most_px: int) -> Iterator[list[Shown[T]]]:
    """The pictures in rows of at most 16, and of few more pixels than these."""
    window: list[Shown[T]] = []
    for picture in pictures:
        window.append(picture)
        shown = sum(each.image.size // 3 for each in window)
        kept = sum(each.kept_px for each in window)
        if len(window) == _BATCH or shown >= most_px or kept >= _KEPT_PX:
            yield window
            window = []
    if window:
        yield window


def made_ahead(make: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """``make`` of each item, in their order, some of them made ahead by threads. Its errors come in order."""
    waiting: deque[Future[U]] = deque()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

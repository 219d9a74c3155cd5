"""Where objects are pasted while the copy-pasting GAN is trained: squares out of background photos."""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import Tensor

from factory.stages import UInt8Array

_MIN_PART = 0.5  # of a photo's shorter side


class BackgroundPool:
    """Square parts of photos, half to all of the shorter side, anywhere, mirrored by lot.

    A batch is a function of (seed, stream, step).
    """

    def __init__(self, photos: Iterable[UInt8Array], size_px: int, seed: int) -> None:
        """photos: uint8 (H, W, 3) of any size; they are kept no larger than it takes."""
        self._photos = [_reduced(photo, round(size_px / _MIN_PART)) for photo in photos]
        if not self._photos:
            raise ValueError("no photos, wanted at least one")
        self._size_px, self._seed = size_px, seed

    @property
    def size_px(self) -> int:
        return self._size_px

    def batch(self, step: int, count: int, stream: int = 0) -> Tensor:
        """Batch number ``step``: uint8 (count, 3, size_px, size_px) RGB."""
        rng = np.random.default_rng([self._seed, stream, step])
        squares = np.stack([self._square(rng) for _ in range(count)])
        return torch.from_numpy(squares).permute(0, 3, 1, 2)

    def _square(self, rng: np.random.Generator) -> UInt8Array:
        photo = self._photos[int(rng.integers(len(self._photos)))]
        height, width = photo.shape[:2]
        side = max(1, round(min(height, width) * rng.uniform(_MIN_PART, 1)))
        top, left = (int(rng.integers(room - side + 1)) for room in (height, width))
        part = photo[top : top + side, left : left + side]
        part = part[:, ::-1] if rng.random() < 0.5 else part
        how = cv2.INTER_AREA if side >= self._size_px else cv2.INTER_LINEAR
        size = (self._size_px, self._size_px)
        return np.asarray(cv2.resize(np.ascontiguousarray(part), size, interpolation=how), np.uint8)


def _reduced(photo: UInt8Array, shorter_px: int) -> UInt8Array:
    height, width = photo.shape[:2]
    scale = shorter_px / min(height, width)
    if scale >= 1:
        return photo
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)

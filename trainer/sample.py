"""The seams of the trainer: what passes from the stream to the detector to the metrics.

Boxes are xyxy pixels unless a name says otherwise.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What an image shows.

    boxes: float32 (N, 4), xyxy pixels, 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H.
    labels: int64 (N,), 1..num_classes; 0 is the background.
    ignore: bool (N,), objects that are neither to be found nor to be blamed.
    """

    boxes: FloatArray  # (N, 4)
    labels: npt.NDArray[np.int64]  # (N,)
    ignore: npt.NDArray[np.bool_]  # (N,)

    def __len__(self) -> int:
        return len(self.labels)


def make_target(boxes: Any, labels: Any = None, ignore: Any = None) -> Target:
    """A Target of any array-likes; labels default to 1, ignore to False."""
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    count = len(boxes)
    labels = np.ones(count, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(count)
    ignore = np.zeros(count, bool) if ignore is None else np.asarray(ignore, bool).reshape(count)
    return Target(boxes, labels, ignore)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image for the detector. key names it in logs and errors."""

    key: str
    image: UInt8Array  # (H, W, 3) RGB
    target: Target


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples of one size. images: uint8 (B, 3, H, W) RGB; one entry of the tuples per image."""

    keys: tuple[str, ...]
    images: Tensor  # (B, 3, H, W) uint8
    boxes: tuple[Tensor, ...]  # (N_b, 4) float32
    labels: tuple[Tensor, ...]  # (N_b,) int64
    ignore: tuple[Tensor, ...]  # (N_b,) bool

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""

        def move(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)

        images = self.images.to(device, non_blocking=True)
        return Batch(self.keys, images, move(self.boxes), move(self.labels), move(self.ignore))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; torch's loader asks for it by this name."""

        def pin(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.pin_memory() for tensor in tensors)

        return Batch(self.keys, self.images.pin_memory(), pin(self.boxes), pin(self.labels), pin(self.ignore))


def collate(samples: "list[Sample]") -> Batch:
    """Stack samples of one size."""
    planes = np.empty((len(samples), 3, *samples[0].image.shape[:2]), np.uint8)
    for sample, into in zip(samples, planes, strict=True):
        cv2.split(sample.image, list(into))  # five times as fast as a permuted copy
    return Batch(
        keys=tuple(sample.key for sample in samples),
        images=torch.from_numpy(planes),
        boxes=tuple(torch.from_numpy(sample.target.boxes) for sample in samples),
        labels=tuple(torch.from_numpy(sample.target.labels) for sample in samples),
        ignore=tuple(torch.from_numpy(sample.target.ignore) for sample in samples),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector found in one image, best first. Boxes are xyxy pixels of the image it was given."""

    boxes: FloatArray  # (N, 4)
    scores: FloatArray  # (N,) 0..1
    labels: npt.NDArray[np.int64]  # (N,) 1..num_classes

    def __len__(self) -> int:
        return len(self.scores)

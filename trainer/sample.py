"""The seams of the trainer: what passes from the stream to the detector to the metrics.

Boxes are xyxy pixels unless a name says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

NUM_LANDMARKS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What an image shows.

    boxes: float32 (N, 4), xyxy pixels, 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H.
    labels: int64 (N,), 1..num_classes; 0 is the background.
    ignore: bool (N,), objects that are neither to be found nor to be blamed.
    landmarks: float32 (N, 5, 2), xy pixels: left eye, right eye, nose, left and right corner of the mouth, as
    seen in the image. has_landmarks: bool (N,), the objects that have them; the others' numbers mean nothing.
    Both or neither.
    """

    boxes: FloatArray  # (N, 4)
    labels: npt.NDArray[np.int64]  # (N,)
    ignore: npt.NDArray[np.bool_]  # (N,)
    landmarks: FloatArray | None = None  # (N, 5, 2)
    has_landmarks: npt.NDArray[np.bool_] | None = None  # (N,)

    def __len__(self) -> int:
        return len(self.labels)


def make_target(
    boxes: Any, labels: Any = None, ignore: Any = None, landmarks: Any = None, has_landmarks: Any = None
) -> Target:
    """A Target of any array-likes; labels default to 1, ignore to False, landmarks to known ones."""
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    count = len(boxes)
    labels = np.ones(count, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(count)
    ignore = np.zeros(count, bool) if ignore is None else np.asarray(ignore, bool).reshape(count)
    if landmarks is None:
        return Target(boxes, labels, ignore)
    landmarks = np.asarray(landmarks, np.float32).reshape(count, NUM_LANDMARKS, 2)
    known = np.ones(count, bool) if has_landmarks is None else np.asarray(has_landmarks, bool).reshape(count)
    return Target(boxes, labels, ignore, landmarks, known)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image for the detector. key names it in logs and errors."""

    key: str
    image: UInt8Array  # (H, W, 3) RGB
    target: Target


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples of one size. images: uint8 (B, 3, H, W) RGB; one entry of the tuples per image.

    landmarks, has_landmarks: see `Target`; None where no sample has any.
    """

    keys: tuple[str, ...]
    images: Tensor  # (B, 3, H, W) uint8
    boxes: tuple[Tensor, ...]  # (N_b, 4) float32
    labels: tuple[Tensor, ...]  # (N_b,) int64
    ignore: tuple[Tensor, ...]  # (N_b,) bool
    landmarks: tuple[Tensor, ...] | None = None  # (N_b, 5, 2) float32
    has_landmarks: tuple[Tensor, ...] | None = None  # (N_b,) bool

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""

        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; torch's loader asks for it by this name."""

        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def change_all(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(change(tensor) for tensor in tensors)

        boxes, labels, ignore = (change_all(part) for part in (self.boxes, self.labels, self.ignore))
        points, known = (
            None if part is None else change_all(part) for part in (self.landmarks, self.has_landmarks)
        )
        return Batch(self.keys, change(self.images), boxes, labels, ignore, points, known)


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
        **_collate_landmarks([sample.target for sample in samples]),
    )


def _collate_landmarks(targets: list[Target]) -> dict[str, tuple[Tensor, ...]]:
    """landmarks and has_landmarks of a Batch, or nothing where no target has any."""
    if all(target.landmarks is None for target in targets):
        return {}
    points, known = [], []
    for target in targets:
        none = np.zeros((len(target), NUM_LANDMARKS, 2), np.float32)
        points.append(torch.from_numpy(none if target.landmarks is None else target.landmarks))
        flags = np.zeros(len(target), bool) if target.has_landmarks is None else target.has_landmarks
        known.append(torch.from_numpy(flags))
    return {"landmarks": tuple(points), "has_landmarks": tuple(known)}


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector found in one image, best first. Boxes are xyxy pixels of the image it was given.

    landmarks: see `Target`; None from a detector that finds none.
    """

    boxes: FloatArray  # (N, 4)
    scores: FloatArray  # (N,) 0..1
    labels: npt.NDArray[np.int64]  # (N,) 1..num_classes
    landmarks: FloatArray | None = None  # (N, 5, 2)

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, rows: Any) -> "Detections":
        """Some of them: rows is an index or a mask (N,)."""
        points = None if self.landmarks is None else self.landmarks[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], points)

    def scaled(self, x: float, y: float) -> "Detections":
        """The same in an image that is so many times as wide and high."""
        boxes = (self.boxes * np.array([x, y, x, y], np.float32)).astype(np.float32)
        points = self.landmarks
        if points is not None:
            points = (points * np.array([x, y], np.float32)).astype(np.float32)
        return Detections(boxes, self.scores, self.labels, points)

"""Whether a program finds what the detector finds."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from trainer.deployment.program import Arrays, Call
from trainer.detector import Detector
from trainer.sample import NUM_LANDMARKS, Detections, FloatArray, UInt8Array

_PLACE_PX = 0.1  # more is another place
_SCORE = 1e-3
_LONE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two lists of detections of the same images.

    both: found by both, each with one of its label, its score to within 0.001, its box and landmarks to
    within 0.1 px. lone: found by one alone. Rounding leaves a few where a score or an overlap lies on a
    threshold. px, score: the greatest differences of those found by both.
    """

    images: int = 0
    both: int = 0
    lone: int = 0
    px: float = 0.0
    score: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether at most one in a hundred is found by one alone."""
        return self.lone <= _LONE_SHARE * (self.both + self.lone)

    def __str__(self) -> str:
        return (
            f"{self.images} images: {self.both} detections by both, {self.lone} by one alone, "
            f"coordinates differ by {self.px:.2g} px at most, scores by {self.score:.2g}"
        )

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.images + other.images,
            self.both + other.both,
            self.lone + other.lone,
            max(self.px, other.px),
            max(self.score, other.score),
        )


def compare(detector: Detector, call: Call, batches: Iterable[UInt8Array]) -> Agreement:
    """What a detector finds in batches of images (B, 3, H, W), and what the file of it finds."""
    found = Agreement()
    for batch in batches:
        both = zip(detector.detect(torch.from_numpy(batch)), unpacked(call(batch)), strict=True)
        found = sum((agreement(*pair) for pair in both), found)
    return found


def unpacked(outputs: Arrays) -> list[Detections]:
    """A program's outputs without the places that are not filled."""
    names = [name for name in ("boxes", "scores", "labels", "landmarks") if name in outputs]
    return [
        Detections(*(outputs[name][image, :count] for name in names))
        for image, count in enumerate(outputs["counts"])
    ]


def agreement(first: Detections, second: Detections) -> Agreement:
    """Of one image. Equal scores may stand in any order."""
    places, scores = [], []
    free, all_places = np.ones(len(second), bool), _places(second)
    for place, score, label in zip(_places(first), first.scores, first.labels, strict=True):
        off_px, off = np.abs(all_places - place).max(1, initial=0), np.abs(second.scores - score)
        fits = free & (second.labels == label) & (off_px <= _PLACE_PX) & (off <= _SCORE)
        if fits.any():
            nearest = int(np.where(fits, off_px, np.inf).argmin())
            free[nearest] = False
            places.append(float(off_px[nearest]))
            scores.append(float(off[nearest]))
    lone = len(first) + len(second) - 2 * len(places)
    return Agreement(1, len(places), lone, max(places, default=0.0), max(scores, default=0.0))


def _places(found: Detections) -> FloatArray:
    """Boxes, and landmarks where there are, as (N, numbers) px."""
    if found.landmarks is None:
        return found.boxes
    return np.concatenate((found.boxes, found.landmarks.reshape(len(found), 2 * NUM_LANDMARKS)), 1)

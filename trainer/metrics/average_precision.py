"""Precision, recall and the area between them, for detections of one class.

The rules are the Pascal VOC devkit's (Everingham et al. 2010, section 4.2). All detections of a class are
ranked by score; ties keep the order of the images, then their own. Each is compared with the one object of
its image that it overlaps most, and with no other: an ignored object makes the detection count neither way,
the first detection of an object is true, every further one is false.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.metrics.overlaps import (
    BoolArray,
    Float64Array,
    IntArray,
    Overlaps,
    best_pairs,
    find_overlaps,
)
from trainer.sample import Detections, Target

Method = Literal["area", "11point", "101point"]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The ranked detections of one class that count, and the objects of each image that are to be found.

    scores: float64 (D,), falling. is_true: bool (D,). images: int64 (D,), where each detection was made.
    objects_per_image: int64 (N,), without the ignored ones.
    """

    scores: Float64Array  # (D,)
    is_true: BoolArray  # (D,)
    images: IntArray  # (D,)
    objects_per_image: IntArray  # (N,)

    @property
    def num_objects(self) -> int:
        return int(self.objects_per_image.sum())


def match_detections(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    iou: float = 0.5,
    plus_one: bool = False,
    strict: bool = False,
) -> dict[int, Matches]:
    """Judge the detections of each class, 1..num_classes, over all images.

    A detection overlaps an object when their IoU is at least ``iou`` (strict: more than ``iou``).
    plus_one: coordinates name the first and last pixel, so that a box is x1 - x0 + 1 wide (VOC's integers).
    Raises ValueError when there is not one of each per image.
    """
    overlaps = find_overlaps(detections, targets, iou, plus_one=plus_one)
    claims = claimed_objects(overlaps, iou, strict)
    return {label: matches_of_label(overlaps, claims, label) for label in range(1, num_classes + 1)}


def claimed_objects(overlaps: Overlaps, iou: float, strict: bool = False) -> IntArray:
    """The object that each detection overlaps most and enough, (D,); -1 for none."""
    best = best_pairs(overlaps)
    best = best[overlaps.ious[best] > iou] if strict else best[overlaps.ious[best] >= iou]
    claims = np.full(len(overlaps.scores), -1)
    claims[overlaps.detections[best]] = overlaps.objects[best]
    return claims


def first_claims(claims: IntArray) -> BoolArray:
    """Of ranked claims, (D,), the first of each object."""
    objects, first = np.unique(claims, return_index=True)
    is_first = np.zeros(len(claims), bool)
    is_first[first[objects >= 0]] = True
    return is_first


def matches_of_label(overlaps: Overlaps, claims: IntArray, label: int) -> Matches:
    """Rank the detections of a label, ties in their order; the first claim of each object is true."""
    chosen = np.flatnonzero(overlaps.labels == label)
    chosen = chosen[np.argsort(-overlaps.scores[chosen], kind="stable")]
    chosen = chosen[~np.append(overlaps.ignored, False)[claims[chosen]]]  # a claim of -1 reads the False
    counted = overlaps.object_images[(overlaps.object_labels == label) & ~overlaps.ignored]
    return Matches(
        scores=overlaps.scores[chosen],
        is_true=first_claims(claims[chosen]),
        images=overlaps.images[chosen],
        objects_per_image=np.bincount(counted, minlength=overlaps.num_images),
    )


def precision_recall(matches: Matches) -> tuple[Float64Array, Float64Array]:
    """Precision and recall (D,) among the first 1, 2, … D detections. Recall is NaN without objects."""
    num_true = np.cumsum(matches.is_true, dtype=np.float64)
    precision = num_true / np.arange(1, len(num_true) + 1)
    recall = num_true / matches.num_objects if matches.num_objects else np.full_like(num_true, np.nan)
    return precision, recall


def average_precision(recall: Float64Array, precision: Float64Array, method: Method = "area") -> float:
    """Average precision of a curve; 0 for an empty one. Points without a true detection may be left out.

    area: area under the best precision at this recall or beyond (VOC 2010 and later).
    11point: mean of that best precision at recall 0, 0.1, … 1 (VOC 2007). 101point: at 0, 0.01, … 1 (COCO).
    """
    if not len(recall):
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    steps = np.arange(11) / 10 if method == "11point" else np.linspace(0, 1, 101)  # 3/10, not 3 * 0.1
    reached = np.searchsorted(recall, steps, side="left")
    return float(np.append(best, 0.0)[reached].mean())


def average_precision_of(matches: Matches, method: Method = "area") -> float:
    """Average precision of a class, 0..1; NaN without objects that count."""
    if not matches.num_objects:
        return np.nan
    precision, recall = precision_recall(matches)
    return average_precision(recall, precision, method)

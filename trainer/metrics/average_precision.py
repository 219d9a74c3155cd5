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
import numpy.typing as npt

from trainer.sample import Detections, FloatArray, Target

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Method = Literal["area", "11point"]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The ranked detections of one class that count, and the number of objects to be found.

    scores: float64 (D,), falling. is_true: bool (D,). num_objects leaves out the ignored ones.
    """

    scores: Float64Array  # (D,)
    is_true: BoolArray  # (D,)
    num_objects: int


def pairwise_iou(first: FloatArray, second: FloatArray, plus_one: bool = False) -> Float64Array:
    """IoU of xyxy boxes, (N, 4) and (M, 4) -> (N, M), in float64.

    plus_one: coordinates name the first and last pixel, so that a box is x1 - x0 + 1 wide (VOC's integers).
    """
    one, two = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    extra = 1.0 if plus_one else 0.0
    low = np.maximum(one[:, None, :2], two[None, :, :2])  # (N, M, 2)
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])  # (N, M, 2)
    shared: Float64Array = np.clip(high - low + extra, 0, None).prod(axis=2)  # (N, M)
    areas = [(boxes[:, 2:] - boxes[:, :2] + extra).prod(axis=1) for boxes in (one, two)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    ious: Float64Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious


def match_detections(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    label: int,
    iou: float = 0.5,
    plus_one: bool = False,
    strict: bool = False,
) -> Matches:
    """Judge the detections of one class over all images.

    A detection overlaps an object when their IoU is at least ``iou`` (strict: more than ``iou``).
    Raises ValueError when there is not one of each per image.
    """
    if len(detections) != len(targets):
        raise ValueError(
            f"detections of {len(detections)} images, wanted {len(targets)} as there are targets"
        )
    scores, objects, ignored = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    first_object = 0
    for found, target in zip(detections, targets, strict=True):
        of_class = target.labels == label
        chosen = found.labels == label
        best, hit = _best_object(found.boxes[chosen], target.boxes[of_class], iou, plus_one, strict)
        scores.append(found.scores[chosen].astype(np.float64))
        objects.append(np.where(hit, best + first_object, -1))
        ignored.append(hit & np.append(target.ignore[of_class], False)[best])
        first_object += int(of_class.sum())
    num_objects = sum(int(((t.labels == label) & ~t.ignore).sum()) for t in targets)
    return _rank(np.concatenate(scores), np.concatenate(objects), np.concatenate(ignored), num_objects)


def _best_object(
    boxes: FloatArray, objects: FloatArray, iou: float, plus_one: bool, strict: bool
) -> tuple[npt.NDArray[np.int64], BoolArray]:
    """Index of the object that each box overlaps most (the first of equals), and whether enough."""
    if not len(objects) or not len(boxes):
        return np.zeros(len(boxes), np.int64), np.zeros(len(boxes), bool)
    overlaps = pairwise_iou(boxes, objects, plus_one)
    most = overlaps.max(axis=1)
    return overlaps.argmax(axis=1), most > iou if strict else most >= iou


def _rank(
    scores: Float64Array, objects: npt.NDArray[np.int64], ignored: BoolArray, num_objects: int
) -> Matches:
    """Rank; the first detection of each object is the true one."""
    order = np.argsort(-scores, kind="stable")
    order = order[~ignored[order]]
    ranked = objects[order]
    claimed, first = np.unique(ranked, return_index=True)
    is_true = np.zeros(len(ranked), bool)
    is_true[first[claimed >= 0]] = True
    return Matches(scores[order], is_true, num_objects)


def precision_recall(matches: Matches) -> tuple[Float64Array, Float64Array]:
    """Precision and recall (D,) among the first 1, 2, … D detections. Recall is NaN without objects."""
    num_true = np.cumsum(matches.is_true, dtype=np.float64)
    precision = num_true / np.arange(1, len(num_true) + 1)
    recall = num_true / matches.num_objects if matches.num_objects else np.full_like(num_true, np.nan)
    return precision, recall


def average_precision(recall: Float64Array, precision: Float64Array, method: Method = "area") -> float:
    """Average precision of a curve; 0 for an empty one.

    area: area under the best precision at this recall or beyond (VOC 2010 and later).
    11point: mean of that best precision at recall 0, 0.1, … 1 (VOC 2007).
    """
    if not len(recall):
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    steps = np.arange(11) / 10  # 3/10, not 3 * 0.1: equal to a recall of three in ten
    reached = np.searchsorted(recall, steps, side="left")
    return float(np.append(best, 0.0)[reached].mean())

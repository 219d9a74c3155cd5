"""All detections and objects of a set in one table each, and the few pairs of them that overlap.

Most boxes of a photo lie apart, so the metrics work on the sparse pairs rather than on a matrix an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.sample import Detections, FloatArray, Target

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """D detections and G objects, both in the order of the images, and P pairs in order of detection, object.

    ious: float64 (P,), all pairs of an image with at least the IoU that was asked for.
    """

    num_images: int
    images: IntArray  # (D,)
    scores: Float64Array  # (D,)
    labels: IntArray  # (D,)
    areas: Float64Array  # (D,) px²
    object_images: IntArray  # (G,)
    object_labels: IntArray  # (G,)
    object_areas: Float64Array  # (G,) px²
    ignored: BoolArray  # (G,)
    detections: IntArray  # (P,)
    objects: IntArray  # (P,)
    ious: Float64Array  # (P,)


def find_overlaps(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    least: float,
    *,
    plus_one: bool = False,
    crowds: bool = False,
    across_labels: bool = False,
) -> Overlaps:
    """The pairs of one image with an IoU of at least ``least`` > 0; of one label unless ``across_labels``.

    plus_one: coordinates name the first and last pixel, so that a box is x1 - x0 + 1 wide (VOC's integers).
    crowds: the overlap with an ignored object is the part of the detection that lies in it (COCO's rule).
    Raises ValueError when there is not one of each per image, or least is not positive.
    """
    if len(detections) != len(targets):
        raise ValueError(
            f"detections of {len(detections)} images, wanted {len(targets)} as there are targets"
        )
    if least <= 0:
        raise ValueError(f"least overlap is {least}, wanted over 0")
    extra = 1.0 if plus_one else 0.0
    found = _columns([d.boxes for d in detections])
    wanted = _columns([t.boxes for t in targets])
    counts, object_counts = [len(d) for d in detections], [len(t) for t in targets]
    ignored = _joined([t.ignore for t in targets], bool)
    labels, object_labels = (_joined([e.labels for e in s], np.int64) for s in (detections, targets))
    areas, object_areas = _areas(found, extra), _areas(wanted, extra)
    first, second, shared = _shared_areas(found, wanted, counts, object_counts, extra)
    if not across_labels:
        same = labels[first] == object_labels[second]
        first, second, shared = first[same], second[same], shared[same]
    union = areas[first] + object_areas[second] - shared
    if crowds:
        union = np.where(ignored[second], areas[first], union)
    ious = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    enough = ious >= least
    return Overlaps(
        num_images=len(targets),
        images=np.repeat(np.arange(len(targets)), counts),
        scores=_joined([d.scores for d in detections], np.float64),
        labels=labels,
        areas=areas,
        object_images=np.repeat(np.arange(len(targets)), object_counts),
        object_labels=object_labels,
        object_areas=object_areas,
        ignored=ignored,
        detections=first[enough],
        objects=second[enough],
        ious=ious[enough],
    )


def _joined(parts: Sequence[Any], dtype: Any) -> Any:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _columns(boxes: Sequence[FloatArray]) -> Float64Array:
    """x0, y0, x1, y1 of all boxes, each in one piece; float64, so that differences are exact."""
    rows = np.concatenate([np.zeros((0, 4)), *(np.asarray(b, np.float64).reshape(-1, 4) for b in boxes)])
    return np.ascontiguousarray(rows.T)  # (4, N)


def _areas(columns: Float64Array, extra: float) -> Float64Array:
    x0, y0, x1, y1 = columns
    areas: Float64Array = (x1 - x0 + extra) * (y1 - y0 + extra)
    return areas


def _shared_areas(
    found: Float64Array,
    wanted: Float64Array,
    counts: Sequence[int],
    object_counts: Sequence[int],
    extra: float,
) -> tuple[IntArray, IntArray, Float64Array]:
    """Detection, object and shared area, px², of all pairs of one image that share any."""
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    areas = [np.zeros(0)]
    start = object_start = 0
    for count, object_count in zip(counts, object_counts, strict=True):
        if count and object_count:
            one = found[:, start : start + count, None]  # (4, n, 1)
            two = wanted[:, None, object_start : object_start + object_count]  # (4, 1, m)
            width = np.minimum(one[2], two[2]) - np.maximum(one[0], two[0]) + extra  # (n, m)
            height = np.minimum(one[3], two[3]) - np.maximum(one[1], two[1]) + extra
            at = np.flatnonzero((width > 0) & (height > 0))
            firsts.append(at // object_count + start)
            seconds.append(at % object_count + object_start)
            areas.append(width.ravel()[at] * height.ravel()[at])
        start, object_start = start + count, object_start + object_count
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(areas)


def best_pairs(overlaps: Overlaps) -> IntArray:
    """Of each detection that overlaps anything the pair of largest IoU, the first of equals; in order."""
    order = np.lexsort((-overlaps.ious, overlaps.detections))
    first: IntArray = order[np.flatnonzero(np.diff(overlaps.detections[order], prepend=-1))]
    return first

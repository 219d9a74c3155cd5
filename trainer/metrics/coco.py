"""COCO's average precision and recall (Lin et al. 2014), to the last digit those of pycocotools' COCOeval.

Its rules, for a class and an image: detections in order of score, at most ``cap`` of them; each takes the
object of largest IoU that is still free, an ignored one only if no other will do. Ignored are crowds, which
any number of detections may lie in, and objects outside the range of areas. A detection of an ignored object,
or one of nothing with an area out of the range, counts neither way. The search runs over all images, IoUs
and ranges of areas at once: round n places the n-th detection of each image that overlaps anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from trainer.metrics.average_precision import Matches
from trainer.metrics.overlaps import BoolArray, Float64Array, IntArray, Overlaps, find_overlaps
from trainer.sample import Detections, Target

IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = np.linspace(0, 1, 101)
_ALL = (0.0, 1e10)
_WHOLE = 1 - 1e-10  # as COCOeval has it: an IoU of 1 that rounding has touched
AREAS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
)  # px², both ends included


@dataclass(frozen=True, slots=True, eq=False)
class CocoArrays:
    """What every COCO number is a mean of; -1 stands for: no objects.

    precision: float64 (T IoUs, 101 recalls, K classes, A areas), at the largest cap.
    recall: float64 (T, K, A, M caps). Area 0 is all areas; the others are in the order of ``areas``.
    """

    precision: Float64Array  # (T, 101, K, A)
    recall: Float64Array  # (T, K, A, M)


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """The capped detections in order of image and score: what each of them is at each IoU and area."""

    rows: IntArray  # (D,) into Overlaps
    ranks: IntArray  # (D,) in its image and class
    taken: BoolArray  # (T, A, D) has an object
    ignored: BoolArray  # (T, A, D)
    object_ignored: BoolArray  # (G, A)


def coco_average_precision(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    max_detections: int = 100,
    areas: Mapping[str, tuple[float, float]] = AREAS,
) -> dict[str, float]:
    """COCO's numbers, 0..1, means over the classes that have objects; NaN where no object counts.

    Keys: AP (over IoU 0.5:0.05:0.95), AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10,
    AR{max_detections}, AR_small, AR_medium, AR_large; the names of ``areas`` (px², ends included) if given.
    Areas are those of the boxes, in the pixels they are given in. Ignored objects are crowds: detections
    that lie in them count neither way. Raises ValueError when there is not one of each per image.
    """
    caps = (1, min(10, max_detections), max_detections)
    arrays = coco_arrays(detections, targets, num_classes, caps, areas=areas)
    precision, recall = arrays.precision, arrays.recall
    summary = {
        "AP": mean_of_known(precision[..., 0]),
        "AP50": mean_of_known(precision[0, ..., 0]),
        "AP75": mean_of_known(precision[5, ..., 0]),
    }
    summary |= {f"AP_{name}": mean_of_known(precision[..., i]) for i, name in enumerate(areas, start=1)}
    summary |= {f"AR{cap}": mean_of_known(recall[..., 0, m]) for m, cap in enumerate(caps)}
    return summary | {
        f"AR_{name}": mean_of_known(recall[..., i, -1]) for i, name in enumerate(areas, start=1)
    }


def coco_by_size(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    edges_px: Sequence[float] = (0, 16, 32, 96),
    max_detections: int = 100,
) -> dict[str, dict[str, float]]:
    """AP, AP50 and AR by size, the root of the box's area: bins "0-16", …, the last one "96+"."""
    names = [f"{low:g}-{high:g}" for low, high in pairwise(edges_px)]
    names.append(f"{edges_px[-1]:g}+")
    squares = [edge**2 for edge in edges_px] + [_ALL[1]]
    bins = dict(zip(names, pairwise(squares), strict=True))
    arrays = coco_arrays(detections, targets, num_classes, (max_detections,), areas=bins)
    return {
        name: {
            "AP": mean_of_known(arrays.precision[..., i]),
            "AP50": mean_of_known(arrays.precision[0, ..., i]),
            "AR": mean_of_known(arrays.recall[..., i, -1]),
        }
        for i, name in enumerate(bins, start=1)
    }


def mean_of_known(values: Float64Array) -> float:
    """Mean of the values that are not -1; NaN if there are none."""
    known = values[values > -1]
    return float(known.mean()) if known.size else np.nan


def coco_arrays(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    caps: Sequence[int] = (1, 10, 100),
    ious: Sequence[float] = IOUS,
    areas: Mapping[str, tuple[float, float]] = AREAS,
) -> CocoArrays:
    """Precision and recall of each class. caps rise. ``ious=(0.5,), areas={}``: AP50 alone, quick."""
    ranges = np.array([_ALL, *areas.values()])
    overlaps = find_overlaps(detections, targets, min(*ious, _WHOLE), crowds=True)
    placed = _place(overlaps, np.asarray(ious), ranges, caps[-1])
    precision = np.full((len(ious), len(RECALLS), num_classes, len(ranges)), -1.0)
    recall = np.full((len(ious), num_classes, len(ranges), len(caps)), -1.0)
    for k in range(num_classes):
        rows = _ranked(overlaps, placed, k + 1)
        counts = (~placed.object_ignored[overlaps.object_labels == k + 1]).sum(axis=0)  # (A,)
        for t, a in np.ndindex(len(ious), len(ranges)):
            if counts[a]:
                counted = ~placed.ignored[t, a, rows]  # (D,)
                true = np.flatnonzero(placed.taken[t, a, rows] & counted)
                precision[t, :, k, a] = _interpolated(true, counted, int(counts[a]))
                ranks = placed.ranks[rows[true]]
                recall[t, k, a] = [(ranks < cap).sum() / counts[a] for cap in caps]
    return CocoArrays(precision, recall)


def coco_matches(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    ious: Sequence[float] = IOUS,
    max_detections: int = 100,
) -> list[Matches]:
    """The judged detections of each IoU and class, all areas: what `bootstrap_average_precision` draws from.

    The mean of their 101point average precisions is AP (AP50 with ``ious=(0.5,)``) up to 1e-15.
    """
    overlaps = find_overlaps(detections, targets, min(*ious, _WHOLE), crowds=True)
    placed = _place(overlaps, np.asarray(ious), np.array([_ALL]), max_detections)
    found = []
    for t in range(len(ious)):
        for label in range(1, num_classes + 1):
            rows = _ranked(overlaps, placed, label)
            rows = rows[~placed.ignored[t, 0, rows]]
            counted = ~placed.object_ignored[:, 0] & (overlaps.object_labels == label)
            where = np.bincount(overlaps.object_images[counted], minlength=overlaps.num_images)
            at = placed.rows[rows]
            found.append(Matches(overlaps.scores[at], placed.taken[t, 0, rows], overlaps.images[at], where))
    return found


def _place(overlaps: Overlaps, ious: Float64Array, ranges: Float64Array, cap: int) -> _Placed:
    """Give objects to detections at each IoU and in each range of areas, px² (A, 2)."""
    order = np.lexsort((-overlaps.scores, overlaps.labels, overlaps.images))
    groups = np.stack([overlaps.images[order], overlaps.labels[order]])  # (2, D)
    ranks = _ranks(groups)
    rows, ranks, groups = order[ranks < cap], ranks[ranks < cap], groups[:, ranks < cap]
    object_ignored = overlaps.ignored[:, None] | _outside(overlaps.object_areas, ranges)  # (G, A)
    shape = (len(ious), len(ranges), len(rows))
    taken = np.zeros(shape, bool)
    ignored = np.broadcast_to(_outside(overlaps.areas[rows], ranges).T, shape).copy()
    place = np.full(len(overlaps.scores), -1)
    place[rows] = np.arange(len(rows))
    pairs = np.flatnonzero(place[overlaps.detections] >= 0)
    pairs = pairs[np.argsort(place[overlaps.detections[pairs]], kind="stable")]
    holders, inverse = np.unique(place[overlaps.detections[pairs]], return_inverse=True)
    rounds = _ranks(groups[:, holders])[inverse]  # (P,)
    pairs = pairs[np.argsort(rounds, kind="stable")]
    busy = np.zeros((len(overlaps.ignored), len(ious), len(ranges)), bool)  # (G, T, A)
    for part in np.split(pairs, np.cumsum(np.bincount(rounds))[:-1]) if len(pairs) else []:
        detections, objects = _take(overlaps, part, np.minimum(ious, _WHOLE), object_ignored, busy)
        at, (s, t, a) = place[detections], np.nonzero(objects >= 0)
        taken[t, a, at[s]] = True
        ignored[t, a, at[s]] = object_ignored[objects[s, t, a], a]
    return _Placed(rows, ranks, taken, ignored, object_ignored)


def _take(
    overlaps: Overlaps, pairs: IntArray, ious: Float64Array, object_ignored: BoolArray, busy: BoolArray
) -> tuple[IntArray, IntArray]:
    """The detections (S,) of the pairs, one an image and class, and what each takes, (S, T, A); -1: none.

    busy (G, T, A), the objects that are no longer free, is brought up to date.
    """
    objects = overlaps.objects[pairs]
    starts = np.flatnonzero(np.diff(overlaps.detections[pairs], prepend=-1))
    lengths = np.diff(np.append(starts, len(pairs)))
    free = ~busy[objects] | overlaps.ignored[objects][:, None, None]  # (p, T, A)
    values = np.where(
        free & (overlaps.ious[pairs][:, None] >= ious)[:, :, None], overlaps.ious[pairs][:, None, None], -1.0
    )
    second_choice = object_ignored[objects][:, None, :]  # (p, 1, A)
    best = np.maximum.reduceat(np.where(second_choice, -1.0, values), starts)  # (S, T, A)
    fallback = np.maximum.reduceat(np.where(second_choice, values, -1.0), starts)
    prefers = np.repeat(best > -1, lengths, axis=0)
    wanted = np.repeat(np.where(best > -1, best, fallback), lengths, axis=0)
    chosen = (values == wanted) & (values > -1) & (prefers != second_choice)
    last = np.maximum.reduceat(np.where(chosen, objects[:, None, None], -1), starts)  # of equals the last
    _, t, a = np.nonzero(last >= 0)
    busy[last[last >= 0], t, a] = True
    return overlaps.detections[pairs[starts]], last


def _ranked(overlaps: Overlaps, placed: _Placed, label: int) -> IntArray:
    """Rows of `_Placed` of a class by falling score; ties in order of the images, then of their ranks."""
    rows = np.flatnonzero(overlaps.labels[placed.rows] == label)
    by_score: IntArray = rows[np.argsort(-overlaps.scores[placed.rows[rows]], kind="stable")]
    return by_score


def _ranks(groups: IntArray) -> IntArray:
    """The place, 0, 1, …, of each column (2, N) among the equal ones beside it."""
    starts = np.append(True, (groups[:, 1:] != groups[:, :-1]).any(axis=0))[: groups.shape[1]]
    ranks: IntArray = np.arange(groups.shape[1]) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
    return ranks


def _outside(areas: Float64Array, ranges: Float64Array) -> BoolArray:
    """(N,) and (A, 2) -> (N, A)."""
    outside: BoolArray = (areas[:, None] < ranges[:, 0]) | (areas[:, None] > ranges[:, 1])
    return outside


def _interpolated(true: IntArray, counted: BoolArray, num_objects: int) -> Float64Array:
    """Best precision (101,) at each recall or beyond; ``true``: places of the true among the ranked (D,)."""
    num_true = np.arange(1.0, len(true) + 1)
    num_false = np.cumsum(counted)[true] - num_true
    precision = num_true / (num_false + num_true + np.spacing(1))  # as COCOeval has it
    best = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(num_true / num_objects, RECALLS, side="left")
    interpolated: Float64Array = np.append(best, 0.0)[reached]
    return interpolated

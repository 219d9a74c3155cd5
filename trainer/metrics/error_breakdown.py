"""What the false and missing detections are, and what each kind of error costs, in the spirit of TIDE.

Bolya et al. 2020 (arXiv:2008.08115), section 3, on the matching of Pascal VOC. A false detection is, the
first that fits: *duplicate*, it overlaps an object of its class enough, but another detection has that;
*confused*, it overlaps an object of another class enough; *mislocalised*, it overlaps one of its class a
little; *both*, one of another class a little; *background*, none. An object that counts is *missed* if no
detection finds it, and no mislocalised or confused one lies on it. The cost of a kind is what the mean
average precision gains when all errors of that kind are mended and the others stay; costs do not add up
to 1 - AP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from trainer.metrics.average_precision import (
    average_precision_of,
    claimed_objects,
    first_claims,
    matches_of_label,
)
from trainer.metrics.overlaps import BoolArray, IntArray, Overlaps, best_pairs, find_overlaps
from trainer.sample import Detections, Target

ErrorKind = Literal["duplicate", "confused", "mislocalised", "both", "background", "missed"]
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorBreakdown:
    """counts: errors of each kind. costs: mean AP lost to each kind, 0..1, NaN without objects.

    kinds: of each image the kind of each detection, (N,) of str, "true" and "ignored" included.
    missed: of each image whether each object is missed, bool (M,).
    """

    average_precision: float
    counts: dict[ErrorKind, int]
    costs: dict[ErrorKind, float]
    kinds: list[list[str]]
    missed: list[BoolArray]


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    overlaps: Overlaps
    kinds: IntArray  # (D,) index into KINDS, -1 true, -2 ignored
    claims: IntArray  # (D,) object of a true, duplicate or ignored detection; -1: none
    goals: IntArray  # (D,) object that a confused or mislocalised detection lies on; -1: none
    missed: BoolArray  # (G,)


def error_breakdown(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    iou: float = 0.5,
    background_iou: float = 0.1,
) -> ErrorBreakdown:
    """Errors of detections at ``iou``; under ``background_iou`` a box lies on nothing.

    Detections that find an ignored object count neither way; lesser overlaps with one are errors, as in VOC.
    Raises ValueError when there is not one of each per image.
    """
    overlaps = find_overlaps(detections, targets, background_iou, across_labels=True)
    judged = _judge(overlaps, iou)
    average = _mean_average_precision(overlaps, judged.claims, num_classes, np.nan)
    counts = {kind: int((judged.kinds == n).sum()) for n, kind in enumerate(KINDS)}
    counts["missed"] = int(judged.missed.sum())
    names = np.array([*KINDS, "ignored", "true"])[judged.kinds]
    cuts = np.cumsum([len(d) for d in detections])[:-1]
    object_cuts = np.cumsum([len(t) for t in targets])[:-1]
    return ErrorBreakdown(
        average_precision=average,
        counts=counts,
        costs={kind: _mended(judged, kind, num_classes) - average for kind in KINDS},
        kinds=[part.tolist() for part in np.split(names, cuts)] if len(targets) else [],
        missed=np.split(judged.missed, object_cuts) if len(targets) else [],
    )


def _judge(overlaps: Overlaps, iou: float) -> _Judged:
    same = overlaps.labels[overlaps.detections] == overlaps.object_labels[overlaps.objects]
    claims = claimed_objects(_only(overlaps, same), iou)
    near, _ = _nearest(_only(overlaps, same))
    other, other_iou = _nearest(_only(overlaps, ~same))
    order = np.argsort(-overlaps.scores, kind="stable")
    is_first = np.zeros(len(claims), bool)
    is_first[order] = first_claims(claims[order])
    on_ignored = (claims >= 0) & np.append(overlaps.ignored, False)[claims]
    fits = [
        (on_ignored, -2),
        (is_first, -1),
        (claims >= 0, KINDS.index("duplicate")),
        (other_iou >= iou, KINDS.index("confused")),
        (near >= 0, KINDS.index("mislocalised")),
        (other >= 0, KINDS.index("both")),
    ]
    kinds = np.select([fit for fit, _ in fits], [kind for _, kind in fits], KINDS.index("background"))
    goals = np.select(
        [kinds == KINDS.index("confused"), kinds == KINDS.index("mislocalised")], [other, near], -1
    )
    seen = np.zeros(len(overlaps.ignored) + 1, bool)  # the last one stands for no object
    seen[claims[kinds == -1]] = seen[goals] = True
    return _Judged(overlaps, kinds, claims, goals, ~seen[:-1] & ~overlaps.ignored)


def _only(overlaps: Overlaps, pairs: BoolArray) -> Overlaps:
    return replace(
        overlaps,
        detections=overlaps.detections[pairs],
        objects=overlaps.objects[pairs],
        ious=overlaps.ious[pairs],
    )


def _nearest(overlaps: Overlaps) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """The object that each detection overlaps most, (D,), -1 for none, and the IoU."""
    best = best_pairs(overlaps)
    objects, ious = np.full(len(overlaps.scores), -1), np.zeros(len(overlaps.scores))
    objects[overlaps.detections[best]] = overlaps.objects[best]
    ious[overlaps.detections[best]] = overlaps.ious[best]
    return objects, ious


def _mended(judged: _Judged, kind: ErrorKind, num_classes: int) -> float:
    """Mean AP without a kind of error: put right where its object is not found yet, else taken away."""
    overlaps, claims = judged.overlaps, judged.claims.copy()
    if kind == "missed":
        gone = replace(overlaps, ignored=overlaps.ignored | judged.missed)
        return _mean_average_precision(gone, claims, num_classes, 1.0)
    wrong = judged.kinds == KINDS.index(kind)
    labels = np.where(wrong, 0, overlaps.labels)  # label 0 is no class: taken away
    order = np.argsort(-overlaps.scores, kind="stable")
    goals = np.where(wrong, judged.goals, -1)
    found = np.append(overlaps.ignored, True)
    found[claims[judged.kinds == -1]] = True
    first = order[first_claims(goals[order])]
    first = first[~found[goals[first]]]
    claims[first], labels[first] = goals[first], overlaps.object_labels[goals[first]]
    return _mean_average_precision(replace(overlaps, labels=labels), claims, num_classes, np.nan)


def _mean_average_precision(
    overlaps: Overlaps, claims: IntArray, num_classes: int, without_objects: float
) -> float:
    """Mean over classes with objects; ``without_objects`` is the AP of one whose objects are all ignored."""
    values = []
    for label in np.intersect1d(overlaps.object_labels, np.arange(1, num_classes + 1)):
        value = average_precision_of(matches_of_label(overlaps, claims, int(label)))
        values.append(without_objects if np.isnan(value) else value)
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan

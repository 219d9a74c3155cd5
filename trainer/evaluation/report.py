"""All that can be said of what a detector found in annotated photos, as plain values to store and to show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.metrics.average_precision import (
    Matches,
    average_precision_of,
    claimed_objects,
    match_detections,
)
from trainer.metrics.bootstrap import Interval, bootstrap_average_precision
from trainer.metrics.coco import CocoArrays, coco_arrays, coco_average_precision, coco_by_size, coco_matches
from trainer.metrics.coco import mean_of_known as mean
from trainer.metrics.curves import best_f1, thinned
from trainer.metrics.error_breakdown import ErrorBreakdown, error_breakdown
from trainer.metrics.overlaps import find_overlaps
from trainer.metrics.voc import Curve, voc_average_precision
from trainer.sample import Detections, Target

Plain = dict[str, Any]

SIZES_PX = (0, 16, 32, 96)  # where a bin of sizes begins; a size is the root of a box's area
_IOU = 0.5
_LEVEL = 0.95
_CURVE_POINTS = 200
_NUM_LISTED = 12


def evaluation_report(
    detections: Sequence[Detections],
    photos: Sequence[BoxedImage],
    classes: Sequence[str],
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Plain:
    """Plain values, ready for JSON; null where there is nothing to say. Scores are 0..1.

    detections: of each photo, in pixels of its file, with all low scores: they belong to the curves.
    classes: names of labels 1, 2, … num_draws: of photos for the intervals (0: none are made); seed: theirs.

    - ``photos``, ``objects`` (those to be found), ``ignored`` (objects), ``detections``: counts.
    - ``scores``, means over the classes with objects: Pascal VOC's ``AP50``, ``AP50_11point``; COCO's ``AP``,
      ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``, ``AR1``, ``AR10``, ``AR100``, ``AR_small``, …
    - ``intervals``: ``level``, ``draws``, ``seed``, and of ``AP50`` (VOC's) and ``AP`` (COCO's) each
      ``{value, low, high}``, over photos.
    - ``sizes``: of each bin (``0-16``, … px, root of area) ``objects``, ``AP``, ``AP50``, ``AR``.
    - ``errors``: of each kind of `error_breakdown` ``{count, cost}``; the cost is the mean AP50 lost to it.
    - ``classes``: in order, each ``name``, ``objects``, ``AP50`` with its interval's ``low`` and ``high``,
      ``AP50_11point``, ``AP``, ``AP75``, ``best`` ``{score, precision, recall, f1}``, the threshold of the
      best F1, and ``curve`` ``{scores, precision, recall}``, at most 200 points, none without objects.
    - ``false``, ``missed``, ``best``: at most 12 photos each, the most telling first; ``photo`` is the place
      in ``photos``. ``false`` ``{photo, key, score, label, kind, box}``: the most confident false detection
      of a photo, its kind as in ``errors``. Of the others what counts is found with at least the threshold of
      its class's best F1: ``missed`` ``{photo, key, missed, objects, boxes}``, where most objects are not
      found, and these; ``best`` ``{photo, key, objects, score}``, where all are and nothing else is, and the
      least score.

    Raises InputError without any object to find, ValueError when there are not as many detections as photos.
    """
    targets = [photo.target for photo in photos]
    matches = match_detections(detections, targets, len(classes))
    if not any(of_class.num_objects for of_class in matches.values()):
        raise InputError("evaluation: the photos hold no object to find, wanted at least one")
    errors = error_breakdown(detections, targets, len(classes))
    of_classes = _classes(detections, targets, classes, matches, num_draws, seed)
    thresholds = np.array([np.inf, *(_number_or(c["best"]["score"], np.inf) for c in of_classes)])
    values: Plain = plain(
        {
            "photos": len(photos),
            "objects": sum(of_class.num_objects for of_class in matches.values()),
            "ignored": sum(int(target.ignore.sum()) for target in targets),
            "detections": sum(map(len, detections)),
            "scores": _scores(detections, targets, len(classes)),
            "intervals": _intervals(detections, targets, len(classes), matches, num_draws, seed),
            "sizes": _sizes(detections, targets, len(classes)),
            "errors": {
                kind: {"count": count, "cost": errors.costs[kind]} for kind, count in errors.counts.items()
            },
            "classes": of_classes,
            **_telling_photos(detections, photos, classes, errors, thresholds),
        }
    )
    return values


def plain(value: Any) -> Any:
    """Mappings, lists, numbers and text alone; six digits; None for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _number_or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or math.isnan(value) else value


def _scores(detections: Sequence[Detections], targets: Sequence[Target], num_classes: int) -> Plain:
    every = voc_average_precision(detections, targets, num_classes)["mean"]
    eleven = voc_average_precision(detections, targets, num_classes, method="11point")["mean"]
    coco = coco_average_precision(detections, targets, num_classes)
    del coco["AP50"]  # another rule's; VOC's goes by the name
    return {"AP50": every, "AP50_11point": eleven, **coco}


def _intervals(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    matches: Mapping[int, Matches],
    num_draws: int,
    seed: int,
) -> Plain:
    of_coco = coco_matches(detections, targets, num_classes)
    return {
        "level": _LEVEL,
        "draws": num_draws,
        "seed": seed,
        "AP50": _ends(bootstrap_average_precision(list(matches.values()), "area", num_draws, seed, _LEVEL)),
        "AP": _ends(bootstrap_average_precision(of_coco, "101point", num_draws, seed, _LEVEL)),
    }


def _ends(interval: Interval) -> Plain:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _sizes(detections: Sequence[Detections], targets: Sequence[Target], num_classes: int) -> Plain:
    """See ``sizes``. Both ends of a bin count as in it, as COCO has it."""
    boxes = np.concatenate([target.boxes[~target.ignore] for target in targets]).astype(np.float64)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    ends = pairwise([*SIZES_PX, np.inf])
    found = coco_by_size(detections, targets, num_classes, SIZES_PX)
    return {
        name: {"objects": int(((sides >= low) & (sides <= high)).sum()), **numbers}
        for (name, numbers), (low, high) in zip(found.items(), ends, strict=True)
    }


def _classes(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    names: Sequence[str],
    matches: Mapping[int, Matches],
    num_draws: int,
    seed: int,
) -> list[Plain]:
    voc = voc_average_precision(detections, targets, len(names))
    coco = coco_arrays(detections, targets, len(names), (100,), areas={})
    return [
        {
            "name": name,
            "objects": matches[label].num_objects,
            "AP50": voc["per_class"][label],
            **_ends_of(matches[label], num_draws, seed),
            "AP50_11point": average_precision_of(matches[label], "11point"),
            **_coco_of(coco, label),
            "best": asdict(best_f1(voc["curves"][label])),
            "curve": _curve(voc["curves"][label], matches[label].num_objects),
        }
        for label, name in enumerate(names, start=1)
    ]


def _curve(curve: Curve, num_objects: int) -> Mapping[str, Any]:
    return thinned(curve, _CURVE_POINTS) if num_objects else {name: [] for name in curve}


def _ends_of(matches: Matches, num_draws: int, seed: int) -> Plain:
    interval = bootstrap_average_precision([matches], "area", num_draws, seed, _LEVEL)
    return {"low": interval.low, "high": interval.high}


def _coco_of(arrays: CocoArrays, label: int) -> Plain:
    precision = arrays.precision[:, :, label - 1, 0]  # (T, 101)
    return {"AP": mean(precision), "AP75": mean(precision[5])}


def _telling_photos(
    detections: Sequence[Detections],
    photos: Sequence[BoxedImage],
    classes: Sequence[str],
    errors: ErrorBreakdown,
    thresholds: np.ndarray,
) -> Plain:
    """``false``, ``missed`` and ``best``. thresholds: of each label, (classes + 1,)."""
    false, missed, best = list[Plain](), list[Plain](), list[Plain]()
    for number, (found, photo) in enumerate(zip(detections, photos, strict=True)):
        where = {"photo": number, "key": photo.key}
        kinds = np.array(errors.kinds[number], dtype=np.str_)
        wrong = np.flatnonzero(~np.isin(kinds, ["true", "ignored"]))
        shown = found.scores >= thresholds[found.labels]
        true = (kinds == "true") & shown
        objects = int((~photo.target.ignore).sum())
        lost = objects - int(true.sum())
        if len(wrong):
            worst = wrong[found.scores[wrong].argmax()]
            score, label = found.scores[worst], classes[found.labels[worst] - 1]
            false.append(where | {"score": score, "label": label, "kind": kinds[worst]})
            false[-1]["box"] = found.boxes[worst]
        if lost:
            unfound = _unfound(found.chosen(true), photo.target)
            missed.append(where | {"missed": lost, "objects": objects, "boxes": unfound})
        elif objects and not shown[wrong].any():
            best.append(where | {"objects": objects, "score": found.scores[true].min()})
    return {
        "false": sorted(false, key=lambda each: -each["score"])[:_NUM_LISTED],
        "missed": sorted(missed, key=lambda each: -each["missed"])[:_NUM_LISTED],
        "best": sorted(best, key=lambda each: -each["score"])[:_NUM_LISTED],
    }


def _unfound(true: Detections, target: Target) -> np.ndarray:
    """Boxes (N, 4) of the objects that the true detections leave."""
    found = claimed_objects(find_overlaps([true], [target], _IOU), _IOU)
    is_left = ~target.ignore
    is_left[found[found >= 0]] = False
    boxes: np.ndarray = target.boxes[is_left]
    return boxes

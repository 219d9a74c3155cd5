"""Average precision as Pascal VOC counts it, over classes."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from trainer.metrics.average_precision import (
    Method,
    average_precision_of,
    match_detections,
    precision_recall,
)
from trainer.metrics.overlaps import Float64Array
from trainer.sample import Detections, Target


class Curve(TypedDict):
    """A class's ranked detections, (D,) each."""

    scores: Float64Array
    precision: Float64Array
    recall: Float64Array


class VocScores(TypedDict):
    """All but the mean are keyed by label, 1..num_classes.

    mean: over the classes that have objects, NaN when none has.
    per_class: NaN for a class without objects that count. num_objects: how many count.
    """

    mean: float
    per_class: dict[int, float]
    num_objects: dict[int, int]
    curves: dict[int, Curve]


def voc_average_precision(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    iou: float = 0.5,
    method: Method = "area",
    plus_one: bool = False,
    strict: bool = False,
) -> VocScores:
    """AP of every class and their mean, 0..1; detections and targets of an image are in the same pixels.

    The rules and options are those of `match_detections` and `average_precision`. The defaults are the
    paper's metric but for ties: its code ranks the true one of equal scores first, this keeps their order.
    """
    scores = VocScores(mean=np.nan, per_class={}, num_objects={}, curves={})
    for label, matches in match_detections(detections, targets, num_classes, iou, plus_one, strict).items():
        precision, recall = precision_recall(matches)
        scores["per_class"][label] = average_precision_of(matches, method)
        scores["num_objects"][label] = matches.num_objects
        scores["curves"][label] = Curve(scores=matches.scores, precision=precision, recall=recall)
    found = [value for value in scores["per_class"].values() if not np.isnan(value)]
    scores["mean"] = float(np.mean(found)) if found else np.nan
    return scores

"""Precision-recall curves to store and draw, and the points on them that people ask for."""

from dataclasses import dataclass

import numpy as np

from trainer.metrics.voc import Curve


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What detections of at least ``score`` achieve. All 0..1; NaN without objects or detections."""

    score: float
    precision: float
    recall: float
    f1: float


def thinned(curve: Curve, num_points: int = 200) -> Curve:
    """At most so many points, evenly spread over recall, with the first and the last: plain arrays to store.

    Each is one of the curve's own points, the first (so most precise) one that reaches its recall.
    """
    count = len(curve["scores"])
    if count <= num_points:
        return curve
    steps = np.linspace(curve["recall"][0], curve["recall"][-1], num_points)
    at = np.searchsorted(curve["recall"], steps[1:-1], side="left")
    at = np.unique(np.append(at, [0, count - 1]))
    return Curve(scores=curve["scores"][at], precision=curve["precision"][at], recall=curve["recall"][at])


def best_f1(curve: Curve) -> OperatingPoint:
    """The score threshold of the largest harmonic mean of precision and recall; the highest of equals."""
    precision, recall = curve["precision"], curve["recall"]
    if not len(precision) or np.isnan(recall[0]):
        return OperatingPoint(np.nan, np.nan, np.nan, np.nan)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    f1 = np.where(_ends(curve), f1, -1)
    return _point(curve, int(f1.argmax()))


def at_precision(curve: Curve, precision: float) -> OperatingPoint:
    """The threshold of the largest recall at this precision or better; NaN where none reaches it."""
    reaches = np.flatnonzero(_ends(curve) & (curve["precision"] >= precision) & (curve["recall"] >= 0))
    if not len(reaches):
        return OperatingPoint(np.nan, np.nan, np.nan, np.nan)
    return _point(curve, int(reaches[-1]))


def _ends(curve: Curve) -> np.ndarray:
    """Where a threshold can cut: a point between equal scores cannot be had."""
    return np.append(np.diff(curve["scores"]) != 0, True)[: len(curve["scores"])]


def _point(curve: Curve, at: int) -> OperatingPoint:
    score, precision, recall = (float(curve[name][at]) for name in ("scores", "precision", "recall"))
    total = precision + recall
    return OperatingPoint(score, precision, recall, 2 * precision * recall / total if total else 0.0)

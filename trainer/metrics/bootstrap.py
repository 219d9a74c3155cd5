"""Confidence intervals over images: how far a score would move with other photos of the same kind.

Images are drawn with replacement (Efron, Tibshirani 1993, percentile interval). The detections are judged
once; a draw only counts each image's judgements as often as the image was drawn. The same seed draws the same
images, so two detectors judged on the same photos can be compared pair by pair, which is far sharper than
looking whether their intervals overlap. It tells nothing about another training's luck: that takes seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.metrics.average_precision import Matches, Method, average_precision, average_precision_of
from trainer.metrics.overlaps import Float64Array, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """A score on the images as they are, the ends of its interval, and its values on drawn images (B,)."""

    value: float
    low: float
    high: float
    draws: Float64Array  # (B,)


def make_interval(value: float, draws: Float64Array, level: float = 0.95) -> Interval:
    """The percentile interval that holds ``level`` of the draws that are numbers; NaN if none is."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Interval(value, np.nan, np.nan, draws)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), draws)


def drawn_images(num_images: int, num_draws: int, seed: int) -> Iterator[IntArray]:
    """How often each image is in each draw, int64 (N,)."""
    rng = np.random.default_rng(seed)
    for _ in range(num_draws):
        yield np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)


def bootstrap(
    score: Callable[[IntArray], float],
    num_images: int,
    num_draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of a score that takes how often each image counts, int64 (N,)."""
    draws = [score(weights) for weights in drawn_images(num_images, num_draws, seed)] if num_images else []
    return make_interval(score(np.ones(num_images, np.int64)), np.array(draws), level)


def bootstrap_average_precision(
    matches: Sequence[Matches],
    method: Method = "area",
    num_draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean average precision over classes, or over classes and IoUs (`coco_matches`).

    A class without objects in a draw is left out of that draw's mean.
    """
    parts = [_Part.of(m) for m in matches]
    num_images = len(matches[0].objects_per_image) if matches else 0

    def mean(weights: IntArray) -> float:
        values = [part.average_precision(weights, method) for part in parts]
        known = [value for value in values if not np.isnan(value)]
        return float(np.mean(known)) if known else np.nan

    found = bootstrap(mean, num_images, num_draws, seed, level)
    exact = [value for m in matches if not np.isnan(value := average_precision_of(m, method))]
    return Interval(float(np.mean(exact)) if exact else np.nan, found.low, found.high, found.draws)


def difference(one: Interval, other: Interval, level: float = 0.95) -> Interval:
    """Interval of ``one - other``, both drawn with one seed from the same images.

    Raises ValueError when their draws are not as many.
    """
    if len(one.draws) != len(other.draws):
        raise ValueError(f"{len(one.draws)} draws against {len(other.draws)}, wanted as many")
    return make_interval(one.value - other.value, one.draws - other.draws, level)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A class's matches up to the last true one: false ones after it change no average precision."""

    images: IntArray  # (D,)
    true: IntArray  # (T,) places of the true ones
    objects_per_image: IntArray  # (N,)

    @classmethod
    def of(cls, matches: Matches) -> "_Part":
        true = np.flatnonzero(matches.is_true)
        return cls(matches.images[: true[-1] + 1 if len(true) else 0], true, matches.objects_per_image)

    def average_precision(self, weights: IntArray, method: Method) -> float:
        """As of a set in which each image stands as often as its weight, copies of a detection in a row."""
        num_objects = int(weights @ self.objects_per_image)
        if not num_objects:
            return np.nan
        of_detections = weights[self.images]
        num_found = np.cumsum(of_detections)[self.true]
        num_true = np.cumsum(of_detections[self.true])
        drawn = num_found > 0  # 0 of 0 at the top of the ranking
        return average_precision(num_true[drawn] / num_objects, num_true[drawn] / num_found[drawn], method)

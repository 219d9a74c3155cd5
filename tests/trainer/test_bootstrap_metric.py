from typing import Any

import numpy as np
import pytest

from trainer.metrics.average_precision import Matches, match_detections
from trainer.metrics.bootstrap import (
    bootstrap,
    bootstrap_average_precision,
    difference,
    drawn_images,
    make_interval,
)
from trainer.metrics.coco import coco_average_precision, coco_matches
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, Target, make_target


def _random_case(seed: int, num_images: int = 30, noise: float = 3) -> tuple[list[Detections], list[Target]]:
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(num_images):
        corners = rng.uniform(0, 200, (int(rng.integers(0, 5)), 2))
        boxes = np.hstack([corners, corners + rng.uniform(10, 60, corners.shape)])
        targets.append(make_target(boxes, rng.integers(1, 3, len(boxes)), rng.random(len(boxes)) < 0.1))
        near = (np.repeat(boxes, 2, axis=0) + rng.normal(0, noise, (2 * len(boxes), 4))).astype(np.float32)
        scores = rng.random(len(near)).astype(np.float32)
        detections.append(Detections(near, scores, np.repeat(targets[-1].labels, 2)))
    return detections, targets


def _drawn(items: list[Any], weights: Any) -> list[Any]:
    return [item for item, weight in zip(items, weights, strict=True) for _ in range(weight)]


@pytest.mark.parametrize("method", ["area", "11point"])
def test_a_draw_scores_as_the_drawn_images_judged_anew(method: Any) -> None:
    detections, targets = _random_case(0)
    matches = list(match_detections(detections, targets, 2).values())
    found = bootstrap_average_precision(matches, method, num_draws=20, seed=3)
    for value, weights in zip(found.draws, drawn_images(len(targets), 20, 3), strict=True):
        again = voc_average_precision(_drawn(detections, weights), _drawn(targets, weights), 2, method=method)
        assert value == pytest.approx(again["mean"], abs=1e-12)
    assert found.value == voc_average_precision(detections, targets, 2, method=method)["mean"]
    assert found.low < found.value < found.high


def test_coco_average_precision_is_drawn_too() -> None:
    detections, targets = _random_case(1)
    matches = coco_matches(detections, targets, 2)
    found = bootstrap_average_precision(matches, "101point", num_draws=3, seed=0)
    assert found.value == pytest.approx(coco_average_precision(detections, targets, 2)["AP"], abs=1e-12)
    for value, weights in zip(found.draws, drawn_images(len(targets), 3, 0), strict=True):
        again = coco_average_precision(_drawn(detections, weights), _drawn(targets, weights), 2)
        assert value == pytest.approx(again["AP"], abs=1e-12)


def test_the_same_seed_draws_the_same() -> None:
    matches = list(match_detections(*_random_case(2), 2).values())
    one, same, other = (bootstrap_average_precision(matches, num_draws=50, seed=s).draws for s in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        sample = rng.exponential(1.0, 60)
        found = bootstrap(lambda w, x=sample: float(w @ x / w.sum()), 60, 200, seed=trial, level=0.9)  # type: ignore[misc]
        hits += found.low <= 1.0 <= found.high
    assert 0.8 < hits / 200 < 0.96


def test_a_difference_is_drawn_in_pairs() -> None:
    detections, targets = _random_case(4, num_images=60)
    worse, _ = _random_case(4, num_images=60, noise=7)
    draws = [
        bootstrap_average_precision(list(match_detections(d, targets, 2).values()), num_draws=200)
        for d in (detections, worse)
    ]
    found = difference(*draws)
    assert found.value == pytest.approx(draws[0].value - draws[1].value)
    assert 0 < found.low < found.high
    with pytest.raises(ValueError, match="200 draws against 3"):
        difference(draws[0], make_interval(0.5, np.zeros(3)))


def test_without_objects_or_images_the_interval_is_nan() -> None:
    nothing = Matches(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64), np.zeros(4, np.int64))
    for matches in ([nothing], []):
        found = bootstrap_average_precision(matches, num_draws=5)
        assert np.isnan([found.value, found.low, found.high]).all()

import numpy as np
import pytest

from trainer.metrics.average_precision import average_precision
from trainer.metrics.curves import at_precision, best_f1, thinned
from trainer.metrics.voc import Curve


def _curve(is_true: list[int], scores: list[float], num_objects: int) -> Curve:
    true = np.cumsum(is_true, dtype=float)
    return Curve(
        scores=np.array(scores), precision=true / np.arange(1, len(true) + 1), recall=true / num_objects
    )


def test_a_thinned_curve_keeps_its_ends_and_nearly_its_area() -> None:
    rng = np.random.default_rng(0)
    is_true = (rng.random(5000) < np.linspace(1, 0.1, 5000)).astype(int).tolist()
    whole = _curve(is_true, np.linspace(1, 0, 5000).tolist(), 4000)
    thin = thinned(whole, 200)
    assert len(thin["scores"]) <= 200
    for name in ("scores", "precision", "recall"):
        assert thin[name][[0, -1]].tolist() == whole[name][[0, -1]].tolist()
    areas = [average_precision(c["recall"], c["precision"]) for c in (whole, thin)]
    assert areas[0] == pytest.approx(areas[1], abs=2e-3)
    assert thinned(whole, 5000) is whole


def test_the_best_threshold_by_hand() -> None:
    point = best_f1(_curve([1, 1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5], 4))
    assert (point.score, point.precision, point.recall, point.f1) == pytest.approx((0.6, 0.75, 0.75, 0.75))


def test_a_threshold_cannot_cut_between_equal_scores() -> None:
    curve = _curve([1, 1, 0, 0], [0.9, 0.8, 0.8, 0.7], 2)
    assert (best_f1(curve).score, best_f1(curve).precision) == pytest.approx((0.8, 2 / 3))
    assert at_precision(curve, 0.9).recall == 0.5


def test_the_most_recall_at_a_precision() -> None:
    curve = _curve([1, 0, 1, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 4)
    assert at_precision(curve, 0.75).score == 0.6
    assert np.isnan(at_precision(_curve([0, 1], [0.9, 0.8], 1), 0.75).score)


def test_empty_curves_have_no_best_point() -> None:
    assert np.isnan(best_f1(_curve([], [], 3)).f1)
    without_objects = Curve(scores=np.array([0.5]), precision=np.zeros(1), recall=np.full(1, np.nan))
    assert np.isnan(best_f1(without_objects).f1)
    assert np.isnan(at_precision(without_objects, 0.0).recall)

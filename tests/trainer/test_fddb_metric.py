from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from trainer.metrics.fddb import FddbCurve, ellipse_boxes, fddb_curve, fddb_curve_of_boxes
from trainer.sample import Detections, Target, make_target

SIZE = (90, 70)


def _found(boxes: Any, scores: Any) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores, np.float32), np.ones(len(boxes), np.int64))


def _random_case(seed: int) -> tuple[list[Detections], list[np.ndarray]]:
    """Crowded ellipses, some over the edge; two detections near each, and some anywhere; ties."""
    rng = np.random.default_rng(seed)
    detections, ellipses = [], []
    for _ in range(6):
        count = int(rng.integers(0, 4))
        radii = rng.uniform(6, 20, (count, 2))
        middle = rng.uniform([0, 0], SIZE, (count, 2))
        of_image = np.hstack([radii, rng.uniform(-1.5, 1.5, (count, 1)), middle])
        near = np.repeat(ellipse_boxes(of_image), 2, axis=0) + rng.normal(0, 3, (2 * count, 4))
        corners = rng.uniform(0, 50, (2, 2))
        boxes = np.vstack([near, np.hstack([corners, corners + rng.uniform(5, 30, (2, 2))])])
        detections.append(_found(boxes, rng.integers(1, 9, len(boxes)) / 8))
        ellipses.append(of_image)
    return detections, ellipses


def _best_by_hand(ious: np.ndarray) -> tuple[int, float]:
    """Of all one-to-one matchings the one of the largest sum: (pairs over 0.5, sum)."""
    tall = ious if ious.shape[0] >= ious.shape[1] else ious.T
    best = max(
        permutations(range(tall.shape[0]), tall.shape[1]),
        key=lambda rows: sum(tall[r, c] for c, r in enumerate(rows)),
    )
    values = [float(tall[r, c]) for c, r in enumerate(best)]
    return sum(value > 0.5 for value in values), sum(values)


def _plain_loop(detections: list[Detections], ious: list[np.ndarray]) -> list[tuple[float, ...]]:
    """Every score a threshold, every image matched anew: (score, false, discrete, continuous)."""
    rows = []
    faces = sum(of_image.shape[1] for of_image in ious)
    for score in sorted({float(s) for d in detections for s in d.scores}, reverse=True):
        false = true = 0
        total = 0.0
        for found, of_image in zip(detections, ious, strict=True):
            valid = found.scores >= score
            hits, amount = _best_by_hand(of_image[valid]) if of_image.shape[1] else (0, 0.0)
            true, total, false = true + hits, total + amount, false + int(valid.sum()) - hits
        rows.append((score, false, true / faces, total / faces))
    return rows


def _painted_iou(box: Any, ellipse: Any) -> float:
    """Both regions painted on the whole image, as FDDB's evaluation does."""
    one, two = (np.zeros(SIZE[::-1], np.uint8) for _ in range(2))
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(one, (x0, y0), (x1, y1), 1, -1)
    major, minor, angle, cx, cy = (float(v) for v in ellipse)
    cv2.ellipse(two, (round(cx), round(cy)), (int(major), int(minor)), np.degrees(angle), 0, 360, 1, -1)
    union = int((one | two).sum())
    return int((one & two).sum()) / union if union else 0.0


def _rows(curve: FddbCurve) -> np.ndarray:
    return np.stack([curve.scores, curve.false_positives, curve.discrete, curve.continuous], axis=1)


@pytest.mark.parametrize("seed", [0, 1, 110, 111, 112])
def test_painted_ellipses_agree_with_a_plain_loop(seed: int) -> None:
    detections, ellipses = _random_case(seed)
    ious = [
        np.array([[_painted_iou(b, e) for e in of_image] for b in d.boxes]).reshape(len(d), len(of_image))
        for d, of_image in zip(detections, ellipses, strict=True)
    ]
    curve = fddb_curve(detections, ellipses, [SIZE] * len(detections))
    np.testing.assert_allclose(_rows(curve), _plain_loop(detections, ious), atol=1e-12)


@pytest.mark.parametrize("seed", range(4, 8))
def test_boxes_agree_with_a_plain_loop(seed: int) -> None:
    detections, ellipses = _random_case(seed)
    targets = [make_target(ellipse_boxes(e)) for e in ellipses]

    def iou(a: list[float], b: list[float]) -> float:
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = w * h if w > 0 and h > 0 else 0.0
        return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)

    ious = [
        np.array([[iou(b, g) for g in t.boxes.tolist()] for b in d.boxes.tolist()]).reshape(len(d), len(t))
        for d, t in zip(detections, targets, strict=True)
    ]
    curve = fddb_curve_of_boxes(detections, targets)
    np.testing.assert_allclose(_rows(curve), _plain_loop(detections, ious), atol=1e-12)


def test_boxes_of_ellipses_are_tight() -> None:
    ellipses = np.array([[30, 20, 0.6, 50, 40], [25, 10, -1.2, 30, 33]])
    turns = np.linspace(0, 2 * np.pi, 100_001)
    for (major, minor, angle, cx, cy), box in zip(ellipses, ellipse_boxes(ellipses), strict=True):
        along, across = major * np.cos(turns), minor * np.sin(turns)
        x = cx + along * np.cos(angle) - across * np.sin(angle)
        y = cy + along * np.sin(angle) + across * np.cos(angle)
        assert box == pytest.approx([x.min(), y.min(), x.max(), y.max()], abs=1e-6)


def test_the_best_sum_may_give_a_detection_to_a_worse_face() -> None:
    targets = [make_target([[0, 0, 10, 10], [0, 4, 10, 14]])]
    # the first lies in the middle; the second, on the first face, pushes it to the other one
    curve = fddb_curve_of_boxes([_found([[0, 1.8, 10, 11.8], [0, 0, 10, 10]], [0.9, 0.8])], targets)
    assert curve.discrete.tolist() == [0.5, 1.0]
    assert curve.false_positives.tolist() == [0, 0]
    assert curve.continuous.tolist() == pytest.approx([8.2 / 11.8 / 2, (7.8 / 12.2 + 1) / 2])


def test_a_perfect_box_scores_at_most_the_part_that_its_ellipse_fills() -> None:
    ellipse = [[40, 28, 1.4, 60, 60]]
    curve = fddb_curve([_found(ellipse_boxes(ellipse), [0.9])], [ellipse], [(120, 120)])
    assert curve.discrete.tolist() == [1.0]
    assert 0.7 < curve.continuous[0] < 0.79


def test_rates_at_false_positives_and_files(tmp_path: Path) -> None:
    targets = [make_target([[0, 0, 10, 10], [50, 50, 60, 60]])]
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]
    curve = fddb_curve_of_boxes([_found(boxes, [0.75, 0.5, 0.25])], targets)
    assert [curve.at(n) for n in (0, 1, 100)] == [(0.5, 0.5), (1.0, 1.0), (1.0, 1.0)]
    curve.write(tmp_path)
    assert (tmp_path / "DiscROC.txt").read_text() == "0.5 0 0.75\n0.5 1 0.5\n1 1 0.25\n"
    assert (tmp_path / "ContROC.txt").read_text().startswith("0.5 0 0.75\n")


def test_no_detections_or_no_faces_are_not_errors() -> None:
    nothing: Target = make_target([])
    assert len(fddb_curve_of_boxes([_found([], [])], [make_target([[0, 0, 9, 9]])]).scores) == 0
    assert fddb_curve_of_boxes([_found([], [])], [nothing]).at(100) == (0.0, 0.0)
    curve = fddb_curve_of_boxes([_found([[0, 0, 9, 9]], [0.5])], [nothing])
    assert curve.false_positives.tolist() == [1]
    assert np.isnan(curve.discrete).all()

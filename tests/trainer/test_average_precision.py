from typing import Any

import numpy as np
import pytest

from trainer.metrics.average_precision import average_precision
from trainer.metrics.overlaps import find_overlaps
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, Target, make_target

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]


def _found(boxes: Any, scores: Any, labels: Any = None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.ones(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
    return Detections(boxes, np.asarray(scores, np.float32).reshape(-1), labels)


def _reference(
    detections: list[Detections],
    targets: list[Target],
    label: int,
    iou: float,
    method: str,
    plus_one: bool,
    strict: bool,
) -> float:
    """One detection at a time, in plain Python; the interpolation as the definition has it."""
    one = 1 if plus_one else 0

    def overlap(a: list[float], b: list[float]) -> float:
        w = min(a[2], b[2]) - max(a[0], b[0]) + one
        h = min(a[3], b[3]) - max(a[1], b[1]) + one
        if w <= 0 or h <= 0:
            return 0.0
        areas = [(c[2] - c[0] + one) * (c[3] - c[1] + one) for c in (a, b)]
        return w * h / (areas[0] + areas[1] - w * h)

    rows = [
        (-float(d.scores[k]), i, k)
        for i, d in enumerate(detections)
        for k in range(len(d))
        if d.labels[k] == label
    ]
    npos = sum(int(t.labels[j]) == label and not t.ignore[j] for t in targets for j in range(len(t)))
    used: set[tuple[int, int]] = set()
    tp = fp = 0
    points = []
    for _, i, k in sorted(rows):
        best, chosen = -1.0, -1
        for j in range(len(targets[i])):
            if targets[i].labels[j] == label:
                value = overlap(detections[i].boxes[k].tolist(), targets[i].boxes[j].tolist())
                if value > best:
                    best, chosen = value, j
        if best > iou or (best == iou and not strict):
            if targets[i].ignore[chosen]:
                continue
            if (i, chosen) in used:
                fp += 1
            else:
                used.add((i, chosen))
                tp += 1
        else:
            fp += 1
        points.append((tp / npos, tp / (tp + fp)))
    if method == "11point":
        steps = [k / 10 for k in range(11)]
        return sum(max((p for r, p in points if r >= t), default=0.0) for t in steps) / 11
    area, last = 0.0, 0.0
    for n, (recall, _) in enumerate(points):
        area += (recall - last) * max(p for _, p in points[n:])
        last = recall
    return area


def _random_case(seed: int, num_images: int = 12) -> tuple[list[Detections], list[Target]]:
    """Small boxes on whole pixels, so that the pixel convention matters; coarse scores, so that many tie."""
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(num_images):
        count = int(rng.integers(0, 6))
        corners = rng.integers(0, 30, (count, 2))
        boxes = np.hstack([corners, corners + rng.integers(3, 12, (count, 2))])
        targets.append(make_target(boxes, rng.integers(1, 3, count), rng.random(count) < 0.25))
        near = np.repeat(boxes, 2, axis=0) + rng.integers(-1, 2, (2 * count, 4))
        corners = rng.integers(0, 30, (3, 2))
        extra = np.hstack([corners, corners + rng.integers(3, 12, (3, 2))])
        found = np.vstack([near.reshape(-1, 4), extra])
        labels = rng.integers(1, 3, len(found))
        detections.append(_found(found, rng.integers(1, 8, len(found)) / 8, labels))
    return detections, targets


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("method", ["area", "11point"])
def test_random_cases_agree_with_a_plain_loop(method: Any, plus_one: bool, strict: bool) -> None:
    for seed in range(12):
        detections, targets = _random_case(seed)
        for iou in (0.1, 0.3, 0.5, 0.75):
            scores = voc_average_precision(detections, targets, 2, iou, method, plus_one, strict)
            for label in (1, 2):
                wanted = _reference(detections, targets, label, iou, method, plus_one, strict)
                assert scores["per_class"][label] == pytest.approx(wanted, abs=1e-12)


def test_the_pixel_convention_changes_the_random_cases() -> None:
    detections, targets = _random_case(0, num_images=40)
    values = [voc_average_precision(detections, targets, 2, plus_one=p)["mean"] for p in (False, True)]
    assert abs(values[0] - values[1]) > 1e-3


def test_pixel_convention_by_hand() -> None:
    found, targets = [_found([[0, 0, 9, 9]], [1])], [make_target([[5, 0, 14, 9]])]
    ious = [find_overlaps(found, targets, 0.01, plus_one=p).ious for p in (False, True)]
    assert ious[0] == pytest.approx([4 * 9 / (2 * 81 - 36)])
    assert ious[1] == pytest.approx([50 / 150])


def test_a_ranking_worked_by_hand() -> None:
    # true, false, true of 4 objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2
    targets = [make_target([BOX, FAR]), make_target([BOX, FAR])]
    detections = [_found([BOX, [20, 20, 30, 30]], [0.9, 0.8]), _found([FAR], [0.7])]
    area = voc_average_precision(detections, targets, 1)
    assert area["mean"] == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    np.testing.assert_allclose(area["curves"][1]["precision"], [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(area["curves"][1]["recall"], [1 / 4, 1 / 4, 1 / 2])
    eleven = voc_average_precision(detections, targets, 1, method="11point")
    assert eleven["mean"] == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)


def test_a_second_detection_of_an_object_is_false_even_beside_a_free_one() -> None:
    targets = [make_target([[0, 0, 10, 10], [0, 4, 10, 14]])]
    detections = [_found([[0, 0, 10, 10], [0, 1, 10, 11]], [0.9, 0.8])]  # both lie nearest the first object
    scores = voc_average_precision(detections, targets, 1)
    assert scores["curves"][1]["precision"].tolist() == [1.0, 0.5]
    assert scores["mean"] == 0.5


def test_detections_of_difficult_objects_count_neither_way() -> None:
    targets = [make_target([BOX, FAR], ignore=[True, False])]
    scores = voc_average_precision([_found([BOX, BOX, FAR], [0.9, 0.8, 0.7])], targets, 1)
    assert scores["mean"] == 1.0
    assert scores["num_objects"] == {1: 1}
    assert scores["curves"][1]["scores"].tolist() == pytest.approx([0.7])


def test_equal_scores_keep_the_order_of_images_and_detections() -> None:
    targets = [make_target([]), make_target([BOX])]
    detections = [_found([BOX], [0.5]), _found([BOX, FAR], [0.5, 0.5])]
    assert voc_average_precision(detections, targets, 1)["curves"][1]["precision"].tolist() == [
        0,
        1 / 2,
        1 / 3,
    ]
    assert voc_average_precision(detections[::-1], targets[::-1], 1)["mean"] == 1.0


def test_an_overlap_at_the_threshold_counts_unless_strict() -> None:
    targets, detections = [make_target([[0, 0, 10, 10]])], [_found([[0, 0, 10, 5]], [0.5])]
    assert voc_average_precision(detections, targets, 1)["mean"] == 1.0
    assert voc_average_precision(detections, targets, 1, strict=True)["mean"] == 0.0


def test_no_detections_score_zero_and_classes_without_objects_are_left_out() -> None:
    targets = [make_target([BOX], [2])]
    scores = voc_average_precision([_found([BOX], [0.9], [1])], targets, 3)
    assert scores["per_class"][2] == 0.0
    assert np.isnan([scores["per_class"][1], scores["per_class"][3]]).all()
    assert scores["mean"] == 0.0


def test_without_any_object_or_image_the_mean_is_nan() -> None:
    assert np.isnan(voc_average_precision([_found([BOX], [0.9])], [make_target([])], 1)["mean"])
    assert np.isnan(voc_average_precision([], [], 1)["mean"])


def test_eleven_points_reach_a_recall_of_exactly_three_tenths() -> None:
    recall, precision = np.array([0.1, 0.2, 0.3]), np.ones(3)
    assert average_precision(recall, precision, "11point") == pytest.approx(4 / 11)


def test_detections_and_targets_must_be_of_as_many_images() -> None:
    with pytest.raises(ValueError, match="detections of 1 images, wanted 2"):
        voc_average_precision([_found([], [])], [make_target([])] * 2, 1)

from typing import Any

import numpy as np
import pytest

from trainer.metrics.error_breakdown import KINDS, error_breakdown
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, Target, make_target

BOX, FAR, NOWHERE = [0, 0, 10, 10], [50, 50, 60, 60], [100, 0, 110, 10]
OFF = [0, 6, 10, 16]  # IoU with BOX 0.25


def _found(boxes: Any, scores: Any, labels: Any) -> Detections:
    return Detections(
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(scores, np.float32),
        np.asarray(labels, np.int64),
    )


def _iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


def _random_case(seed: int) -> tuple[list[Detections], list[Target]]:
    """At most one object an image, so that what each detection lies on is plain; three classes."""
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(40):
        has_object = rng.random() < 0.8
        label = int(rng.integers(1, 4))
        targets.append(make_target([[20, 20, 60, 60]] if has_object else [], [label] if has_object else []))
        count = int(rng.integers(0, 5))
        shift = rng.choice([0, 4, 20, 60], (count, 1)) * rng.random((count, 2))
        corners = 20 + np.hstack([shift, shift + 40])
        labels = np.where(rng.random(count) < 0.6, label, rng.integers(1, 4, count))
        detections.append(_found(corners, rng.random(count), labels))
    return detections, targets


@pytest.mark.parametrize("seed", range(3))
def test_costs_are_those_of_sets_mended_by_hand(seed: int) -> None:
    detections, targets = _random_case(seed)
    result = error_breakdown(detections, targets, 3)
    mean = voc_average_precision(detections, targets, 3)["mean"]
    assert result.average_precision == pytest.approx(mean, abs=1e-12)
    assert min(result.counts.values()) > 0
    for kind in KINDS:
        mended, wanted = [], []
        for found, target, kinds, missed in zip(
            detections, targets, result.kinds, result.missed, strict=True
        ):
            rows = {k: (found.boxes[k], found.labels[k]) for k in range(len(found)) if kinds[k] != kind}
            wrong = sorted((k for k in range(len(found)) if kinds[k] == kind), key=lambda k: -found.scores[k])
            if kind in ("confused", "mislocalised") and wrong and "true" not in kinds:
                rows[wrong[0]] = target.boxes[0], target.labels[0]
            keep = sorted(rows)
            boxes, labels = [rows[k][0] for k in keep], [rows[k][1] for k in keep]
            mended.append(_found(boxes, found.scores[keep], labels))
            stays = ~missed if kind == "missed" else np.ones(len(target), bool)
            wanted.append(make_target(target.boxes[stays], target.labels[stays]))
        after = voc_average_precision(mended, wanted, 3)["mean"]
        assert result.costs[kind] == pytest.approx(after - mean, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_kinds_agree_with_a_plain_loop(seed: int) -> None:
    detections, targets = _random_case(seed)
    result = error_breakdown(detections, targets, 3)
    for found, target, kinds in zip(detections, targets, result.kinds, strict=True):
        free = True
        for k in np.argsort(-found.scores).tolist():
            over = _iou(found.boxes[k].tolist(), target.boxes[0].tolist()) if len(target) else 0.0
            same = len(target) and found.labels[k] == target.labels[0]
            if same and over >= 0.5:
                wanted, free = "true" if free else "duplicate", False
            elif over >= 0.5:
                wanted = "confused"
            elif over >= 0.1:
                wanted = "mislocalised" if same else "both"
            else:
                wanted = "background"
            assert kinds[k] == wanted


def test_each_kind_by_hand() -> None:
    targets = [make_target([BOX, FAR], [1, 2]), make_target([BOX], [1])]
    detections = [
        _found([BOX, BOX, FAR, NOWHERE, OFF], [0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 1, 1, 2]),
        _found([OFF], [0.4], [1]),
    ]
    result = error_breakdown(detections, targets, 2)
    assert result.kinds == [["true", "duplicate", "confused", "background", "both"], ["mislocalised"]]
    assert [m.tolist() for m in result.missed] == [[False, False], [False]]
    assert result.counts == dict.fromkeys(KINDS, 1) | {"missed": 0}


def test_an_object_that_nothing_touches_is_missed() -> None:
    result = error_breakdown([_found([BOX], [0.9], [1])], [make_target([BOX, FAR])], 1)
    assert result.missed[0].tolist() == [False, True]
    assert result.costs["missed"] == pytest.approx(0.5)


def test_ignored_objects_are_neither_found_nor_missed() -> None:
    targets = [make_target([BOX, FAR], ignore=[True, True])]
    result = error_breakdown([_found([BOX], [0.9], [1])], targets, 1)
    assert result.kinds == [["ignored"]]
    assert sum(result.counts.values()) == 0
    assert np.isnan(result.costs["background"])


def test_nothing_at_all_is_not_an_error() -> None:
    assert sum(error_breakdown([], [], 1).counts.values()) == 0
    assert error_breakdown([_found([], [], [])], [make_target([BOX])], 1).counts["missed"] == 1

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.metrics.average_precision import average_precision_of
from trainer.metrics.coco import (
    IOUS,
    CocoArrays,
    coco_arrays,
    coco_average_precision,
    coco_by_size,
    coco_matches,
)
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, Target, make_target

SUMMARY = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def _random_case(seed: int, num_classes: int = 2) -> tuple[list[Detections], list[Target]]:
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(15):
        count = int(rng.integers(0, 8))
        corners = rng.uniform(0, 300, (count, 2))
        boxes = np.hstack([corners, corners + rng.uniform(8, 160, (count, 2))])
        targets.append(make_target(boxes, rng.integers(1, num_classes + 1, count), rng.random(count) < 0.2))
        near = (np.repeat(boxes, 2, axis=0) + rng.normal(0, 5, (2 * count, 4))).astype(np.float32)
        labels = np.repeat(targets[-1].labels, 2)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        scores = rng.permutation(2 * count).astype(np.float32) / 20 + np.float32(rng.random() / 30)
        detections.append(Detections(near, scores, labels))
    return detections, targets


def _adversarial_case(seed: int, num_classes: int = 2) -> tuple[list[Detections], list[Target]]:
    """Whole pixels on a small field: equal IoUs, areas at limits, equal scores, twins, crowds, nothing."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corners = rng.integers(0, 40, (count, 2))
        return np.hstack([corners, corners + rng.choice([8, 16, 32, 40, 96, 100], (count, 2))])

    detections, targets = [], []
    for _ in range(10):
        count = int(rng.choice([0, 1, 6, 25]))
        real = boxes(count)
        targets.append(make_target(real, rng.integers(1, num_classes + 1, count), rng.random(count) < 0.3))
        near = np.repeat(real, 3, axis=0) + rng.integers(-2, 3, (3 * count, 4)) * (
            rng.random((3 * count, 1)) < 0.5
        )
        found = np.vstack([near, boxes(int(rng.choice([0, 30])))]).astype(np.float32)
        found = found[: int(rng.choice([0, 200]))]
        scores = rng.integers(1, 6, len(found)).astype(np.float32) / 6
        detections.append(Detections(found, scores, rng.integers(1, num_classes + 1, len(found))))
    return detections, targets


def _by_files(
    folder: Path,
    detections: list[Detections],
    targets: list[Target],
    caps: list[int] | None = None,
    ranges: list[list[float]] | None = None,
) -> COCOeval:
    """The usual way: an annotation file, loadRes, evaluate, accumulate."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i, (found, target) in enumerate(zip(detections, targets, strict=True), start=10):
        for box, label, ignored in zip(target.boxes, target.labels, target.ignore, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": int(label)}
            row |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            annotations.append(row | {"iscrowd": int(ignored)})
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            bbox = [x0, y0, x1 - x0, y1 - y0]
            results.append({"image_id": i, "category_id": int(label), "bbox": bbox, "score": float(score)})
    content = {
        "info": {},
        "images": [{"id": i} for i in range(10, 10 + len(targets))],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))
    truth = COCO(folder / "truth.json")
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    if caps and ranges:
        evaluation.params.maxDets = caps
        evaluation.params.areaRng = ranges
        evaluation.params.areaRngLbl = [str(i) for i in range(len(ranges))]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_numbers_are_those_of_pycocotools(tmp_path: Path, seed: int) -> None:
    detections, targets = _random_case(seed)
    scores = coco_average_precision(detections, targets, 2)
    assert tuple(scores) == SUMMARY
    evaluation = _by_files(tmp_path, detections, targets)
    evaluation.summarize()
    np.testing.assert_allclose(list(scores.values()), evaluation.stats, atol=1e-12)


@pytest.mark.parametrize("caps", [[1, 10, 100], [2, 5, 7], [1, 10, 1000]])
@pytest.mark.parametrize("seed", range(8))
def test_every_precision_and_recall_is_that_of_pycocotools(
    tmp_path: Path, seed: int, caps: list[int]
) -> None:
    detections, targets = _adversarial_case(seed)
    bins = {"tiny": (0.0, 256.0), "mid": (256.0, 1024.0), "most": (1024.0, 9216.0)}
    arrays = coco_arrays(detections, targets, 2, caps, areas=bins)
    theirs = _by_files(tmp_path, detections, targets, caps, [[0, 1e10], *map(list, bins.values())]).eval
    np.testing.assert_array_equal(arrays.precision, theirs["precision"][..., -1])
    np.testing.assert_array_equal(arrays.recall, theirs["recall"])


def test_one_iou_alone_is_a_part_of_all() -> None:
    detections, targets = _adversarial_case(1)
    whole = coco_arrays(detections, targets, 2)
    part: CocoArrays = coco_arrays(detections, targets, 2, ious=(IOUS[5],), areas={})
    np.testing.assert_array_equal(part.precision[0, ..., 0], whole.precision[5, ..., 0])


def test_an_iou_of_one_can_be_asked_for() -> None:
    box = np.array([[0.1, 0.2, 10.3, 20.7]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.ones(1, np.int64))
    assert coco_arrays([found], [make_target(box)], 1, ious=(1.0,)).recall[0, 0, 0, -1] == 1


def test_matches_hold_the_average_precision() -> None:
    detections, targets = _adversarial_case(2)
    wanted = coco_average_precision(detections, targets, 2)
    for ious, name in ((IOUS, "AP"), (IOUS[:1], "AP50")):
        matches = coco_matches(detections, targets, 2, ious)
        values = [average_precision_of(m, "101point") for m in matches]
        assert np.nanmean(values) == pytest.approx(wanted[name], abs=1e-12)


def test_sizes_are_roots_of_areas() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 0, 90, 40], [0, 200, 200, 400]], np.float32)
    found = Detections(boxes[[0, 2]], np.array([0.9, 0.8], np.float32), np.ones(2, np.int64))
    scores = coco_by_size([found], [make_target(boxes)], 1)
    assert list(scores) == ["0-16", "16-32", "32-96", "96+"]
    assert [s["AP50"] for s in scores.values()] == pytest.approx([1, np.nan, 0, 1], nan_ok=True)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    coco_average_precision(*_random_case(0), 2)
    assert capsys.readouterr().out == ""


def test_no_detections_at_all_score_zero() -> None:
    _, targets = _random_case(0)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    scores = coco_average_precision([nothing] * len(targets), targets, 2)
    assert scores["AP"] == scores["AP50"] == scores["AR100"] == 0.0


def test_without_objects_or_images_the_numbers_are_nan() -> None:
    found = Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.ones(1, np.int64))
    assert np.isnan(coco_average_precision([found], [make_target([])], 1)["AP"])
    assert np.isnan(coco_average_precision([], [], 1)["AP"])


def test_the_first_detection_of_the_first_object_is_a_match() -> None:
    box = np.array([[10, 10, 50, 50]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.ones(1, np.int64))
    scores = coco_average_precision([found], [make_target(box)], 1)
    assert [scores[name] for name in ("AP", "AP_medium", "AR1")] == pytest.approx([1, 1, 1])
    assert np.isnan(scores["AP_small"])


def test_detections_beyond_the_cap_are_not_seen() -> None:
    boxes = np.array([[20 * i, 0, 20 * i + 15, 15] for i in range(20)], np.float32)
    found = Detections(boxes, np.linspace(1, 0.5, 20, dtype=np.float32), np.ones(20, np.int64))
    scores = {cap: coco_average_precision([found], [make_target(boxes)], 1, cap) for cap in (5, 20)}
    assert scores[5]["AR5"] == pytest.approx(5 / 20)
    assert [scores[20][name] for name in ("AR20", "AP")] == pytest.approx([1, 1])
    assert scores[20]["AR10"] == 0.5


def test_ap50_agrees_with_voc_where_nothing_overlaps_or_ties() -> None:
    rng = np.random.default_rng(4)
    boxes = np.array([[100 * i, 0, 100 * i + 50, 50] for i in range(40)], np.float32)
    kept = rng.random(40) < 0.7
    away = boxes + np.array([0, 500, 0, 500], np.float32)
    found = np.vstack([boxes[kept], away])
    scores = rng.permutation(len(found)).astype(np.float32) / len(found)
    detections = [Detections(found, scores, np.ones(len(found), np.int64))]
    coco = coco_average_precision(detections, [make_target(boxes)], 1)["AP50"]
    assert coco == pytest.approx(
        voc_average_precision(detections, [make_target(boxes)], 1)["mean"], abs=0.015
    )
    assert 0.1 < coco < 0.9

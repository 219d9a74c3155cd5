import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.evaluation.pictures import draw_curves, telling_photos
from trainer.evaluation.report import evaluation_report, plain
from trainer.metrics.average_precision import match_detections
from trainer.metrics.bootstrap import bootstrap_average_precision
from trainer.metrics.coco import coco_average_precision
from trainer.metrics.error_breakdown import error_breakdown
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, make_target

CLASSES = ("bird", "car", "ufo")


def photo(root: Path, name: str, boxes: list, labels: list[int] | None = None, ignore=None) -> BoxedImage:
    path = root / f"{name}.png"
    cv2.imwrite(str(path), np.full((100, 120, 3), 90, np.uint8))
    return BoxedImage(name, path, 120, 100, make_target(boxes, labels, ignore))


def found(boxes: list, scores: list[float], labels: list[int] | None = None) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels or [1] * len(boxes), np.int64),
    )


@pytest.fixture
def some(tmp_path: Path) -> tuple[list[Detections], list[BoxedImage]]:
    """Birds found, missed, and found where there is none; a car; no ufo."""
    one, two = [10, 10, 50, 50], [60, 10, 110, 60]
    photos = [
        photo(tmp_path, "found", [one, two], [1, 2]),
        photo(tmp_path, "missed", [one, two, [1, 80, 9, 90]], ignore=[False, False, True]),
        photo(tmp_path, "empty", []),
    ]
    detections = [
        found([one, [61, 10, 110, 60]], [0.9, 0.8], [1, 2]),
        found([one], [0.7]),
        found([two, one], [0.75, 0.1], [1, 1]),
    ]
    return detections, photos


def test_a_report_holds_the_metrics_own_numbers(some) -> None:
    detections, photos = some
    targets = [each.target for each in photos]
    report = evaluation_report(detections, photos, CLASSES, num_draws=50, seed=3)
    assert (report["photos"], report["objects"], report["ignored"], report["detections"]) == (3, 4, 1, 5)
    voc, coco = voc_average_precision(detections, targets, 3), coco_average_precision(detections, targets, 3)
    assert report["scores"]["AP50"] == round(voc["mean"], 6)
    assert report["scores"]["AP"] == round(coco["AP"], 6)
    assert [each["AP50"] for each in report["classes"]] == plain(list(voc["per_class"].values()))
    matches = match_detections(detections, targets, 3)
    interval = bootstrap_average_precision(list(matches.values()), num_draws=50, seed=3)
    assert report["intervals"]["AP50"] == plain(
        {"value": interval.value, "low": interval.low, "high": interval.high}
    )
    errors = error_breakdown(detections, targets, 3)
    assert {kind: each["count"] for kind, each in report["errors"].items()} == errors.counts
    assert report["sizes"]["32-96"]["objects"] == 4


def test_a_report_is_plain_json_and_says_nothing_where_there_is_nothing(some) -> None:
    report = evaluation_report(*some, CLASSES, num_draws=0)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    ufo = report["classes"][2]
    assert (ufo["objects"], ufo["AP50"], ufo["AP"], ufo["best"]["score"]) == (0, None, None, None)
    assert ufo["curve"] == {"scores": [], "precision": [], "recall": []}
    assert (report["intervals"]["AP"]["low"], report["scores"]["AP_small"]) == (None, None)


def test_the_photos_that_say_most_are_listed(some) -> None:
    report = evaluation_report(*some, CLASSES, num_draws=0)
    assert [(each["photo"], each["kind"]) for each in report["false"]] == [(2, "background")]
    assert report["false"][0]["box"] == [60, 10, 110, 60]
    assert [(each["key"], each["missed"], each["objects"]) for each in report["missed"]] == [("missed", 1, 2)]
    assert report["missed"][0]["boxes"] == [[60, 10, 110, 60]]
    assert [(each["key"], each["score"]) for each in report["best"]] == [("found", 0.8)]


def test_photos_without_any_object_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hold no object to find"):
        evaluation_report([found([], [])], [photo(tmp_path, "empty", [])], CLASSES)


def test_a_report_is_drawn(some) -> None:
    report = evaluation_report(*some, CLASSES, num_draws=20)
    curves = draw_curves(report, "test")
    assert curves.dtype == np.uint8
    blue = (np.abs(curves.astype(int) - (0, 114, 178)).max(axis=2) < 12).sum()
    assert blue > 200
    sheet = telling_photos(report, *some, CLASSES)
    assert ((np.abs(sheet.astype(int) - (230, 40, 60)).max(axis=2) < 12).sum()) > 500


def test_nothing_found_is_drawn_too(tmp_path: Path) -> None:
    photos = [photo(tmp_path, "one", [[10, 10, 50, 50]])]
    report = evaluation_report([found([], [])], photos, CLASSES[:1], num_draws=5)
    assert (report["scores"]["AP50"], report["classes"][0]["best"]["f1"]) == (0, None)
    assert draw_curves(report, "test").shape[2] == 3
    assert telling_photos(report, [found([], [])], photos, CLASSES[:1]) is not None

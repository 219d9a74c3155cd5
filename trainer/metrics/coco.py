"""COCO's average precision and recall (Lin et al. 2014), by pycocotools.

The numbers come from COCOeval's arrays: its ``summarize`` knows 100 detections an image only.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.sample import Detections, FloatArray, Target

_AREAS = (
    "all",
    "small",
    "medium",
    "large",
)  # in COCOeval's own order; small is under 32^2 px, large over 96^2


def coco_average_precision(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    max_detections: int = 100,
) -> dict[str, float]:
    """COCO's numbers, 0..1, means over the classes that have objects; NaN where no object counts.

    Keys: AP (over IoU 0.5:0.05:0.95), AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10,
    AR{max_detections}, AR_small, AR_medium, AR_large. Areas are those of the boxes, in the pixels they are
    given in. Ignored objects are crowds: detections that lie in them count neither way.
    Raises ValueError when there is not one of each per image.
    """
    if len(detections) != len(targets):
        raise ValueError(
            f"detections of {len(detections)} images, wanted {len(targets)} as there are targets"
        )
    if not targets:
        targets, detections = [_NOTHING], [_NO_DETECTIONS]
    objects = [_entries(t.boxes, t.labels, iscrowd=t.ignore.astype(int)) for t in targets]
    found = [_entries(d.boxes, d.labels, score=d.scores.astype(np.float64)) for d in detections]
    caps = [1, min(10, max_detections), max_detections]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(objects, num_classes), _index(found, num_classes), "bbox")
        evaluation.params.maxDets = caps
        evaluation.evaluate()
        evaluation.accumulate()
    return _summary(evaluation.eval["precision"], evaluation.eval["recall"], caps)


def _summary(precision: Any, recall: Any, caps: Sequence[int]) -> dict[str, float]:
    """Means over precision (IoU, recall, class, area, cap) and recall (IoU, class, area, cap)."""
    summary = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
    }
    summary |= {f"AP_{name}": _mean(precision[:, :, :, i, -1]) for i, name in enumerate(_AREAS) if i}
    summary |= {f"AR{cap}": _mean(recall[:, :, 0, i]) for i, cap in enumerate(caps)}
    summary |= {f"AR_{name}": _mean(recall[:, :, i, -1]) for i, name in enumerate(_AREAS) if i}
    return summary


def _mean(values: Any) -> float:
    counted = values[values > -1]  # -1 stands for: no objects
    return float(counted.mean()) if counted.size else np.nan


def _entries(boxes: FloatArray, labels: Any, **columns: Any) -> list[dict[str, Any]]:
    """COCO's entries of one image; float64, so that x1 - x0 is exact."""
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    sizes = corners[:, 2:] - corners[:, :2]
    rows = {
        "category_id": labels.tolist(),
        "bbox": np.hstack([corners[:, :2], sizes]).tolist(),
        "area": sizes.prod(axis=1).tolist(),
        "iscrowd": [0] * len(corners),
    } | {name: column.tolist() for name, column in columns.items()}
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def _index(images: Sequence[Sequence[dict[str, Any]]], num_classes: int) -> Any:
    """A COCO index of objects or of detections, built by hand since ``loadRes`` fails on an empty list.

    Ids start at 1, since COCOeval takes the id 0 of a match for no match.
    """
    index = COCO()
    entries = [entry | {"image_id": i} for i, image in enumerate(images, start=1) for entry in image]
    index.dataset = {
        "images": [{"id": i} for i in range(1, len(images) + 1)],
        "categories": [{"id": label} for label in range(1, num_classes + 1)],
        "annotations": [entry | {"id": i} for i, entry in enumerate(entries, start=1)],
    }
    index.createIndex()
    return index


_NO_BOXES = np.zeros((0, 4), np.float32)
_NOTHING = Target(_NO_BOXES, np.zeros(0, np.int64), np.zeros(0, bool))
_NO_DETECTIONS = Detections(_NO_BOXES, np.zeros(0, np.float32), np.zeros(0, np.int64))

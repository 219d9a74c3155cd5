"""WIDER FACE's Easy, Medium and Hard average precision (Yang et al. 2016), by its evaluation code's rules.

It is the Python port that papers quote (wondervictor/WiderFace-Evaluation, carried by
biubug6/Pytorch_Retinaface) that is followed: scores are stretched to 0..1 over the whole set; a face is
x1 - x0 + 1 wide; each detection belongs to the one face that it overlaps most, if by an IoU of 0.5 or more,
and is dropped when that face does not count in the setting; precision and recall are read at 1000 thresholds.
Detections in images without any annotated face are not counted. Where no detection counts at a threshold the
port divides 0 by 0 and its AP is NaN; here precision is 0 there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError
from trainer.boxed_data.matlab import read_mat
from trainer.metrics.average_precision import average_precision, claimed_objects, first_claims
from trainer.metrics.overlaps import BoolArray, Float64Array, IntArray, find_overlaps
from trainer.sample import Detections, Target, make_target

SETTINGS = ("easy", "medium", "hard")
_THRESHOLDS = 1 - np.arange(1, 1001) / 1000


@dataclass(frozen=True, slots=True, eq=False)
class WiderTruth:
    """The validation set's faces. names: ``EVENT/IMAGE`` without suffix, in the order of the official files.

    targets: every annotated face, xyxy px with x1 = x + w. counts: of each setting and image, bool (N,).
    """

    names: tuple[str, ...]
    targets: tuple[Target, ...]
    counts: Mapping[str, tuple[BoolArray, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class WiderScores:
    """Average precision, 0..1, NaN without a face that counts; precision and recall (1000,) behind it."""

    average_precision: dict[str, float]
    precision: dict[str, Float64Array]
    recall: dict[str, Float64Array]


def read_wider_truth(folder: Path) -> WiderTruth:
    """The official ``wider_face_val.mat`` and ``wider_{easy,medium,hard}_val.mat``. Raises InputError."""
    variables = ["event_list", "file_list", "face_bbx_list"]
    events, files, boxes = (read_mat(folder / "wider_face_val.mat", variables)[k].ravel() for k in variables)
    names, targets = [], []
    for event, of_event, boxes_of_event in zip(events, files, boxes, strict=True):
        for file, xywh in zip(of_event.ravel(), boxes_of_event.ravel(), strict=True):
            names.append(f"{np.asarray(event).item()}/{np.asarray(file).item()}")
            targets.append(make_target(_xywh_to_xyxy(xywh)))
    counts = {setting: _counts(folder / f"wider_{setting}_val.mat", targets) for setting in SETTINGS}
    return WiderTruth(tuple(names), tuple(targets), counts)


def _counts(path: Path, targets: Sequence[Target]) -> tuple[BoolArray, ...]:
    """Which faces of each image count; the file lists them from 1."""
    listed = [n.ravel() for event in read_mat(path, ["gt_list"])["gt_list"].ravel() for n in event.ravel()]
    if len(listed) != len(targets):
        raise InputError(f"{path}: lists {len(listed)} images, wanted {len(targets)} as wider_face_val.mat")
    counts = tuple(np.zeros(len(target), bool) for target in targets)
    for i, (of_image, numbers) in enumerate(zip(counts, listed, strict=True)):
        if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= len(of_image):
            raise InputError(f"{path}: image {i + 1}: face {numbers.max()}, wanted 1 to {len(of_image)}")
        of_image[numbers.astype(int) - 1] = True
    return counts


def read_wider_predictions(folder: Path, names: Sequence[str]) -> list[Detections]:
    """Detections from upstream's text files, ``EVENT/IMAGE.txt``: name, count, lines of x y w h score.

    In the order of the names; boxes and scores keep the files' digits (float64). Raises InputError.
    """
    found = []
    for name in names:
        path = folder / f"{name}.txt"
        if not path.is_file():
            raise InputError(f"{path}: no such file, wanted one for each image, even without detections")
        rows = [line.split() for line in path.read_text().splitlines()[2:] if line.strip()]
        try:
            table: Any = np.array([row[:5] for row in rows], np.float64).reshape(-1, 5)
        except ValueError:
            raise InputError(f"{path}: found a line that is not 5 numbers, wanted x y w h score") from None
        found.append(Detections(_xywh_to_xyxy(table[:, :4]), table[:, 4], np.ones(len(table), np.int64)))
    return found


def _xywh_to_xyxy(boxes: Any) -> Any:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def wider_average_precision(
    detections: Sequence[Detections], truth: WiderTruth, iou: float = 0.5
) -> WiderScores:
    """AP of each setting. detections: one entry per image of the truth, in its order; labels play no part.

    Low scores matter: keep all of 0.02 and more. Raises ValueError when there is not one entry per image.
    """
    faces = [Target(t.boxes, np.zeros(len(t), np.int64), np.zeros(len(t), bool)) for t in truth.targets]
    found = [Detections(d.boxes, d.scores, np.zeros(len(d), np.int64)) for d in detections]
    overlaps = find_overlaps(found, faces, iou, plus_one=True)
    scores = stretched(overlaps.scores)
    order = np.argsort(-scores, kind="stable")
    claims = claimed_objects(overlaps, iou)[order]
    is_first = first_claims(claims)
    judged = np.array([len(target) > 0 for target in truth.targets], bool)[overlaps.images[order]]
    reached = np.searchsorted(-scores[order], -_THRESHOLDS, side="right")  # detections at each threshold
    result = WiderScores({}, {}, {})
    for setting in truth.counts:
        counting = np.concatenate([np.zeros(0, bool), *truth.counts[setting]])
        on_counting = (claims >= 0) & np.append(counting, False)[claims]
        num_true = _at(reached, is_first & on_counting)
        num_found = _at(reached, judged & ((claims < 0) | on_counting))
        precision = np.divide(num_true, num_found, out=np.zeros(len(reached)), where=num_found > 0)
        total = int(counting.sum())
        recall = num_true / total if total else np.full(len(reached), np.nan)
        result.precision[setting], result.recall[setting] = precision, recall
        result.average_precision[setting] = average_precision(recall, precision) if total else np.nan
    return result


def _at(reached: IntArray, chosen: BoolArray) -> Float64Array:
    """How many of the ranked detections (D,) are chosen, among the first ``reached`` (1000,)."""
    counts: Float64Array = np.append(0.0, np.cumsum(chosen))[reached]
    return counts


def stretched(scores: Float64Array) -> Float64Array:
    """Scores with the lowest of the set at 0 and the highest at 1; all 1 when they are equal.

    As upstream starts its search: a lowest above 1 is taken for 1, a highest under 0 for 0.
    """
    if not len(scores):
        return scores
    low, high = min(1.0, float(scores.min())), max(0.0, float(scores.max()))
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)

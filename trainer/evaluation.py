"""Run a detector over boxed photos and score it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from configs.errors import InputError
from trainer.augment import fit_sample
from trainer.dataset import BoxedImage
from trainer.detector import Detector
from trainer.images import read_boxed_image
from trainer.metrics.coco import coco_average_precision
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, Target

_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores in 0..1, and the detections they come from, in pixels of the files. Same order as the photos."""

    scores: dict[str, float]
    detections: list[Detections]


def detect_photos(
    detector: Detector, photos: Sequence[BoxedImage], size: int, device: torch.device
) -> list[Detections]:
    """Detections in each photo, which is resized to the detector's square; boxes are pixels of the file."""
    found: list[Detections] = []
    for start in range(0, len(photos), _BATCH):
        part = photos[start : start + _BATCH]
        fitted = [fit_sample(read_boxed_image(p), p.target, size, None, None, p.key).image for p in part]
        images = torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2).to(device)
        found += [
            _to_file_pixels(detections, photo, size)
            for detections, photo in zip(detector.detect(images), part, strict=True)
        ]
    return found


def _to_file_pixels(detections: Detections, photo: BoxedImage, size: int) -> Detections:
    scale = np.array([photo.width, photo.height, photo.width, photo.height], np.float32) / size
    return Detections((detections.boxes * scale).astype(np.float32), detections.scores, detections.labels)


def evaluate(
    detector: Detector,
    photos: Sequence[BoxedImage],
    num_classes: int,
    size: int,
    device: torch.device,
    *,
    thorough: bool = True,
) -> Evaluation:
    """Detect, and `score`. Without ``thorough`` AP50 alone, quick. Raises InputError without any object."""
    detections = detect_photos(detector, photos, size, device)
    targets = [photo.target for photo in photos]
    scores = score(detections, targets, num_classes, "evaluation: the photos", thorough=thorough)
    return Evaluation(scores, detections)


def score(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    num_classes: int,
    place: str,
    *,
    thorough: bool = True,
) -> dict[str, float]:
    """AP50: VOC, all-point, IoU >= 0.5 (the paper's metric over all detections). AP50_11point: VOC 2007's.
    AP, AP75: COCO's. Without ``thorough`` AP50 alone. Six digits. Raises InputError without any object.

    place: what the targets belong to, for the error.
    """
    scores = {"AP50": voc_average_precision(detections, targets, num_classes)["mean"]}
    if math.isnan(scores["AP50"]):
        raise InputError(f"{place} hold no object to find, wanted at least one")
    if thorough:
        coco = coco_average_precision(detections, targets, num_classes)
        eleven = voc_average_precision(detections, targets, num_classes, method="11point")
        scores |= {"AP50_11point": eleven["mean"], "AP": coco["AP"], "AP75": coco["AP75"]}
    return {name: round(float(value), 6) for name, value in scores.items()}

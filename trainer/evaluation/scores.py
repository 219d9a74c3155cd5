"""Run a detector over boxed photos and score it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.detector import Detector
from trainer.evaluation.detection import Shown, Size, detect_all, made_ahead, resized
from trainer.imaging.images import read_boxed_image
from trainer.metrics.coco import coco_average_precision
from trainer.metrics.voc import voc_average_precision
from trainer.sample import Detections, Target


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores in 0..1, and the detections they come from, in pixels of the files. Same order as the photos."""

    scores: dict[str, float]
    detections: list[Detections]


def detect_photos(
    detector: Detector,
    photos: Sequence[BoxedImage],
    size: int,
    device: torch.device,
    shown_at: Size = "square",
) -> list[Detections]:
    """Detections in each photo, in pixels of its file, with landmarks where the detector gives them.

    size: of the detector's square, to which each photo is resized unless ``shown_at`` says otherwise.
    """

    def show(photo: BoxedImage) -> Shown[None]:
        image = resized(read_boxed_image(photo), shown_at, size)
        return Shown(None, image, photo.width, photo.height)

    shown = made_ahead(show, photos)
    return [found for _, found in detect_all(detector, shown, size, device)]


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

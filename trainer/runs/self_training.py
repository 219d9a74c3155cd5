"""Boxes for photos of one known object each, from a detector that is sure of them: no box is paid for.

Classification photos are known to hold their class, so that a box is asked of every one; it is kept where the
detector, shown the photo plain, mirrored and smaller, finds the same single object with confidence.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import Field

from configs.errors import InputError
from configs.home import locate
from configs.kinds import StrictModel
from configs.text_file import write_text
from trainer.anchoring.boxes import pairwise_iou
from trainer.dataset import BoxedImage
from trainer.detector import Detector
from trainer.imaging.images import read_image, resize_antialiased
from trainer.runs.trained import Trained
from trainer.sample import Detections, FloatArray, UInt8Array, make_target

PSEUDO_LABELS_NAME = "pseudo_labels.json"

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_BATCH = 16
_SMALLER = 0.7  # the third view's scale
_APART_IOU = 0.3


class UnlabelledConfig(StrictModel):
    """Photos without boxes, one object of a class each, that ``self_training`` labels by itself.

    root: their folder (looked through), relative to the working directory, else to home. label: their class;
    it may be left out where there is one. limit: photos looked at, the first of a seeded order.
    min_score: of the best detection in each view. min_iou: between the views' best boxes. single: leave out
    photos in which a second object, apart from the first, is found with confidence.
    share: of the self-labelled photos among those that a training sees; the rest are those with real boxes.
    """

    root: Path
    label: str | None = None
    limit: int | None = Field(default=None, ge=1)
    min_score: float = Field(default=0.8, gt=0, lt=1)
    min_iou: float = Field(default=0.88, gt=0, lt=1)
    single: bool = True
    share: float = Field(default=0.3, gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """One photo that was labelled. box: xyxy px of the file, the mean of the views'. score: the least."""

    file: str
    width: int
    height: int
    box: tuple[float, float, float, float]
    score: float


def label_photos(
    trained: Trained, label: int, config: UnlabelledConfig, home: Path, seed: int, device: torch.device
) -> tuple[list[PseudoLabel], int]:
    """The photos that pass, in the order of their names, and how many were looked at.

    Raises InputError when the folder holds no photo, or one that cannot be read.
    """
    root, files = _find(config, home, seed)
    detector, size = trained.detector, trained.config.image_size
    kept: list[PseudoLabel] = []
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        images = [read_image(root / file) for file in part]
        views = [_best_of(found, label, size) for found in _detect_views(detector, images, size, device)]
        for file, image, found in zip(part, images, zip(*views, strict=True), strict=True):
            height, width = image.shape[:2]
            if (agreed := _agreed(found, config)) is not None:
                box = agreed.box * np.array([width, height, width, height], np.float32)
                kept.append(PseudoLabel(file, width, height, tuple(map(float, box)), agreed.score))  # type: ignore[arg-type]
    return kept, len(files)


def boxed_photos(labels: Sequence[PseudoLabel], root: Path, label: int) -> list[BoxedImage]:
    """Self-labelled photos as a training's photos."""
    return [
        BoxedImage(item.file, root / item.file, item.width, item.height, make_target([item.box], [label]))
        for item in labels
    ]


def write_labels(path: Path, labels: Sequence[PseudoLabel], looked_at: int) -> None:
    """As JSON, so that a training that goes on sees the same."""
    rows: list[dict[str, Any]] = [
        {
            "file": item.file,
            "width": item.width,
            "height": item.height,
            "box": [round(edge, 2) for edge in item.box],
            "score": round(item.score, 4),
        }
        for item in labels
    ]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_text(path, f'{{"looked_at": {looked_at}, "labels": [\n{lines}\n]}}\n')


def read_labels(path: Path) -> list[PseudoLabel]:
    """What `write_labels` wrote. Raises InputError for anything else."""
    try:
        return [
            PseudoLabel(row["file"], row["width"], row["height"], tuple(row["box"]), row["score"])
            for row in json.loads(path.read_text(encoding="utf-8"))["labels"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {error!r}: wanted the labels that trainer.run wrote") from error


def find_root(config: UnlabelledConfig, home: Path) -> Path:
    """The photos' folder. Raises InputError without one."""
    root = locate(config.root, home)
    if not root.is_dir():
        raise InputError(f"unlabelled.root: {config.root}: no such folder, wanted one of photos")
    return root


def _find(config: UnlabelledConfig, home: Path, seed: int) -> tuple[Path, list[str]]:
    root = find_root(config, home)
    paths = (path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    files = sorted(path.relative_to(root).as_posix() for path in paths)
    if not files:
        raise InputError(f"unlabelled.root: {root}: found no photo, wanted some")
    order = np.random.default_rng([seed, len(files)]).permutation(len(files))[: config.limit]
    return root, [files[i] for i in sorted(order)]


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The best detection of one view, xyxy as shares of the photo's sides; second: the best score of any
    other place.
    """

    box: FloatArray
    score: float
    second: float


def _detect_views(
    detector: Detector, images: Sequence[UInt8Array], size: int, device: torch.device
) -> Iterator[list[Detections]]:
    """Detections in the square photos plain, mirrored and smaller; all in pixels of the plain one."""
    plain = [resize_antialiased(image, size, size) for image in images]
    yield _detect(detector, plain, device)
    mirrored = _detect(detector, [cv2.flip(image, 1).view(np.uint8) for image in plain], device)
    yield [
        Detections(
            np.stack([size - d.boxes[:, 2], d.boxes[:, 1], size - d.boxes[:, 0], d.boxes[:, 3]], 1),
            d.scores,
            d.labels,
        )
        for d in mirrored
    ]
    side = round(_SMALLER * size)
    edge = (size - side) // 2
    smaller = _detect(detector, [_framed(image, side, edge) for image in plain], device)
    yield [Detections((d.boxes - edge) * np.float32(size / side), d.scores, d.labels) for d in smaller]


def _framed(image: UInt8Array, side: int, edge: int) -> UInt8Array:
    """The image at a smaller side in the middle of its own mean colour."""
    framed = np.empty_like(image)
    framed[:] = np.rint(image.mean((0, 1)))
    framed[edge : edge + side, edge : edge + side] = resize_antialiased(image, side, side)
    return framed


def _detect(detector: Detector, images: Sequence[UInt8Array], device: torch.device) -> list[Detections]:
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return detector.detect(batch.to(device))


def _best_of(detections: Sequence[Detections], label: int, size: int) -> list[_Found | None]:
    return [_best(found, label, size) for found in detections]


def _best(found: Detections, label: int, size: int) -> _Found | None:
    boxes, scores = found.boxes[found.labels == label] / size, found.scores[found.labels == label]
    if not len(scores):
        return None
    boxes, top = np.clip(boxes, 0, 1).astype(np.float32), int(scores.argmax())
    apart = _iou(boxes[top][None], boxes)[0] < _APART_IOU
    second = scores[apart].max(initial=0)
    return _Found(boxes[top], float(scores[top]), float(second))


def _agreed(views: Sequence[_Found | None], config: UnlabelledConfig) -> _Found | None:
    """The views' mean where they say the same with confidence."""
    found = [view for view in views if view is not None]
    if len(found) < len(views) or min(view.score for view in found) < config.min_score:
        return None
    if config.single and max(view.second for view in found) >= config.min_score:
        return None
    boxes = np.stack([view.box for view in found])
    if _iou(boxes, boxes).min() < config.min_iou:
        return None
    return _Found(boxes.mean(0), min(view.score for view in found), 0.0)


def _iou(first: FloatArray, second: FloatArray) -> FloatArray:
    return pairwise_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()

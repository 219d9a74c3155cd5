"""A detector as one function of tensors: what is exported."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.anchoring.boxes import clip_boxes
from trainer.candidates import UNFIT, Candidates, Selecting
from trainer.sample import UInt8Array

OUTPUTS = ("boxes", "scores", "labels", "counts", "landmarks")  # the last of a detector that has them

LEAST_PX = 33  # sides of images of any size: torch takes the one cell of a smaller map for a constant

Arrays = Mapping[str, npt.NDArray[Any]]  # by the names in OUTPUTS
Call = Callable[[UInt8Array], Arrays]  # of images (B, 3, H, W)

_EXAMPLE_SIZE = (104, 136)  # px, of a detector that takes any: each map has two cells or more


@dataclass(frozen=True, slots=True)
class Operators:
    """What torch and ONNX have different operators for.

    rank: the best so many of each row's scores (B, N), best first, of equal ones the first, and their places.
    suppress: of boxes (B, K, 4) xyxy, their scores (B, K), best first, and categories (B, K), which are under
    the given number: whether the NMS of the image and category at the given IoU keeps each, (B, K). Those
    scored `UNFIT` are not looked at, and what it says of them means nothing.
    """

    rank: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    suppress: Callable[[Tensor, Tensor, Tensor, int, float], Tensor]


class Program(nn.Module):
    """uint8 images (B, 3, H, W) RGB to what is in them, N places an image, best first.

    boxes (B, N, 4) float32, xyxy px, clipped to the image; scores (B, N) float32; labels (B, N) int64, 1 is
    the first class; counts (B,) int64: how many of an image's places are filled. The others hold zeros.
    landmarks (B, N, 5, 2) float32, px, of a detector that has them. N is max_detections, or topk if less.
    """

    def __init__(self, detector: Selecting, operators: Operators) -> None:
        """The detector, which is copied, is in eval mode and on the CPU."""
        super().__init__()
        self.detector = copy.deepcopy(detector)
        self._operators = operators
        assert isinstance(self.detector, nn.Module)
        for parameter in self.detector.requires_grad_(False).parameters():
            parameter.data = parameter.data.contiguous()  # as files hold them

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        found, settings, rank = self.detector.candidates(images), self.detector.config, self._operators.rank
        scores, anchor, category = self._best(found)
        boxes, num_classes = _taken(found.boxes, anchor), found.scores.shape[2]
        kept = self._operators.suppress(boxes, scores, category, num_classes, settings.nms_iou)
        slots = min(settings.topk, settings.max_detections)
        scores, place = rank(scores.where(kept, UNFIT), slots)
        boxes = clip_boxes(_taken(boxes, place), images.shape[3], images.shape[2])
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        scores, order = rank(scores.where(has_area, UNFIT), slots)
        place, fits = place.gather(1, order), scores > UNFIT
        found_here = (_taken(boxes, order), scores, category.gather(1, place) + 1)
        outputs = (*(_zero_unless(fits, values) for values in found_here), fits.sum(1))
        if found.landmarks is None:
            return outputs
        points = _zero_unless(fits, _taken(found.landmarks.flatten(2), anchor.gather(1, place)))
        return (*outputs, points.view(*points.shape[:2], *found.landmarks.shape[2:]))

    def _best(self, found: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, anchors and categories (B, topk), best first; unfit ones where there are not so many."""
        num_anchors, num_classes = found.scores.shape[1:]
        topk = self.detector.config.topk
        scores, place = self._operators.rank(F.pad(found.scores.flatten(1), (0, topk), value=UNFIT), topk)
        return scores, (place // num_classes).clamp(max=num_anchors - 1), place % num_classes


def trace(detector: Selecting, operators: Operators) -> torch.export.ExportedProgram:
    """The detector's program for any number of images, and for any size where it takes such."""
    program = Program(detector, operators).eval()
    axes = dict.fromkeys((0, 2, 3) if detector.any_size else (0,), torch.export.Dim.DYNAMIC)
    size = _EXAMPLE_SIZE if detector.any_size else (detector.config.image_size, detector.config.image_size)
    images = torch.zeros(2, 3, *size, dtype=torch.uint8)  # two, since torch takes a size of 1 for a constant
    with torch.no_grad():
        return torch.export.export(program, (images,), dynamic_shapes={"images": axes})


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Rows of (B, N, C) at places (B, K), as (B, K, C)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _zero_unless(fits: Tensor, values: Tensor) -> Tensor:
    """(B, N) or (B, N, C), with zeros where (B, N) does not fit."""
    return values.where(fits if values.ndim == 2 else fits[..., None], 0)

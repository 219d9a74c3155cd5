"""Boxes as tensors: conversions named at both ends, IoU, and the coding that detectors regress.

Boxes are (..., 4), xyxy unless a name says otherwise, in any unit that both sides share.
"""

import math

import torch
from torch import Tensor

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # of dx, dy, dw, dh: SSD (arXiv:1512.02325), its Caffe code
_MAX_LOG_SCALE = math.log(1000 / 16)  # a decoded side is at most 62.5 anchors long
_MIN_SIDE = 1e-3  # shortest side, px, that is encoded as such


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Top left corner and size to corners."""
    low, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((low, low + size), -1)


def clip_boxes(boxes: Tensor, width: float, height: float) -> Tensor:
    """The part of each box inside the image; a box wholly outside gets a side of length 0."""
    x, y = boxes[..., ::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x, y), -1).flatten(-2)


def box_areas(boxes: Tensor) -> Tensor:
    """Areas (...,), 0 for a box turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of each of (N, 4) with each of (M, 4), as (N, M); 0 where both are empty. No ``+ 1``."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)  # (N, M)
    union = box_areas(first)[:, None] + box_areas(second)[None, :] - overlap
    return overlap / union.clamp(min=1e-9)


def encode(boxes: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """What to add to the anchors to get the boxes: offsets in anchor sizes and log scales, over `VARIANCES`.

    boxes: xyxy px. Sides under 0.001 px are encoded as 0.001 px: the result is finite for every finite box.
    """
    goal = xyxy_to_cxcywh(boxes)
    size = anchors_cxcywh[..., 2:]
    shift = (goal[..., :2] - anchors_cxcywh[..., :2]) / size
    scale = (goal[..., 2:].clamp(min=_MIN_SIDE) / size).log()
    return torch.cat((shift, scale), -1) / goal.new_tensor(VARIANCES)


def decode(offsets: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Boxes (xyxy) from offsets, the inverse of `encode`.

    A side grows at most 62.5 fold, so that a wild offset does not overflow.
    """
    offsets = offsets * offsets.new_tensor(VARIANCES)
    size = anchors_cxcywh[..., 2:]
    centre = anchors_cxcywh[..., :2] + offsets[..., :2] * size
    return cxcywh_to_xyxy(torch.cat((centre, size * offsets[..., 2:].clamp(max=_MAX_LOG_SCALE).exp()), -1))

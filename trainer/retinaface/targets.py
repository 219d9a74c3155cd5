"""What RetinaFace's anchors should say: their places, their faces, and the coding of landmarks.

After biubug6/Pytorch_Retinaface, in pixels where that works in fractions of the image: the same numbers.
"""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from trainer.anchoring.boxes import VARIANCES, pairwise_iou
from trainer.anchoring.matching import IGNORED, pair_greedily

AnchorSizes = tuple[tuple[float, ...], ...]
Claims = Literal["last", "greedy"]


@lru_cache(maxsize=16)
def make_square_anchors(
    sizes_px: AnchorSizes, strides: tuple[int, ...], image_size: tuple[int, int], device: torch.device
) -> Tensor:
    """Anchors (A, 4), float32 cxcywh px, in the order map, y, x, size; kept for the next image of this size.

    image_size: (height, width), px. A map has ceil(height / stride) rows of cells, so the last ones may lie
    partly out of the image. Anchors are not clipped.
    """
    with torch.inference_mode(False):
        maps = [
            _square_anchors(sizes, stride, image_size)
            for sizes, stride in zip(sizes_px, strides, strict=True)
        ]
        return torch.cat(maps).float().to(device)


def _square_anchors(sizes: tuple[float, ...], stride: int, image_size: tuple[int, int]) -> Tensor:
    rows, columns = ((side - 1) // stride + 1 for side in image_size)  # as convolutions reckon
    y, x = ((torch.arange(count, dtype=torch.float64) + 0.5) * stride for count in (rows, columns))
    side = torch.tensor(sizes, dtype=torch.float64)
    y, x, side = torch.meshgrid(y, x, side, indexing="ij")
    return torch.stack((x, y, side, side), -1).reshape(-1, 4)


def match_faces(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    ignore: Tensor,
    *,
    positive_iou: float = 0.35,
    least_iou: float = 0.2,
    claims: Claims = "last",
) -> tuple[Tensor, Tensor]:
    """What each anchor of one image should say: labels (A,) and the index of its face (A,).

    A label is the face's class, 0 for background, or `IGNORED`. The index means something only where the
    label is positive. anchors (A, 4) and boxes (N, 4) are xyxy px; labels (N,); ignore (N,) bool.

    An anchor is positive for the face that it overlaps most, at ``positive_iou`` or more. Each face claims
    one anchor whatever the overlap, down to ``least_iou``: with ``last`` the one that overlaps it most, of
    which the last of its claimants gets hold (the authors' rule: a face can go without); with ``greedy``
    pairs of largest IoU come first, so that every face gets one. An anchor that overlaps an ignored face at
    ``positive_iou`` or more is no background.
    """
    assigned = labels.new_zeros(len(anchors))
    if len(boxes) == 0:
        return assigned, assigned
    iou = pairwise_iou(boxes, anchors)  # (N, A)
    wanted = iou.masked_fill(ignore[:, None], -1.0)
    best, index = wanted.max(0)
    assigned[iou.amax(0) >= positive_iou] = IGNORED
    if claims == "greedy":
        faces, claimed = pair_greedily(wanted, least_iou)
        index[claimed], best[claimed] = faces, 2.0
    else:
        index, best = _let_last_claim(wanted, index, best, least_iou)
    return torch.where(best >= positive_iou, labels[index], assigned), index


def _let_last_claim(iou: Tensor, index: Tensor, best: Tensor, least_iou: float) -> tuple[Tensor, Tensor]:
    """The index with the claimed anchors in their last claimant's hands, and the IoU, 2 where claimed.

    A face below least_iou makes no anchor positive, yet takes hold of one that another face did.
    """
    overlap, claimed = iou.max(1)  # (N,)
    faces = torch.arange(len(iou), device=iou.device)
    faces, claimed, overlap = (
        values[overlap >= 0] for values in (faces, claimed, overlap)
    )  # not the ignored
    owner = torch.full_like(index, -1).scatter_reduce(0, claimed, faces, "amax")
    best = best.index_fill(0, claimed[overlap >= least_iou], 2.0)
    return torch.where(owner >= 0, owner, index), best


def encode_landmarks(landmarks: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Points (..., P, 2) as offsets from the middle of anchors (..., 4), in sizes over the variance."""
    centre, size = anchors_cxcywh[..., None, :2], anchors_cxcywh[..., None, 2:]
    return (landmarks - centre) / (VARIANCES[0] * size)


def decode_landmarks(offsets: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Points from offsets, the inverse of `encode_landmarks`."""
    centre, size = anchors_cxcywh[..., None, :2], anchors_cxcywh[..., None, 2:]
    return centre + offsets * VARIANCES[0] * size

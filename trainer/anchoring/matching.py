"""Which anchor answers for which object."""

from typing import Literal

import torch
from torch import Tensor

from trainer.anchoring.boxes import pairwise_iou

IGNORED = -1

Claims = Literal["greedy", "last"]


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    ignore: Tensor,
    *,
    positive_iou: float = 0.5,
    negative_iou: float = 0.3,
    force_iou: float = 0.3,
    claims: Claims = "greedy",
) -> tuple[Tensor, Tensor]:
    """What each anchor of one image should say: labels (A,) and the index of its object (A,).

    A label is the object's class, 0 for background, or `IGNORED`. The index means something only where the
    label is positive. anchors (A, 4) and boxes (N, 4) are xyxy px; labels (N,); ignore (N,) bool.

    Each object first claims an anchor, down to ``force_iou``, see below. Any other anchor is positive for the
    object that it overlaps most at ``positive_iou`` or more, background below ``negative_iou``, ignored
    between. An object marked ignore is never found, and an anchor that overlaps it at ``negative_iou`` or
    more is no background. (Blanger et al. with 0.5, 0.3, 0.3; SSD forces at any IoU.)

    claims: with ``greedy`` the pair of largest IoU comes first, and each object gets an anchor of its own
    (Blanger et al., SSD's Caffe code); with ``last`` each claims the one that it overlaps most, which of
    several claimants the last gets, so that another can go without (torchvision, and most ports of SSD).
    """
    assigned = labels.new_zeros(len(anchors))
    if len(boxes) == 0:
        return assigned, assigned
    iou = pairwise_iou(boxes, anchors)  # (N, A)
    wanted = iou.masked_fill(ignore[:, None], -1.0)
    best, index = wanted.max(0)
    assigned[iou.amax(0) >= negative_iou] = IGNORED
    assigned = torch.where(best >= positive_iou, labels[index], assigned)
    claim = pair_greedily if claims == "greedy" else _pair_with_last
    objects, own = claim(wanted, force_iou)
    index[own] = objects
    assigned[own] = labels[objects]
    return assigned, index


def pair_greedily(iou: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Pairs rows with columns, the largest of the remaining entries first, while it is positive and >= least.

    Equal entries: the first row, then the first column. Returns the rows and their columns.
    Every round takes all entries that are the largest of both their row and their column, which the order
    one by one would take too, so crowded images need a few rounds instead of one for each object.
    """
    left = iou.masked_fill((iou < least) | (iou <= 0), -1.0)
    every_row = torch.arange(len(left), device=left.device)
    rows, columns = [every_row[:0]], [every_row[:0]]
    while True:
        value, column = left.max(1)
        mutual = (value > 0) & (left.max(0).indices[column] == every_row)
        if not mutual.any():
            return torch.cat(rows), torch.cat(columns)
        rows.append(every_row[mutual])
        columns.append(column[mutual])
        left[every_row[mutual]] = -1.0
        left[:, column[mutual]] = -1.0


def _pair_with_last(iou: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Each row with its largest column, where that is positive and >= least; a column with its last row."""
    best, column = iou.max(1)
    rows = torch.arange(len(iou), device=iou.device)
    claims = (best > 0) & (best >= least)
    owner = torch.full_like(iou[0], -1, dtype=torch.int64)
    owner.scatter_reduce_(0, column[claims], rows[claims], "amax")
    columns = (owner >= 0).nonzero()[:, 0]
    return owner[columns], columns

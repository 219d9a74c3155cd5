"""MultiBox loss with hard negative mining, SSD's (arXiv:1512.02325), as biubug6/Pytorch_Retinaface has it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def mined_cross_entropy(
    logits: Tensor, labels: Tensor, *, negative_ratio: int = 7, min_negatives: int = 0
) -> Tensor:
    """Cross-entropy of the positive anchors and of each image's hardest background anchors.

    logits (B, A, C); labels (B, A) int64: 0 is background, -1 (ignored) is neither. An image gives
    ``negative_ratio`` negatives for each of its positives, and ``min_negatives`` at least: with 0 (the
    authors' rule) an image without objects teaches nothing. The sum is divided by the batch's number of
    positives, or, where that is more, of the positives that so many negatives belong to.
    """
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.clamp(min=0).flatten(), reduction="none")
    loss = loss.view(labels.shape)
    positive, background = labels > 0, labels == 0
    num_positive = positive.sum(1)
    num_negative = (negative_ratio * num_positive).clamp(min=min_negatives).minimum(background.sum(1))
    hardest = loss.masked_fill(~background, -1.0).sort(1, descending=True).values
    taken = torch.arange(labels.shape[1], device=labels.device) < num_negative[:, None]
    weight = torch.maximum(num_positive.sum(), num_negative.sum() / negative_ratio).clamp(min=1)
    return (loss[positive].sum() + hardest[taken].sum()) / weight


def smooth_l1_per_anchor(values: Tensor, targets: Tensor) -> Tensor:
    """Smooth L1 summed over all, divided by the number of anchors (the first axis) or 1.

    Without anchors 0, with a gradient of 0: every parameter takes part, as distributed training wants.
    """
    distance = F.smooth_l1_loss(values.float(), targets.float(), reduction="sum")
    return distance / max(len(values), 1)

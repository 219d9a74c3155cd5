"""Losses of anchor-based detectors, in float32 whatever they are given."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.anchoring.matching import IGNORED


def softmax_focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss of each anchor, ``-(1 - p)^gamma log p`` with p the softmax of its label; 0 where ignored.

    logits (..., C), labels (...) int64 with `IGNORED`. No class weights. After RetinaNet (arXiv:1708.02002)
    and Blanger et al., who write ``log(p + 1e-8)``; without that term the gradient does not die for tiny p.
    """
    log_p = F.log_softmax(logits.float(), -1)
    log_p = log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    miss = -torch.expm1(log_p)  # 1 - p, exact for p near 1
    return torch.where(labels == IGNORED, 0.0, -miss.clamp(min=1e-8).pow(gamma) * log_p)


def detection_losses(
    logits: Tensor, offsets: Tensor, labels: Tensor, target_offsets: Tensor, gamma: float = 2.0
) -> dict[str, Tensor]:
    """``classification`` (focal, all anchors not ignored) and ``localization`` (smooth L1, positive anchors).

    logits (B, A, C); offsets, target_offsets (B, A, 4); labels (B, A) int64. Both are sums over the batch,
    divided by its number of positive anchors or 1.
    """
    positive = labels > 0
    num_positive = positive.sum().clamp(min=1)
    distance = F.smooth_l1_loss(offsets[positive].float(), target_offsets[positive].float(), reduction="sum")
    return {
        "classification": softmax_focal_loss(logits, labels, gamma).sum() / num_positive,
        "localization": distance / num_positive,
    }


def l2_penalty(kernels: Iterable[Tensor], strength: float) -> Tensor:
    """``strength * sum(w^2)``, Keras' kernel regulariser."""
    return strength * torch.stack([kernel.float().square().sum() for kernel in kernels]).sum()

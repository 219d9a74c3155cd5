"""The copy-pasting GAN's losses (arXiv:1905.11369).

The paper's own text was not at hand beyond its summary. What is here is what two public re-implementations
agree on, each of which cites it (basilevh/object-discovery-cp-gan, Amsterdam-Internships/City-GAN): which
images are judged real and fake, the anti-shortcut term, the mask loss either way round, its weight 0.1, real
images taught as 0.75, the discriminator's head start. Ours: the generator's non-saturating loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def judge_loss(scores: Tensor, target: float) -> Tensor:
    """Cross-entropy of scores (logits, any shape) against one target in 0..1."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


def generator_losses(pasted: Tensor, irrelevant: Tensor) -> dict[str, Tensor]:
    """What the generator is taught, from the discriminator's scores (B,).

    pasted: of the composites; they shall look real. irrelevant: of another image's pixels pasted through the
    same masks; they shall look fake. A mask that copies nothing, or everything, makes the two alike and
    gains nothing: the anti-shortcut.
    """
    return {"fooled": judge_loss(pasted, 1.0), "anti_shortcut": judge_loss(irrelevant, 0.0)}


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the discriminator's masks (B, 1, S, S) with those that were copied.

    Of each image, the smaller one of both ways round: a paste does not tell which side of it is older.
    """
    masks = masks.detach()
    ways = [
        F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2, 3))
        for target in (masks, 1 - masks)
    ]
    return torch.minimum(*ways).mean()

"""ReDO's losses (Chen, Artières and Denoyer 2019, equations 4 to 6) and those of distillation."""

from torch import Tensor
from torch.nn import functional

_EPS = 1e-6


def redraw(images: Tensor, masks: Tensor, regions: Tensor) -> Tensor:
    """Every image with one region drawn anew, for each region: (B * n, 3, H, W), an image's n together.

    images: (B, 3, H, W). masks: (B, n, H, W). regions: (B, n, 3, H, W), already multiplied by their masks.
    """
    kept = (1 - masks.unsqueeze(2)) * images.unsqueeze(1)
    return (regions + kept).flatten(0, 1)


def realism_loss(redrawn_scores: Tensor) -> Tensor:
    """What masks and region generators lower: minus the discriminator's mean score of redrawn images."""
    return -redrawn_scores.mean()


def recovery_loss(latents: Tensor, recovered: Tensor) -> Tensor:
    """Mean squared error of the latents read back from images drawn in all regions."""
    return (latents - recovered).square().mean()


def discriminator_loss(real_scores: Tensor, redrawn_scores: Tensor) -> Tensor:
    """Hinge: real images above 1, redrawn ones below -1."""
    return functional.relu(1 - real_scores).mean() + functional.relu(1 + redrawn_scores).mean()


def opacity_loss(mask: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy of opacities in 0..1 of one shape; targets may be soft."""
    return functional.binary_cross_entropy(mask.float().clamp(_EPS, 1 - _EPS), target)


def dice_loss(mask: Tensor, target: Tensor) -> Tensor:
    """1 minus the mean soft Dice overlap of masks (B, H, W) in 0..1; two empty masks overlap wholly."""
    mask = mask.float()
    shared = (mask * target).sum(dim=(1, 2))
    total = mask.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
    return 1 - ((2 * shared + _EPS) / (total + _EPS)).mean()

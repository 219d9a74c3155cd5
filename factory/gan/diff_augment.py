"""DiffAugment (Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020): colour,
translation and cutout, through which gradients pass, for real and generated images alike.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def diff_augment(images: Tensor, rng: torch.Generator, policy: str = "color,translation") -> Tensor:
    """Images (B, 3, S, S) in about -1..1, each changed by its own lot. policy: names with commas between."""
    for name in filter(None, policy.split(",")):
        images = AUGMENTATIONS[name](images, rng)
    return images


def _color(images: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness +-0.5, saturation 0..2, contrast 0.5..1.5."""
    images = images + _uniform(images, rng) - 0.5
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (_uniform(images, rng) * 2) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (_uniform(images, rng) + 0.5) + mean


def _translation(images: Tensor, rng: torch.Generator, frac: float = 0.125) -> Tensor:
    """Shifted by up to an eighth of the side, zeros behind."""
    count, _, height, width = images.shape
    most = int(height * frac + 0.5)
    shifts = torch.randint(-most, most + 1, (2, count, 1, 1), generator=rng, device=rng.device).to(
        images.device
    )
    padded = F.pad(images, (most, most, most, most))
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + shifts[0] + most
    columns = torch.arange(width, device=images.device).view(1, 1, -1) + shifts[1] + most
    batch = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)


def _cutout(images: Tensor, rng: torch.Generator, frac: float = 0.5) -> Tensor:
    """A square of half the side, centred anywhere, set to zero."""
    count, _, height, width = images.shape
    half = int(height * frac / 2)
    centres = torch.rand((2, count, 1, 1), generator=rng, device=rng.device).to(images.device)
    rows = torch.arange(height, device=images.device).view(1, -1, 1) - (centres[0] * height).long()
    columns = torch.arange(width, device=images.device).view(1, 1, -1) - (centres[1] * width).long()
    hidden = (rows.abs() <= half) & (columns.abs() <= half)  # (B, S, S)
    return images * (~hidden)[:, None]


def _uniform(images: Tensor, rng: torch.Generator) -> Tensor:
    return torch.rand((len(images), 1, 1, 1), generator=rng, device=rng.device).to(images)


AUGMENTATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}

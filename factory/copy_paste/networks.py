"""The copy-pasting GAN's discriminator, and what is done to masks and images on the way to it.

Arandjelović and Zisserman 2019, "Object Discovery with a Copy-Pasting GAN", arXiv:1905.11369. Its generator
is here ReDO's `MaskNetwork` with two masks, of which the first is copied, instead of the paper's U-Net.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.01  # of the leaky ReLU


class CopyPasteDiscriminator(nn.Module):
    """Images (B, 3, S, S) in -1..1 to scores (B,), high for real ones, and logits (B, 1, S, S) of what was
    pasted.

    A U-Net; the scores come from its lowest level. It sees images through a Gaussian blur, so that it cannot
    tell a paste by the step at its edge alone. S: a multiple of 8.
    """

    def __init__(self, num_features: int = 32, blur_px: float = 1.0) -> None:
        super().__init__()
        widths = [num_features << level for level in range(4)]
        self.register_buffer("kernel", _gaussian(blur_px), persistent=False)
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_down(*pair) for pair in pairwise(widths))
        self.score = nn.Sequential(
            nn.Linear(widths[3], widths[2]), nn.LeakyReLU(_SLOPE), nn.Linear(widths[2], 1)
        )
        self.up = nn.ModuleList(_same(widths[i] + widths[i + 1], widths[i]) for i in (2, 1, 0))
        self.mask = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = [self.first(self._blurred(images))]
        for halve in self.down:
            levels.append(halve(levels[-1]))
        scores: Tensor = self.score(levels[-1].mean(dim=(2, 3)))
        maps = levels[-1]
        for join, level in zip(self.up, levels[-2::-1], strict=True):
            maps = join(torch.cat([level, F.interpolate(maps, scale_factor=2.0)], dim=1))
        return scores[:, 0], self.mask(maps)

    def _blurred(self, images: Tensor) -> Tensor:
        kernel = self.get_buffer("kernel").to(images.dtype)
        reach = len(kernel) // 2
        padded = F.pad(images, (reach,) * 4, mode="replicate")
        across = F.conv2d(padded, kernel.expand(3, 1, 1, -1), groups=3)
        return F.conv2d(across, kernel[:, None].expand(3, 1, -1, 1), groups=3)


def paste(masks: Tensor, objects: Tensor, destinations: Tensor) -> Tensor:
    """The composite: masks (B, 1, S, S) in 0..1 of the objects' pixels over the destinations'."""
    return masks * objects + (1 - masks) * destinations


def zero_border(masks: Tensor, width_px: int) -> Tensor:
    """Masks (…, S, S) with nothing copied along the image's border.

    An object is seldom cut by it, while a copied whole image always is: its edge would stay unseen.
    """
    if width_px == 0:
        return masks
    inner = masks[..., width_px:-width_px, width_px:-width_px]
    return F.pad(inner, (width_px,) * 4)


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, 2, 1), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(_SLOPE)
    )


def _same(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(_SLOPE)
    )


def _gaussian(sigma_px: float) -> Tensor:
    """A row of weights that sum to 1, three sigmas to each side; a single 1 where sigma is 0."""
    reach = math.ceil(3 * sigma_px)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / max(sigma_px, 1e-6)) ** 2)
    return weights / weights.sum()

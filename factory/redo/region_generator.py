"""ReDO's region generators: each redraws one region from a latent vector, given its soft mask.

Chen, Artières and Denoyer 2019, "Unsupervised Object Segmentation by Redrawing"; key for key the layout of
the authors' checkpoints (there `netGenX`), which are of 128 px.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from factory.redo.spectral import SelfAttention, SpectralConv2d

_START_PX = 4  # side of the map that the latent vector is spread to


def num_halvings(image_size: int) -> int:
    """How often the side is halved down to 4 px: 5 at 128 px, 4 at 64. Raises ValueError for other sides."""
    count = image_size.bit_length() - _START_PX.bit_length()
    if count < 2 or _START_PX << count != image_size:
        raise ValueError(f"image size is {image_size} px, wanted 16, 32, 64, 128, ...")
    return count


class RegionGenerator(nn.Module):
    """Soft masks (B, 1, S, S) and latents (B, Z, 1, 1) to the region's pixels (B, 3, S, S) in -1..1.

    The pixels are already multiplied by the mask. num_features: channels at the full side; they double with
    every halving but the first from the small end.
    """

    def __init__(self, num_features: int, latent_size: int, image_size: int, *, attention: bool) -> None:
        super().__init__()
        ups = num_halvings(image_size)
        after = [num_features << (ups - 1 - k) for k in range(ups)]  # 16, 8, 4, 2, 1 times at 128 px
        before = [after[0], *after[:-1]]
        self.selfAtt = SelfAttention(2 * num_features) if attention else nn.Sequential()
        self.dense = nn.Linear(latent_size, before[0] * _START_PX**2)
        pairs = list(zip(before, after, strict=True))
        self.convA = nn.ModuleList(_up(SpectralConv2d(b + 1, a, 3, bias=False)) for b, a in pairs)
        self.convB = nn.ModuleList(SpectralConv2d(a, a, 3) for a in after)
        self.gammaA = nn.ModuleList(nn.Conv2d(latent_size, b, 1) for b in before)
        self.gammaB = nn.ModuleList(nn.Conv2d(latent_size, a, 1) for a in after)
        self.betaA = nn.ModuleList(nn.Conv2d(latent_size, b, 1) for b in before)
        self.betaB = nn.ModuleList(nn.Conv2d(latent_size, a, 1) for a in after)
        self.sc = nn.ModuleList(_up(SpectralConv2d(b, a, 1)) for b, a in pairs)
        self.gammaOut = nn.Conv2d(latent_size, num_features, 1)
        self.betaOut = nn.Conv2d(latent_size, num_features, 1)
        self.convOut = SpectralConv2d(num_features + 1, 3, 3)

    def forward(self, mask: Tensor, z: Tensor) -> Tensor:
        x = self.dense(z.flatten(1)).unflatten(1, (-1, _START_PX, _START_PX))
        last = len(self.convA) - 1
        for k in range(last + 1):
            if k == last:
                x = self.selfAtt(x)
            small = functional.avg_pool2d(mask, mask.shape[-1] // x.shape[-1])
            h = _modulated(x, self.gammaA[k](z), self.betaA[k](z))
            h = self.convA[k](torch.cat([h, small], dim=1))
            h = self.convB[k](_modulated(h, self.gammaB[k](z), self.betaB[k](z)))
            x = h + self.sc[k](x)
        h = _modulated(x, self.gammaOut(z), self.betaOut(z))
        pixels: Tensor = self.convOut(torch.cat([h, mask], dim=1)).tanh() * mask
        return pixels


class RegionGenerators(nn.Module):
    """One `RegionGenerator` a region: masks (B, n, S, S), latents (B, n, Z, 1, 1) to (B, n, 3, S, S)."""

    def __init__(
        self,
        num_features: int = 64,
        latent_size: int = 32,
        num_masks: int = 2,
        image_size: int = 128,
        *,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            RegionGenerator(num_features, latent_size, image_size, attention=attention)
            for _ in range(num_masks)
        )

    def forward(self, masks: Tensor, z: Tensor) -> Tensor:
        regions = [generator(masks[:, k : k + 1], z[:, k]) for k, generator in enumerate(self.net)]
        return torch.stack(regions, dim=1)


def _up(conv: SpectralConv2d) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)


def _modulated(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Instance norm with the latent's scale and shift, then ReLU. Torch's norm: this is for training alone,
    whose backward pass `factory.instance_norm` makes no faster.
    """
    return functional.relu(functional.instance_norm(x) * gamma + beta)

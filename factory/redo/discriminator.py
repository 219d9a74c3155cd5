"""ReDO's discriminator and the network that recovers the latents, on one residual body.

Key for key the layout of the authors' checkpoints (there `netDX` and `netRecZ`), which are of 128 px. The
body is that of Miyato et al. 2018 with sum pooling; the last, linear layer has no spectral norm.
"""

from itertools import pairwise

from torch import Tensor, nn

from factory.redo.region_generator import num_halvings
from factory.redo.spectral import SelfAttention, SpectralConv2d


class Discriminator(nn.Module):
    """Images (B, 3, S, S) in -1..1 to scores (B, 1), high for real ones."""

    def __init__(self, num_features: int = 64, image_size: int = 128, *, attention: bool = False) -> None:
        super().__init__()
        widths = _widths(num_features, image_size)
        self.bloc0 = _first_block(num_features)
        self.sc0 = _shortcut(3, num_features)
        self.selfAtt = SelfAttention(num_features) if attention else nn.Sequential()
        self.dense = nn.Linear(widths[-1], 1)
        self.blocs = nn.ModuleList(_blocks(widths))
        self.sc = nn.ModuleList(_shortcuts(widths))

    def forward(self, images: Tensor) -> Tensor:
        x = self.selfAtt(self.bloc0(images) + self.sc0(images))
        y: Tensor = self.dense(_through(x, self.blocs, self.sc))
        return y


class LatentRecovery(nn.Module):
    """Images (B, 3, S, S) drawn in all regions to the latents (B, n, Z, 1, 1) that they were drawn from."""

    def __init__(
        self, num_features: int = 64, latent_size: int = 32, num_masks: int = 2, image_size: int = 128
    ) -> None:
        super().__init__()
        self._latents = (num_masks, latent_size, 1, 1)
        self.net = _RecoveryBody(num_features, num_masks * latent_size, image_size)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.net(images).unflatten(1, self._latents)
        return y


class _RecoveryBody(nn.Module):
    def __init__(self, num_features: int, num_outputs: int, image_size: int) -> None:
        super().__init__()
        widths = _widths(num_features, image_size)
        self.dense = nn.Linear(widths[-1], num_outputs)
        self.blocs = nn.ModuleList([_first_block(num_features), *_blocks(widths)])
        self.sc = nn.ModuleList([_shortcut(3, num_features), *_shortcuts(widths)])

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.dense(_through(images, self.blocs, self.sc))
        return y


def _through(x: Tensor, blocks: nn.ModuleList, shortcuts: nn.ModuleList) -> Tensor:  # (B, C, H, W) -> (B, C')
    for block, shortcut in zip(blocks, shortcuts, strict=True):
        x = block(x) + shortcut(x)
    return x.sum(3).sum(2)


def _widths(num_features: int, image_size: int) -> list[int]:
    """Channels after every halving: 1, 2, 4, 8, 16 times at 128 px."""
    return [num_features << k for k in range(num_halvings(image_size))]


def _first_block(num_features: int) -> nn.Sequential:
    convs = (SpectralConv2d(3, num_features, 3), SpectralConv2d(num_features, num_features, 3))
    return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.AvgPool2d(2))


def _blocks(widths: list[int]) -> list[nn.Sequential]:
    """A block for each halving after the first, and one at the last size."""
    halving = [
        nn.Sequential(*_two_convs(before, after), nn.AvgPool2d(2)) for before, after in pairwise(widths)
    ]
    return [*halving, nn.Sequential(*_two_convs(widths[-1], widths[-1]))]


def _two_convs(before: int, after: int) -> list[nn.Module]:
    return [nn.ReLU(), SpectralConv2d(before, after, 3), nn.ReLU(), SpectralConv2d(after, after, 3)]


def _shortcut(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(2), SpectralConv2d(before, after, 1))


def _shortcuts(widths: list[int]) -> list[nn.Sequential]:
    halving = [_shortcut(before, after) for before, after in pairwise(widths)]
    return [*halving, nn.Sequential()]

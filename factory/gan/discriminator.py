"""FastGAN's discriminator: it judges patches, and must be able to redraw real images from what it sees."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from factory.generators.fastgan import GatedConv, SkipLayerExcitation


class _Down(nn.Module):
    """Halves the side on two paths, whose mean it gives (FastGAN, figure 4)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*_layer(before, after, 4, 2, 1), *_layer(after, after, 3, 1, 1))
        self.direct = nn.Sequential(nn.AvgPool2d(2), *_layer(before, after, 1, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.main(x) + self.direct(x)) / 2
        return y


class _Decoder(nn.Module):
    """Features (B, C, 8, 8) to an image (B, 3, side, side) in -1..1."""

    def __init__(self, channels: int, side_px: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = 8
        while side < side_px:
            after = max(16, channels // 2)
            layers += [nn.Upsample(scale_factor=2), GatedConv(channels, after)]
            channels, side = after, 2 * side
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        image: Tensor = self.layers(features)
        return image.float().tanh()


class Judgement(nn.Module):
    """A map of 5x5 scores from features of 8x8 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(channels, channels, 1, 1, 0), spectral_norm(nn.Conv2d(channels, 1, 4))
        )

    def forward(self, features: Tensor) -> Tensor:  # (B, C, 8, 8) -> (B, 25)
        scores: Tensor = self.layers(features)
        return scores.float().flatten(1)


class FastganDiscriminator(nn.Module):
    """Images (B, 3, S, S) in -1..1 to patch scores (B, 50): 25 from the image, 25 from it at half the side.

    width: channels at S / 2, doubled at every halving up to eight times.
    """

    def __init__(self, image_px: int, width: int) -> None:
        super().__init__()
        self.image_px = image_px
        sides = [image_px // 2]
        while sides[-1] > 8:
            sides.append(sides[-1] // 2)
        widths = [min(8 * width, width * 2**k) for k in range(len(sides))]
        self.stem = nn.Sequential(*_layer(3, width, 4, 2, 1, norm=False))
        self.downs = nn.ModuleList(_Down(*pair) for pair in pairwise(widths))
        self.excitation = SkipLayerExcitation(widths[0], widths[-1])
        self.judge = Judgement(widths[-1])
        small = [nn.Sequential(*_layer(3, width, 4, 2, 1, norm=False))]
        small += [_small_down(*pair) for pair in pairwise(widths[:-1])]
        self.small = nn.Sequential(*small)
        self.judge_small = Judgement(widths[-2])
        self.decode_whole = _Decoder(widths[-1], image_px // 2)
        self.decode_part = _Decoder(widths[-2], image_px // 2)

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, 50)
        _, last = self._features(images)
        small = self.small(F.avg_pool2d(images, 2))
        return torch.cat([self.judge(last), self.judge_small(small)], dim=1)

    def judge_and_redraw(self, images: Tensor, corner: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Scores (B, 50) of real images and how badly they can be redrawn (a scalar): the whole image at
        half its side and one quarter, at ``corner`` (row, column; 0 or 1 each), from maps of 16x16 pixels.

        The error is the mean absolute difference, where the paper has a perceptual distance: no network
        but these two is needed.
        """
        middle, last = self._features(images)
        half = self.image_px // 2
        top, left = corner
        part = middle[:, :, 8 * top : 8 * top + 8, 8 * left : 8 * left + 8]
        quarter = images[:, :, half * top : half * top + half, half * left : half * left + half]
        small_images = F.avg_pool2d(images, 2)
        redrawn = F.l1_loss(self.decode_whole(last), small_images)
        redrawn = redrawn + F.l1_loss(self.decode_part(part), quarter)
        scores = torch.cat([self.judge(last), self.judge_small(self.small(small_images))], dim=1)
        return scores, redrawn

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (B, C', 16, 16), (B, C, 8, 8)
        first = x = self.stem(images)
        middle = x
        for down in self.downs:
            middle, x = x, down(x)
        return middle, self.excitation(first, x)


def _layer(
    before: int, after: int, kernel: int, stride: int, padding: int, *, norm: bool = True
) -> list[nn.Module]:
    conv = spectral_norm(nn.Conv2d(before, after, kernel, stride, padding, bias=False))
    return [conv, *([nn.BatchNorm2d(after)] if norm else []), nn.LeakyReLU(0.2)]


def _small_down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_layer(before, after, 4, 2, 1))

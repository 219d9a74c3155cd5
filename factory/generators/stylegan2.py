"""StyleGAN2's generator (Karras et al. 2020, configuration F), for inference, sized by its weights.

The weights have the names of the authors' PyTorch code; StyleGAN2-ADA has the same generator.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from factory.generators.found import Fact
from factory.generators.stylegan_layers import (
    SQRT2,
    Dense,
    MappingNetwork,
    filtered,
    loaded,
    mapping_widths,
    num_channels,
    number,
    sides_of,
    upsampled,
)

FILTER = (0.125, 0.375, 0.375, 0.125)


class StyleGan2(nn.Module):
    """See `stylegan_layers`. Each side adds its RGB to the doubled one below; an early stop takes that."""

    def __init__(
        self, widths: Sequence[int], channels: Sequence[int], image_channels: int, rate: float, clamp: float
    ) -> None:
        """channels: of the blocks, at 4 px, at 8 px and so on. clamp: limit of activations."""
        super().__init__()
        self.z_dim, self.image_px = widths[0], 4 * 2 ** (len(channels) - 1)
        self.mapping = MappingNetwork(widths, rate)
        self.synthesis = _Synthesis(widths[-1], channels, image_channels, clamp)

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        cutoff: int | None = None,
        image_px: int | None = None,
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        num_styles = len(self.noise_sides(self.image_px)) + 1
        styles = self.mapping(latents, num_styles, psi, cutoff)
        images: Tensor = self.synthesis(styles, image_px or self.image_px, noise)
        return images

    def in_bfloat16(self) -> Self:
        """This generator, its synthesis in bfloat16 from now on; its mapping to styles and the sum of its
        images stay in float32.
        """
        self.synthesis.to(torch.bfloat16)
        return self

    def noise_sides(self, image_px: int) -> list[int]:
        """One map at 4 px, two at each later resolution."""
        return [side for side in _sides_to(image_px) for _ in range(2)][1:]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Fact]) -> Self:
        """The generator these weights belong to, loaded strictly. Raises ValueError for any others.

        facts: ``conv_clamp`` [none], ``mapping_rate`` [0.01].
        """
        sides = sides_of(tensors, "synthesis.b{}.conv1.weight")
        channels = [num_channels(tensors, f"synthesis.b{side}.conv1.weight") for side in sides]
        image_channels = num_channels(tensors, "synthesis.b4.torgb.weight")
        clamp, rate = number(facts, "conv_clamp", math.inf), number(facts, "mapping_rate", 0.01)
        with torch.device("meta"):
            network = cls(mapping_widths(tensors), channels, image_channels, rate, clamp)
        return loaded(network, tensors).to(memory_format=torch.channels_last)


class _Synthesis(nn.Module):
    def __init__(self, w_dim: int, channels: Sequence[int], image_channels: int, clamp: float) -> None:
        super().__init__()
        self.b4 = _FirstBlock(channels[0], w_dim, image_channels, clamp)
        for i, (before, after) in enumerate(pairwise(channels), start=1):
            self.add_module(f"b{4 * 2**i}", _Block(before, after, 4 * 2**i, w_dim, image_channels, clamp))

    def forward(self, styles: Tensor, image_px: int, noise: Sequence[Tensor] | None) -> Tensor:
        sides, styles = _sides_to(image_px), styles.to(self.b4.const)
        maps = [None] * (2 * len(sides) - 1) if noise is None else noise
        x, images = self.b4(styles, maps)
        for i, side in enumerate(sides[1:]):
            first = 2 * i + 1  # a block's RGB layer and the next block's first layer share a style
            x, images = self.get_submodule(f"b{side}")(x, images, styles[:, first:], maps[first:])
        y: Tensor = images
        return y


class _FirstBlock(nn.Module):
    """The constant at 4 px. styles and noise: of this block and those after it."""

    def __init__(self, width: int, w_dim: int, image_channels: int, clamp: float) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.empty(width, 4, 4))
        self.conv1 = _Layer(width, width, 4, w_dim, clamp)
        self.torgb = _Rgb(width, image_channels, w_dim, clamp)

    def forward(self, styles: Tensor, noise: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        x = self.conv1(self.const.expand(len(styles), -1, -1, -1), styles[:, 0], noise[0])
        return x, self.torgb(x, styles[:, 1])


class _Block(nn.Module):
    """Features and images (B, C, S / 2, S / 2) to those of twice the side."""

    def __init__(
        self, num_in: int, num_out: int, side: int, w_dim: int, image_channels: int, clamp: float
    ) -> None:
        super().__init__()
        self.conv0 = _Layer(num_in, num_out, side, w_dim, clamp)
        self.conv1 = _Layer(num_out, num_out, side, w_dim, clamp)
        self.torgb = _Rgb(num_out, image_channels, w_dim, clamp)

    def forward(
        self, x: Tensor, images: Tensor, styles: Tensor, noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        x = self.conv1(self.conv0(x, styles[:, 0], noise[0]), styles[:, 1], noise[1])
        doubled = upsampled(images, images.new_tensor(FILTER), 2, pad=(2, 1))
        return x, doubled + self.torgb(x, styles[:, 2])


class _Layer(nn.Module):
    """Modulated 3x3 convolution, doubling where ``conv0``, then noise, bias, leaky ReLU."""

    def __init__(self, num_in: int, num_out: int, side: int, w_dim: int, clamp: float) -> None:
        super().__init__()
        self.affine = Dense(w_dim, num_in)
        self.weight = nn.Parameter(torch.empty(num_out, num_in, 3, 3))
        self.bias = nn.Parameter(torch.empty(num_out))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise_const", torch.empty(side, side))
        self._side, self._clamp = side, clamp

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        x = modulated(x, self.weight, self.affine(style), is_up=x.shape[-1] < self._side)
        noise = self.get_buffer("noise_const") if noise is None else noise.to(x)
        x = x + self.noise_strength * noise
        x = F.leaky_relu(x + self.bias[:, None, None], 0.2) * SQRT2
        return x.clamp(-self._clamp, self._clamp)


class _Rgb(nn.Module):
    """Modulated 1x1 convolution to an image, without demodulation."""

    def __init__(self, num_in: int, image_channels: int, w_dim: int, clamp: float) -> None:
        super().__init__()
        self.affine = Dense(w_dim, num_in)
        self.weight = nn.Parameter(torch.empty(image_channels, num_in, 1, 1))
        self.bias = nn.Parameter(torch.empty(image_channels))
        self._clamp = clamp

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scales = self.affine(style) / math.sqrt(self.weight.shape[1])
        x = F.conv2d(x * scales[:, :, None, None], self.weight, self.bias)
        return x.clamp(-self._clamp, self._clamp).float()


def modulated(x: Tensor, weight: Tensor, scales: Tensor, is_up: bool) -> Tensor:
    """Each sample convolved by its own kernel: ``weight`` (O, I, 3, 3) with its inputs scaled by ``scales``
    (B, I), then brought to unit length for each output (equations 1 to 3 of the paper).

    Computed by scaling what goes in and what comes out, which lets the samples share the kernel.
    is_up: double the side; the convolution is then a transposed one, followed by the filter.
    """
    lengths = (scales.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()  # (B, O)
    x = x * scales[:, :, None, None]
    if is_up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        taps = x.new_tensor(FILTER) * 2
        x = filtered(x, torch.outer(taps, taps), pad=(1, 1))
    else:
        x = F.conv2d(x, weight, padding=1)
    return x * lengths[:, :, None, None]


def _sides_to(image_px: int) -> list[int]:
    """4, 8, … image_px."""
    return [4 << i for i in range(image_px.bit_length() - 2)]

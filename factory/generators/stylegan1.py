"""StyleGAN's generator (Karras, Laine and Aila 2019), for inference, sized by its weights.

Names of its weights here: ``mapping.fc{i}.{weight,bias}``, ``mapping.w_avg``, ``synthesis.const``,
``synthesis.layer{n}.{weight,bias,noise,noise_strength,style.weight,style.bias}`` with two layers a resolution
(layer 0, the constant's, has no kernel), ``synthesis.rgb{side}.{weight,bias}``.
"""

import math
from collections.abc import Mapping, Sequence
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
)
from factory.instance_norm import instance_norm

_FUSED_FROM_PX = 128  # from this side, upsampling and convolution are one transposed convolution
_BLUR = (0.25, 0.5, 0.25)


class StyleGan1(nn.Module):
    """See `stylegan_layers`. An early stop takes that side's RGB layer, trained while it was the last."""

    def __init__(
        self, widths: Sequence[int], channels: Sequence[int], image_channels: int, rate: float
    ) -> None:
        """channels: of the layers, at 4 px, at 8 px and so on."""
        super().__init__()
        self.z_dim, self.image_px = widths[0], 4 * 2 ** (len(channels) - 1)
        self.mapping = MappingNetwork(widths, rate, gain_first=True)
        self.synthesis = _Synthesis(widths[-1], channels, image_channels)

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        cutoff: int | None = None,
        image_px: int | None = None,
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        styles = self.mapping(latents, len(self.noise_sides(self.image_px)), psi, cutoff)
        images: Tensor = self.synthesis(styles, image_px or self.image_px, noise)
        return images

    def noise_sides(self, image_px: int) -> list[int]:
        """Two maps a resolution."""
        return [side for side in _sides_to(image_px) for _ in range(2)]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Fact]) -> Self:
        """The generator these weights belong to, loaded strictly. Raises ValueError for any others."""
        sides = sides_of(tensors, "synthesis.rgb{}.weight")
        channels = [num_channels(tensors, f"synthesis.rgb{side}.weight", axis=1) for side in sides]
        image_channels = num_channels(tensors, "synthesis.rgb4.weight")
        with torch.device("meta"):
            network = cls(
                mapping_widths(tensors), channels, image_channels, number(facts, "mapping_rate", 0.01)
            )
        network = loaded(network, tensors)
        network.synthesis.scale_kernels()
        return network.to(memory_format=torch.channels_last)

    def in_bfloat16(self) -> Self:
        """This generator, its synthesis in bfloat16 from now on; its mapping to styles stays in float32."""
        self.synthesis.to(torch.bfloat16)
        return self


class _Synthesis(nn.Module):
    def __init__(self, w_dim: int, channels: Sequence[int], image_channels: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.empty(1, channels[0], 4, 4))
        for i, (before, after) in enumerate(zip([0, *channels], channels, strict=False)):
            side = 4 * 2**i
            self.add_module(f"layer{2 * i}", _Layer(before, after, side, w_dim, is_up=True))
            self.add_module(f"layer{2 * i + 1}", _Layer(after, after, side, w_dim, is_up=False))
            self.add_module(f"rgb{side}", _Rgb(after, image_channels))

    def scale_kernels(self) -> None:
        """Once, before the first image; the scales are those of `stylegan_layers`."""
        for module in self.modules():
            if isinstance(module, _Layer):
                module.scale_kernel()

    def forward(self, styles: Tensor, image_px: int, noise: Sequence[Tensor] | None) -> Tensor:
        styles = styles.to(self.const)
        x = self.const.expand(len(styles), -1, -1, -1)
        for n in range(2 * len(_sides_to(image_px))):
            x = self.get_submodule(f"layer{n}")(x, styles[:, n], None if noise is None else noise[n])
        images: Tensor = self.get_submodule(f"rgb{image_px}")(x).float()
        return images


class _Layer(nn.Module):
    """[doubling] convolution, noise, bias, leaky ReLU, instance norm, style. num_in 0: no convolution."""

    def __init__(self, num_in: int, num_out: int, side: int, w_dim: int, is_up: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in, 3, 3)) if num_in else None
        self.bias = nn.Parameter(torch.empty(num_out))
        self.noise_strength = nn.Parameter(torch.empty(num_out))
        self.register_buffer("noise", torch.empty(1, 1, side, side))
        self.style = Dense(w_dim, 2 * num_out)
        self._is_up, self._is_fused = is_up, side >= _FUSED_FROM_PX

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        x = x if self.weight is None else self._convolved(x, self.weight)
        noise = self.get_buffer("noise") if noise is None else noise.to(x)
        x = torch.addcmul(x, self.noise_strength[:, None, None], noise)
        x = F.leaky_relu(x + self.bias[:, None, None], 0.2)
        scale, shift = self.style(style).chunk(2, dim=1)
        return instance_norm(x, scale + 1, shift, eps=1e-8)

    def scale_kernel(self) -> None:
        """See `_Synthesis.scale_kernels`."""
        if self.weight is None:
            return
        weight = self.weight * (SQRT2 / math.sqrt(self.weight[0].numel()))
        weight = fused_kernel(weight) if self._is_up and self._is_fused else weight
        self.weight = nn.Parameter(weight, requires_grad=False)

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self._is_up:
            return F.conv2d(x, weight, padding=1)
        if self._is_fused:
            x = F.conv_transpose2d(x, weight, stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
        blur = x.new_tensor(_BLUR)
        return filtered(x, torch.outer(blur, blur), pad=(1, 1))


class _Rgb(nn.Module):
    """1x1 convolution to an image."""

    def __init__(self, num_in: int, image_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(image_channels, num_in, 1, 1))
        self.bias = nn.Parameter(torch.empty(image_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


def fused_kernel(weight: Tensor) -> Tensor:  # (O, I, 3, 3) -> (I, O, 4, 4)
    """The kernel of the transposed convolution of stride 2 that doubles and convolves: each of its taps is
    the sum of the up to four of ``weight`` around it. It is not flipped, as the trained networks expect.
    """
    grown = F.pad(weight, (1, 1, 1, 1))
    kernel = grown[..., 1:, 1:] + grown[..., :-1, 1:] + grown[..., 1:, :-1] + grown[..., :-1, :-1]
    return kernel.transpose(0, 1)


def _sides_to(image_px: int) -> list[int]:
    """4, 8, … image_px."""
    return [4 << i for i in range(image_px.bit_length() - 2)]

"""A light generator for few images: gated convolutions and skip-layer excitation, after FastGAN (Liu et al.,
"Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", ICLR 2021).
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

_FIRST_PX = 4
_SKIP = 16  # excitation goes from a layer to the one with this many times its side


class FastganSizes(NamedTuple):
    """num_latent: length of the latent vector. width: channels at 64 px; twice as many at half the side, up
    to eight times. image_px: side of the square image, a power of two from 16.
    """

    num_latent: int = 128
    width: int = 32
    image_px: int = 64

    def channels_at(self, side_px: int) -> int:
        """Channels of the feature map of that side."""
        return max(4, min(8 * self.width, self.width * 64 // side_px))


class SkipLayerExcitation(nn.Module):
    """Weighs the channels of a large map by what a small one shows (FastGAN, section 3.1, equation 1)."""

    def __init__(self, small: int, large: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(small, large, 4)
        self.excite = nn.Conv2d(large, large, 1)

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(small, 4)
        gate: Tensor = self.excite(F.leaky_relu(self.squeeze(pooled), 0.1))
        return large * gate.sigmoid()


class GatedConv(nn.Module):
    """3x3 convolution, batch norm, gated linear unit."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, 2 * after, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(2 * after)

    def forward(self, x: Tensor) -> Tensor:
        return gated(self.norm(self.conv(x)))


def gated(x: Tensor) -> Tensor:  # (B, 2C, H, W) -> (B, C, H, W)
    """The gated linear unit over channels. Its gradient keeps channels last, which torch's own does not: the
    batch norm before it then runs backward 4x faster on the CPU. Gates in bf16 are copied together first: of
    strided ones torch's CPU makes sigmoids one by one, which is 5x slower.
    """
    values, gates = x.chunk(2, dim=1)
    if x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last):
        gates = gates.contiguous(memory_format=torch.channels_last)
    return values * gates.sigmoid()


class FastganGenerator(nn.Module):
    """Latent vectors (B, num_latent) to images (B, 3, S, S) in -1..1.

    Differs from the paper's: no noise is injected, so that an image is a function of its latent vector alone,
    and the generator's convolutions carry no spectral norm, which the batch norms after them would undo.
    """

    def __init__(self, sizes: FastganSizes) -> None:
        super().__init__()
        self.sizes = sizes
        first = sizes.channels_at(_FIRST_PX)
        self.first = nn.ConvTranspose2d(sizes.num_latent, 2 * first, _FIRST_PX, bias=False)
        self.first_norm: nn.Module = nn.BatchNorm2d(2 * first)
        self.blocks, self.skips = nn.ModuleDict(), nn.ModuleDict()
        for side in _sides(sizes.image_px):
            before, after = sizes.channels_at(side // 2), sizes.channels_at(side)
            layers = [GatedConv(before, after)] + ([GatedConv(after, after)] if side >= 16 else [])
            self.blocks[str(side)] = nn.Sequential(nn.Upsample(scale_factor=2), *layers)
            if side >= _SKIP * _FIRST_PX:
                self.skips[str(side)] = SkipLayerExcitation(sizes.channels_at(side // _SKIP), after)
        self.to_image = nn.Conv2d(sizes.channels_at(sizes.image_px), 3, 3, padding=1)
        self.apply(_initialise)

    def fold_norms(self) -> Self:
        """This generator, each batch norm worked into the convolution before it: fewer passes for the same
        images but their last bits. For inference alone, in eval mode.
        """
        if isinstance(self.first_norm, nn.BatchNorm2d):
            self.first = fuse_conv_bn_eval(self.first, self.first_norm, transpose=True)
            self.first_norm = nn.Identity()
        for layer in self.modules():
            if isinstance(layer, GatedConv) and isinstance(layer.norm, nn.BatchNorm2d):
                layer.conv, layer.norm = fuse_conv_bn_eval(layer.conv, layer.norm), nn.Identity()
        return self

    def forward(self, latents: Tensor) -> Tensor:  # (B, num_latent) -> (B, 3, S, S)
        onto_sphere = F.normalize(latents) * latents.shape[1] ** 0.5
        x = gated(self.first_norm(self.first(onto_sphere[:, :, None, None])))
        maps = {_FIRST_PX: x}
        for name, block in self.blocks.items():
            side = int(name)
            x = block(x)
            if name in self.skips:
                x = self.skips[name](maps[side // _SKIP], x)
            maps[side] = x
        images: Tensor = self.to_image(x).float().tanh()
        return images

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Self:
        """The generator these weights belong to, loaded strictly as float32, in eval mode.

        Raises ValueError, naming what does not fit, for the weights of anything else.
        """
        generator = cls(sizes_of(state))
        try:
            generator.load_state_dict(
                {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
            )
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error
        return generator.eval()


def sizes_of(state: Mapping[str, Tensor]) -> FastganSizes:
    """Read the sizes off the keys. Raises ValueError when these are no generator's of this kind."""
    first, last = state.get("first.weight"), state.get("to_image.weight")
    sides = [int(name.split(".")[1]) for name in state if name.startswith("blocks.")]
    if first is None or last is None or first.ndim != 4 or not sides:
        raise ValueError("no 'first.weight', 'blocks.*' and 'to_image.weight'")
    return FastganSizes(first.shape[0], first.shape[1] // 16, max(sides))


def _sides(image_px: int) -> list[int]:
    """8, 16, ... image_px."""
    if image_px < 16 or image_px & (image_px - 1):
        raise ValueError(f"image_px is {image_px}, wanted a power of two from 16")
    return [2**k for k in range(3, image_px.bit_length())]


def _initialise(module: nn.Module) -> None:
    """Small normal weights, as FastGAN's."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


@torch.no_grad()
def calibrate_norms(generator: FastganGenerator, rng: torch.Generator, batches: int = 16) -> None:
    """Measure the batch norms' statistics, which averaged weights have none of. Leaves it in eval mode."""
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    generator.train()
    for _ in range(batches):
        generator(torch.randn(64, generator.sizes.num_latent, generator=rng))
    for norm in norms:
        norm.momentum = 0.1
    generator.eval()

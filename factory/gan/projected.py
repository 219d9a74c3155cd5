"""A discriminator that looks at a pretrained network's features, after Sauer et al., "Projected GANs Converge
Faster" (NeurIPS 2021): it sees from the first step what the fastgan one needs thousands to learn.

The features are those of MobileNetV2 trained on ImageNet, which no box and no mask was needed for.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.models import mobilenet_v2

_STAGES = (3, 6, 13, 17)  # of mobilenet_v2().features: a quarter to a 32nd of the side
_CHANNELS = (24, 32, 96, 320)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's ImageNet normalisation


class ProjectedFeatures(nn.Module):
    """Images (B, 3, S, S) in -1..1 to four maps of features, mixed across channels and scales by fixed random
    convolutions (section 3.2). Nothing in it is trained, nor stored with a checkpoint: build it from the
    same weights and the same random state.

    backbone: MobileNetV2's state dict. mixed: channels of the maps. view_px: the side at which it looks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: dict[str, Tensor], mixed: int = 64, view_px: int = 128) -> None:
        super().__init__()
        network = mobilenet_v2(weights=None)
        network.load_state_dict({name: value.float() for name, value in backbone.items()}, strict=False)
        self.layers = _fused(network.eval().features[: _STAGES[-1] + 1])
        self.across_channels = nn.ModuleList(nn.Conv2d(c, mixed, 1) for c in _CHANNELS)
        self.across_scales = nn.ModuleList(nn.Conv2d(mixed, mixed, 3, padding=1) for _ in _CHANNELS)
        for layer in [*self.across_channels, *self.across_scales]:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self._view_px = view_px
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "ProjectedFeatures":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:  # four times (B, mixed, s, s), s = view_px / 4 to / 32
        x = F.interpolate((images + 1) / 2, (self._view_px, self._view_px), mode="bilinear")
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in _STAGES:
                maps.append(self.across_channels[len(maps)](x))
        mixed: list[Tensor] = []
        for level in reversed(range(len(maps))):
            total = maps[level] + F.interpolate(mixed[0], scale_factor=2.0) if mixed else maps[level]
            mixed.insert(0, self.across_scales[level](total))
        return mixed


class ProjectedDiscriminator(nn.Module):
    """Images (B, 3, S, S) in -1..1 to scores (B, K): one small network for each of the four maps."""

    def __init__(self, backbone: dict[str, Tensor], width: int) -> None:
        super().__init__()
        self.features = ProjectedFeatures(backbone)
        self.heads = nn.ModuleList(_head(64, width, halvings) for halvings in (3, 2, 1, 0))

    def forward(self, images: Tensor) -> Tensor:
        scores = [
            head(x).float().flatten(1) for head, x in zip(self.heads, self.features(images), strict=True)
        ]
        return torch.cat(scores, dim=1)

    def judge_and_redraw(self, images: Tensor, corner: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Scores, and 0: pretrained features need no second task to stay informative."""
        return self(images), torch.zeros((), device=images.device)


def _fused(layers: nn.Sequential) -> nn.Sequential:
    """The same function with every batch norm folded into the convolution before it: twice as fast."""
    for module in layers.modules():
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(conv, norm)
                setattr(module, name, _InFloat32(fused) if _is_strided_depthwise(fused) else fused)
                setattr(module, after, nn.Identity())
    return layers


class _InFloat32(nn.Module):
    """A layer kept out of autocast: strided depthwise convolutions run backward 7x slower in bf16 (CPU)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y


def _is_strided_depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups > 1 and layer.stride != (1, 1)


def _head(channels: int, width: int, halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(halvings):
        after = width * 2 ** (number + 1)
        layers += [spectral_norm(nn.Conv2d(channels, after, 4, 2, 1, bias=False)), nn.BatchNorm2d(after)]
        layers.append(nn.LeakyReLU(0.2))
        channels = after
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 4)))

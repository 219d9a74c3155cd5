"""The parts of RetinaFace's network (arXiv:1905.00641) as biubug6/Pytorch_Retinaface builds them.

A body with maps at strides 8, 16 and 32, a feature pyramid, a context module (SSH, arXiv:1708.03979) and 1x1
heads for each map. Children bear that repository's names, so a state dict of one loads into the other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

BodyName = Literal["mobilenet0.25", "resnet50"]

STRIDES = (8, 16, 32)  # px between the cells of each map


class MobileNetBody(nn.Module):
    """MobileNet v1 (arXiv:1704.04861) of a quarter of the width, with leaky ReLUs."""

    channels = (64, 128, 256)
    pyramid_width = 64

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _convolution(3, 8, stride=2, leak=0.1),
            _depthwise(8, 16),
            _depthwise(16, 32, stride=2),
            _depthwise(32, 32),
            _depthwise(32, 64, stride=2),
            _depthwise(64, 64),
        )
        self.stage2 = nn.Sequential(_depthwise(64, 128, stride=2), *(_depthwise(128, 128) for _ in range(5)))
        self.stage3 = nn.Sequential(_depthwise(128, 256, stride=2), _depthwise(256, 256))

    @property
    def stages(self) -> list[nn.Sequential]:
        """What makes each map of the one before."""
        return [self.stage1, self.stage2, self.stage3]

    def forward(self, x: Tensor) -> list[Tensor]:
        return _run_stages(self.stages, x)


class ResNetBody(nn.Module):
    """torchvision's ResNet50 without its classifier."""

    channels = (512, 1024, 2048)
    pyramid_width = 256

    def __init__(self) -> None:
        super().__init__()
        for name, child in resnet50().named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)

    @property
    def stages(self) -> list[nn.Sequential]:
        """What makes each map of the one before."""
        *stem, to_16, to_32 = self.children()
        return [nn.Sequential(*stem), nn.Sequential(to_16), nn.Sequential(to_32)]

    def forward(self, x: Tensor) -> list[Tensor]:
        return _run_stages(self.stages, x)


BODIES: Mapping[BodyName, Callable[[], MobileNetBody | ResNetBody]] = {
    "mobilenet0.25": MobileNetBody,
    "resnet50": ResNetBody,
}


class FeaturePyramid(nn.Module):
    """Maps of one width, each of the two finer ones told what the next coarser has seen."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        leak = _leak_of(width)
        self.output1, self.output2, self.output3 = (
            _convolution(count, width, kernel=1, leak=leak) for count in channels
        )
        self.merge1 = _convolution(width, width, leak=leak)
        self.merge2 = _convolution(width, width, leak=leak)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return [fine, middle, coarse]


class ContextModule(nn.Module):
    """Views of 3, 5 and 7 cells side by side: 1/2, 1/4 and 1/4 of the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        leak, quarter = _leak_of(width), width // 4
        self.conv3X3 = _convolution(width, width // 2)
        self.conv5X5_1 = _convolution(width, quarter, leak=leak)
        self.conv5X5_2 = _convolution(quarter, quarter)
        self.conv7X7_2 = _convolution(quarter, quarter, leak=leak)
        self.conv7x7_3 = _convolution(quarter, quarter)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv5X5_1(x)
        views = [self.conv3X3(x), self.conv5X5_2(narrow), self.conv7x7_3(self.conv7X7_2(narrow))]
        return F.relu(torch.cat(views, 1))


class Head(nn.Module):
    """A 1x1 convolution: so many values for each anchor of a cell."""

    def __init__(self, width: int, num_anchors: int, num_values: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, num_anchors * num_values, 1)
        self._num_values = num_values

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to (B, h * w * anchors, values)."""
        values: Tensor = self.conv1x1(x).permute(0, 2, 3, 1)
        num_anchors = values.shape[3] // self._num_values
        return values.view(*values.shape[:3], num_anchors, self._num_values).flatten(1, 3)


def make_heads(width: int, num_anchors: Sequence[int], num_values: int) -> nn.ModuleList:
    """A head for each map."""
    return nn.ModuleList(Head(width, count, num_values) for count in num_anchors)


def run_heads(heads: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """All heads' values (B, A, values) float32, in the anchors' order: map, y, x, anchor of the cell."""
    return torch.cat([head(x) for head, x in zip(heads, maps, strict=True)], 1).float()


def _run_stages(stages: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


def _leak_of(width: int) -> float:
    return 0.1 if width <= 64 else 0.0


def _convolution(
    channels: int, width: int, *, kernel: int = 3, stride: int = 1, leak: float | None = None
) -> nn.Sequential:
    """Convolution and batch norm, and a leaky ReLU where there is a leak (0 is a plain ReLU)."""
    layers = [
        nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(width),
    ]
    return nn.Sequential(*layers, *([] if leak is None else [nn.LeakyReLU(leak, inplace=True)]))


def _depthwise(channels: int, width: int, *, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution within each channel, then a 1x1 across them."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.1, inplace=True),
    )

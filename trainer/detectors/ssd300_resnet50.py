"""SSD300 on ResNet50 as NVIDIA/DeepLearningExamples has it, with its checkpoints.

ResNet50 up to its fourth stage, which keeps the stride of 8; five extra blocks; plain 3x3 heads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from trainer.detector import Detector
from trainer.multibox.config import SSD300_STEPS_PX, MultiBoxConfig
from trainer.multibox.detector import MultiBox, MultiBoxNetwork
from trainer.multibox.published import Published, find_weights, load_backbone, load_detector

_COCO = Published(
    "https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt",
    "NVIDIA's SSD300 of COCO",
)
_IMAGENET = Published(ResNet50_Weights.IMAGENET1K_V1.url, "ResNet50's ImageNet weights, or weights=none")
_CHANNELS = (1024, 512, 512, 256, 256, 256)
_WAISTS = (256, 256, 128, 128, 128)
_NAME = "SSD300 on ResNet50"


class Ssd300ResNet50Config(MultiBoxConfig):
    """See `MultiBoxConfig`. At 300 px 8732 anchors on maps of 38, 19, 10, 5, 3 and 1 cells."""

    steps_px: ClassVar[tuple[int, ...]] = SSD300_STEPS_PX
    least_px: ClassVar[int] = 257
    keeps_centres_inside: ClassVar[bool] = True

    kind: Literal["ssd300_resnet50"] = "ssd300_resnet50"
    image_size: int = 300

    def build(self, num_classes: int, home: Path) -> Detector:
        """See `DetectorConfig.build`."""
        body = resnet50()
        if self.checkpoint is None and self.weights != "none":
            path = find_weights(self.weights, "imagenet", _IMAGENET, home)
            load_backbone(body, path, "ResNet50", ("fc.",))
        network = Ssd300ResNet50(body, [2 + 2 * len(own) for own in self.ratios], num_classes)
        if self.checkpoint is not None:
            load_detector(network, find_weights(self.checkpoint, "coco", _COCO, home), _NAME)
        return MultiBox(self, network)


class Ssd300ResNet50(MultiBoxNetwork):
    """Its parts bear NVIDIA's names: ``feature_extractor``, ``additional_blocks``, ``loc`` and ``conf``."""

    class_head = "conf."
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, body: nn.Module, num_anchors: Sequence[int], num_classes: int) -> None:
        """num_anchors: of a cell of each map. num_classes does not count the background."""
        super().__init__()
        self.feature_extractor = nn.Module()
        self.feature_extractor.feature_extractor = _cut(body)
        self.additional_blocks = nn.ModuleList(
            _make_block(*channels, halves=k < 3)
            for k, channels in enumerate(zip(_CHANNELS, _WAISTS, _CHANNELS[1:], strict=False))
        )
        self._num_labels = num_classes + 1
        self.loc = _make_heads(num_anchors, 4)
        self.conf = _make_heads(num_anchors, self._num_labels)
        for part in (self.additional_blocks, self.loc, self.conf):
            _initialise(part)

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """ResNet50's part."""
        return self.feature_extractor.get_submodule("feature_extractor")

    def maps(self, x: Tensor) -> list[Tensor]:
        """See `MultiBoxNetwork.maps`."""
        maps = [self.backbone(x)]
        for block in self.additional_blocks:
            maps.append(block(maps[-1]))
        return maps

    def heads(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `MultiBoxNetwork.heads`."""
        return _run_heads(self.conf, maps, self._num_labels), _run_heads(self.loc, maps, 4)


def _cut(body: nn.Module) -> nn.Sequential:
    """Up to the fourth stage (``layer3``), whose stride is taken away."""
    parts = nn.Sequential(*list(body.children())[:7])
    for module in parts.get_submodule("6.0").modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return parts


def _make_block(channels: int, waist: int, width: int, *, halves: bool) -> nn.Sequential:
    """Narrow, then 3x3: to half the cells, or by two cells less."""
    stride, padding = (2, 1) if halves else (1, 0)
    return nn.Sequential(
        nn.Conv2d(channels, waist, 1, bias=False),
        nn.BatchNorm2d(waist),
        nn.ReLU(inplace=True),
        nn.Conv2d(waist, width, 3, stride, padding, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _make_heads(num_anchors: Sequence[int], values: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Conv2d(width, count * values, 3, padding=1)
        for width, count in zip(_CHANNELS, num_anchors, strict=True)
    )


def _run_heads(heads: nn.ModuleList, maps: Sequence[Tensor], values: int) -> Tensor:
    """All heads' values (B, A, values). A head's channels have values slower than the anchors of a cell."""
    found = [
        head(x).unflatten(1, (values, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)
        for head, x in zip(heads, maps, strict=True)
    ]
    return torch.cat(found, 1)


def _initialise(part: nn.Module) -> None:
    for parameter in part.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)

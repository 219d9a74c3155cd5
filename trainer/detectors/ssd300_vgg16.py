"""SSD300 on VGG16 (arXiv:1512.02325) as torchvision has it, with its checkpoints."""

from pathlib import Path
from typing import ClassVar, Literal

from torch import nn
from torchvision.models import VGG16_Weights
from torchvision.models.detection import SSD300_VGG16_Weights
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG, SSDHead
from torchvision.models.vgg import cfgs, make_layers

from trainer.detector import Detector
from trainer.multibox.config import SSD300_STEPS_PX, MultiBoxConfig
from trainer.multibox.detector import MultiBox
from trainer.multibox.published import Published, find_weights, load_backbone, load_detector
from trainer.multibox.torchvision_network import TorchvisionNetwork, num_anchors

_COCO = Published(SSD300_VGG16_Weights.COCO_V1.url, "torchvision's SSD300 of COCO")
_IMAGENET = Published(VGG16_Weights.IMAGENET1K_FEATURES.url, "VGG16's ImageNet weights, or weights=none")
_CHANNELS = [512, 1024, 512, 256, 256, 256]
_MEAN, _STD = (123.0, 117.0, 104.0), (1.0, 1.0, 1.0)  # of those ImageNet weights, which are Caffe's
_NAME = "SSD300 on VGG16"


class Ssd300Vgg16Config(MultiBoxConfig):
    """See `MultiBoxConfig`. At 300 px 8732 anchors on maps of 38, 19, 10, 5, 3 and 1 cells."""

    steps_px: ClassVar[tuple[int, ...]] = SSD300_STEPS_PX
    least_px: ClassVar[int] = 257

    kind: Literal["ssd300_vgg16"] = "ssd300_vgg16"
    image_size: int = 300

    def build(self, num_classes: int, home: Path) -> Detector:
        """See `DetectorConfig.build`."""
        vgg = nn.ModuleDict({"features": make_layers(cfgs["D"])})
        _initialise(vgg)
        if self.checkpoint is None and self.weights != "none":
            path = find_weights(self.weights, "imagenet", _IMAGENET, home)
            load_backbone(vgg, path, "VGG16", ("classifier.",))
        backbone = SSDFeatureExtractorVGG(vgg["features"], highres=False)
        head = SSDHead(_CHANNELS, num_anchors(self.ratios), num_classes + 1)
        network = TorchvisionNetwork(backbone, head, _MEAN, _STD)
        if self.checkpoint is not None:
            load_detector(network, find_weights(self.checkpoint, "coco", _COCO, home), _NAME)
        return MultiBox(self, network)


def _initialise(vgg: nn.Module) -> None:
    """As torchvision starts its VGG."""
    for module in vgg.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)

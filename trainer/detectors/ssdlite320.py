"""SSDLite320 on MobileNet v3 (arXiv:1905.02244, 6.3) as torchvision has it, with its checkpoints."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import nn
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead

from trainer.detector import Detector
from trainer.multibox.config import MANY, MultiBoxConfig, Ratios
from trainer.multibox.detector import MultiBox
from trainer.multibox.published import Published, find_weights, load_backbone, load_detector
from trainer.multibox.torchvision_network import TorchvisionNetwork, num_anchors

_COCO = Published(SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.url, "torchvision's SSDLite320 of COCO")
_IMAGENET = Published(
    MobileNet_V3_Large_Weights.IMAGENET1K_V1.url, "MobileNet v3's ImageNet weights, or weights=none"
)
_MEAN = _STD = (127.5, 127.5, 127.5)
_NAME = "SSDLite320 on MobileNet v3"


class SsdLite320Config(MultiBoxConfig):
    """See `MultiBoxConfig`. At 320 px 3234 anchors on maps of 20, 10, 5, 3, 2 and 1 cells.

    The smallest anchor is a fifth of the image: for small objects give ``scales``.
    reduced_tail: half as wide after stride 16 (arXiv:1905.02244, table 6), as torchvision has it but with
    ImageNet weights; so by default it is false where ``weights`` are used.
    """

    kind: Literal["ssdlite320"] = "ssdlite320"
    native_px: ClassVar[int] = 320
    image_size: int = 320
    scales: tuple[PositiveFloat, ...] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
    ratios: Ratios = (MANY,) * 6
    reduced_tail: bool = False
    score_threshold: float = 0.001
    nms_iou: float = 0.55
    class_topk: PositiveInt = 300
    max_detections: PositiveInt = 300

    @model_validator(mode="before")
    @classmethod
    def _choose_tail(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        starts_anew = given.get("checkpoint") is not None or given.get("weights") == "none"
        return {"reduced_tail": starts_anew, **given}

    def build(self, num_classes: int, home: Path) -> Detector:
        """See `DetectorConfig.build`."""
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        mobilenet = mobilenet_v3_large(norm_layer=norm, reduced_tail=self.reduced_tail)
        if self.checkpoint is None and self.weights != "none":
            path = find_weights(self.weights, "imagenet", _IMAGENET, home)
            load_backbone(mobilenet, path, "MobileNet v3 large", ("classifier.",))
        else:
            _initialise(mobilenet)
        last_strided = max(i for i, block in enumerate(mobilenet.features) if _is_strided(block))
        backbone = SSDLiteFeatureExtractorMobileNet(mobilenet.features, last_strided, norm)
        channels = [
            backbone.features[0][-1].out_channels,
            mobilenet.features[-1].out_channels,
            512,
            256,
            256,
            128,
        ]
        head = SSDLiteHead(channels, num_anchors(self.ratios), num_classes + 1, norm)
        network = TorchvisionNetwork(backbone, head, _MEAN, _STD)
        if self.checkpoint is not None:
            load_detector(network, find_weights(self.checkpoint, "coco", _COCO, home), _NAME)
        return MultiBox(self, network)


def _is_strided(block: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.stride == (2, 2) for module in block.modules())


def _initialise(mobilenet: nn.Module) -> None:
    """As torchvision starts a backbone without weights."""
    for module in mobilenet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.03)
